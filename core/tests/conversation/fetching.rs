//! Conversations of subscriptions that come back at another node, and get what other nodes still hold.

use nexusd_wire::control::DeliveryMode;
use nexusd_wire::{MessageFlags, NodeId, Position, Sequence, SubscribeRequest};

use super::desk::{Heard, SeatId};
use super::pair::{Pair, id, is_gap};

fn position(topic: &str, sequence: u64, origin: NodeId) -> Position<'_> {
    Position { topic, sequence: Sequence(sequence), origin: Some(origin) }
}

/// A publisher of `a` at the first node, which accepts so many messages that nobody wants.
fn publisher_of(pair: &mut Pair, messages: u32) -> SeatId {
    let publisher = pair.desks[0].greet();
    pair.desks[0].bind(publisher, 0, "a");
    (0..messages).for_each(|number| publish(pair, publisher, number));
    publisher
}

fn publish(pair: &mut Pair, publisher: SeatId, number: u32) {
    pair.publish(0, publisher, &number.to_le_bytes());
}

/// A client of the second node asks for `a` from these positions on.
fn come_back(pair: &mut Pair, positions: &[Position<'_>]) -> SeatId {
    come_back_from(pair, positions, &[])
}

/// The same of one that has had all of nodes that have ended.
fn come_back_from(pair: &mut Pair, positions: &[Position<'_>], ended: &[NodeId]) -> SeatId {
    let subscriber = pair.desks[1].greet();
    let filters = &["a"];
    let request =
        SubscribeRequest { request: 1, filters, positions, ended, ..SubscribeRequest::default() };
    pair.desks[1].ask_to_subscribe(subscriber, &request);
    pair.carry();
    subscriber
}

/// A little more, in which a client of each node shows that it is there.
fn pass_a_minute(pair: &mut Pair, clients: [SeatId; 2]) {
    for _ in 0..4 {
        pair.pass(16_000_000);
        (0..2).for_each(|at| pair.desks[at].pong(clients[at]));
    }
}

fn numbers(heard: &[Heard]) -> Vec<u32> {
    let number = |heard: &Heard| match heard {
        Heard::Message { payload, .. } => Some(u32::from_le_bytes(payload[..4].try_into().ok()?)),
        _ => None,
    };
    heard.iter().filter_map(number).collect()
}

fn missed(heard: &[Heard]) -> Option<i64> {
    heard.iter().find_map(|heard| match heard {
        Heard::Resumed { missed, .. } => Some(*missed),
        Heard::Subscribed { .. } => Some(0),
        _ => None,
    })
}

#[test]
fn what_the_origin_holds_comes_first_and_what_is_live_follows_without_a_hole() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let publisher = publisher_of(&mut pair, 10);
        let subscriber = come_back(&mut pair, &[position("a", 4, id(0))]);
        // What the second node wants was never told: its question says it.
        (10..20).for_each(|number| publish(&mut pair, publisher, number));
        let heard = pair.desks[1].heard(subscriber);
        assert_eq!(missed(&heard), Some(0), "{heard:?}");
        assert_eq!(numbers(&heard), (4..20).collect::<Vec<_>>(), "{shards} shards: {heard:?}");
        let is_replay =
            |heard: &Heard| matches!(heard, Heard::DeliverAs { mode: DeliveryMode::Replay, .. });
        assert!(heard.iter().any(is_replay));
        let complete = |heard: &Heard| matches!(heard, Heard::ReplayComplete { messages: 6, .. });
        assert_eq!(heard.iter().filter(|heard| complete(heard)).count(), 1, "{heard:?}");
    }
}

#[test]
fn what_others_get_live_meanwhile_is_neither_missing_nor_twice() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let other = pair.desks[1].greet();
        pair.desks[1].subscribe(other, &["a"]);
        pair.tell_interest(1, &["a"]);
        let publisher = publisher_of(&mut pair, 10);
        // Neither the question nor the messages behind it have arrived yet.
        pair.is_cut = true;
        let subscriber = come_back(&mut pair, &[position("a", 7, id(0))]);
        (10..15).for_each(|number| publish(&mut pair, publisher, number));
        pair.is_cut = false;
        pair.carry();
        (15..20).for_each(|number| publish(&mut pair, publisher, number));
        let heard = pair.desks[1].heard(subscriber);
        assert_eq!(numbers(&heard), (7..20).collect::<Vec<_>>(), "{shards} shards: {heard:?}");
        let heard = pair.desks[1].heard(other);
        assert_eq!(numbers(&heard), (0..20).collect::<Vec<_>>(), "{shards} shards: {heard:?}");
    }
}

#[test]
fn a_link_that_breaks_while_it_is_asked_is_asked_again() {
    for shards in [1, 2] {
        let mut pair = Pair::linked(shards);
        let publisher = publisher_of(&mut pair, 10);
        pair.is_cut = true;
        let subscriber = come_back(&mut pair, &[position("a", 3, id(0))]);
        pair.cut(0);
        pair.is_cut = false;
        pair.dial(0, true);
        pair.carry();
        (10..13).for_each(|number| publish(&mut pair, publisher, number));
        let heard = pair.desks[1].heard(subscriber);
        assert_eq!(missed(&heard), Some(0), "{heard:?}");
        assert_eq!(numbers(&heard), (3..13).collect::<Vec<_>>(), "{shards} shards: {heard:?}");
    }
}

#[test]
fn an_answer_that_a_break_cuts_is_given_again_and_comes_once() {
    let mut pair = Pair::linked(1);
    let publisher = publisher_of(&mut pair, 10);
    pair.is_cut = true;
    let subscriber = come_back(&mut pair, &[position("a", 3, id(0))]);
    // The question arrives, the answer does not.
    let wire = pair.wires[0];
    let question = pair.desks[1].take(wire[1]);
    pair.desks[0].say(wire[0], &question);
    publish(&mut pair, publisher, 10);
    pair.cut(0);
    pair.is_cut = false;
    pair.dial(0, true);
    pair.carry();
    publish(&mut pair, publisher, 11);
    let heard = pair.desks[1].heard(subscriber);
    assert_eq!(missed(&heard), Some(0), "{heard:?}");
    assert_eq!(numbers(&heard), (3..12).collect::<Vec<_>>(), "{heard:?}");
}

#[test]
fn a_large_message_is_fetched_like_any_other() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let publisher = publisher_of(&mut pair, 2);
        let mut large = vec![0; 400 << 10];
        large[..4].copy_from_slice(&2u32.to_le_bytes());
        pair.publish(0, publisher, &large);
        publish(&mut pair, publisher, 3);
        let subscriber = come_back(&mut pair, &[position("a", 1, id(0))]);
        publish(&mut pair, publisher, 4);
        let heard = pair.desks[1].heard(subscriber);
        assert_eq!(numbers(&heard), [1, 2, 3, 4], "{shards} shards: {heard:?}");
    }
}

#[test]
fn what_the_node_itself_accepted_is_new_to_who_comes_from_another_one() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        publisher_of(&mut pair, 5);
        let own = pair.desks[1].greet();
        pair.desks[1].bind(own, 0, "a");
        for number in 100u32..103 {
            pair.desks[1].publish(own, 0, &number.to_le_bytes(), MessageFlags::default());
        }
        let positions = [position("a", 5, id(0)), position("a", 1, id(1))];
        let subscriber = come_back(&mut pair, &positions);
        let heard = pair.desks[1].heard(subscriber);
        assert_eq!(numbers(&heard), [101, 102], "{shards} shards: {heard:?}");
    }
}

#[test]
fn a_node_that_is_not_found_within_a_second_leaves_a_gap_of_unknown_size() {
    for shards in [1, 2] {
        let mut pair = Pair::linked(shards);
        let publisher = publisher_of(&mut pair, 5);
        let gone = position("a", 7, NodeId(0x9999));
        let subscriber = come_back(&mut pair, &[position("a", 5, id(0)), gone]);
        publish(&mut pair, publisher, 5);
        pair.pass(900_000);
        assert_eq!(pair.desks[1].heard(subscriber), [], "it may still be found");
        pair.pass(200_000);
        let heard = pair.desks[1].heard(subscriber);
        assert_eq!(missed(&heard), Some(-1), "{heard:?}");
        assert_eq!(numbers(&heard), [5]);
        let gap = heard.iter().position(|heard| matches!(heard, Heard::Gap { .. }));
        let message = heard.iter().position(|heard| matches!(heard, Heard::Message { .. }));
        assert!(gap.is_some() && gap < message, "{heard:?}");
    }
}

#[test]
fn a_peer_that_does_not_answer_holds_nobody_up_for_long() {
    let mut pair = Pair::linked(1);
    publisher_of(&mut pair, 5);
    pair.is_cut = true;
    let subscriber = come_back(&mut pair, &[position("a", 3, id(0))]);
    pair.pass(2_100_000);
    let heard = pair.desks[1].heard(subscriber);
    assert_eq!((missed(&heard), numbers(&heard)), (Some(-1), Vec::new()), "{heard:?}");
}

#[test]
fn who_leaves_before_the_answer_is_forgotten() {
    for shards in [1, 2] {
        let mut pair = Pair::linked(shards);
        let publisher = publisher_of(&mut pair, 5);
        pair.is_cut = true;
        let subscriber = come_back(&mut pair, &[position("a", 3, id(0))]);
        pair.desks[1].end(subscriber);
        pair.is_cut = false;
        pair.carry();
        publish(&mut pair, publisher, 5);
        pair.pass(3_000_000);
        assert_eq!(pair.desks[1].metrics().subscriptions, 0);
    }
}

#[test]
fn who_waits_for_the_mesh_is_told_when_other_nodes_know_what_it_wants() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let publisher = publisher_of(&mut pair, 1);
        let subscriber = pair.desks[1].greet();
        let filters = &["+", "b/#"];
        let request = SubscribeRequest {
            request: 1,
            filters,
            wait_mesh: true,
            ..SubscribeRequest::default()
        };
        pair.desks[1].ask_to_subscribe(subscriber, &request);
        assert_eq!(pair.desks[1].heard(subscriber), [], "the other node knows nothing yet");
        pair.carry();
        let heard = pair.desks[1].heard(subscriber);
        assert!(matches!(heard[..], [Heard::Subscribed { .. }]), "{shards} shards: {heard:?}");
        publish(&mut pair, publisher, 1);
        let heard = pair.desks[1].heard(subscriber);
        assert_eq!(numbers(&heard), [1], "{shards} shards: {heard:?}");
        let is_replay = |heard: &Heard| matches!(heard, Heard::DeliverAs { .. });
        assert!(!heard.iter().any(is_replay), "{heard:?}");
    }
}

#[test]
fn a_peer_that_does_not_say_that_it_knows_is_waited_for_for_a_second() {
    let mut pair = Pair::linked(1);
    pair.is_cut = true;
    let subscriber = pair.desks[1].greet();
    let filters = &["a"];
    let request =
        SubscribeRequest { request: 1, filters, wait_mesh: true, ..SubscribeRequest::default() };
    pair.desks[1].ask_to_subscribe(subscriber, &request);
    pair.pass(900_000);
    assert_eq!(pair.desks[1].heard(subscriber), []);
    pair.pass(200_000);
    assert!(matches!(pair.desks[1].heard(subscriber)[..], [Heard::Subscribed { .. }]));
}

#[test]
fn a_node_that_ended_well_is_neither_waited_for_nor_missed() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let publisher = publisher_of(&mut pair, 5);
        let gone = NodeId(0x9999);
        let positions = [position("a", 3, id(0)), position("a", 7, gone)];
        let subscriber = come_back_from(&mut pair, &positions, &[gone]);
        publish(&mut pair, publisher, 5);
        let heard = pair.desks[1].heard(subscriber);
        assert_eq!(missed(&heard), Some(0), "{shards} shards: {heard:?}");
        assert_eq!(numbers(&heard), [3, 4, 5], "{heard:?}");
        // Nor is anything told when nobody looks for it any more.
        pair.tell_interest(1, &["a"]);
        pass_a_minute(&mut pair, [publisher, subscriber]);
        publish(&mut pair, publisher, 6);
        let heard = pair.desks[1].heard(subscriber);
        assert_eq!(numbers(&heard), [6], "{heard:?}");
        assert!(!heard.iter().any(is_gap), "{heard:?}");
    }
}

#[test]
fn a_node_that_is_lost_is_missed_beside_one_that_ended_well() {
    let mut pair = Pair::linked(1);
    let (ended, lost) = (NodeId(0x9999), NodeId(0x8888));
    let positions = [position("a", 7, ended), position("a", 7, lost)];
    let subscriber = come_back_from(&mut pair, &positions, &[ended]);
    pair.pass(900_000);
    assert_eq!(pair.desks[1].heard(subscriber), []);
    pair.pass(200_000);
    assert_eq!(missed(&pair.desks[1].heard(subscriber)), Some(-1));
}

#[test]
fn what_a_link_still_brings_of_a_node_that_ended_well_was_had_there() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let other = pair.desks[1].greet();
        pair.desks[1].subscribe(other, &["a"]);
        pair.tell_interest(1, &["a"]);
        pair.is_cut = true;
        publisher_of(&mut pair, 5);
        pair.desks[0].drain();
        let subscriber = come_back_from(&mut pair, &[position("a", 5, id(0))], &[id(0)]);
        assert_eq!(missed(&pair.desks[1].heard(subscriber)), Some(0), "it is not waited for");
        pair.is_cut = false;
        pair.carry();
        pair.pass(3_000_000);
        assert_eq!(numbers(&pair.desks[1].heard(other)), [0, 1, 2, 3, 4], "{shards} shards");
        assert_eq!(pair.desks[1].heard(subscriber), [], "{shards} shards");
    }
}

#[test]
fn a_young_node_lets_who_misses_nobody_go_on_and_asks_those_that_it_finds_then() {
    for shards in [1, 3] {
        let mut pair = Pair::with_fresh_node(shards, 1);
        let publisher = publisher_of(&mut pair, 5);
        let gone = NodeId(0x9999);
        let positions = [position("a", 2, id(0)), position("a", 7, gone)];
        let waits = come_back(&mut pair, &positions[1..]);
        let subscriber = come_back_from(&mut pair, &positions[1..], &[gone]);
        assert_eq!(missed(&pair.desks[1].heard(subscriber)), Some(0), "{shards} shards");
        assert_eq!(pair.desks[1].heard(waits), [], "{shards} shards");
        pair.pass(500_000);
        pair.dial(0, true);
        pair.carry();
        pair.tell_interest(1, &["a"]);
        publish(&mut pair, publisher, 5);
        let heard = pair.desks[1].heard(subscriber);
        assert_eq!(numbers(&heard), [0, 1, 2, 3, 4, 5], "{shards} shards: {heard:?}");
        let complete = |heard: &Heard| matches!(heard, Heard::ReplayComplete { messages: 5, .. });
        assert_eq!(heard.iter().filter(|heard| complete(heard)).count(), 1, "{heard:?}");
        assert!(!heard.iter().any(is_gap), "{heard:?}");
        pair.pass(1_000_000);
        let heard = pair.desks[1].heard(waits);
        assert_eq!(numbers(&heard), [0, 1, 2, 3, 4, 5], "{shards} shards: {heard:?}");
    }
}

#[test]
fn a_node_that_is_found_late_and_lost_before_it_answers_is_missed() {
    let mut pair = Pair::with_fresh_node(1, 1);
    let publisher = publisher_of(&mut pair, 5);
    let gone = NodeId(0x9999);
    let subscriber = come_back_from(&mut pair, &[position("a", 7, gone)], &[gone]);
    assert_eq!(missed(&pair.desks[1].heard(subscriber)), Some(0));
    pair.dial(0, true);
    while pair.desks[1].reports().is_empty() {
        assert!(pair.carry_once(), "the link comes to stand");
    }
    pair.cut(0);
    assert_eq!(pair.desks[1].heard(subscriber), [], "it may come again");
    pass_a_minute(&mut pair, [publisher, subscriber]);
    let heard = pair.desks[1].heard(subscriber);
    assert_eq!(heard.iter().filter(|heard| is_gap(heard)).count(), 1, "{heard:?}");
}
