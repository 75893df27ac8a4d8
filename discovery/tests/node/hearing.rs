//! What a node makes of beacons.

use std::net::SocketAddr;

use nexusd_discovery::{Event, NodeId, Notice};
use nexusd_wire::Beacon;

use super::rig::{OWN, Rig, SECOND_US, address, beacon};

#[test]
fn a_beacon_of_an_unknown_node_is_answered_by_dialling_it() {
    let mut rig = Rig::new();
    rig.hear(&beacon(5));
    rig.run_for(SECOND_US);
    assert_eq!(rig.dials(), [(1, address(5), Some(NodeId(5)))]);
    rig.hear(&beacon(5));
    rig.run_for(SECOND_US);
    assert!(rig.dials().is_empty(), "it is being dialled");
}

#[test]
fn a_node_that_says_where_it_is_is_dialled_there() {
    let mut rig = Rig::new();
    let advertised = "2001:db8::7".parse().expect("an address");
    rig.hear(&Beacon { mesh_address: Some(advertised), mesh_port: 99, ..beacon(5) });
    rig.run_for(SECOND_US);
    assert_eq!(rig.dials()[0].1, SocketAddr::new(advertised, 99));
}

#[test]
fn a_link_local_address_keeps_its_interface() {
    let mut rig = Rig::new();
    let from: SocketAddr = "[fe80::7%3]:5670".parse().expect("an address");
    rig.hear_from(from, &beacon(5).encode(None));
    rig.run_for(SECOND_US);
    assert_eq!(rig.dials()[0].1, "[fe80::7%3]:5671".parse().expect("an address"));
}

#[test]
fn an_ipv4_sender_is_the_same_however_its_address_is_written() {
    let mut rig = Rig::new();
    rig.hear_from("[::ffff:192.0.2.5]:5670".parse().expect("an address"), &beacon(5).encode(None));
    assert_eq!(rig.discovery.peer(NodeId(5)).expect("it is known").address(), address(5));
}

#[test]
fn beacons_of_this_node_and_of_other_clusters_are_ignored() {
    let mut rig = Rig::new();
    rig.hear(&Beacon { node: OWN, ..beacon(5) });
    rig.hear(&Beacon { cluster: "other", ..beacon(5) });
    rig.run_for(SECOND_US);
    assert_eq!(rig.discovery.peers().count(), 0);
    assert_eq!(rig.discovery.counters().beacons_ignored, 2);
    assert!(rig.notices().is_empty());
}

#[test]
fn with_a_key_only_beacons_that_are_signed_with_it_are_heard() {
    let mut rig = Rig::with(|config| {
        config.key = Some(nexusd_discovery::ClusterKey::new(b"secret"));
    });
    rig.hear(&beacon(5));
    rig.hear_signed(6, b"guess");
    assert_eq!(rig.discovery.peers().count(), 0);
    rig.hear_signed(7, b"secret");
    assert!(rig.knows(7));
    let own = rig.discovery.counters().beacons_sent;
    rig.run_for(SECOND_US);
    assert_eq!(rig.discovery.counters().beacons_sent, own + 1);
    let key = nexusd_discovery::ClusterKey::new(b"secret");
    assert!(Beacon::decode(&rig.beacons()[0], Some(&key)).is_ok(), "it signs its own");
}

#[test]
fn what_cannot_be_read_is_told_once_a_minute_and_sender() {
    let mut rig = Rig::new();
    for second in 0..90 {
        rig.hear_from(address(5), b"what is this?");
        rig.hear_from(address(6), &beacon(6).encode(None)[..60]);
        rig.run_for(SECOND_US - second % 2);
    }
    assert_eq!(rig.discovery.counters().datagrams_unreadable, 180);
    let told: Vec<u64> = rig
        .notices()
        .iter()
        .map(|notice| match notice {
            Notice::Unreadable { datagrams, .. } => *datagrams,
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(told.len(), 4);
    assert!(told[..2] == [1, 1] && told[2] >= 59, "{told:?}");
}

#[test]
fn an_address_that_nobody_can_dial_is_not_believed() {
    let mut rig = Rig::new();
    for ip in ["0.0.0.0", "255.255.255.255", "239.1.2.3", "::"] {
        let mesh_address = Some(ip.parse().expect("an address"));
        rig.hear(&Beacon { mesh_address, ..beacon(5) });
    }
    rig.hear(&Beacon { mesh_port: 0, ..beacon(5) });
    assert_eq!(rig.discovery.peers().count(), 0);
    assert_eq!(rig.discovery.counters().datagrams_unreadable, 5);
}

#[test]
fn a_flood_of_datagrams_is_not_looked_at() {
    let mut rig = Rig::new();
    for _ in 0..5_000 {
        rig.hear(&beacon(5));
    }
    let counters = rig.discovery.counters();
    assert_eq!(counters.beacons_received + counters.datagrams_limited, 5_000);
    assert_eq!(counters.beacons_received, 1_000);
}

#[test]
fn more_nodes_than_are_remembered_are_ignored_and_told_once() {
    let mut rig = Rig::new();
    for node in 0..20_000_u32 {
        if node % 1_000 == 0 {
            // In time, so that nobody is forgotten.
            rig.now_us += 60_000;
        }
        let [_, high, middle, low] = node.to_be_bytes();
        let from = SocketAddr::from(([10, high, middle, low], 5671));
        let mut discovery_beacon = beacon(u128::from(node) + 2_000);
        discovery_beacon.start_us = 3;
        let bytes = discovery_beacon.encode(None);
        let now = nexusd_discovery::Now { mono_us: rig.now_us, wall_us: 0 };
        rig.discovery.on_event(now, Event::Datagram { from, bytes: &bytes });
    }
    rig.feed(Event::Tick);
    assert_eq!(rig.discovery.peers().count(), 16_384);
    assert_eq!(rig.discovery.counters().peers_ignored, 20_000 - 16_384);
    let full = |notice: &&Notice| matches!(notice, Notice::PeersFull { .. });
    assert_eq!(rig.notices().iter().filter(full).count(), 1);
    assert_eq!(rig.dials().len(), 64, "so many are dialled at a time");
}
