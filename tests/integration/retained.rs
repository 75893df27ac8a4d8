//! Retained values: what a subscriber that comes late gets of topics that have one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nexusd_tests::{Client, Daemon, Delivery, Heard, TurnOff, eventually};
use nexusd_wire::control::{DeliveryMode, PublishStatus};
use nexusd_wire::{FrameKind, Header, MessageFlags, SubscribeRequest, SubscriptionId};

/// Two shards: values are kept by more than one.
const SHARDS: [&str; 2] = ["--shards", "2"];

/// Publishes a value that is retained, and waits until it is.
fn retain(publisher: &mut Client, topic: &str, value: &[u8]) {
    retain_for(publisher, topic, value, 0);
}

/// The same for so many milliseconds.
fn retain_for(publisher: &mut Client, topic: &str, value: &[u8], ttl_ms: u32) {
    let header = Header::new(FrameKind::Message, 0, 0)
        .with_flags(MessageFlags::ACK.with(MessageFlags::RETAIN))
        .with_ttl_ms(ttl_ms);
    let number = publisher.publish_with(topic, &header, &[], value);
    let confirmation = publisher.confirmation(number);
    assert_eq!(confirmation.status, PublishStatus::Accepted, "{confirmation:?}");
}

/// Subscribes and asks for retained values.
fn subscribe(client: &mut Client, filters: &[&str]) -> SubscriptionId {
    client.subscribe_with(&SubscribeRequest {
        filters,
        receive_retained: true,
        ..SubscribeRequest::default()
    })
}

/// What a new subscriber of these filters gets ahead of the first message that is published behind its
/// subscription to each of `topics`.
fn found(daemon: &Daemon, filters: &[&str], topics: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let (mut client, mut publisher) = (daemon.client(), daemon.client());
    subscribe(&mut client, filters);
    topics.iter().for_each(|topic| {
        publisher.publish_accepted(topic, b"live");
    });
    let mut live = BTreeSet::new();
    let mut found = BTreeMap::new();
    while live.len() < topics.len() {
        let message = client.next_message();
        let topic = message.topic.to_string();
        match message.mode {
            DeliveryMode::Live => {
                assert_eq!(message.payload, b"live");
                assert!(live.insert(topic), "{message:?}");
            }
            DeliveryMode::Retained => {
                assert!(!live.contains(&topic), "behind what is live: {message:?}");
                assert_eq!(found.insert(topic, message.payload), None, "one value for a topic");
            }
            other => panic!("{other:?}: {:?}", message.topic),
        }
    }
    found
}

/// The same as text, for assertions.
fn found_text(daemon: &Daemon, filters: &[&str], topics: &[&str]) -> Vec<(String, String)> {
    let text = |(topic, value): (String, Vec<u8>)| (topic, String::from_utf8_lossy(&value).into());
    found(daemon, filters, topics).into_iter().map(text).collect()
}

fn texts(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(topic, value)| ((*topic).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_late_subscriber_gets_the_newest_retained_value_ahead_of_what_is_live() {
    let daemon = Daemon::start(&SHARDS);
    let mut publisher = daemon.client();
    retain(&mut publisher, "lamp", b"off");
    retain(&mut publisher, "lamp", b"on");
    // One that is not to be retained leaves the value as it is.
    publisher.publish_accepted("lamp", b"a rumour");
    for _ in 0..3 {
        assert_eq!(found_text(&daemon, &["lamp"], &["lamp"]), texts(&[("lamp", "on")]));
    }
    daemon.end_well();
}

#[test]
fn who_does_not_ask_for_retained_values_gets_none() {
    let daemon = Daemon::start(&SHARDS);
    let (mut publisher, mut client) = (daemon.client(), daemon.client());
    retain(&mut publisher, "lamp", b"on");
    client.subscribe(&["lamp"]);
    publisher.publish_accepted("lamp", b"live");
    let message = client.next_message();
    assert_eq!((message.mode, &*message.payload), (DeliveryMode::Live, &b"live"[..]));
    daemon.end_well();
}

#[test]
fn a_wildcard_finds_the_retained_values_of_all_topics_that_match() {
    const ROOMS: usize = 500;
    let daemon = Daemon::start(&SHARDS);
    let mut publisher = daemon.client();
    for room in 0..ROOMS {
        retain(&mut publisher, &format!("house/{room}/lamp"), format!("{room}").as_bytes());
    }
    retain(&mut publisher, "house", b"all of it");
    retain(&mut publisher, "shed/1/lamp", b"not in the house");
    retain(&mut publisher, "$hidden/1/lamp", b"not for a wildcard in front");
    let rooms: BTreeMap<String, Vec<u8>> = (0..ROOMS)
        .map(|room| (format!("house/{room}/lamp"), room.to_string().into_bytes()))
        .collect();
    // What is live of one topic says nothing about another one: a value of each has come when
    // something live has come of each.
    let topics: Vec<&str> = rooms.keys().map(String::as_str).collect();
    assert_eq!(found(&daemon, &["house/+/lamp"], &topics), rooms);
    // Whatever matches twice comes once.
    let filters = ["house/#", "house/+/lamp", "house/7/lamp"];
    let mut with_house = rooms.clone();
    with_house.insert("house".to_owned(), b"all of it".to_vec());
    let mut with_live = topics.clone();
    with_live.push("house");
    assert_eq!(found(&daemon, &filters, &with_live), with_house);
    let everywhere = found(&daemon, &["+/1/lamp"], &["house/1/lamp", "shed/1/lamp"]);
    assert_eq!(everywhere.len(), 2, "{everywhere:?}");
    daemon.end_well();
}

#[test]
fn an_empty_retained_message_clears_the_value_and_is_delivered_itself() {
    let daemon = Daemon::start(&SHARDS);
    let (mut publisher, mut watcher) = (daemon.client(), daemon.client());
    let topics = ["lamp/1", "lamp/2", "lamp/3"];
    for topic in topics {
        retain(&mut publisher, topic, b"on");
    }
    watcher.subscribe(&["lamp/2"]);
    retain(&mut publisher, "lamp/2", b"");
    let message = watcher.next_message();
    assert_eq!((message.mode, message.payload.len()), (DeliveryMode::Live, 0));
    let left = texts(&[("lamp/1", "on"), ("lamp/3", "on")]);
    assert_eq!(found_text(&daemon, &["lamp/+"], &topics), left);
    // It may have one again.
    retain(&mut publisher, "lamp/2", b"dim");
    let again = texts(&[("lamp/1", "on"), ("lamp/2", "dim"), ("lamp/3", "on")]);
    assert_eq!(found_text(&daemon, &["lamp/+"], &topics), again);
    daemon.end_well();
}

#[test]
fn a_retained_value_is_gone_when_its_time_to_live_is_over() {
    let daemon = Daemon::start(&SHARDS);
    let mut publisher = daemon.client();
    retain_for(&mut publisher, "short", b"now", 300);
    retain_for(&mut publisher, "long", b"today", 3_600_000);
    let topics = ["short", "long"];
    eventually("the short one is gone", || {
        found_text(&daemon, &["short", "long"], &topics) == texts(&[("long", "today")])
    });
    // A value that replaces one that is over is not over.
    retain_for(&mut publisher, "short", b"again", 3_600_000);
    let both = texts(&[("long", "today"), ("short", "again")]);
    assert_eq!(found_text(&daemon, &["short", "long"], &topics), both);
    daemon.end_well();
}

#[test]
fn the_default_time_to_live_ends_retained_values_as_well() {
    let daemon = Daemon::start(&["--shards", "2", "--default-message-ttl", "300"]);
    let mut publisher = daemon.client();
    retain(&mut publisher, "default", b"now");
    retain_for(&mut publisher, "its/own", b"today", 3_600_000);
    let since = std::time::Instant::now();
    eventually("the value is over", || since.elapsed() > Duration::from_millis(302));
    let mut client = daemon.client();
    subscribe(&mut client, &["default", "its/own"]);
    let message = client.next_message();
    assert_eq!((&*message.topic, message.mode), ("its/own", DeliveryMode::Retained));
    publisher.publish_accepted("default", b"live");
    let message = client.next_message();
    assert_eq!((&*message.payload, message.mode), (&b"live"[..], DeliveryMode::Live));
    daemon.end_well();
}

#[test]
fn values_that_change_while_somebody_subscribes_go_on_without_a_hole() {
    const TOPICS: usize = 30;
    const SUBSCRIBERS: usize = 60;
    let daemon = Daemon::start(&SHARDS);
    let mut publisher = daemon.client();
    let topics: Vec<String> = (0..TOPICS).map(|number| format!("value/{number}")).collect();
    for topic in &topics {
        retain(&mut publisher, topic, b"1");
    }
    let changing = AtomicBool::new(true);
    thread::scope(|scope| {
        let _turn_off = TurnOff(&changing);
        scope.spawn(|| {
            let header = Header::new(FrameKind::Message, 0, 0).with_flags(MessageFlags::RETAIN);
            for number in 2u64.. {
                if !changing.load(Ordering::Relaxed) {
                    break;
                }
                for topic in &topics {
                    publisher.publish_with(topic, &header, &[], number.to_string().as_bytes());
                }
                publisher.catch_up();
            }
        });
        let ways = [daemon.v4(), daemon.unix()];
        for number in 0..SUBSCRIBERS {
            let mut client = Client::connect(&ways[number % 2]);
            subscribe(&mut client, &["value/+"]);
            let mut newest: BTreeMap<String, u64> = BTreeMap::new();
            let mut live = BTreeSet::new();
            while live.len() < TOPICS {
                let message = client.next_message();
                take_value(&mut newest, &mut live, &message);
            }
        }
    });
    daemon.end_well();
}

/// A value, and behind it every change of it.
fn take_value(newest: &mut BTreeMap<String, u64>, live: &mut BTreeSet<String>, message: &Delivery) {
    let topic = message.topic.to_string();
    assert_eq!(message.payload, message.sequence.to_string().as_bytes(), "each value is itself");
    let before = newest.insert(topic.clone(), message.sequence);
    match message.mode {
        DeliveryMode::Retained => assert_eq!(before, None, "{topic}: one value, ahead of all else"),
        DeliveryMode::Live => {
            assert_eq!(before, Some(message.sequence - 1), "{topic}: every change, in order");
            live.insert(topic);
        }
        other => panic!("{topic}: {other:?}"),
    }
}

#[test]
fn retained_values_count_as_messages_of_the_subscription_when_it_is_resumed() {
    let daemon = Daemon::start(&SHARDS);
    let (mut publisher, mut client) = (daemon.client(), daemon.client());
    for number in 0..10 {
        retain(&mut publisher, &format!("value/{number}"), b"retained");
    }
    let subscription = client.subscribe_with(&SubscribeRequest {
        filters: &["value/+"],
        receive_retained: true,
        counted: true,
        ..SubscribeRequest::default()
    });
    for _ in 0..10 {
        assert_eq!(client.next_message().mode, DeliveryMode::Retained);
    }
    for number in 0..5 {
        publisher.publish_accepted("value/1", format!("{number}").as_bytes());
    }
    for _ in 0..3 {
        client.next_message();
    }
    drop(client);
    let mut client = Client::connect_for(&daemon.v4(), subscription);
    let answer = client.resume(subscription, 13);
    assert_eq!((answer.missed, answer.replay_started), (0, true));
    for payload in [&b"3"[..], b"4"] {
        let message = client.next_message();
        assert_eq!((&*message.payload, message.mode), (payload, DeliveryMode::Replay));
    }
    client.wait_for("ReplayComplete", |heard| match heard {
        Heard::ReplayComplete(replayed) => {
            assert_eq!((&*replayed.topic, replayed.count, replayed.latest), ("value/1", 2, 6));
            Some(())
        }
        _ => None,
    });
    daemon.end_well();
}
