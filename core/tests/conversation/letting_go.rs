//! Subscriptions that are paused, broken off, taken over or ended while something of theirs is under way.

use nexusd_core::Limits;
use nexusd_wire::control::{ErrorCode, GapMode, OverflowPolicy};
use nexusd_wire::{MessageFlags, SubscribeRequest, SubscriptionId};

use crate::desk::{Desk, Heard, SeatId};

fn subscribe_counted(desk: &mut Desk, id: SeatId, queue_messages: u32) -> SubscriptionId {
    let request = SubscribeRequest {
        request: 1,
        filters: &["t/#"],
        counted: true,
        queue_messages: Some(queue_messages),
        ..SubscribeRequest::default()
    };
    desk.subscribe_as(id, &request)
}

fn publish(desk: &mut Desk, publisher: SeatId, payloads: &[&str]) {
    for payload in payloads {
        desk.publish(publisher, 0, payload.as_bytes(), MessageFlags::default());
    }
}

fn messages(heard: &[Heard]) -> Vec<u64> {
    let sequence = |heard: &Heard| match heard {
        Heard::Message { sequence, .. } => Some(*sequence),
        _ => None,
    };
    heard.iter().filter_map(sequence).collect()
}

/// A subscriber half of whose frame is on the wire, and a publisher.
fn half_sent(desk: &mut Desk) -> (SeatId, SeatId, SubscriptionId) {
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    let subscription = subscribe_counted(desk, subscriber, 100);
    desk.bind(publisher, 0, "t/a");
    publish(desk, publisher, &["0"]);
    desk.heard(subscriber);
    desk.stall(subscriber);
    publish(desk, publisher, &["1", "2"]);
    desk.go_on_for(subscriber, 20);
    (subscriber, publisher, subscription)
}

#[test]
fn a_subscription_resumed_by_a_connection_that_breaks_before_it_is_free_stays_parked() {
    let mut desk = Desk::new();
    let (subscriber, _, subscription) = half_sent(&mut desk);
    desk.pause(subscriber, subscription);
    desk.resume(subscriber, subscription, 1);
    desk.end(subscriber);
    assert_eq!(desk.metrics().parked, 1);
    let second = desk.greet();
    desk.resume(second, subscription, 1);
    assert_eq!(messages(&desk.heard(second)), [2, 3]);
}

#[test]
fn half_a_frame_of_a_paused_subscription_that_ends_goes_with_its_connection() {
    let mut desk = Desk::new();
    let (subscriber, _, subscription) = half_sent(&mut desk);
    desk.pause(subscriber, subscription);
    desk.unsubscribe(subscriber, subscription);
    desk.end(subscriber);
    let metrics = desk.metrics();
    assert_eq!((metrics.subscriptions, metrics.queued_messages), (0, 0));
}

#[test]
fn who_waits_for_a_subscription_that_ends_is_told() {
    let mut desk = Desk::new();
    let (subscriber, _, subscription) = half_sent(&mut desk);
    desk.pause(subscriber, subscription);
    let second = desk.greet();
    desk.resume(second, subscription, 1);
    assert_eq!(desk.heard(second), []);
    desk.unsubscribe(subscriber, subscription);
    let heard = desk.heard(second);
    assert!(matches!(*heard, [Heard::Error { code: ErrorCode::NotFound, .. }]), "{heard:?}");
}

#[test]
fn a_warning_that_is_on_its_way_alone_outlives_its_subscription() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    let subscription = desk.subscribe_with(subscriber, &["t/#"], OverflowPolicy::DropOldest, 2);
    desk.bind(publisher, 0, "t/a");
    // The second loss is told within the second of the first warning, and waits for its own.
    for _ in 0..2 {
        desk.stall(subscriber);
        publish(&mut desk, publisher, &["1", "2", "3", "4"]);
        desk.go_on(subscriber);
    }
    desk.heard(subscriber);
    desk.stall(subscriber);
    desk.publish_for(publisher, 0, b"short", 50);
    desk.pass(2_000_000);
    desk.hold_sends(subscriber);
    desk.go_on(subscriber);
    desk.unsubscribe(subscriber, subscription);
    desk.let_go(subscriber);
    let heard = desk.heard(subscriber);
    assert!(matches!(heard[0], Heard::Warning { .. }), "{heard:?}");
}

#[test]
fn a_queue_that_overflowed_during_its_last_send_is_parked_within_its_bounds() {
    let mut desk = Desk::new();
    let (first, publisher) = (desk.greet(), desk.greet());
    let subscription = subscribe_counted(&mut desk, first, 4);
    desk.bind(publisher, 0, "t/a");
    desk.hold_sends(first);
    publish(&mut desk, publisher, &["1", "2", "3", "4", "5", "6", "7", "8"]);
    desk.end(first);
    assert!(desk.metrics().queued_messages <= 4);
    let second = desk.greet();
    desk.resume(second, subscription, 0);
    let heard = desk.heard(second);
    assert_eq!(messages(&heard).last(), Some(&8), "{heard:?}");
}

#[test]
fn a_subscription_that_is_paused_as_it_overflows_does_not_take_its_connection_along() {
    let mut desk = Desk::new();
    let client = desk.greet();
    let subscription = desk.subscribe_with(client, &["t/#"], OverflowPolicy::Disconnect, 2);
    desk.bind(client, 0, "t/a");
    desk.heard(client);
    desk.stall(client);
    publish(&mut desk, client, &["1", "2"]);
    let mut bytes = desk.message(client, 0, b"3", MessageFlags::default());
    bytes.extend(desk.bytes_of_pause(subscription));
    desk.say(client, &bytes);
    desk.go_on(client);
    assert_eq!(desk.heard(client), [Heard::Unsubscribed { success: true }]);
    assert_eq!(desk.metrics().parked, 1);
    // And it is as bounded as before.
    desk.resume(client, subscription, 0);
    desk.heard(client);
    desk.stall(client);
    publish(&mut desk, client, &["4", "5", "6"]);
    desk.go_on(client);
    assert!(desk.is_closed(client));
}

#[test]
fn a_subscription_whose_time_is_up_is_paused_for_no_longer() {
    let limits = Limits { parked_ttl_us: 1_000_000, memory_bytes: 8 << 20, ..Limits::default() };
    let mut desk = Desk::with_limits(limits);
    let (first, second) = (desk.greet(), desk.greet());
    let subscription = subscribe_counted(&mut desk, first, 4);
    desk.end(first);
    desk.pass_unnoticed(2_000_000);
    desk.pause(second, subscription);
    assert_eq!(desk.heard(second), [Heard::Unsubscribed { success: true }]);
}

#[test]
fn what_expires_behind_half_a_frame_is_passed_over_in_the_same_moment() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    subscribe_counted(&mut desk, subscriber, 100);
    desk.bind(publisher, 0, "t/a");
    publish(&mut desk, publisher, &["0"]);
    desk.heard(subscriber);
    desk.stall(subscriber);
    for payload in [b"1", b"2"] {
        desk.publish_for(publisher, 0, payload, 50);
    }
    publish(&mut desk, publisher, &["3"]);
    desk.go_on_for(subscriber, 20);
    // Up to the moment in which the reaper comes.
    desk.pass(50_999);
    desk.go_on(subscriber);
    assert_eq!(messages(&desk.heard(subscriber)), [2, 4]);
}

#[test]
fn an_answer_to_an_earlier_resume_does_not_disturb_what_is_being_sent() {
    let mut desk = Desk::with_shards(Limits::default(), 2);
    let (first, publisher) = (desk.greet(), desk.greet());
    let subscription = subscribe_counted(&mut desk, first, 4);
    let home = desk.home(first);
    let is_elsewhere = |name: &String| nexusd_core::owner_of(name, 2, 7).index() != home;
    let name = (0..).map(|number| format!("t/{number}")).find(is_elsewhere).expect("a name");
    desk.bind(publisher, 0, &name);
    publish(&mut desk, publisher, &["1", "2"]);
    desk.heard(first);
    desk.end(first);
    publish(&mut desk, publisher, &["3", "4", "5", "6", "7", "8"]);
    let second = desk.home_of(subscription);
    let third = desk.home_of(subscription);
    desk.hold_inbox(1 - home);
    desk.resume_with(second, subscription, 2, GapMode::ReplayBuffer);
    desk.end(second);
    desk.hold_sends(third);
    desk.resume(third, subscription, 2);
    desk.let_inbox();
    desk.let_go(third);
    let heard = desk.heard(third);
    let had = messages(&heard);
    assert_eq!(had, (had[0]..=8).collect::<Vec<_>>());
    let missed = had[0] - 3;
    let told = Heard::Resumed { subscription, missed: missed as i64, replays: true };
    assert_eq!(heard[0], told);
    assert_eq!(desk.metrics().queued_messages, 0);
}
