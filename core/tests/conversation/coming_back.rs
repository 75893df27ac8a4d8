//! Subscriptions that outlive their connections.

use nexusd_core::Limits;
use nexusd_wire::control::{DeliveryMode, ErrorCode, GapMode, OverflowPolicy};
use nexusd_wire::{MessageFlags, SubscribeRequest, SubscriptionId};

use crate::desk::{Desk, Heard, SeatId};

const REPLAY: DeliveryMode = DeliveryMode::Replay;

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

#[test]
fn a_client_that_comes_back_gets_what_it_has_not_had_and_then_what_is_live() {
    let mut desk = Desk::new();
    let (first, publisher) = (desk.greet(), desk.greet());
    let subscription = subscribe_counted(&mut desk, first, 100);
    desk.bind(publisher, 0, "t/a");
    publish(&mut desk, publisher, &["1", "2", "3"]);
    assert_eq!(messages(&desk.heard(first)), [1, 2, 3]);
    desk.acknowledge(first, subscription, 1);
    desk.end(first);
    publish(&mut desk, publisher, &["4"]);
    let second = desk.greet();
    // Of the three that were sent it had two.
    desk.resume(second, subscription, 2);
    publish(&mut desk, publisher, &["5"]);
    let message = |sequence: u64, payload: &str| Heard::Message {
        topic: 0,
        sequence,
        payload: payload.into(),
    };
    assert_eq!(
        desk.heard(second),
        [
            Heard::Resumed { subscription, missed: 0, replays: true },
            Heard::Bind { topic: 0, name: "t/a".into() },
            Heard::DeliverAs { mode: REPLAY, subscription },
            message(3, "3"),
            message(4, "4"),
            Heard::ReplayComplete { topic: 0, messages: 2, latest: 4 },
            Heard::Bind { topic: 0, name: "t/a".into() },
            Heard::Deliver { subscription },
            message(5, "5"),
        ]
    );
    let metrics = desk.metrics();
    assert_eq!((metrics.subscriptions, metrics.parked, metrics.resumed), (1, 0, 1));
}

#[test]
fn the_count_goes_on_from_one_connection_to_the_next() {
    let mut desk = Desk::new();
    let (mut subscriber, publisher) = (desk.greet(), desk.greet());
    let subscription = subscribe_counted(&mut desk, subscriber, 100);
    desk.bind(publisher, 0, "t/a");
    let mut had = Vec::new();
    for round in 0..10 {
        publish(&mut desk, publisher, &["x", "y", "z"]);
        had.extend(messages(&desk.heard(subscriber)));
        // Some were on their way when the connection broke.
        had.truncate(had.len() - round % 3);
        desk.end(subscriber);
        subscriber = desk.greet();
        desk.resume(subscriber, subscription, had.len() as u64);
    }
    had.extend(messages(&desk.heard(subscriber)));
    assert_eq!(had, (1..=30).collect::<Vec<_>>());
}

#[test]
fn who_does_not_count_is_told_how_many_were_lost_on_their_way() {
    let mut desk = Desk::new();
    let (first, publisher) = (desk.greet(), desk.greet());
    let subscription = desk.subscribe(first, &["t/#"]);
    desk.bind(publisher, 0, "t/a");
    publish(&mut desk, publisher, &["1", "2", "3"]);
    desk.end(first);
    publish(&mut desk, publisher, &["4"]);
    let second = desk.greet();
    desk.resume(second, subscription, 1);
    let heard = desk.heard(second);
    assert_eq!(heard[0], Heard::Resumed { subscription, missed: 2, replays: true });
    assert!(heard.contains(&Heard::Gap { entries: Vec::new(), missed: 2 }), "{heard:?}");
    assert_eq!(messages(&heard), [4]);
}

#[test]
fn a_parked_queue_keeps_its_bounds_and_tells_what_did_not_fit() {
    let mut desk = Desk::new();
    let (first, publisher) = (desk.greet(), desk.greet());
    let subscription = subscribe_counted(&mut desk, first, 4);
    desk.bind(publisher, 0, "t/a");
    publish(&mut desk, publisher, &["1", "2"]);
    desk.end(first);
    publish(&mut desk, publisher, &["3", "4", "5", "6", "7", "8"]);
    let second = desk.greet();
    desk.resume(second, subscription, 2);
    let heard = desk.heard(second);
    let had = messages(&heard);
    let first_had = had[0];
    assert_eq!(had, (first_had..=8).collect::<Vec<_>>());
    assert!(had.len() <= 4 && had.len() >= 3, "{had:?}");
    let missed = first_had - 3;
    assert!(heard.contains(&Heard::Gap { entries: vec![(0, 3, first_had - 1)], missed }));
    let told = Heard::Resumed { subscription, missed: missed as i64, replays: true };
    assert_eq!(heard[0], told);
}

#[test]
fn what_is_not_acknowledged_counts_against_the_queue_and_goes_first() {
    let mut desk = Desk::new();
    let (first, publisher) = (desk.greet(), desk.greet());
    let subscription = subscribe_counted(&mut desk, first, 4);
    desk.bind(publisher, 0, "t/a");
    publish(&mut desk, publisher, &["1", "2", "3", "4", "5", "6"]);
    assert_eq!(messages(&desk.heard(first)), [1, 2, 3, 4, 5, 6], "nothing is lost on the way");
    desk.end(first);
    let second = desk.greet();
    desk.resume(second, subscription, 1);
    let heard = desk.heard(second);
    assert_eq!(heard[0], Heard::Resumed { subscription, missed: 1, replays: true });
    assert_eq!(messages(&heard), [3, 4, 5, 6]);
}

#[test]
fn a_paused_subscription_hears_nothing_until_it_goes_on() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    let subscription = subscribe_counted(&mut desk, subscriber, 100);
    desk.bind(publisher, 0, "t/a");
    publish(&mut desk, publisher, &["1"]);
    desk.heard(subscriber);
    desk.pause(subscriber, subscription);
    publish(&mut desk, publisher, &["2"]);
    assert_eq!(desk.heard(subscriber), [Heard::Unsubscribed { success: true }]);
    assert_eq!(desk.metrics().parked, 1);
    desk.resume(subscriber, subscription, 1);
    assert_eq!(messages(&desk.heard(subscriber)), [2]);
    assert_eq!(desk.metrics().parked, 0);
}

#[test]
fn a_frame_that_is_half_on_the_wire_goes_first_when_its_subscription_is_paused() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    let subscription = subscribe_counted(&mut desk, subscriber, 100);
    desk.bind(publisher, 0, "t/a");
    publish(&mut desk, publisher, &["0"]);
    desk.heard(subscriber);
    desk.stall(subscriber);
    publish(&mut desk, publisher, &["1", "2"]);
    desk.go_on_for(subscriber, 20);
    desk.pause(subscriber, subscription);
    assert_eq!(desk.metrics().parked, 0, "half a frame holds it");
    desk.go_on(subscriber);
    let heard = desk.heard(subscriber);
    assert_eq!(messages(&heard), [2], "{heard:?}");
    assert_eq!(heard.last(), Some(&Heard::Unsubscribed { success: true }));
    desk.resume(subscriber, subscription, 2);
    assert_eq!(messages(&desk.heard(subscriber)), [3]);
}

#[test]
fn a_frame_that_was_cut_by_the_break_is_sent_again_whole() {
    let mut desk = Desk::new();
    let (first, publisher) = (desk.greet(), desk.greet());
    let subscription = subscribe_counted(&mut desk, first, 100);
    desk.bind(publisher, 0, "t/a");
    publish(&mut desk, publisher, &["0"]);
    desk.heard(first);
    desk.stall(first);
    publish(&mut desk, publisher, &["1", "2"]);
    desk.go_on_for(first, 20);
    desk.end(first);
    let second = desk.greet();
    desk.resume(second, subscription, 1);
    assert_eq!(messages(&desk.heard(second)), [2, 3]);
}

#[test]
fn a_subscription_is_taken_over_from_a_connection_that_still_stands() {
    let mut desk = Desk::new();
    let (first, publisher) = (desk.greet(), desk.greet());
    let subscription = subscribe_counted(&mut desk, first, 100);
    let other = subscribe_counted(&mut desk, first, 100);
    desk.bind(publisher, 0, "t/a");
    publish(&mut desk, publisher, &["1"]);
    desk.hold_sends(first);
    publish(&mut desk, publisher, &["2"]);
    let second = desk.greet();
    desk.resume(second, subscription, 1);
    assert!(desk.is_closed(first));
    assert_eq!(messages(&desk.heard(second)), [2]);
    let metrics = desk.metrics();
    assert_eq!((metrics.subscriptions, metrics.parked), (2, 1), "the other one waits");
    desk.resume(second, other, 1);
    assert_eq!(messages(&desk.heard(second)), [2]);
}

#[test]
fn nobody_goes_on_with_what_is_unknown_expired_or_counted_wrongly() {
    let limits = Limits { parked_ttl_us: 1_000_000, memory_bytes: 8 << 20, ..Limits::default() };
    let mut desk = Desk::with_limits(limits);
    let (first, publisher) = (desk.greet(), desk.greet());
    let subscription = subscribe_counted(&mut desk, first, 100);
    desk.bind(publisher, 0, "t/a");
    publish(&mut desk, publisher, &["1"]);
    let error = |desk: &mut Desk, id: SeatId| match desk.heard(id).as_slice() {
        [.., Heard::Error { code, fatal: false, .. }] => *code,
        other => panic!("no error but {other:?}"),
    };
    desk.resume(first, subscription, 1);
    assert_eq!(error(&mut desk, first), ErrorCode::Rejected, "it is on this connection");
    desk.end(first);
    let second = desk.greet();
    desk.resume(second, subscription, 2);
    assert_eq!(error(&mut desk, second), ErrorCode::Rejected, "one was sent");
    desk.resume(second, SubscriptionId(64), 0);
    assert_eq!(error(&mut desk, second), ErrorCode::NotFound);
    desk.pass(1_100_000);
    desk.resume(second, subscription, 1);
    assert_eq!(error(&mut desk, second), ErrorCode::NotFound, "nobody came for a second");
    assert_eq!(desk.metrics().subscriptions, 0);
}

#[test]
fn a_subscription_ends_with_a_goodbye() {
    let mut desk = Desk::new();
    let subscriber = desk.greet();
    subscribe_counted(&mut desk, subscriber, 100);
    desk.say_goodbye(subscriber);
    assert_eq!(desk.metrics().subscriptions, 0);
}

#[test]
fn a_parked_queue_that_blocks_holds_nobody_back() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    desk.subscribe_with(subscriber, &["t/#"], OverflowPolicy::Block, 2);
    desk.stall(subscriber);
    desk.bind(publisher, 0, "t/a");
    publish(&mut desk, publisher, &["1", "2", "3"]);
    assert_eq!(desk.heard(publisher), [Heard::Pause]);
    desk.end(subscriber);
    assert_eq!(desk.heard(publisher), [Heard::Resume]);
    publish(&mut desk, publisher, &["4", "5", "6"]);
    assert_eq!(desk.heard(publisher), []);
}

#[test]
fn an_expired_message_is_neither_delivered_nor_replayed() {
    let mut desk = Desk::new();
    let (first, publisher) = (desk.greet(), desk.greet());
    let subscription = subscribe_counted(&mut desk, first, 100);
    desk.bind(publisher, 0, "t/a");
    desk.stall(first);
    desk.publish_for(publisher, 0, b"short", 50);
    desk.publish_for(publisher, 0, b"long", 5_000);
    publish(&mut desk, publisher, &["for ever"]);
    desk.pass(60_000);
    desk.go_on(first);
    assert_eq!(messages(&desk.heard(first)), [2, 3]);
    assert_eq!(desk.metrics().ttl_expired, 1);
    desk.end(first);
    desk.pass(6_000_000);
    let second = desk.greet();
    desk.resume(second, subscription, 0);
    assert_eq!(messages(&desk.heard(second)), [3]);
}

#[test]
fn a_loss_behind_what_expired_is_told_with_its_own_numbers() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    desk.subscribe_with(subscriber, &["t/#"], OverflowPolicy::DropOldest, 16);
    desk.bind(publisher, 0, "t/a");
    desk.stall(subscriber);
    publish(&mut desk, publisher, &["1"]);
    // A large message has memory of its own: the next one lies right behind the first.
    desk.publish_for(publisher, 0, &[2; 50_000], 50);
    desk.pass(2_000_000);
    publish(&mut desk, publisher, &["3"]);
    for _ in 4..=18 {
        desk.publish_for(publisher, 0, b"long", 60_000);
    }
    desk.go_on(subscriber);
    let heard = desk.heard(subscriber);
    let numbers = messages(&heard);
    let told: Vec<_> = heard
        .iter()
        .filter_map(|heard| match heard {
            Heard::Gap { entries, .. } => Some(entries.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    let lost = told.iter().flat_map(|&(_, first, last)| first..=last);
    let all: Vec<_> = lost.chain(numbers).collect();
    assert_eq!(all, [vec![1], (3..=18).collect()].concat(), "{heard:?}");
}

#[test]
fn what_did_not_fit_a_parked_queue_is_replayed_as_far_as_its_topics_still_have_it() {
    for shards in [1, 2, 3] {
        let mut desk = Desk::with_shards(Limits::default(), shards);
        let (first, publisher) = (desk.greet(), desk.greet());
        let subscription = subscribe_counted(&mut desk, first, 4);
        desk.bind(publisher, 0, "t/a");
        desk.bind(publisher, 1, "t/b");
        publish(&mut desk, publisher, &["1", "2"]);
        desk.publish(publisher, 1, b"cold", MessageFlags::default());
        desk.heard(first);
        desk.end(first);
        for payload in ["3", "4", "5", "6", "7", "8"] {
            publish(&mut desk, publisher, &[payload]);
            desk.publish(publisher, 1, b"cold", MessageFlags::default());
        }
        let second = desk.home_of(subscription);
        desk.resume_with(second, subscription, 3, GapMode::ReplayBuffer);
        publish(&mut desk, publisher, &["9"]);
        let heard = desk.heard(second);
        let told = Heard::Resumed { subscription, missed: 0, replays: true };
        assert_eq!(heard[0], told, "{heard:?}");
        let named = |name: &str| {
            let of = |heard: &Heard| match heard {
                Heard::Bind { topic, name: bound } if bound == name => Some(*topic),
                _ => None,
            };
            heard.iter().find_map(of).expect("a name")
        };
        for (name, expected) in [("t/a", (3..=9).collect::<Vec<_>>()), ("t/b", (2..=7).collect())] {
            let id = named(name);
            let had = heard.iter().filter_map(|heard| match heard {
                Heard::Message { topic, sequence, .. } if *topic == id => Some(*sequence),
                _ => None,
            });
            assert_eq!(had.collect::<Vec<_>>(), expected, "{name} on {shards} shards");
        }
        let at = |wanted: &dyn Fn(&Heard) -> bool| heard.iter().position(wanted);
        let first_live = at(&|heard| matches!(heard, Heard::Deliver { .. }));
        let last_end =
            heard.iter().rposition(|heard| matches!(heard, Heard::ReplayComplete { .. }));
        assert!(last_end < first_live, "{heard:?}");
    }
}

#[test]
fn a_client_that_wants_retained_values_for_what_it_lost_gets_them_behind_the_gap() {
    let mut desk = Desk::new();
    let (first, publisher) = (desk.greet(), desk.greet());
    let subscription = subscribe_counted(&mut desk, first, 2);
    desk.bind(publisher, 0, "t/a");
    desk.end(first);
    for payload in ["1", "2", "3", "4"] {
        desk.publish(publisher, 0, payload.as_bytes(), MessageFlags::RETAIN);
    }
    let second = desk.greet();
    desk.resume_with(second, subscription, 0, GapMode::RetainedOnly);
    desk.rest();
    let heard = desk.heard(second);
    let mode = DeliveryMode::Retained;
    let at = heard.iter().position(|heard| *heard == Heard::DeliverAs { mode, subscription });
    let at = at.expect("retained values");
    assert!(
        matches!(&heard[at + 1], Heard::Message { sequence: 4, payload, .. } if payload == b"4"),
        "{heard:?}"
    );
}

#[test]
fn subscriptions_that_drop_are_warned_at_most_once_a_second() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    desk.subscribe_with(subscriber, &["t/#"], OverflowPolicy::DropOldest, 2);
    desk.bind(publisher, 0, "t/a");
    let mut warnings = 0;
    for _ in 0..4 {
        for _ in 0..5 {
            desk.stall(subscriber);
            publish(&mut desk, publisher, &["1", "2", "3", "4"]);
            desk.go_on(subscriber);
        }
        let heard = desk.heard(subscriber);
        let is_warning = |heard: &&Heard| matches!(heard, Heard::Warning { .. });
        warnings += heard.iter().filter(is_warning).count();
        desk.pass(600_000);
    }
    assert_eq!(warnings, 2);
}

#[test]
fn parked_subscriptions_make_room_for_those_of_clients_that_are_there() {
    let mut desk = Desk::with_limits(Limits { memory_bytes: 8 << 20, ..Limits::default() });
    for _ in 0..3 {
        // Twice as many would not fit the 4 MiB that clients have.
        let client = desk.greet();
        for number in 0..4_000 {
            desk.subscribe(client, &[&format!("t/{number}")]);
        }
        desk.end(client);
    }
    let metrics = desk.metrics();
    assert!(metrics.subscriptions < 8_000 && metrics.parked == metrics.subscriptions);
}
