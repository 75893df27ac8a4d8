//! Subscriptions that begin where an earlier one had come to.

use std::collections::{HashMap, HashSet};

use nexusd_core::Limits;
use nexusd_wire::control::{DeliveryMode, OverflowPolicy};
use nexusd_wire::{MessageFlags, NodeId, Position, Sequence, SubscribeRequest};

use crate::desk::{Desk, Heard, SeatId};

/// The id of the desk's node.
const NODE: NodeId = NodeId(1);

fn subscribe_at(
    desk: &mut Desk,
    id: SeatId,
    filters: &[&str],
    positions: &[Position<'_>],
) -> Vec<Heard> {
    let request =
        SubscribeRequest { request: 1, filters, positions, ..SubscribeRequest::default() };
    desk.ask_to_subscribe(id, &request);
    desk.heard(id)
}

fn at(topic: &str, sequence: u64) -> Position<'_> {
    Position { topic, sequence: Sequence(sequence), origin: None }
}

fn publish(desk: &mut Desk, publisher: SeatId, topic: u32, messages: u64) {
    for _ in 0..messages {
        desk.publish(publisher, topic, b"payload", MessageFlags::default());
    }
}

fn messages(heard: &[Heard]) -> Vec<u64> {
    let sequence = |heard: &Heard| match heard {
        Heard::Message { sequence, .. } => Some(*sequence),
        _ => None,
    };
    heard.iter().filter_map(sequence).collect()
}

/// A topic of so many messages, and its publisher. Somebody subscribes to it all the time.
fn topic_of(desk: &mut Desk, name: &str, messages: u64) -> SeatId {
    let (publisher, witness) = (desk.greet(), desk.greet());
    desk.subscribe_with(witness, &[name], OverflowPolicy::DropOldest, 1);
    desk.bind(publisher, 0, name);
    publish(desk, publisher, 0, messages);
    publisher
}

#[test]
fn messages_behind_a_position_come_before_live_ones() {
    for shards in [1, 2, 3] {
        let mut desk = Desk::with_shards(Limits::default(), shards);
        let publisher = topic_of(&mut desk, "t/a", 8);
        let subscriber = desk.greet();
        let heard = subscribe_at(&mut desk, subscriber, &["t/#"], &[at("t/a", 5)]);
        let [Heard::Resumed { missed: 0, replays: true, subscription }, rest @ ..] = &*heard else {
            panic!("{heard:?}");
        };
        assert!(
            rest.contains(&Heard::DeliverAs {
                mode: DeliveryMode::Replay,
                subscription: *subscription
            }),
            "{heard:?}"
        );
        assert_eq!(messages(rest), [6, 7, 8]);
        let complete =
            |heard: &Heard| matches!(heard, Heard::ReplayComplete { messages: 3, latest: 8, .. });
        assert!(rest.last().is_some_and(complete), "{heard:?}");
        publish(&mut desk, publisher, 0, 1);
        assert_eq!(messages(&desk.heard(subscriber)), [9]);
    }
}

#[test]
fn position_0_asks_for_the_newest_alone_and_the_newest_for_nothing() {
    let mut desk = Desk::new();
    topic_of(&mut desk, "t/a", 8);
    for (position, expected) in [(0, vec![8]), (7, vec![8]), (8, vec![])] {
        let subscriber = desk.greet();
        let heard = subscribe_at(&mut desk, subscriber, &["t/#"], &[at("t/a", position)]);
        assert_eq!(messages(&heard), expected, "behind {position}");
        assert!(!heard.iter().any(|heard| matches!(heard, Heard::Gap { .. })));
    }
}

#[test]
fn what_is_held_no_more_is_told_before_what_is() {
    let mut desk = Desk::with_limits(Limits { memory_bytes: 2 << 20, ..Limits::default() });
    let publisher = topic_of(&mut desk, "t/a", 10);
    // Busy topics take all memory there is, with more than five messages each.
    for topic in 1..=12 {
        desk.bind(publisher, topic, &format!("busy/{topic}"));
    }
    for message in 0..600 {
        desk.publish(publisher, 1 + message % 12, &[0; 16_000], MessageFlags::default());
    }
    let subscriber = desk.greet();
    let heard = subscribe_at(&mut desk, subscriber, &["t/#"], &[at("t/a", 2)]);
    assert!(matches!(heard[0], Heard::Resumed { missed: 3, replays: true, .. }), "{heard:?}");
    let gap = |heard: &Heard| matches!(heard, Heard::Gap { missed: 3, entries } if entries[0].1 == 3 && entries[0].2 == 5);
    assert!(heard.iter().any(gap), "{heard:?}");
    assert_eq!(messages(&heard), [6, 7, 8, 9, 10], "busy topics did not push the newest five out");
}

#[test]
fn numbers_of_another_node_leave_a_gap_that_nobody_can_size() {
    let mut desk = Desk::new();
    topic_of(&mut desk, "t/a", 3);
    let subscriber = desk.greet();
    let other = Position { origin: Some(NodeId(77)), ..at("t/a", 500) };
    let heard = subscribe_at(&mut desk, subscriber, &["#"], &[other]);
    assert!(matches!(heard[0], Heard::Resumed { missed: -1, replays: true, .. }), "{heard:?}");
    assert!(heard.contains(&Heard::Gap { entries: Vec::new(), missed: u64::MAX }), "{heard:?}");
    assert_eq!(messages(&heard), [1, 2, 3]);
    let subscriber = desk.greet();
    let own = Position { origin: Some(NODE), ..at("t/a", 2) };
    assert_eq!(messages(&subscribe_at(&mut desk, subscriber, &["#"], &[own])), [3]);
}

#[test]
fn positions_of_unknown_topics_and_of_topics_nobody_asked_for_are_passed_over() {
    let mut desk = Desk::new();
    topic_of(&mut desk, "t/a", 3);
    let subscriber = desk.greet();
    let heard = subscribe_at(&mut desk, subscriber, &["u/#"], &[at("t/a", 1), at("u/none", 4)]);
    assert!(matches!(*heard, [Heard::Subscribed { .. }]), "{heard:?}");
}

#[test]
fn a_topic_that_was_forgotten_begins_behind_a_gap_of_unknown_size() {
    let mut desk = Desk::new();
    let publisher = desk.greet();
    desk.bind(publisher, 0, "t/a");
    publish(&mut desk, publisher, 0, 10);
    desk.say_goodbye(publisher);
    desk.pass(130_000_000);
    assert_eq!(desk.metrics().topics, 0);
    topic_of(&mut desk, "t/a", 2);
    let subscriber = desk.greet();
    let heard = subscribe_at(&mut desk, subscriber, &["t/#"], &[at("t/a", 4)]);
    assert!(matches!(heard[0], Heard::Resumed { missed: -1, replays: true, .. }), "{heard:?}");
    assert_eq!(messages(&heard), [11, 12]);
}

#[test]
fn a_position_beyond_all_numbers_is_one_of_an_earlier_start() {
    for position in [9, u64::MAX] {
        let mut desk = Desk::new();
        topic_of(&mut desk, "t/a", 8);
        let subscriber = desk.greet();
        let heard = subscribe_at(&mut desk, subscriber, &["t/#"], &[at("t/a", position)]);
        assert!(matches!(heard[0], Heard::Resumed { missed: -1, replays: true, .. }), "{heard:?}");
        assert!(heard.contains(&Heard::Gap { entries: Vec::new(), missed: u64::MAX }), "{heard:?}");
        assert_eq!(messages(&heard), [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}

#[test]
fn an_idle_daemon_still_has_what_it_keeps_for_replay() {
    let mut desk = Desk::with_limits(Limits { memory_bytes: 64 << 20, ..Limits::default() });
    let publisher = desk.greet();
    let topics = 400;
    for topic in 0..topics {
        desk.bind(publisher, topic, &format!("t/{topic}"));
    }
    desk.bind(publisher, topics, "busy");
    for _ in 0..5 {
        for topic in 0..topics {
            desk.publish(publisher, topic, &[0; 200], MessageFlags::default());
            desk.publish(publisher, topics, &[0; 2_000], MessageFlags::default());
        }
    }
    for _ in 0..6 {
        desk.pass(10_000_000);
        desk.pong(publisher);
    }
    let names: Vec<_> = (0..topics).map(|topic| format!("t/{topic}")).collect();
    let positions: Vec<_> = names.iter().map(|name| at(name, 1)).collect();
    let subscriber = desk.greet();
    let heard = subscribe_at(&mut desk, subscriber, &["t/#"], &positions);
    assert!(matches!(heard[0], Heard::Resumed { missed: 0, .. }), "{:?}", heard[0]);
    assert_eq!(messages(&heard).len(), 4 * topics as usize);
}

#[test]
fn batches_of_a_busy_topic_do_not_push_the_newest_messages_of_others_out() {
    let limits = Limits { memory_bytes: 64 << 20, replay_bytes: 4 << 20, ..Limits::default() };
    let mut desk = Desk::with_shards(limits, 2);
    let publisher = desk.greet();
    let owner = 1 - desk.home(publisher);
    let is_there = |name: &String| nexusd_core::owner_of(name, 2, 7).index() == owner;
    let names: Vec<_> =
        (0..).map(|number| format!("t/{number}")).filter(is_there).take(21).collect();
    let (_, quiet) = names.split_last().expect("names");
    for (topic, name) in names.iter().enumerate() {
        desk.bind(publisher, topic as u32, name);
    }
    for round in 0..200 {
        if round < quiet.len() {
            publish(&mut desk, publisher, round as u32, 5);
        }
        // As much as fits one batch.
        let mut bytes = Vec::new();
        while bytes.len() + 1_048 <= 128 << 10 {
            bytes.extend(desk.message(publisher, 20, &[0; 1_000], MessageFlags::default()));
        }
        desk.say(publisher, &bytes);
    }
    let positions: Vec<_> = quiet.iter().map(|name| at(name, 1)).collect();
    let subscriber = desk.greet();
    let heard = subscribe_at(&mut desk, subscriber, &["t/#"], &positions);
    assert_eq!(messages(&heard).len(), 4 * quiet.len());
    assert!(matches!(heard[0], Heard::Resumed { missed: 0, .. }), "{:?}", heard[0]);
}

/// Topics with a message of 200 bytes each, published in this order.
fn topics_of_one_message(desk: &mut Desk, publisher: SeatId, topics: u32) -> Vec<String> {
    let names: Vec<_> = (0..topics).map(|topic| format!("t/{topic}")).collect();
    for (topic, name) in (0..).zip(&names) {
        desk.bind(publisher, topic, name);
    }
    for topic in 0..topics {
        desk.publish(publisher, topic, &[0; 200], MessageFlags::default());
    }
    names
}

/// Which of some topics, a thousand at most, still have their newest message.
fn are_kept<'a>(desk: &mut Desk, names: impl Iterator<Item = &'a String>) -> Vec<bool> {
    let names: Vec<_> = names.collect();
    let positions: Vec<_> = names.iter().map(|name| at(name, 0)).collect();
    let subscriber = desk.greet();
    let heard = subscribe_at(desk, subscriber, &["t/#"], &positions);
    let (mut bound, mut kept) = (HashMap::new(), HashSet::new());
    for heard in &heard {
        match heard {
            Heard::Bind { topic, name } => _ = bound.insert(*topic, name),
            Heard::Message { topic, .. } => _ = kept.insert(bound[topic]),
            _ => {}
        }
    }
    names.into_iter().map(|name| kept.contains(name)).collect()
}

#[test]
fn the_oldest_messages_go_first() {
    let limits = Limits { replay_bytes: 4 << 20, ..Limits::default() };
    let mut desk = Desk::with_limits(limits);
    let publisher = desk.greet();
    let names = topics_of_one_message(&mut desk, publisher, 40_000);
    let kept = are_kept(&mut desk, names.iter().step_by(50));
    let first = kept.iter().position(|is_kept| *is_kept).expect("some are kept");
    assert!((200..600).contains(&first), "{first} of {} are gone", kept.len());
    assert!(kept[first..].iter().all(|is_kept| *is_kept), "of those after it none is: {kept:?}");
}

#[test]
fn what_a_busy_topic_had_goes_before_what_many_quiet_ones_have() {
    let limits = Limits { replay_bytes: 8 << 20, ..Limits::default() };
    let mut desk = Desk::with_limits(limits);
    let publisher = desk.greet();
    // Three quarters of what may be kept.
    let names = topics_of_one_message(&mut desk, publisher, 20_000);
    desk.bind(publisher, 20_000, "busy");
    for _ in 0..40_000 {
        desk.publish(publisher, 20_000, &[0; 1_000], MessageFlags::default());
    }
    let kept = are_kept(&mut desk, names.iter().step_by(20));
    assert!(kept.iter().all(|is_kept| *is_kept), "{kept:?}");
}

#[test]
fn large_messages_are_kept_within_the_bound_and_no_longer_than_they_are_wanted() {
    let limits = Limits { replay_bytes: 4 << 20, ..Limits::default() };
    for (topics, kept_max) in [(1, 2 << 20), (100, 5 << 20)] {
        let mut desk = Desk::with_limits(limits.clone());
        let publisher = desk.greet();
        let names = topics_of_one_message(&mut desk, publisher, 50);
        for topic in 0..topics {
            desk.bind(publisher, 50 + topic, &format!("large/{topic}"));
        }
        for number in 0..600 {
            let topic = 50 + number % topics;
            desk.publish(publisher, topic, &[0; 64 << 10], MessageFlags::default());
            let used = desk.metrics().log_bytes;
            assert!(used <= kept_max, "{used} bytes of {topics} topics behind {number} messages");
        }
        let kept = are_kept(&mut desk, names.iter());
        assert!(kept.iter().all(|is_kept| *is_kept), "small ones of quiet topics: {kept:?}");
        let subscriber = desk.greet();
        let last = format!("large/{}", topics - 1);
        let before = 600 / u64::from(topics) - 1;
        let heard = subscribe_at(&mut desk, subscriber, &[&last], &[at(&last, before)]);
        assert_eq!(messages(&heard).len(), 1, "the newest large one is there");
    }
}

#[test]
fn replays_that_nobody_reads_stay_within_the_memory_limit() {
    for shards in [1, 2] {
        let limits = Limits { memory_bytes: 16 << 20, ..Limits::default() };
        let mut desk = Desk::with_shards(limits, shards);
        let publisher = desk.greet();
        desk.bind(publisher, 0, "t/a");
        desk.bind(publisher, 1, "t/b");
        // Somebody has read nothing yet, so that all of it is still there.
        let reader = desk.greet();
        desk.subscribe_with(reader, &["t/#"], OverflowPolicy::DropOldest, 1_000_000);
        desk.stall(reader);
        for _ in 0..200 {
            // Every message is a run of its own.
            let message = |at| desk.message(publisher, at % 2, b"", MessageFlags::default());
            let bytes: Vec<_> = (0..100_u32).flat_map(message).collect();
            desk.say(publisher, &bytes);
        }
        let positions = [at("t/a", 1), at("t/b", 1)];
        let request = SubscribeRequest {
            request: 1,
            filters: &["t/#"],
            positions: &positions,
            ..SubscribeRequest::default()
        };
        for _ in 0..20 {
            let subscriber = desk.greet();
            desk.stall(subscriber);
            desk.ask_to_subscribe(subscriber, &request);
            desk.pass(1);
        }
        let used = desk.metrics().log_bytes;
        assert!(used <= 16 << 20, "{used} bytes on {shards} shards");
    }
}
