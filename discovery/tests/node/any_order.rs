//! Whatever is said to a node, in whatever order, it does what it may.

use std::net::SocketAddr;

use nexusd_discovery::{Event, LinkDown, LinkEvent, LinkRefusal, NodeId, SeedId};
use nexusd_wire::Beacon;
use proptest::prelude::*;

use super::rig::{OWN, Rig, SECOND_US, address, beacon};

#[test]
fn a_broken_word_of_the_data_plane_about_an_unknown_peer_is_nothing() {
    let mut rig = Rig::new();
    for reason in
        [LinkDown::Broken, LinkDown::Idle, LinkDown::Ending, LinkDown::Silent, LinkDown::Forgotten]
    {
        rig.down(5, reason);
    }
    rig.link(LinkEvent::Violated { peer: NodeId(5), reason: "".into(), pause_us: 1 });
    rig.link(LinkEvent::TooLarge { peer: NodeId(5), bytes: 1 });
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
    Violated { node: u8, pause_ms: u16 },
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
        1 => (node(), any::<u16>())
            .prop_map(|(node, pause_ms)| Step::Violated { node, pause_ms }),
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
        Step::Violated { node, pause_ms } => {
            let (reason, pause_us) = ("wrong".into(), 1_000 * u64::from(pause_ms));
            rig.link(LinkEvent::Violated { peer: id(node), reason, pause_us });
        }
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
