//! Listening to what nodes say of themselves by multicast, as other nodes do.
//!
//! One socket for each group and interface; they share the port with the daemons of this host and take nothing
//! from them, for every member of a group gets every datagram. What is no beacon is passed over.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use getifaddrs::InterfaceFlags;
use nexusd_wire::{BEACON_BYTES_MAX, Beacon, NodeId};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::arguments::DiscoveryOptions;
use crate::error::CliError;

/// The group of `--mcast-addr` that daemons have by default.
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 42, 1);
/// Their `--mcast-port`.
const PORT: u16 = 5670;
/// Daemons that are listed. A mesh has some hundreds; what comes beyond is no mesh.
const HEARD_MAX: usize = 4_096;
/// Addresses that are tried for one of them.
const ADDRESSES_MAX: usize = 4;

/// A node that was heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Heard {
    pub(super) node: NodeId,
    pub(super) cluster: String,
    pub(super) start_us: u64,
    /// Where it may be reached, in order; without ports, but with the interface of what is valid on a link alone.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) mesh_port: u16,
    pub(super) app_port: u16,
}

/// Listens so long; those that say goodbye meanwhile are left out.
pub(super) async fn listen(
    options: &DiscoveryOptions,
    duration: Duration,
) -> Result<Vec<Heard>, CliError> {
    let groups = match options.mcast_addr.as_slice() {
        [] => vec![IpAddr::V4(GROUP)],
        groups => groups.to_vec(),
    };
    let deadline = Instant::now() + duration;
    let mut listeners = JoinSet::new();
    for group in groups {
        let to = SocketAddr::new(group, options.mcast_port.unwrap_or(PORT));
        let failed = |source| CliError::Beacons { group: to.to_string(), source };
        for socket in join(to).map_err(failed)? {
            listeners.spawn(async move { hear(&socket, deadline).await.map_err(failed_at(to)) });
        }
    }
    let mut table = Table::default();
    while let Some(heard) = listeners.join_next().await {
        for (datagram, source) in heard.map_err(io::Error::from)?? {
            table.take(&datagram, source);
        }
    }
    let is_wanted = |heard: &Heard| options.cluster.as_ref().is_none_or(|it| *it == heard.cluster);
    let mut heard = table.heard;
    heard.retain(is_wanted);
    heard.sort_by(|one, other| place(one).cmp(&place(other)));
    Ok(heard)
}

fn failed_at(to: SocketAddr) -> impl Fn(io::Error) -> CliError {
    move |source| CliError::Beacons { group: to.to_string(), source }
}

/// What the list is ordered by, so that numbers stay the same from one to the next.
fn place(heard: &Heard) -> (Option<&SocketAddr>, u16, NodeId) {
    (heard.addresses.first(), heard.app_port, heard.node)
}

/// Datagrams of the group until then, each of them once.
async fn hear(
    socket: &UdpSocket,
    deadline: Instant,
) -> io::Result<BTreeSet<(Vec<u8>, SocketAddr)>> {
    let mut datagrams = BTreeSet::new();
    let mut buffer = [0; BEACON_BYTES_MAX + 1];
    while let Ok(received) = timeout_at(deadline, socket.recv_from(&mut buffer)).await {
        let (bytes, mut source) = received?;
        source.set_port(0);
        if datagrams.len() < HEARD_MAX * ADDRESSES_MAX {
            datagrams.insert((buffer.get(..bytes).unwrap_or_default().to_vec(), source));
        }
    }
    Ok(datagrams)
}

/// Sockets that hear a group, one for each interface where it can be joined.
fn join(to: SocketAddr) -> io::Result<Vec<UdpSocket>> {
    let mut joined = Vec::new();
    let mut refusal = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for interface in interfaces()? {
        // Interfaces differ in what they can; that one of them can is enough.
        match join_on(to, interface) {
            Ok(socket) => joined.push(socket),
            Err(error) => refusal = error,
        }
    }
    if joined.is_empty() { Err(refusal) } else { Ok(joined) }
}

fn join_on(to: SocketAddr, interface: u32) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Both, or the kernel would let only programs of one user share the port.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    match to.ip() {
        IpAddr::V4(group) => {
            // Only what this socket joined, not what any other of this host did.
            socket.set_multicast_all_v4(false)?;
            socket.bind(&to.into())?;
            let interface = InterfaceIndexOrAddress::Index(interface);
            socket.join_multicast_v4_n(&group, &interface)?;
        }
        IpAddr::V6(group) => {
            socket.set_only_v6(true)?;
            socket.set_multicast_all_v6(false)?;
            socket.bind(&SocketAddrV6::new(group, to.port(), 0, interface).into())?;
            socket.join_multicast_v6(&group, interface)?;
        }
    }
    UdpSocket::from_std(socket.into())
}

/// The interfaces that are up, by their numbers.
fn interfaces() -> io::Result<BTreeSet<u32>> {
    let up = getifaddrs::getifaddrs()?.filter(|entry| entry.flags.contains(InterfaceFlags::UP));
    Ok(up.filter_map(|entry| entry.index).collect())
}

/// Who was heard so far.
#[derive(Default, Debug)]
struct Table {
    heard: Vec<Heard>,
    gone: BTreeSet<NodeId>,
}

impl Table {
    fn take(&mut self, datagram: &[u8], source: SocketAddr) {
        // A signature is not looked at: who is listed here is only asked, and says for itself what it is.
        let Ok(beacon) = Beacon::decode(datagram, None) else { return };
        if beacon.is_goodbye {
            self.gone.insert(beacon.node);
            self.heard.retain(|heard| heard.node != beacon.node);
        }
        if self.gone.contains(&beacon.node) {
            return;
        }
        let address = match beacon.mesh_address {
            Some(address) if address != source.ip() => SocketAddr::new(address, 0),
            _ => source,
        };
        if let Some(heard) = self.heard.iter_mut().find(|heard| heard.node == beacon.node) {
            // Which interface was heard first is chance; what is listed must not be.
            if let Err(at) = heard.addresses.binary_search(&address) {
                heard.addresses.insert(at, address);
                heard.addresses.truncate(ADDRESSES_MAX);
            }
            return;
        }
        let is_same_place =
            |heard: &Heard| heard.addresses.contains(&address) && heard.app_port == beacon.app_port;
        if let Some(other) = self.heard.iter().position(is_same_place) {
            // The later one has taken the place of the former.
            if self.heard.get(other).is_some_and(|heard| heard.start_us > beacon.start_us) {
                return;
            }
            self.heard.swap_remove(other);
        }
        if self.heard.len() < HEARD_MAX {
            self.heard.push(Heard {
                node: beacon.node,
                cluster: beacon.cluster.to_owned(),
                start_us: beacon.start_us,
                addresses: vec![address],
                mesh_port: beacon.mesh_port,
                app_port: beacon.app_port,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    fn beacon(node: u128, app_port: u16, start_us: u64, is_goodbye: bool) -> Vec<u8> {
        let beacon = Beacon {
            node: NodeId(node),
            start_us,
            cluster: "default",
            mesh_address: None,
            mesh_port: 5_671,
            app_port,
            interest_hash: 0,
            retained_digest: 0,
            is_goodbye,
        };
        beacon.encode(None)
    }

    fn nodes(datagrams: &[Vec<u8>]) -> Vec<u128> {
        let mut table = Table::default();
        for datagram in datagrams {
            table.take(datagram, HERE);
        }
        table.heard.iter().map(|heard| heard.node.0).collect()
    }

    #[test]
    fn a_node_is_listed_once_with_all_its_addresses() {
        let mut table = Table::default();
        let elsewhere = SocketAddr::from(([10, 0, 0, 7], 0));
        table.take(&beacon(1, 5_672, 9, false), HERE);
        table.take(&beacon(1, 5_672, 9, false), elsewhere);
        table.take(&beacon(1, 5_672, 9, false), HERE);
        table.take(b"something else", HERE);
        assert_eq!(table.heard.len(), 1);
        assert_eq!(table.heard[0].addresses, [elsewhere, HERE]);
    }

    #[test]
    fn addresses_are_the_same_whichever_was_heard_first() {
        let last = u8::try_from(ADDRESSES_MAX).expect("few") + 1;
        let addresses: Vec<_> = (0..last).map(|at| SocketAddr::from(([10, 0, 0, at], 0))).collect();
        let heard = |order: &mut dyn Iterator<Item = &SocketAddr>| {
            let mut table = Table::default();
            order.for_each(|source| table.take(&beacon(1, 5_672, 9, false), *source));
            table.heard
        };
        let forwards = heard(&mut addresses.iter());
        assert_eq!(forwards[0].addresses, addresses[..ADDRESSES_MAX]);
        assert_eq!(heard(&mut addresses.iter().rev()), forwards);
    }

    #[test]
    fn an_address_of_a_link_keeps_its_interface() {
        let mut table = Table::default();
        let source =
            SocketAddr::V6(SocketAddrV6::new([0xfe80, 0, 0, 0, 0, 0, 0, 1].into(), 0, 0, 4));
        table.take(&beacon(1, 5_672, 9, false), source);
        assert_eq!(table.heard[0].addresses, [source]);
    }

    #[test]
    fn who_says_goodbye_is_not_listed() {
        let datagrams = [beacon(1, 5_672, 9, false), beacon(1, 5_672, 9, true)];
        assert_eq!(nodes(&datagrams), []);
        let datagrams = [datagrams[1].clone(), datagrams[0].clone()];
        assert_eq!(nodes(&datagrams), []);
    }

    #[test]
    fn a_later_start_at_the_same_address_takes_the_place() {
        let (former, later) = (beacon(1, 5_672, 5, false), beacon(2, 5_672, 9, false));
        assert_eq!(nodes(&[former.clone(), later.clone()]), [2]);
        assert_eq!(nodes(&[later, former.clone()]), [2]);
        assert_eq!(nodes(&[former, beacon(3, 5_673, 9, false)]), [1, 3]);
    }
}
