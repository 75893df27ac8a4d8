//! The sockets of multicast groups: one for each group and interface, so that it is known where a
//! datagram goes, and no limit on a socket's groups is met on hosts with many interfaces.
//!
//! Other daemons of this host share the port, and hear what this one says.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};

use rustix::net::sockopt::set_ip_multicast_if_with_ifindex;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tracing::{info, warn};

use super::faults::Faults;
use super::interfaces::{Interface, PATHS_MAX, Path, Wanted};
use crate::error::StartError;

/// How many networks a beacon crosses: none but its own.
const HOPS: u32 = 1;

/// The groups on all interfaces.
#[derive(Debug)]
pub(super) struct Multicast {
    wanted: Wanted,
    port: u16,
    paths: Vec<OpenPath>,
    /// What was last said about interfaces that were asked for and are not there.
    missing: Vec<String>,
    /// What was last said about those that are used.
    told: Option<String>,
}

#[derive(Debug)]
struct OpenPath {
    path: Path,
    /// Where beacons on it go.
    to: SocketAddr,
    socket: UdpSocket,
}

impl Multicast {
    /// Joins the groups on these interfaces. Fails only if the port is not to be had: interfaces come
    /// and go.
    pub(super) fn join(
        wanted: Wanted,
        port: u16,
        interfaces: &[Interface],
        faults: &mut Faults,
    ) -> Result<Self, StartError> {
        let mut multicast =
            Self { wanted, port, paths: Vec::new(), missing: Vec::new(), told: None };
        for path in multicast.wanted.paths(interfaces).into_iter().take(PATHS_MAX) {
            let to = multicast.destination(&path);
            if let Err(source) = multicast.open(path, faults)
                && matches!(
                    source.kind(),
                    io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
                )
            {
                return Err(StartError::Beacons { address: to, setting: "--mcast-port", source });
            }
        }
        multicast.tell(interfaces);
        Ok(multicast)
    }

    /// Leaves interfaces that are gone, joins those that are new.
    pub(super) fn follow(&mut self, interfaces: &[Interface], faults: &mut Faults) {
        let mut wanted = self.wanted.paths(interfaces);
        self.paths.retain_mut(|open| {
            let same = wanted.iter().position(|path| is_same(path, &open.path));
            if let Some(same) = same {
                // It may have to speak from now on, or to be silent.
                open.path = wanted.swap_remove(same);
            }
            same.is_some()
        });
        for path in wanted {
            if self.paths.len() < PATHS_MAX {
                // It is tried again the next time.
                let _ = self.open(path, faults);
            }
        }
        self.tell(interfaces);
    }

    fn open(&mut self, path: Path, faults: &mut Faults) -> io::Result<()> {
        let to = self.destination(&path);
        match open(&path, to) {
            Ok(socket) => {
                self.paths.push(OpenPath { path, to, socket });
                Ok(())
            }
            Err(error) => {
                faults.warn("join", format_args!("{to} on {}", path.interface), &error);
                Err(error)
            }
        }
    }

    fn destination(&self, path: &Path) -> SocketAddr {
        match path.group {
            IpAddr::V4(group) => (group, self.port).into(),
            IpAddr::V6(group) => SocketAddrV6::new(group, self.port, 0, path.index).into(),
        }
    }

    /// Says what an operator should know of the interfaces, once.
    fn tell(&mut self, interfaces: &[Interface]) {
        let missing = self.wanted.missing(interfaces);
        for name in missing.iter().filter(|name| !self.missing.contains(name)) {
            warn!("interface {name} (--interface) is not there; it is used once it is");
        }
        self.missing = missing;

        let speaking: Vec<_> = self
            .paths
            .iter()
            .filter(|open| open.path.speaks)
            .map(|open| format!("{} ({})", open.path.interface, open.path.source))
            .collect();
        let told = speaking.join(", ");
        if self.told.as_ref() == Some(&told) {
            return;
        }
        if speaking.is_empty() {
            warn!(
                "no interface can be used for multicast: it must be up, able to multicast and have an \
                 address of --bind; until one can, nodes are found only through --peers"
            );
        } else {
            info!("other nodes are looked for by multicast on {told}");
        }
        if self.paths.len() == PATHS_MAX {
            warn!(
                "this host has many interfaces; beacons use {PATHS_MAX} of them, unless --interface \
                 names others"
            );
        }
        self.told = Some(told);
    }

    /// Sends a datagram on every interface; returns how often.
    pub(super) fn send(&self, datagram: &[u8], faults: &mut Faults) -> usize {
        let mut sent = 0;
        for open in self.paths.iter().filter(|open| open.path.speaks) {
            let OpenPath { path, to, socket } = open;
            match socket.send_to(datagram, to) {
                Ok(_) => sent += 1,
                // IPv6 has no route for multicast there.
                Err(error) if path.is_loopback && self.paths.len() > 1 => {
                    faults.note("send beacons on the loopback interface", &path.interface, &error);
                }
                Err(error) => faults.warn("send beacons on", &path.interface, &error),
            }
        }
        sent
    }

    /// The sockets, in an order that holds until interfaces are followed.
    pub(super) fn sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.paths.iter().map(|open| &open.socket)
    }
}

/// Whether the socket of one serves for the other.
fn is_same(one: &Path, other: &Path) -> bool {
    let what = |path: &Path| (path.group, path.index, path.source);
    what(one) == what(other) && one.interface == other.interface
}

/// A socket that hears a group on one interface and speaks to it there.
fn open(path: &Path, to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Both, or the kernel would let only daemons of one user share the port.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    match path.group {
        IpAddr::V4(group) => {
            // Only what this socket joined, not what any other of this host did.
            socket.set_multicast_all_v4(false)?;
            socket.bind(&to.into())?;
            let index = InterfaceIndexOrAddress::Index(path.index);
            socket.join_multicast_v4_n(&group, &index)?;
            let source = path.source_v4().unwrap_or(Ipv4Addr::UNSPECIFIED);
            let any = Ipv4Addr::UNSPECIFIED;
            set_ip_multicast_if_with_ifindex(&socket, &any, &source, path.index)?;
            socket.set_multicast_loop_v4(true)?;
            socket.set_multicast_ttl_v4(HOPS)?;
        }
        IpAddr::V6(group) => {
            socket.set_only_v6(true)?;
            socket.set_multicast_all_v6(false)?;
            socket.bind(&to.into())?;
            socket.join_multicast_v6(&group, path.index)?;
            socket.set_multicast_if_v6(path.index)?;
            socket.set_multicast_loop_v6(true)?;
            socket.set_multicast_hops_v6(HOPS)?;
        }
    }
    Ok(socket.into())
}
