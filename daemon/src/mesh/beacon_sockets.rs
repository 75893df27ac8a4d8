//! All sockets that beacons come and go through: the multicast groups, and this node's own UDP port.
//!
//! Nothing here blocks, and no error ends anything: a beacon that is lost is followed by the next one.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use nexusd_wire::BEACON_BYTES_MAX;

use super::faults::Faults;
use super::interfaces::{Wanted, interfaces};
use super::multicast::Multicast;
use crate::error::StartError;

/// Datagrams taken from one socket before another one is looked at.
const DATAGRAMS_PER_TURN: usize = 32;

/// The sockets.
#[derive(Debug)]
pub(super) struct BeaconSockets {
    /// One for each address of `--bind`.
    own: Vec<UdpSocket>,
    /// `None` without multicast.
    multicast: Option<Multicast>,
    faults: Faults,
}

impl BeaconSockets {
    /// `own` are bound and do not block; `groups` says what to join, on which port.
    pub(super) fn new(
        own: Vec<UdpSocket>,
        groups: Option<(Wanted, u16)>,
    ) -> Result<Self, StartError> {
        let mut sockets = Self { own, multicast: None, faults: Faults::default() };
        if let Some((wanted, port)) = groups {
            let interfaces = list(&mut sockets.faults).unwrap_or_default();
            let joined = Multicast::join(wanted, port, &interfaces, &mut sockets.faults)?;
            sockets.multicast = Some(joined);
        }
        Ok(sockets)
    }

    /// Whether interfaces have to be looked at now and then.
    pub(super) fn depend_on_interfaces(&self) -> bool {
        self.multicast.is_some()
    }

    /// Looks which interfaces there are now.
    pub(super) fn follow_interfaces(&mut self) {
        if let Some(multicast) = &mut self.multicast
            && let Some(interfaces) = list(&mut self.faults)
        {
            multicast.follow(&interfaces, &mut self.faults);
        }
    }

    /// Sends a datagram to the groups.
    pub(super) fn send_to_groups(&mut self, datagram: &[u8]) {
        if let Some(multicast) = &self.multicast {
            multicast.send(datagram, &mut self.faults);
        }
    }

    /// Sends a datagram to one node.
    pub(super) fn send_to(&mut self, to: SocketAddr, datagram: &[u8]) {
        let sent = match self.way_to(to) {
            Some(socket) => socket.send_to(datagram, to).map(drop),
            None => Err(io::Error::from(io::ErrorKind::AddrNotAvailable)),
        };
        if let Err(error) = sent {
            // The node may be gone, which its link or the absence of its beacons tells.
            self.faults.note("send a beacon to", to, &error);
        }
    }

    /// The socket that a node is reached from: of its family, and where there are several of the same
    /// reach.
    fn way_to(&self, to: SocketAddr) -> Option<&UdpSocket> {
        let address = |socket: &UdpSocket| socket.local_addr().ok().map(|local| local.ip());
        let of_family = || {
            self.own.iter().filter(|socket| {
                address(socket).is_some_and(|local| local.is_ipv4() == to.is_ipv4())
            })
        };
        let reaches = |socket: &&UdpSocket| {
            address(socket).is_some_and(|local| {
                local.is_unspecified() || local.is_loopback() == to.ip().is_loopback()
            })
        };
        of_family().find(reaches).or_else(|| of_family().next())
    }

    /// What to wait for: each is readable when a datagram is there. The order holds until
    /// [`Self::follow_interfaces`].
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets().map(AsFd::as_fd)
    }

    fn sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.own.iter().chain(self.multicast.iter().flat_map(Multicast::sockets))
    }

    /// Takes datagrams from the socket at that place of [`Self::descriptors`], some of them if there
    /// are many.
    pub(super) fn receive(&mut self, place: usize, mut take: impl FnMut(SocketAddr, &[u8])) {
        // A byte more, by which one that is too long shows.
        let mut datagram = [0; BEACON_BYTES_MAX + 1];
        for _ in 0..DATAGRAMS_PER_TURN {
            let received = match self.sockets().nth(place) {
                Some(socket) => socket.recv_from(&mut datagram),
                None => return,
            };
            match received {
                Ok((len, from)) => take(from, &datagram[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.faults.warn("receive", "beacons", &error),
            }
        }
    }

    /// Errors so far.
    pub(super) fn faults(&self) -> u64 {
        self.faults.total()
    }
}

fn list(faults: &mut Faults) -> Option<Vec<super::interfaces::Interface>> {
    interfaces().inspect_err(|error| faults.warn("list", "the interfaces of this host", error)).ok()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Duration, Instant};

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;
    use crate::listeners::bind_udp;

    const SOON: Duration = Duration::from_secs(20);
    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 42, 1);

    fn free_port() -> u16 {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
        socket.local_addr().expect("bound").port()
    }

    fn own() -> UdpSocket {
        bind_udp((Ipv4Addr::LOCALHOST, 0).into()).expect("a port")
    }

    fn on_loopback(port: u16) -> BeaconSockets {
        let wanted = Wanted {
            groups: vec![IpAddr::V4(GROUP)],
            bind: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            interfaces: Vec::new(),
        };
        BeaconSockets::new(vec![own()], Some((wanted, port))).expect("the port")
    }

    impl BeaconSockets {
        /// Waits until something is there, but no longer than that; returns where.
        pub(in crate::mesh) fn wait(&self, longest: Duration) -> Vec<usize> {
            let readable = |socket| PollFd::from_borrowed_fd(socket, PollFlags::IN);
            let mut watched: Vec<_> = self.descriptors().map(readable).collect();
            let longest = rustix::time::Timespec {
                tv_sec: longest.as_secs() as i64,
                tv_nsec: longest.subsec_nanos().into(),
            };
            poll(&mut watched, Some(&longest)).expect("a poll");
            let places = watched.iter().enumerate();
            places.filter(|(_, watched)| !watched.revents().is_empty()).map(|(at, _)| at).collect()
        }
    }

    /// The next datagrams that come.
    fn hear(sockets: &mut BeaconSockets) -> Vec<(SocketAddr, Vec<u8>)> {
        let deadline = Instant::now() + SOON;
        let mut heard = Vec::new();
        while heard.is_empty() {
            assert!(Instant::now() < deadline, "nothing came");
            for place in sockets.wait(Duration::from_secs(1)) {
                sockets.receive(place, |from, bytes| heard.push((from, bytes.to_vec())));
            }
        }
        heard
    }

    #[test]
    fn two_nodes_of_a_host_hear_each_other_and_themselves() {
        let port = free_port();
        let (mut one, mut other) = (on_loopback(port), on_loopback(port));
        one.send_to_groups(b"one");
        for node in [&mut one, &mut other] {
            let (from, bytes) = hear(node).remove(0);
            assert_eq!(bytes, b"one");
            assert_eq!(from.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        assert_eq!(one.faults() + other.faults(), 0);
    }

    #[test]
    fn a_node_hears_what_is_sent_to_it_alone() {
        let mut one = BeaconSockets::new(vec![own()], None).expect("no group");
        let mut other = BeaconSockets::new(vec![own()], None).expect("no group");
        let to = other.own[0].local_addr().expect("bound");
        one.send_to(to, b"you");
        assert_eq!(hear(&mut other), [(one.own[0].local_addr().expect("bound"), b"you".to_vec())]);
    }

    #[test]
    fn what_cannot_be_sent_is_counted() {
        let mut node = BeaconSockets::new(vec![own()], None).expect("no group");
        node.send_to("[::1]:9".parse().expect("an address"), b"you");
        assert_eq!(node.faults(), 1);
    }

    #[test]
    fn a_datagram_that_is_too_long_is_seen_to_be() {
        let mut node = BeaconSockets::new(vec![own()], None).expect("no group");
        let to = node.own[0].local_addr().expect("bound");
        own().send_to(&[7; 4_000], to).expect("it goes out");
        assert_eq!(hear(&mut node)[0].1.len(), BEACON_BYTES_MAX + 1);
    }

    #[test]
    fn a_group_port_that_another_program_keeps_for_itself_is_an_error_of_the_start() {
        let keeper = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
        let port = keeper.local_addr().expect("bound").port();
        let wanted = Wanted {
            groups: vec![IpAddr::V4(GROUP)],
            bind: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            interfaces: Vec::new(),
        };
        let error = BeaconSockets::new(vec![own()], Some((wanted, port))).expect_err("it is taken");
        let sentence = error.to_string();
        assert!(sentence.contains(&format!("UDP {GROUP}:{port}")), "{sentence}");
        assert!(sentence.contains("another --mcast-port"), "{sentence}");
    }

    #[test]
    fn interfaces_that_go_and_come_are_left_and_joined() {
        let port = free_port();
        let mut node = on_loopback(port);
        let lo = interfaces().expect("a list");
        let Some(multicast) = &mut node.multicast else {
            panic!("multicast");
        };
        assert_eq!(multicast.sockets().count(), 1);
        multicast.follow(&[], &mut node.faults);
        assert_eq!(multicast.sockets().count(), 0);
        multicast.follow(&lo, &mut node.faults);
        multicast.follow(&lo, &mut node.faults);
        assert_eq!(multicast.sockets().count(), 1);
        node.send_to_groups(b"again");
        assert_eq!(hear(&mut node)[0].1, b"again");
    }
}
