//! Links that break, fall silent or are taken over: what goes on where it was, and what is told as lost.

use nexusd_core::{LinkCommand, LinkDown, LinkReport};
use nexusd_wire::MessageFlags;
use nexusd_wire::control::OverflowPolicy;

use super::desk::Heard;
use super::pair::{PLAIN, Pair, id, is_gap, payloads};

#[test]
fn a_link_that_breaks_goes_on_exactly_where_it_was() {
    for (shards, dialler) in [(1, 0), (1, 1), (3, 0), (3, 1)] {
        let (mut pair, subscriber, publisher) = Pair::with_subscription(shards);
        let mut sent = 0;
        let mut publish = |pair: &mut Pair, count: u32| {
            for _ in 0..count {
                pair.publish(0, publisher, &u32::to_le_bytes(sent));
                sent += 1;
            }
        };
        publish(&mut pair, 5);
        // Some are on their way when it breaks, some come while there is none.
        pair.is_cut = true;
        publish(&mut pair, 5);
        pair.cut(0);
        publish(&mut pair, 5);
        pair.is_cut = false;
        let broken = LinkReport::Down { peer: id(1), reason: LinkDown::Broken };
        assert!(pair.desks[0].reports().contains(&broken));
        pair.dial(dialler, true);
        pair.carry();
        publish(&mut pair, 5);
        let heard = pair.desks[1].heard(subscriber);
        assert!(!heard.iter().any(is_gap), "{heard:?}");
        let got: Vec<_> = heard
            .into_iter()
            .filter_map(|heard| match heard {
                Heard::Message { payload, .. } => Some(payload),
                _ => None,
            })
            .collect();
        assert_eq!(got, payloads(0..20), "{shards} shards, node {dialler} dials");
    }
}

#[test]
fn a_connection_that_takes_over_before_anything_of_the_stream_was_heard_loses_nothing() {
    for shards in [1, 3] {
        let mut pair = Pair::new(shards);
        pair.dial(1, true);
        pair.carry();
        let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
        pair.desks[1].subscribe(subscriber, &["a"]);
        pair.tell_interest(1, &["a"]);
        pair.desks[0].bind(publisher, 0, "a");
        // All of it is on its way when the other connection becomes the link.
        pair.is_cut = true;
        for number in 0..5u32 {
            pair.publish(0, publisher, &number.to_le_bytes());
        }
        let old = pair.wires[0][0];
        pair.desks[0].take(old);
        pair.is_cut = false;
        pair.dial(0, true);
        pair.carry();
        let heard = pair.desks[1].heard(subscriber);
        assert!(!heard.iter().any(is_gap), "{heard:?}");
        let messages = heard.iter().filter(|heard| matches!(heard, Heard::Message { .. })).count();
        assert_eq!(messages, 5, "{shards} shards");
    }
}

#[test]
fn a_link_whose_next_connection_breaks_before_it_is_up_is_reported_down() {
    for shards in [1, 3] {
        let mut pair = Pair::new(shards);
        pair.dial(1, true);
        pair.carry();
        let reports = pair.desks[0].reports();
        assert!(matches!(reports[..], [LinkReport::Up { .. }]), "{reports:?}");
        // The smaller node's dial takes over, and the other one has not said yet where it goes on.
        let wire = pair.dial(0, true);
        let [dialled, accepted] = pair.wires[wire];
        let hello = pair.desks[0].take(dialled);
        pair.desks[1].say(accepted, &hello);
        let welcome = pair.desks[1].take(accepted);
        pair.desks[0].say(dialled, &welcome);
        pair.cut(wire);
        let broken = LinkReport::Down { peer: id(1), reason: LinkDown::Broken };
        let reports = pair.desks[0].reports();
        assert!(reports.contains(&broken), "{shards} shards: {reports:?}");
    }
}

#[test]
fn a_node_that_stood_still_until_it_was_given_up_repeats_nothing_and_hands_over_what_it_had() {
    for shards in [1, 3] {
        let (mut pair, subscriber, publisher) = Pair::with_subscription(shards);
        pair.publish(0, publisher, b"had");
        assert_eq!(pair.payloads(1, subscriber), [b"had"]);
        // The publisher's node stands still; what it took before is on its way nowhere.
        pair.is_cut = true;
        pair.desks[0].publish(publisher, 0, b"kept", PLAIN);
        pair.desks[0].take(pair.wires[0][0]);
        for _ in 0..60 {
            pair.desks[1].pass(100_000);
        }
        let is_silent = |report: &LinkReport| {
            matches!(report, LinkReport::Down { reason: LinkDown::Silent, .. })
        };
        assert!(pair.desks[1].reports().iter().any(is_silent));
        pair.desks[1].heard(subscriber);
        pair.cut(0);
        pair.is_cut = false;
        pair.dial(0, true);
        pair.carry();
        assert_eq!(pair.payloads(1, subscriber), [b"kept"], "{shards} shards");
    }
}

#[test]
fn a_peer_that_is_silent_is_suspected_then_dead_and_its_routes_go() {
    let mut pair = Pair::linked(2);
    let publisher = pair.desks[0].greet();
    pair.tell_interest(1, &["a"]);
    pair.desks[0].bind(publisher, 0, "a");
    pair.pass(3_000_000);
    pair.desks[0].reports();
    pair.is_cut = true;
    pair.pass(1_400_000);
    assert!(pair.desks[0].reports().is_empty(), "it may just be slow");
    pair.pass(500_000);
    assert_eq!(pair.desks[0].reports(), [LinkReport::Suspected { peer: id(1) }]);
    pair.is_cut = false;
    pair.pass(600_000);
    assert_eq!(pair.desks[0].reports(), [LinkReport::Trusted { peer: id(1) }]);
    pair.is_cut = true;
    pair.pass(5_700_000);
    let silent = LinkReport::Down { peer: id(1), reason: LinkDown::Silent };
    assert_eq!(pair.desks[0].reports(), [LinkReport::Suspected { peer: id(1) }, silent]);
    pair.desks[0].publish(publisher, 0, b"x", MessageFlags::ACK);
    let acked = Heard::Ack { publisher_sequence: 1, sequence: 1, delivered: 0 };
    assert_eq!(pair.desks[0].heard(publisher), [acked], "nobody is routed to");
}

#[test]
fn a_node_without_cpu_for_a_while_takes_nobody_for_dead() {
    let mut pair = Pair::linked(1);
    pair.pass(2_000_000);
    pair.desks[0].reports();
    for _ in 0..5 {
        // Both stand still; then one looks at its clock before anything arrives.
        pair.desks.iter_mut().for_each(|desk| desk.pass_unnoticed(4_000_000));
        pair.desks[0].rest();
        pair.pass(500_000);
    }
    assert!(pair.desks[0].reports().is_empty());
}

#[test]
fn a_link_that_does_not_come_back_makes_its_peer_dead_and_its_subscribers_are_told() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
        pair.desks[1].subscribe(subscriber, &["a"]);
        let other = pair.desks[1].greet();
        pair.desks[1].subscribe(other, &["b"]);
        pair.tell_interest(1, &["a"]);
        pair.desks[0].bind(publisher, 0, "a");
        pair.publish(0, publisher, b"x");
        pair.desks[1].heard(subscriber);
        pair.desks[1].heard(other);
        pair.cut(0);
        pair.desks[1].reports();
        pair.pass(5_500_000);
        assert_eq!(pair.desks[1].reports(), [LinkReport::Dead { peer: id(0) }]);
        let heard = pair.desks[1].heard(subscriber);
        let unknown = Heard::Gap { entries: Vec::new(), missed: u64::MAX };
        assert_eq!(heard, [unknown], "nobody knows how much was on its way");
        let heard_by_other = pair.desks[1].heard(other);
        assert!(matches!(heard_by_other[..], [Heard::Gap { missed: u64::MAX, .. }]), "nor of what");
    }
}

#[test]
fn the_first_messages_of_a_topic_that_die_with_their_node_are_told_to_all() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let publisher = pair.desks[0].greet();
        let filters = ["a", "b/c", "+/d", "#"];
        let subscribers = filters.map(|filter| {
            let subscriber = pair.desks[1].greet();
            pair.desks[1].subscribe(subscriber, &[filter]);
            subscriber
        });
        pair.tell_interest(1, &filters);
        pair.desks[0].bind(publisher, 0, "a");
        pair.is_cut = true;
        pair.publish(0, publisher, b"accepted, and never sent");
        pair.cut(0);
        pair.pass(5_500_000);
        for (subscriber, filter) in subscribers.into_iter().zip(filters) {
            let heard = pair.desks[1].heard(subscriber);
            assert!(
                matches!(heard[..], [Heard::Gap { missed: u64::MAX, .. }]),
                "{filter} on {shards} shards: {heard:?}"
            );
        }
    }
}

#[test]
fn a_node_that_never_stood_linked_loses_nothing_when_it_is_given_up() {
    let mut pair = Pair::new(1);
    let subscriber = pair.desks[1].greet();
    pair.desks[1].subscribe(subscriber, &["#"]);
    let wire = pair.dial(0, true);
    let [dialled, accepted] = pair.wires[wire];
    // All but the count with which the link begins.
    let hello = pair.desks[0].take(dialled);
    pair.desks[1].say(accepted, &hello);
    pair.cut(wire);
    pair.desks[1].command(LinkCommand::Forget { peer: id(0) });
    pair.pass(6_000_000);
    assert!(pair.desks[1].heard(subscriber).is_empty());
}

#[test]
fn what_is_under_way_from_a_node_that_was_started_anew_comes_first() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
        let (own_publisher, own_filter) = (pair.desks[1].greet(), "b");
        pair.desks[1].subscribe(subscriber, &["a"]);
        pair.tell_interest(1, &["a"]);
        pair.tell_interest(0, &[own_filter]);
        pair.desks[0].bind(publisher, 0, "a");
        pair.is_cut = true;
        pair.publish(0, publisher, b"last");
        pair.desks[1].command(LinkCommand::Retire { peer: id(0) });
        // It is no more: nothing goes there.
        pair.desks[1].bind(own_publisher, 0, own_filter);
        pair.desks[1].publish(own_publisher, 0, b"late", MessageFlags::ACK);
        let acked = Heard::Ack { publisher_sequence: 1, sequence: 1, delivered: 0 };
        assert_eq!(pair.desks[1].heard(own_publisher), [acked]);
        pair.is_cut = false;
        pair.desks[0].drain();
        pair.carry();
        let heard = pair.desks[1].heard(subscriber);
        assert!(!heard.iter().any(is_gap), "{shards} shards: {heard:?}");
        assert!(heard.iter().any(|heard| matches!(heard, Heard::Message { .. })), "{heard:?}");
        let ending = LinkReport::Down { peer: id(0), reason: LinkDown::Ending };
        assert!(pair.desks[1].reports().contains(&ending));
    }
}

#[test]
fn a_node_that_was_started_anew_and_says_nothing_is_given_up_soon() {
    for breaks in [false, true] {
        let mut pair = Pair::linked(1);
        let subscriber = pair.desks[1].greet();
        pair.desks[1].subscribe(subscriber, &["a"]);
        pair.tell_interest(1, &["a"]);
        pair.desks[1].command(LinkCommand::Retire { peer: id(0) });
        pair.is_cut = true;
        pair.desks[1].reports();
        if breaks {
            pair.cut(0);
            assert_eq!(pair.desks[1].reports(), [LinkReport::Dead { peer: id(0) }]);
        } else {
            pair.pass(3_500_000);
            let forgotten = LinkReport::Down { peer: id(0), reason: LinkDown::Forgotten };
            assert!(pair.desks[1].reports().contains(&forgotten));
        }
        let heard = pair.desks[1].heard(subscriber);
        assert!(matches!(heard[..], [Heard::Gap { missed: u64::MAX, .. }]), "{heard:?}");
    }
}

#[test]
fn two_nodes_that_gave_each_other_up_tell_it_once() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
        pair.desks[1].subscribe(subscriber, &["a", "b"]);
        pair.tell_interest(1, &["a", "b"]);
        pair.desks[0].bind(publisher, 0, "a");
        pair.cut(0);
        pair.publish(0, publisher, b"lost");
        pair.pass(5_500_000);
        let unknown = Heard::Gap { entries: Vec::new(), missed: u64::MAX };
        assert_eq!(pair.desks[1].heard(subscriber), [unknown]);
        pair.dial(0, true);
        pair.carry();
        pair.tell_interest(1, &["a", "b"]);
        pair.publish(0, publisher, b"behind");
        let heard = pair.desks[1].heard(subscriber);
        assert!(!heard.iter().any(is_gap), "{shards} shards: {heard:?}");
        assert!(heard.iter().any(|heard| matches!(heard, Heard::Message { .. })), "{heard:?}");
    }
}

#[test]
fn a_node_that_was_given_up_without_its_knowledge_tells_its_subscribers_that_it_missed_something() {
    for shards in [1, 3] {
        let (mut pair, subscriber, publisher) = Pair::with_subscription(shards);
        pair.publish(0, publisher, b"before");
        assert_eq!(pair.payloads(1, subscriber), [b"before"]);
        // One is dead for the other; it stood still, and only sees a connection that broke.
        pair.desks[0].command(LinkCommand::Forget { peer: id(1) });
        pair.desks[0].publish(publisher, 0, b"meanwhile", PLAIN);
        pair.cut(0);
        pair.dial(1, true);
        pair.carry();
        let heard = pair.desks[1].heard(subscriber);
        let unknown = Heard::Gap { entries: Vec::new(), missed: u64::MAX };
        assert_eq!(heard, [unknown], "{shards} shards");
        pair.tell_interest(1, &["a"]);
        pair.publish(0, publisher, b"behind");
        let heard = pair.desks[1].heard(subscriber);
        assert!(!heard.iter().any(is_gap), "it is told once: {heard:?}");
        assert!(
            matches!(heard.last(), Some(Heard::Message { payload, .. }) if payload == b"behind")
        );
    }
}

#[test]
fn what_is_lost_because_one_node_alone_gave_the_other_up_is_told() {
    for shards in [1, 3] {
        for breaks_before in [false, true] {
            let (mut pair, subscriber, publisher) = Pair::with_subscription(shards);
            pair.publish(0, publisher, b"first");
            if breaks_before {
                // The topic is bound on a connection that is no more, and not on the one that follows.
                pair.cut(0);
                pair.dial(0, true);
                pair.carry();
            }
            pair.desks[1].heard(subscriber);
            pair.is_cut = true;
            pair.publish(0, publisher, b"lost");
            pair.desks[0].command(LinkCommand::Forget { peer: id(1) });
            pair.publish(0, publisher, b"lost, too");
            pair.cut(pair.wires.len() - 1);
            pair.is_cut = false;
            pair.dial(1, true);
            pair.carry();
            pair.tell_interest(1, &["a"]);
            pair.publish(0, publisher, b"last");
            let heard = pair.desks[1].heard(subscriber);
            let gap =
                heard.iter().position(|heard| matches!(heard, Heard::Gap { missed: u64::MAX, .. }));
            let last = heard.iter().position(|heard| matches!(heard, Heard::Message { .. }));
            assert!(gap.is_some() && gap < last, "{shards} shards: {heard:?}");
        }
    }
}

#[test]
fn a_link_that_breaks_before_anything_has_come_over_it_loses_nothing() {
    for (shards, dialler) in [(1, 0), (1, 1), (3, 0), (3, 1)] {
        let (mut pair, subscriber, publisher) = Pair::with_subscription(shards);
        for number in 0..3u32 {
            // The very first messages of the link, each time on their way when it breaks.
            pair.is_cut = true;
            pair.publish(0, publisher, &number.to_le_bytes());
            pair.cut(pair.wires.len() - 1);
            pair.is_cut = false;
            pair.dial(dialler, true);
            pair.is_cut = number < 2;
            pair.carry();
            if pair.is_cut {
                pair.cut(pair.wires.len() - 1);
                pair.is_cut = false;
                pair.dial(dialler, true);
            }
            pair.carry();
        }
        let heard = pair.desks[1].heard(subscriber);
        assert!(!heard.iter().any(is_gap), "{heard:?}");
        let got = heard.iter().filter(|heard| matches!(heard, Heard::Message { .. })).count();
        assert_eq!(got, 3, "{shards} shards, node {dialler} dials: {heard:?}");
    }
}

#[test]
fn a_count_that_another_connection_has_overtaken_does_not_count() {
    for shards in [1, 3] {
        let (mut pair, subscriber, publisher) = Pair::with_subscription(shards);
        pair.publish(0, publisher, &0u32.to_le_bytes());
        pair.cut(0);
        // The other node dials, and what it says of its count is long on its way.
        pair.dial(1, true);
        let slow = pair.wires.pop().expect("it was dialled");
        let hello = pair.desks[1].take(slow[1]);
        pair.desks[0].say(slow[0], &hello);
        let welcome = pair.desks[0].take(slow[0]);
        pair.desks[1].say(slow[1], &welcome);
        let count = pair.desks[1].take(slow[1]);
        // Meanwhile another connection is the link for a moment.
        pair.dial(0, true);
        pair.carry();
        pair.publish(0, publisher, &1u32.to_le_bytes());
        pair.cut(pair.wires.len() - 1);
        pair.desks[0].stall(slow[0]);
        pair.desks[0].say(slow[0], &count);
        pair.dial(0, true);
        pair.carry();
        pair.publish(0, publisher, &2u32.to_le_bytes());
        assert_eq!(pair.payloads(1, subscriber), payloads(0..3), "{shards} shards");
    }
}

#[test]
fn what_a_link_loses_takes_numbers_and_is_told_at_its_place() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
        pair.desks[1].subscribe_with(subscriber, &["a"], OverflowPolicy::DropOldest, 0);
        pair.tell_interest(1, &["a"]);
        pair.desks[0].bind(publisher, 0, "a");
        pair.publish(0, publisher, b"first");
        let first = pair.payloads(1, subscriber);
        assert_eq!(first, [b"first"]);
        // More than the memory for it comes while nobody takes it.
        let link = pair.wires[0][0];
        pair.desks[0].stall(link);
        let large = vec![7; 20 << 10];
        for _ in 0..2_000 {
            pair.desks[0].publish(publisher, 0, &large, PLAIN);
        }
        pair.desks[0].go_on(link);
        pair.carry();
        let mut next = 2;
        let (mut lost, mut got) = (0, 0);
        for heard in pair.desks[1].heard(subscriber) {
            match heard {
                Heard::Gap { entries, missed } => {
                    let [(_, first, last)] = entries[..] else { panic!("{entries:?}") };
                    assert_eq!((first, last - first + 1), (next, missed));
                    next = last + 1;
                    lost += missed;
                }
                Heard::Message { sequence, .. } => {
                    assert_eq!(sequence, next);
                    next += 1;
                    got += 1;
                }
                _ => {}
            }
        }
        assert_eq!(lost + got, 2_000);
        assert!(lost > 0 && got > 0, "{lost} {got}");
        assert!(pair.desks[1].metrics().lost_on_links >= lost);
    }
}
