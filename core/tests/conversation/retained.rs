//! The last known value of a topic.

use nexusd_core::Limits;
use nexusd_wire::control::{DeliveryMode, GapMode};
use nexusd_wire::{MessageFlags, SubscribeRequest};

use crate::desk::{Desk, Heard, SeatId};

const RETAINED: DeliveryMode = DeliveryMode::Retained;

fn subscribe(desk: &mut Desk, filters: &[&str]) -> SeatId {
    let id = desk.greet();
    let request = SubscribeRequest {
        request: 1,
        filters,
        receive_retained: true,
        ..SubscribeRequest::default()
    };
    desk.ask_to_subscribe(id, &request);
    id
}

/// Payloads of retained deliveries, and of live ones.
fn values(heard: &[Heard]) -> (Vec<String>, Vec<String>) {
    let (mut retained, mut live) = (Vec::new(), Vec::new());
    let mut is_retained = false;
    for heard in heard {
        match heard {
            Heard::Deliver { .. } => is_retained = false,
            Heard::DeliverAs { mode, .. } => is_retained = *mode == RETAINED,
            Heard::Message { payload, .. } => {
                let text = String::from_utf8_lossy(payload).into_owned();
                if is_retained { retained.push(text) } else { live.push(text) }
            }
            _ => {}
        }
    }
    (retained, live)
}

fn retain(desk: &mut Desk, publisher: SeatId, topic: u32, value: &str) {
    desk.publish(publisher, topic, value.as_bytes(), MessageFlags::RETAIN);
}

#[test]
fn a_late_subscriber_gets_the_last_value_of_every_topic_that_matches() {
    for shards in [1, 2, 4] {
        let mut desk = Desk::with_shards(Limits::default(), shards);
        let publisher = desk.greet();
        for topic in 0..20 {
            desk.bind(publisher, topic, &format!("t/{topic}"));
            retain(&mut desk, publisher, topic, "old");
            retain(&mut desk, publisher, topic, &format!("new {topic:02}"));
        }
        let subscriber = subscribe(&mut desk, &["t/+"]);
        desk.rest();
        let (mut retained, live) = values(&desk.heard(subscriber));
        retained.sort();
        assert_eq!(retained, (0..20).map(|topic| format!("new {topic:02}")).collect::<Vec<_>>());
        assert_eq!(live, Vec::<String>::new());
        retain(&mut desk, publisher, 3, "live");
        desk.rest();
        assert_eq!(values(&desk.heard(subscriber)).1, ["live"]);
        assert_eq!(desk.metrics().retained, 20);
    }
}

#[test]
fn an_empty_payload_clears_the_value_and_the_memory_it_took() {
    let mut desk = Desk::new();
    let publisher = desk.greet();
    desk.bind(publisher, 0, "t");
    retain(&mut desk, publisher, 0, "value");
    assert!(desk.metrics().retained_bytes > 0);
    retain(&mut desk, publisher, 0, "");
    assert_eq!((desk.metrics().retained, desk.metrics().retained_bytes), (0, 0));
    let subscriber = subscribe(&mut desk, &["t", "#"]);
    desk.rest();
    assert_eq!(values(&desk.heard(subscriber)).0, Vec::<String>::new());
}

#[test]
fn a_value_that_two_filters_match_comes_once() {
    let mut desk = Desk::new();
    let publisher = desk.greet();
    desk.bind(publisher, 0, "t/a");
    retain(&mut desk, publisher, 0, "value");
    let subscriber = subscribe(&mut desk, &["t/a", "t/+", "#"]);
    desk.rest();
    assert_eq!(values(&desk.heard(subscriber)).0, ["value"]);
}

#[test]
fn a_value_ends_with_its_time_to_live() {
    let mut desk = Desk::new();
    let publisher = desk.greet();
    desk.bind(publisher, 0, "t");
    desk.retain_for(publisher, 0, b"short", 1_000);
    desk.pass(1_100_000);
    assert_eq!((desk.metrics().retained, desk.metrics().ttl_expired), (0, 1));
    let subscriber = subscribe(&mut desk, &["t"]);
    desk.rest();
    assert_eq!(values(&desk.heard(subscriber)).0, Vec::<String>::new());
}

#[test]
fn values_come_before_live_messages_of_their_topics_however_many_there_are() {
    let mut desk = Desk::with_limits(Limits { memory_bytes: 64 << 20, ..Limits::default() });
    let publisher = desk.greet();
    let topics = 6_000;
    for topic in 0..topics {
        desk.bind(publisher, topic, &format!("t/{topic}"));
        retain(&mut desk, publisher, topic, &format!("{topic} retained"));
    }
    // It reads nothing, so most values have to wait; every hundredth topic goes on meanwhile.
    let subscriber = desk.greet();
    desk.stall(subscriber);
    let request = SubscribeRequest {
        request: 1,
        filters: &["#"],
        receive_retained: true,
        ..SubscribeRequest::default()
    };
    desk.ask_to_subscribe(subscriber, &request);
    for topic in (0..topics).step_by(100) {
        desk.publish(publisher, topic, format!("{topic} live").as_bytes(), MessageFlags::default());
    }
    let queued = desk.metrics().queued_messages;
    assert!(queued < 2_000, "{queued} wait in the queue");
    desk.go_on(subscriber);
    desk.rest();
    let heard = desk.heard(subscriber);
    let (retained, live) = values(&heard);
    assert_eq!((retained.len(), live.len()), (topics as usize, topics as usize / 100));
    let mut had = std::collections::HashSet::new();
    for heard in &heard {
        if let Heard::Message { topic, payload, .. } = heard {
            let is_live = payload.ends_with(b"live");
            assert_eq!(had.insert(*topic), !is_live, "a value comes once, and first");
        }
    }
}

#[test]
fn more_values_than_memory_is_set_aside_for_are_refused_and_the_old_ones_stay() {
    let mut desk = Desk::with_limits(Limits { memory_bytes: 8 << 20, ..Limits::default() });
    let publisher = desk.greet();
    let mut refused = 0;
    for topic in 0..40 {
        desk.bind(publisher, topic, &format!("t/{topic}"));
        desk.publish(publisher, topic, &[7; 30_000], MessageFlags::RETAIN);
        let heard = desk.heard(publisher);
        refused += heard.iter().filter(|heard| matches!(heard, Heard::Error { .. })).count();
    }
    let metrics = desk.metrics();
    assert_eq!(metrics.retained as usize + refused, 40);
    assert!(metrics.retained_bytes <= 1 << 20 && refused > 0);
    // A value may still be replaced.
    desk.publish(publisher, 0, &[8; 30_000], MessageFlags::RETAIN);
    assert_eq!(desk.heard(publisher), []);
}

#[test]
fn a_search_for_values_that_begins_anew_takes_the_place_of_the_earlier_one() {
    for shards in [1, 2] {
        let limits = Limits { memory_bytes: 64 << 20, ..Limits::default() };
        let mut desk = Desk::with_shards(limits, shards);
        let publisher = desk.greet();
        let topics = 6_000;
        for topic in 0..topics {
            desk.bind(publisher, topic, &format!("t/{topic}"));
            retain(&mut desk, publisher, topic, &format!("{topic} retained"));
        }
        let first = desk.greet();
        let request = SubscribeRequest {
            request: 1,
            filters: &["#"],
            receive_retained: true,
            queue_messages: Some(2),
            ..SubscribeRequest::default()
        };
        desk.ask_to_subscribe(first, &request);
        let info = |heard: &Heard| match heard {
            Heard::Subscribed { subscription } => Some(*subscription),
            _ => None,
        };
        let subscription = desk.heard(first).iter().find_map(info).expect("a subscription");
        // It loses something while values still have to come.
        desk.stall(first);
        for _ in 0..5 {
            desk.publish(publisher, 0, b"live", MessageFlags::default());
        }
        desk.end(first);
        let second = desk.home_of(subscription);
        desk.resume_with(second, subscription, 0, GapMode::RetainedOnly);
        desk.rest();
        let (retained, _) = values(&desk.heard(second));
        let distinct: std::collections::HashSet<_> = retained.iter().collect();
        assert_eq!(distinct.len(), topics as usize, "on {shards} shards");
        // Nothing is searched for a subscription that is gone.
        desk.unsubscribe(second, subscription);
        let other = desk.greet();
        desk.subscribe(other, &["other"]);
        for topic in 0..topics {
            desk.publish(publisher, topic, b"live", MessageFlags::default());
        }
        assert_eq!(desk.metrics().queued_messages, 0);
    }
}
