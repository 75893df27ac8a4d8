//! What one node does, event by event.

#[path = "node/rig.rs"]
mod rig;

use std::net::SocketAddr;

use nexusd_discovery::{
    Departure, Event, LinkDown, LinkEvent, LinkRefusal, NodeId, Notice, Output, PeerStatus, SeedId,
};
use nexusd_wire::{Beacon, FrameKind};
use proptest::prelude::*;

use rig::{OWN, Rig, SECOND_US, address, beacon, member};

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

#[test]
fn a_peer_without_a_link_is_forgotten_five_seconds_after_its_last_beacon() {
    let mut rig = Rig::new();
    rig.hear(&beacon(5));
    rig.run_for(3 * SECOND_US);
    let status = |rig: &Rig| rig.discovery.peer(NodeId(5)).map(|peer| peer.status(rig.now_us));
    assert_eq!(status(&rig), Some(PeerStatus::Suspected));
    rig.hear(&beacon(5));
    assert_eq!(status(&rig), Some(PeerStatus::Alive));
    rig.run_for(5 * SECOND_US - 1);
    assert!(rig.knows(5));
    rig.run_for(1);
    assert!(!rig.knows(5));
    assert!(rig.forgotten().is_empty(), "the data plane never knew it");
}

#[test]
fn a_peer_with_a_link_needs_no_beacons() {
    let mut rig = Rig::new();
    rig.up(5);
    rig.run_for(600 * SECOND_US);
    assert!(rig.knows(5));
    assert!(rig.dials().is_empty());
}

#[test]
fn a_later_start_at_the_same_address_supersedes_at_once() {
    let mut rig = Rig::new();
    rig.up(5);
    let (from, mut successor) = (address(5), beacon(6));
    rig.hear_from(from, &successor.encode(None));
    assert!(!rig.knows(5) && rig.knows(6));
    assert_eq!(rig.retired(), [NodeId(5)], "its last messages may be under way");
    let left = |notice: &Notice| {
        matches!(notice, Notice::Left { node: NodeId(5), reason: Departure::Restarted, .. })
    };
    assert!(rig.notices().iter().any(left));
    (successor.node, successor.start_us) = (NodeId(4), 4);
    rig.hear_from(from, &successor.encode(None));
    assert!(rig.knows(6) && !rig.knows(4), "an earlier one is not there any more");
}

#[test]
fn who_has_a_link_from_an_address_is_there() {
    let mut rig = Rig::new();
    rig.hear_from(address(5), &beacon(6).encode(None));
    rig.up(5);
    assert!(rig.knows(5) && !rig.knows(6), "it only said so");
    rig.up(6);
    assert!(rig.knows(5) && rig.knows(6), "they are apart");
}

#[test]
fn of_two_that_are_linked_from_one_address_the_later_start_stays() {
    let mut rig = Rig::new();
    let (address, app_port, dial) = (address(5), 1, None);
    for (node, start_us) in [(5, 50), (6, 40)] {
        rig.link(LinkEvent::Up { peer: NodeId(node), start_us, address, app_port, dial });
    }
    assert!(rig.knows(5) && !rig.knows(6));
    assert_eq!(rig.forgotten(), [NodeId(6)]);
    rig.link(LinkEvent::Up { peer: NodeId(7), start_us: 60, address, app_port, dial });
    assert!(rig.knows(7) && !rig.knows(5));
    assert_eq!(rig.retired(), [NodeId(5)]);
}

#[test]
fn what_others_say_does_not_end_a_link() {
    let mut rig = Rig::new();
    rig.up(5);
    rig.members(5, vec![nexusd_discovery::Member { mesh_address: address(5), ..member(6) }]);
    assert!(rig.knows(5) && !rig.knows(6));
}

#[test]
fn an_address_whose_dials_fail_is_left_alone_ever_longer() {
    let mut rig = Rig::new();
    let mut dials = 0;
    for _ in 0..60 {
        rig.hear(&beacon(5));
        rig.run_for(SECOND_US);
        for (dial, ..) in rig.dials() {
            dials += 1;
            rig.fail(dial, true);
        }
    }
    assert!(rig.knows(5), "its beacons come");
    assert!((8..=16).contains(&dials), "{dials}");
}

#[test]
fn a_dial_of_which_nothing_is_heard_is_given_up_and_tried_anew() {
    let mut rig = Rig::new();
    rig.hear(&beacon(5));
    let first = rig.dial();
    for _ in 0..14 {
        rig.hear(&beacon(5));
        rig.run_for(SECOND_US);
    }
    assert_eq!(rig.dials().len(), 1);
    rig.fail(first, true);
    assert!(rig.knows(5), "an answer that comes too late is none");
}

#[test]
fn a_peer_with_several_addresses_is_dialled_at_each() {
    let mut rig = Rig::new();
    rig.hear(&beacon(5));
    rig.hear_from(address(77), &beacon(5).encode(None));
    rig.run_for(SECOND_US);
    let (dial, first, _) = rig.dials()[0];
    rig.fail(dial, false);
    rig.run_for(10_000);
    let (_, second, _) = rig.dials()[0];
    assert_eq!([first, second], [address(5), address(77)]);
}

#[test]
fn a_broken_link_is_redialled_at_once_and_until_the_data_plane_gives_it_up() {
    let mut rig = Rig::new();
    rig.hear(&beacon(5));
    let dial = rig.dial();
    rig.up_by(5, Some(dial));
    rig.down(5, LinkDown::Broken);
    let mut dials = 0;
    for _ in 0..49 {
        for (dial, ..) in rig.dials() {
            dials += 1;
            rig.fail(dial, false);
        }
        rig.run_for(SECOND_US / 10);
    }
    assert!(dials >= 4, "{dials}");
    assert!(rig.knows(5));
    rig.link(LinkEvent::Dead { peer: NodeId(5) });
    assert!(!rig.knows(5));
    assert!(rig.forgotten().is_empty(), "the data plane said so itself");
    let lost = |notice: &Notice| {
        matches!(notice, Notice::Left { node: NodeId(5), reason: Departure::Lost, .. })
    };
    assert_eq!(rig.notices().iter().filter(|notice| lost(notice)).count(), 1);
}

#[test]
fn a_broken_link_whose_dial_is_refused_is_a_dead_peer() {
    let mut rig = Rig::new();
    rig.up(5);
    rig.down(5, LinkDown::Broken);
    let dial = rig.dial();
    rig.fail(dial, true);
    assert!(!rig.knows(5));
    assert_eq!(rig.forgotten(), [NodeId(5)]);
}

#[test]
fn who_takes_a_peers_place_is_found_by_dialling() {
    let mut rig = Rig::new();
    rig.up(5);
    rig.down(5, LinkDown::Broken);
    let dial = rig.dial();
    let (peer, reason) = (Some(NodeId(6)), LinkRefusal::Unexpected);
    rig.link(LinkEvent::Refused { dial: Some(dial), peer, address: address(5), reason });
    assert_eq!(rig.forgotten(), [NodeId(5)]);
    rig.run_for(SECOND_US);
    assert_eq!(rig.dials()[0].1, address(5));
    assert!(rig.knows(6));
}

#[test]
fn a_seed_that_is_to_be_dialled_by_its_id_is_although_nothing_else_is_heard_of_it() {
    let mut rig = Rig::with(|config| config.seeds = vec!["nexusd-0:5671".into()]);
    let resolved = [address(5)];
    rig.feed(Event::Resolved { seed: SeedId(0), addresses: &resolved });
    let [(dial, to, None)] = rig.dials()[..] else { panic!("nobody knows who is there") };
    assert_eq!(to, address(5));
    rig.refuse(dial, 5, LinkRefusal::Unexpected);
    rig.run_for(SECOND_US / 10);
    assert!(matches!(rig.dials()[..], [(_, to, Some(NodeId(5)))] if to == address(5)));
}

#[test]
fn a_connection_that_another_one_took_the_place_of_is_no_failure() {
    let mut rig = Rig::new();
    rig.hear(&beacon(5));
    let dial = rig.dial();
    rig.refuse(dial, 5, LinkRefusal::Superseded);
    rig.run_for(SECOND_US / 2);
    assert!(rig.dials().is_empty(), "the other one comes up");
    rig.up(5);
    rig.run_for(5 * SECOND_US);
    assert!(rig.dials().is_empty());
    assert_eq!(rig.discovery.counters().dials_failed, 0);
}

#[test]
fn a_peer_is_dialled_again_if_the_other_connection_does_not_come_up() {
    let mut rig = Rig::new();
    rig.hear(&beacon(5));
    let dial = rig.dial();
    rig.refuse(dial, 5, LinkRefusal::Superseded);
    rig.run_for(SECOND_US);
    assert_eq!(rig.dials().len(), 1);
}

#[test]
fn a_goodbye_forgets_a_peer_without_a_link_and_waits_for_the_link_of_another() {
    let mut rig = Rig::new();
    rig.hear(&beacon(5));
    rig.up(6);
    rig.hear(&Beacon { is_goodbye: true, ..beacon(5) });
    rig.hear(&Beacon { is_goodbye: true, ..beacon(6) });
    assert!(!rig.knows(5) && rig.knows(6));
    rig.down(6, LinkDown::Broken);
    assert!(!rig.knows(6));
    assert_eq!(rig.forgotten(), [NodeId(6)]);
    rig.run_for(SECOND_US);
    assert!(rig.dials().is_empty(), "who is leaving is not dialled");
}

#[test]
fn a_node_that_stops_says_goodbye_and_dials_nobody_any_more() {
    let mut rig = Rig::with(|config| config.seeds = vec!["nexusd-0:5671".into()]);
    rig.up(6);
    rig.hear(&beacon(5));
    rig.feed(Event::Drain);
    rig.hear(&beacon(7));
    rig.down(6, LinkDown::Broken);
    rig.run_for(100 * SECOND_US);
    assert!(rig.dials().is_empty());
    let goodbyes = rig.beacons();
    assert_eq!(goodbyes.len(), 3);
    assert!(goodbyes.iter().all(|it| Beacon::decode(it, None).expect("a beacon").is_goodbye));
}

#[test]
fn a_new_link_gets_the_whole_and_so_does_who_asks() {
    let mut rig = Rig::new();
    rig.feed(Event::Interest { filter: "a/#", is_wanted: true });
    rig.up(5);
    assert_eq!(rig.sent(5), [FrameKind::NodeState]);
    rig.link(LinkEvent::StateWanted { peer: NodeId(5) });
    assert_eq!(rig.sent(5), [FrameKind::NodeState]);
    rig.up(5);
    assert_eq!(rig.sent(5), [FrameKind::NodeState], "another connection begins anew");
    rig.stored(5, Some(7));
    rig.run_for(10 * SECOND_US);
    rig.feed(Event::Interest { filter: "b", is_wanted: true });
    assert_eq!(rig.sent(5), [FrameKind::InterestDelta]);
    rig.feed(Event::Interest { filter: "b", is_wanted: true });
    assert!(rig.sent(5).is_empty(), "it is wanted already");
    rig.link(LinkEvent::StateWanted { peer: NodeId(6) });
    assert!(rig.sent(6).is_empty(), "there is no link to it");
}

#[test]
fn changes_that_come_together_are_told_together_and_soon() {
    let mut rig = Rig::new();
    rig.up(5);
    rig.sent(5);
    let now = nexusd_discovery::Now { mono_us: rig.now_us, wall_us: 0 };
    for filter in ["a", "b", "c"] {
        rig.discovery.on_event(now, Event::Interest { filter, is_wanted: true });
    }
    rig.feed(Event::Interest { filter: "d", is_wanted: true });
    assert_eq!(rig.sent(5), [FrameKind::InterestDelta]);
    rig.feed(Event::Interest { filter: "e", is_wanted: true });
    assert!(rig.sent(5).is_empty());
    rig.run_for(10_000);
    assert_eq!(rig.sent(5), [FrameKind::InterestDelta]);
}

#[test]
fn a_large_state_is_given_to_links_at_a_pace() {
    let mut rig = Rig::new();
    let now = nexusd_discovery::Now { mono_us: rig.now_us, wall_us: 0 };
    for number in 0..100_000 {
        let filter = format!("plant/{number}/sensor/+");
        rig.discovery.on_event(now, Event::Interest { filter: &filter, is_wanted: true });
    }
    for node in 2..32 {
        rig.up(node);
    }
    let bytes = |rig: &mut Rig| -> usize {
        let sent = |output: &Output| match output {
            Output::Send { frames, .. } => frames.len(),
            _ => 0,
        };
        rig.outputs.drain(..).map(|output| sent(&output)).sum()
    };
    let at_once = bytes(&mut rig);
    assert!(at_once <= (1 << 20) + (64 << 10), "{at_once}");
    rig.run_for(SECOND_US);
    let all = at_once + bytes(&mut rig);
    assert!((30 * 2_500_000..30 * 4_500_000).contains(&all), "{all}");
    rig.run_for(SECOND_US);
    assert_eq!(rig.discovery.counters().states_sent, 30);
}

#[test]
fn who_is_sent_the_whole_is_told_no_change_before_it() {
    let mut rig = Rig::new();
    rig.feed(Event::Interest { filter: "a", is_wanted: true });
    let now = nexusd_discovery::Now { mono_us: rig.now_us, wall_us: 0 };
    rig.discovery.on_event(now, Event::Interest { filter: "b", is_wanted: true });
    rig.up(5);
    assert_eq!(rig.sent(5), [FrameKind::NodeState]);
    rig.run_for(9 * SECOND_US / 10);
    assert!(rig.sent(5).iter().all(|&kind| kind == FrameKind::InterestDelta));
}

#[test]
fn a_new_connection_gets_nothing_of_what_was_for_the_one_before() {
    let mut rig = Rig::new();
    let now = nexusd_discovery::Now { mono_us: rig.now_us, wall_us: 0 };
    for number in 0..100_000 {
        let filter = format!("plant/{number}/sensor/+");
        rig.discovery.on_event(now, Event::Interest { filter: &filter, is_wanted: true });
    }
    rig.up(5);
    let first = rig.sent(5).len();
    rig.run_for(SECOND_US);
    let all = first + rig.sent(5).len();
    rig.link(LinkEvent::StateWanted { peer: NodeId(5) });
    assert!(rig.sent(5).len() < all, "the rest is to come");
    rig.down(5, LinkDown::Broken);
    rig.run_for(SECOND_US);
    assert!(rig.sent(5).is_empty());
    rig.up(5);
    rig.run_for(SECOND_US);
    assert!((all..=all + 2).contains(&rig.sent(5).len()), "from the first part on");
}

#[test]
fn what_does_not_fit_or_does_not_come_is_asked_for() {
    let mut rig = Rig::new();
    rig.up(5);
    rig.sent(5);
    rig.run_for(4 * SECOND_US);
    assert!(rig.sent(5).is_empty(), "it comes by itself");
    rig.run_for(SECOND_US);
    assert_eq!(rig.sent(5), [FrameKind::NodeStateRequest]);
    rig.stored(5, Some(7));
    assert!(rig.discovery.peer(NodeId(5)).expect("it is known").is_synced());
    rig.stored(5, None);
    assert_eq!(rig.sent(5), [FrameKind::NodeStateRequest]);
    assert!(!rig.discovery.peer(NodeId(5)).expect("it is known").is_synced());
}

#[test]
fn a_peer_whose_beacons_go_on_to_differ_is_asked() {
    let mut rig = Rig::new();
    rig.up(5);
    rig.stored(5, Some(8));
    rig.sent(5);
    for second in 0..3 {
        rig.hear(&beacon(5));
        assert_eq!(rig.sent(5).len(), usize::from(second == 2));
        rig.run_for(SECOND_US);
    }
    rig.stored(5, Some(7));
    rig.hear(&beacon(5));
    rig.run_for(10 * SECOND_US);
    assert!(rig.sent(5).is_empty());
}

#[test]
fn members_that_are_unknown_are_dialled_a_few_at_a_time() {
    let mut rig = Rig::new();
    rig.up(5);
    rig.members(5, (100..=200).map(member).collect());
    rig.run_for(SECOND_US);
    let dials = rig.dials();
    assert_eq!(dials.len(), 64);
    assert!(dials.iter().all(|(_, _, peer)| peer.is_some()));
    for (dial, ..) in dials {
        rig.fail(dial, true);
    }
    rig.run_for(SECOND_US);
    assert_eq!(rig.dials().len(), 37, "each once: nobody is where a rumour said");
    assert_eq!(rig.discovery.peers().count(), 38);
}

#[test]
fn a_rumour_of_this_nodes_address_is_of_who_was_there_before() {
    let mut rig = Rig::new();
    rig.up(5);
    rig.members(5, vec![member(6), nexusd_discovery::Member { node: OWN, ..member(7) }]);
    let dial = rig.dial();
    rig.refuse(dial, OWN.0, LinkRefusal::OwnNode);
    assert!(!rig.knows(6));
    rig.members(5, vec![nexusd_discovery::Member { mesh_address: address(6), ..member(8) }]);
    rig.run_for(SECOND_US);
    assert!(!rig.knows(8) && rig.dials().is_empty(), "it knows its own address now");
}

#[test]
fn strangers_are_told_once_and_left_alone() {
    let mut rig = Rig::new();
    let mut dials = 0;
    for _ in 0..100 {
        rig.hear(&beacon(5));
        rig.run_for(SECOND_US);
        for (dial, ..) in rig.dials() {
            dials += 1;
            rig.refuse(dial, 5, LinkRefusal::WrongKey);
        }
    }
    assert!((8..=14).contains(&dials), "{dials}");
    assert_eq!(rig.notices(), [Notice::WrongKey { address: address(5) }]);
    let (peer, address, reason) = (None, address(9), LinkRefusal::WrongCluster);
    for _ in 0..3 {
        rig.link(LinkEvent::Refused { dial: None, peer, address, reason });
    }
    assert_eq!(rig.notices(), [Notice::WrongCluster { address }]);
}

#[test]
fn a_seed_is_resolved_dialled_and_dialled_again_when_its_node_is_gone() {
    let mut rig = Rig::with(|config| {
        config.is_multicast = false;
        config.seeds = vec!["nexusd-0:5671".into()];
    });
    let (seed, addresses) = (SeedId(0), [address(5)]);
    rig.feed(Event::Resolved { seed, addresses: &addresses });
    let dial = rig.dial();
    rig.up_by(5, Some(dial));
    rig.down(5, LinkDown::Ending);
    let resolves = |rig: &mut Rig| {
        let is_it = |output: &Output| matches!(output, Output::Resolve { .. });
        let count = rig.outputs.iter().filter(|output| is_it(output)).count();
        rig.outputs.retain(|output| !is_it(output));
        count
    };
    assert_eq!(resolves(&mut rig), 1, "at once");
    rig.feed(Event::Resolved { seed, addresses: &addresses });
    assert_eq!(rig.dials().len(), 1);
}

#[test]
fn a_seed_that_is_not_linked_is_sent_beacons() {
    let mut rig = Rig::with(|config| config.seeds = vec!["nexusd-0:5671".into()]);
    rig.feed(Event::Resolved { seed: SeedId(0), addresses: &[address(5), address(6)] });
    rig.run_for(SECOND_US);
    assert_eq!(rig.unicasts(), [address(5), address(6)]);
    rig.up(5);
    rig.run_for(SECOND_US);
    assert!(rig.unicasts().is_empty());
}

#[test]
fn with_multicast_beacons_go_by_name_to_who_may_not_hear_it() {
    let mut rig = Rig::new();
    rig.up(5);
    rig.hear(&beacon(6));
    rig.run_for(SECOND_US);
    assert!(rig.unicasts().is_empty(), "one has a link, the other was heard");
    rig.down(5, LinkDown::Idle);
    rig.run_for(SECOND_US);
    assert_eq!(rig.unicasts(), [address(5)]);
}

#[test]
fn without_multicast_beacons_go_to_a_few_linked_peers_and_all_others() {
    let mut rig = Rig::with(|config| config.is_multicast = false);
    for node in 1..=20 {
        rig.up(node);
    }
    rig.hear(&beacon(30));
    rig.run_for(SECOND_US);
    let mut unicasts = rig.unicasts();
    assert_eq!(unicasts.len(), 4, "{unicasts:?}");
    unicasts.retain(|&to| to == address(30));
    assert_eq!(unicasts.len(), 1);
    assert!(rig.beacons().is_empty());
}

#[test]
fn a_link_that_nobody_needs_is_closed_by_who_dialled_it() {
    let mut rig = Rig::new();
    rig.hear(&beacon(5));
    let dial = rig.dial();
    rig.up_by(5, Some(dial));
    rig.up(6);
    rig.stored(5, Some(0));
    rig.stored(6, Some(0));
    rig.run_for(60 * SECOND_US - 1);
    let closed = |rig: &Rig| {
        let outputs = rig.outputs.iter();
        outputs.filter(|output| matches!(output, Output::CloseIdle { .. })).count()
    };
    assert_eq!(closed(&rig), 0);
    rig.run_for(1);
    assert_eq!(closed(&rig), 1);
    rig.down(5, LinkDown::Idle);
    rig.hear(&Beacon { interest_hash: 0, ..beacon(5) });
    rig.run_for(3 * SECOND_US);
    assert!(rig.knows(5) && rig.dials().is_empty());
    rig.hear(&Beacon { interest_hash: 9, ..beacon(5) });
    rig.dial();
}

#[test]
fn retained_values_that_differ_for_a_while_are_compared_over_a_link_that_is_opened_for_it() {
    let mut rig = Rig::new();
    rig.up(5);
    rig.feed(Event::Retained { change: 3 });
    let compared = |rig: &Rig| {
        let outputs = rig.outputs.iter();
        outputs.filter(|output| matches!(output, Output::CompareRetained { .. })).count()
    };
    for _ in 0..4 {
        rig.hear(&beacon(5));
        rig.run_for(SECOND_US);
    }
    assert_eq!(compared(&rig), 1);
    rig.hear(&Beacon { retained_digest: 3, ..beacon(5) });
    let told = rig.beacons();
    assert!(told.iter().all(|beacon| beacon.contains(&3)), "its own beacons tell it");
    rig.down(5, LinkDown::Idle);
    for _ in 0..5 {
        rig.hear(&Beacon { interest_hash: 0, ..beacon(5) });
        rig.run_for(SECOND_US);
    }
    rig.dial();
}

#[test]
fn a_broken_word_of_the_data_plane_about_an_unknown_peer_is_nothing() {
    let mut rig = Rig::new();
    for reason in
        [LinkDown::Broken, LinkDown::Idle, LinkDown::Ending, LinkDown::Silent, LinkDown::Forgotten]
    {
        rig.down(5, reason);
    }
    rig.link(LinkEvent::Dead { peer: NodeId(5) });
    rig.stored(5, Some(1));
    rig.fail(99, true);
    assert_eq!(rig.discovery.peers().count(), 0);
    assert!(rig.outputs.is_empty(), "{:?}", rig.outputs);
}

/// Something that may happen to a node; numbers stand for nodes, addresses and dials.
#[derive(Clone, Copy, Debug)]
enum Step {
    Hear { node: u8, at: u8, start: u8, hash: u8, is_goodbye: bool },
    Up { node: u8, at: u8, start: u8, dial: Option<u8> },
    Refused { dial: Option<u8>, node: u8, at: u8, reason: LinkRefusal },
    Down { node: u8, reason: LinkDown },
    Suspected { node: u8, is_suspected: bool },
    Dead { node: u8 },
    Stored { node: u8, hash: Option<u8> },
    StateWanted { node: u8 },
    Member { of: u8, node: u8, at: u8, start: u8 },
    DialFailed { dial: u8, is_refused: bool },
    Resolved { addresses: u8 },
    Interest { filter: u8, is_wanted: bool },
    Run { ms: u16 },
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    let refusal = prop::sample::select(vec![
        LinkRefusal::WrongCluster,
        LinkRefusal::WrongKey,
        LinkRefusal::OwnNode,
        LinkRefusal::Version,
        LinkRefusal::Unexpected,
        LinkRefusal::Superseded,
        LinkRefusal::Closed,
    ]);
    let down = prop::sample::select(vec![
        LinkDown::Broken,
        LinkDown::Idle,
        LinkDown::Ending,
        LinkDown::Silent,
        LinkDown::Forgotten,
    ]);
    let (node, at, start) = (|| 0..5_u8, || 0..4_u8, || 0..3_u8);
    let dial = || 0..30_u8;
    prop_oneof![
        4 => (node(), at(), start(), 0..3_u8, prop::bool::weighted(0.1)).prop_map(
            |(node, at, start, hash, is_goodbye)| Step::Hear { node, at, start, hash, is_goodbye }
        ),
        4 => (node(), at(), start(), prop::option::of(dial()))
            .prop_map(|(node, at, start, dial)| Step::Up { node, at, start, dial }),
        2 => (prop::option::of(dial()), node(), at(), refusal)
            .prop_map(|(dial, node, at, reason)| Step::Refused { dial, node, at, reason }),
        3 => (node(), down).prop_map(|(node, reason)| Step::Down { node, reason }),
        1 => (node(), any::<bool>())
            .prop_map(|(node, is_suspected)| Step::Suspected { node, is_suspected }),
        1 => node().prop_map(|node| Step::Dead { node }),
        2 => (node(), prop::option::of(0..3_u8))
            .prop_map(|(node, hash)| Step::Stored { node, hash }),
        1 => node().prop_map(|node| Step::StateWanted { node }),
        2 => (node(), node(), at(), start())
            .prop_map(|(of, node, at, start)| Step::Member { of, node, at, start }),
        2 => (dial(), any::<bool>())
            .prop_map(|(dial, is_refused)| Step::DialFailed { dial, is_refused }),
        1 => (0..4_u8).prop_map(|addresses| Step::Resolved { addresses }),
        2 => (0..3_u8, any::<bool>())
            .prop_map(|(filter, is_wanted)| Step::Interest { filter, is_wanted }),
        4 => (0..8_000_u16).prop_map(|ms| Step::Run { ms }),
        1 => prop::bool::weighted(0.05)
            .prop_map(|drains| if drains { Step::Drain } else { Step::Run { ms: 1 } }),
    ]
}

/// Node 0 is this one, which nobody else may say to be.
fn id(node: u8) -> NodeId {
    if node == 0 { OWN } else { NodeId(u128::from(node)) }
}

fn take(rig: &mut Rig, counts: &mut [u32; 3], step: Step) {
    let at = |at: u8| address(u128::from(at));
    match step {
        Step::Hear { node, at: place, start, hash, is_goodbye } => {
            let heard = Beacon {
                node: id(node),
                start_us: u64::from(start),
                interest_hash: u64::from(hash),
                is_goodbye,
                ..beacon(1)
            };
            rig.hear_from(at(place), &heard.encode(None));
        }
        Step::Up { node, at: place, start, dial } if node != 0 => {
            let (peer, address, start_us) = (id(node), at(place), u64::from(start));
            let dial = dial.map(u64::from);
            rig.link(LinkEvent::Up { peer, start_us, address, app_port: 1, dial });
        }
        Step::Refused { dial, node, at: place, reason } => {
            let (peer, dial) = (Some(id(node)), dial.map(u64::from));
            rig.link(LinkEvent::Refused { dial, peer, address: at(place), reason });
        }
        Step::Down { node, reason } => rig.link(LinkEvent::Down { peer: id(node), reason }),
        Step::Suspected { node, is_suspected } => rig.link(if is_suspected {
            LinkEvent::Suspected { peer: id(node) }
        } else {
            LinkEvent::Trusted { peer: id(node) }
        }),
        Step::Dead { node } => rig.link(LinkEvent::Dead { peer: id(node) }),
        Step::Stored { node, hash } => {
            rig.link(LinkEvent::Stored { peer: id(node), hash: hash.map(u64::from) });
        }
        Step::StateWanted { node } => rig.link(LinkEvent::StateWanted { peer: id(node) }),
        Step::Member { of, node, at: place, start } => {
            let told = nexusd_discovery::Member {
                node: id(node),
                start_us: u64::from(start),
                mesh_address: at(place),
                app_port: 1,
            };
            rig.link(LinkEvent::Members { peer: id(of), members: vec![told] });
        }
        Step::DialFailed { dial, is_refused } => rig.fail(u64::from(dial), is_refused),
        Step::Resolved { addresses } => {
            let addresses: Vec<SocketAddr> = (0..addresses).map(at).collect();
            rig.feed(Event::Resolved { seed: SeedId(0), addresses: &addresses });
        }
        Step::Interest { filter, is_wanted } => {
            let count = &mut counts[usize::from(filter)];
            if is_wanted || *count > 0 {
                *count = if is_wanted { *count + 1 } else { *count - 1 };
                let filter = ["a", "b/#", "$share/g/c"][usize::from(filter)];
                rig.feed(Event::Interest { filter, is_wanted });
            }
        }
        Step::Run { ms } => rig.run_for(u64::from(ms) * 1_000),
        Step::Drain => rig.feed(Event::Drain),
        Step::Up { .. } => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// In whatever order: the rig checks the invariants after each event, and that time goes on.
    #[test]
    fn whatever_it_is_told_a_node_stays_whole(
        is_multicast in any::<bool>(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut rig = Rig::with(|config| {
            config.is_multicast = is_multicast;
            config.seeds = vec!["nexusd-0:5671".into()];
        });
        let mut counts = [0; 3];
        for step in steps {
            take(&mut rig, &mut counts, step);
        }
        rig.run_for(200 * SECOND_US);
    }
}

#[test]
fn who_was_not_heard_while_others_joined_is_told_of_them() {
    let mut rig = Rig::new();
    rig.up(5);
    rig.stored(5, Some(0));
    rig.run_for(SECOND_US);
    rig.sent(5);
    rig.link(LinkEvent::Suspected { peer: NodeId(5) });
    rig.link(LinkEvent::Trusted { peer: NodeId(5) });
    rig.run_for(SECOND_US);
    assert!(rig.sent(5).is_empty(), "nobody came meanwhile");
    rig.link(LinkEvent::Suspected { peer: NodeId(5) });
    rig.up(6);
    rig.run_for(SECOND_US);
    rig.sent(5);
    rig.link(LinkEvent::Trusted { peer: NodeId(5) });
    rig.run_for(SECOND_US);
    assert!(rig.sent(5).contains(&FrameKind::NodeState));
}
