//! Which peers a node knows, dials, and gives up; and the links it closes.

use nexusd_discovery::{
    Departure, Event, LinkDown, LinkEvent, LinkRefusal, NodeId, Notice, Output, PeerStatus, SeedId,
};
use nexusd_wire::Beacon;

use super::rig::{OWN, Rig, SECOND_US, address, beacon, member};

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
fn a_link_that_ended_for_a_violation_is_dialled_after_its_pause_and_told_of_once_a_minute() {
    let mut rig = Rig::new();
    rig.up(5);
    let told = |rig: &mut Rig| {
        let is_it = |notice: &Notice| {
            let text = notice.to_string();
            matches!(notice, Notice::Violated { .. }) && text.contains("what was wrong")
        };
        rig.notices().iter().filter(|notice| is_it(notice)).count()
    };
    rig.notices();
    for violation in 0..10 {
        let (peer, reason) = (NodeId(5), "what was wrong".into());
        rig.link(LinkEvent::Violated { peer, reason, pause_us: 2 * SECOND_US });
        rig.run_for(2 * SECOND_US - 1);
        assert!(rig.dials().is_empty(), "the link is shut");
        rig.run_for(SECOND_US);
        let dial = rig.dial();
        rig.up_by(5, Some(dial));
        assert_eq!(told(&mut rig), usize::from(violation == 0));
    }
    rig.run_for(60 * SECOND_US);
    let (peer, reason) = (NodeId(5), "what was wrong".into());
    rig.link(LinkEvent::Violated { peer, reason, pause_us: 2 * SECOND_US });
    assert_eq!(told(&mut rig), 1);
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
