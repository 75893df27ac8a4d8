//! What a node tells its peers of what is wanted, kept and known, and asks them for.

use nexusd_discovery::{Event, LinkDown, LinkEvent, NodeId, Output};
use nexusd_wire::{Beacon, FrameKind};

use super::rig::{Rig, SECOND_US, beacon};

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
