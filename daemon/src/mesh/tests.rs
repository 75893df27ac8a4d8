//! Mesh threads on the loopback interface, whose links only note who was dialled.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Instant;

use nexusd_discovery::LinkEvent;
use nexusd_wire::{BEACON_BYTES_MAX, Beacon};

use super::*;
use crate::listeners::Listeners;
use nexusd_core::LinkCommand;

/// Longest wait for anything that should happen soon.
const SOON: Duration = Duration::from_secs(20);

/// Who was dialled, and what links were told.
struct NotedLinks {
    dialled: Sender<SocketAddr>,
    told: Sender<LinkCommand>,
}

impl Links for NotedLinks {
    fn dialled(&mut self, socket: TcpStream, _dial: u64, _peer: Option<NodeId>) -> io::Result<()> {
        // A test that is over does not want to know.
        let _ = self.dialled.send(socket.peer_addr()?);
        Ok(())
    }

    fn tell(&mut self, command: LinkCommand) -> Result<(), LinkCommand> {
        // As above.
        let _ = self.told.send(command);
        Ok(())
    }
}

/// A node as far as the mesh goes.
struct TestNode {
    mesh: MeshThread,
    address: SocketAddr,
    status: SharedStatus,
    dialled: Receiver<SocketAddr>,
    told: Receiver<LinkCommand>,
    /// Where others connect; nobody accepts.
    _links: Vec<nexusd_core::io::listener::Listener>,
}

impl TestNode {
    fn start(node: u128, settings: &Config) -> Self {
        let listeners = Listeners::bind(settings).expect("free ports");
        let listening = listeners.mesh.expect("it is not off");
        let reports = Arc::new(Reports::new().expect("an eventfd"));
        let (dialled_sender, dialled) = mpsc::channel();
        let (told_sender, told) = mpsc::channel();
        let status = SharedStatus::default();
        let config = MeshThreadConfig {
            node: NodeId(node),
            introduction: introduction(settings, &listening.addresses, &listeners.tcp),
            beacons: listening.beacons,
            seed: 7,
            reports,
            links: NotedLinks { dialled: dialled_sender, told: told_sender },
            status: status.clone(),
        };
        Self {
            mesh: MeshThread::start(settings, config).expect("a thread"),
            address: listening.addresses[0],
            status,
            dialled,
            told,
            _links: listening.links,
        }
    }

    fn stop(self) {
        self.mesh.stop().expect("no panic");
    }
}

/// Settings of a node that listens on free ports of the loopback address alone.
fn loopback() -> Config {
    Config {
        bind: vec![Ipv4Addr::LOCALHOST.into()],
        app_port: 0,
        mesh_port: 0,
        health_port: crate::config::HttpPort::Off,
        metrics_port: crate::config::HttpPort::Off,
        discovery: DiscoveryMode::Static,
        ..Config::default()
    }
}

/// The same for one that says its beacons to a group on that port.
fn on_group(port: u16) -> Config {
    Config { discovery: DiscoveryMode::Multicast, multicast_port: port, ..loopback() }
}

/// Hears what is said to the group on a port of its own.
fn group() -> (BeaconSockets, u16) {
    let free = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
    let port = free.local_addr().expect("bound").port();
    drop(free);
    let settings = on_group(port);
    let wanted =
        Wanted { groups: settings.multicast_groups, bind: settings.bind, interfaces: Vec::new() };
    (BeaconSockets::new(Vec::new(), Some((wanted, port))).expect("the port"), port)
}

/// Waits until it is so.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits for a beacon that suits.
fn hear(group: &mut BeaconSockets, suits: impl Fn(&Beacon<'_>) -> bool) {
    let deadline = Instant::now() + SOON;
    let mut is_heard = false;
    while !is_heard {
        assert!(Instant::now() < deadline, "no such beacon");
        group.wait(Duration::from_secs(1));
        group.receive(0, |_, bytes| {
            assert!(bytes.len() <= BEACON_BYTES_MAX);
            is_heard |= suits(&Beacon::decode(bytes, None).expect("a beacon"));
        });
    }
}

#[test]
fn a_node_says_its_address_where_it_cannot_be_another() {
    let introduced = |bind: &[&str], advertise: Option<&str>| {
        let address = |text: &str| text.parse().expect("an address");
        let bind = bind.iter().map(|text| address(text)).collect();
        let settings = Config { bind, advertise: advertise.map(address), ..Config::default() };
        introduction(&settings, &[], &[]).address
    };
    assert_eq!(introduced(&["0.0.0.0"], None), None);
    assert_eq!(introduced(&["10.0.0.7", "127.0.0.1"], None), None);
    assert_eq!(introduced(&["10.0.0.7"], None), "10.0.0.7".parse().ok());
    assert_eq!(introduced(&["10.0.0.7"], Some("192.0.2.7")), "192.0.2.7".parse().ok());
}

#[test]
fn a_node_says_the_ports_it_really_has() {
    let addresses = |port| [SocketAddr::from(([127, 0, 0, 1], port))];
    let free = Config { app_port: 0, mesh_port: 0, ..Config::default() };
    let said = introduction(&free, &addresses(41), &addresses(42));
    assert_eq!((said.mesh_port, said.app_port), (41, 42));
}

#[test]
fn settings_of_retries_are_told_in_the_units_of_discovery() {
    assert_eq!(retry(&PeerRetry::default()), Retry::default());
}

#[test]
fn nodes_that_hear_each_other_dial() {
    let (_group, port) = group();
    let one = TestNode::start(1, &on_group(port));
    let other = TestNode::start(2, &on_group(port));
    // Either may be the first to hear the other, and one dial is enough.
    eventually("one dials the other", || {
        let dials = [(&one, other.address), (&other, one.address)];
        dials.iter().any(|(from, to)| from.dialled.try_recv() == Ok(*to))
    });
    one.stop();
    other.stop();
}

#[test]
fn a_peer_that_is_named_is_looked_up_and_dialled_without_multicast() {
    let other = TestNode::start(2, &loopback());
    let name = format!("localhost:{}", other.address.port());
    let one = TestNode::start(1, &Config { peers: vec![name], ..loopback() });
    let dialled = one.dialled.recv_timeout(SOON).expect("a dial");
    assert_eq!(dialled.port(), other.address.port());
    one.stop();
    other.stop();
}

#[test]
fn a_peer_that_is_absent_is_tried_until_it_is_there() {
    let absent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = absent.local_addr().expect("bound");
    drop(absent);
    let peer_retry = PeerRetry {
        interval: Duration::from_millis(100),
        interval_max: Duration::from_millis(200),
        ..PeerRetry::default()
    };
    let settings = Config { peers: vec![address.to_string()], peer_retry, ..loopback() };
    let node = TestNode::start(1, &settings);
    eventually("it is tried", || node.status.now().counters.dials_failed > 0);
    let _there = TcpListener::bind(address).expect("the same port");
    assert_eq!(node.dialled.recv_timeout(SOON), Ok(address));
    node.stop();
}

#[test]
fn what_subscribers_want_is_in_the_next_beacons() {
    let (mut group, port) = group();
    let node = TestNode::start(1, &on_group(port));
    hear(&mut group, |beacon| beacon.interest_hash == 0);
    node.mesh.reports.on_interest("prices/#".into(), true);
    hear(&mut group, |beacon| beacon.interest_hash != 0);
    node.mesh.reports.on_interest("prices/#".into(), false);
    hear(&mut group, |beacon| beacon.interest_hash == 0);
    node.stop();
}

#[test]
fn a_node_that_stops_says_goodbye() {
    let (mut group, port) = group();
    let node = TestNode::start(1, &on_group(port));
    hear(&mut group, |beacon| !beacon.is_goodbye && beacon.mesh_port == node.address.port());
    node.mesh.reports.on_drain();
    node.stop();
    hear(&mut group, |beacon| beacon.is_goodbye && beacon.node == NodeId(1));
}

#[test]
fn a_linked_peer_is_told_what_this_node_wants() {
    let node = TestNode::start(1, &loopback());
    let peer = NodeId(2);
    let address = (Ipv4Addr::LOCALHOST, 9).into();
    let reports = &node.mesh.reports;
    reports.on_interest("prices/#".into(), true);
    reports.on_link(LinkEvent::Up { peer, start_us: 1, address, app_port: 1, dial: None });
    reports.on_link(LinkEvent::StateWanted { peer });
    let told = node.told.recv_timeout(SOON).expect("a command");
    assert!(matches!(told, LinkCommand::Send { peer: NodeId(2), .. }), "{told:?}");
    eventually("the statistics know", || node.status.now().linked == 1);
    node.stop();
}
