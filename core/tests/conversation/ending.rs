//! Conversations with a node that ends in good order: what its clients are told at last.

use nexusd_core::Limits;
use nexusd_wire::{FrameEncoder, MessageFlags, NodeId, Position, Sequence, SubscribeRequest};

use super::desk::{Desk, Heard, SeatId};
use super::pair::Pair;

/// A node of so many shards: a subscriber to "a" whose socket takes nothing, for which so many messages wait.
fn stalled(shards: usize, messages: u32) -> (Desk, SeatId) {
    let limits = Limits { memory_bytes: 16 << 20, ..Limits::default() };
    let mut desk = Desk::with_shards(limits, shards);
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    desk.subscribe(subscriber, &["a"]);
    desk.heard(subscriber);
    desk.bind(publisher, 0, "a");
    desk.stall(subscriber);
    for number in 0..messages {
        desk.publish(publisher, 0, &number.to_le_bytes(), MessageFlags::default());
    }
    (desk, subscriber)
}

fn messages(heard: &[Heard]) -> usize {
    heard.iter().filter(|heard| matches!(heard, Heard::Message { .. })).count()
}

fn is_complete(heard: &Heard) -> bool {
    matches!(heard, Heard::CompleteGoodbye { .. })
}

#[test]
fn the_last_word_to_a_subscriber_says_that_it_was_sent_all() {
    for shards in [1, 3] {
        let (mut desk, subscriber) = stalled(shards, 20);
        desk.drain();
        assert!(!desk.is_finished());
        desk.go_on(subscriber);
        let heard = desk.heard(subscriber);
        assert_eq!(messages(&heard), 20, "{shards} shards: {heard:?}");
        assert!(heard.contains(&Heard::Goodbye { last_accepted: 0 }), "at first: {heard:?}");
        assert!(heard.last().is_some_and(is_complete), "at last: {heard:?}");
        assert_eq!(heard.iter().filter(|heard| is_complete(heard)).count(), 1);
        assert!(desk.is_finished());
    }
}

#[test]
fn a_subscriber_for_which_nothing_waits_is_told_at_once_and_once() {
    for shards in [1, 3] {
        let (mut desk, subscriber) = stalled(shards, 5);
        desk.go_on(subscriber);
        assert_eq!(messages(&desk.heard(subscriber)), 5);
        desk.drain();
        assert_eq!(desk.heard(subscriber), [Heard::CompleteGoodbye { last_accepted: 0 }]);
        assert!(desk.is_finished());
    }
}

#[test]
fn a_drain_that_is_cut_short_does_not_say_that_all_was_sent() {
    let (mut desk, subscriber) = stalled(1, 20);
    desk.drain();
    let mut first_word = Vec::new();
    FrameEncoder::new().goodbye(&mut first_word, "the daemon is stopping", 0);
    desk.go_on_for(subscriber, first_word.len());
    desk.pass(1_100_000);
    let heard = desk.heard(subscriber);
    assert_eq!(heard, [Heard::Goodbye { last_accepted: 0 }]);
    assert!(desk.is_closed(subscriber));
    assert!(desk.is_finished());
}

#[test]
fn a_subscription_that_was_never_confirmed_was_not_sent_all() {
    let mut pair = Pair::linked(1);
    let subscriber = pair.desks[1].greet();
    let gone = Position { topic: "a", sequence: Sequence(7), origin: Some(NodeId(0x9999)) };
    let request = SubscribeRequest {
        request: 1,
        filters: &["a"],
        positions: &[gone],
        ..SubscribeRequest::default()
    };
    pair.desks[1].ask_to_subscribe(subscriber, &request);
    pair.desks[1].drain();
    assert_eq!(pair.desks[1].heard(subscriber), [Heard::Goodbye { last_accepted: 0 }]);
    assert!(pair.desks[1].is_closed(subscriber));
}
