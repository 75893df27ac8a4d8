//! Messages arrive once and in order, whatever they travel over and whoever else publishes.

use std::collections::HashMap;
use std::thread;

use nexusd_tests::{Account, Address, Client, Daemon, Heard};
use nexusd_wire::{FrameKind, Header, MessageFlags, MetadataBuilder, filter_matches};

const TOPICS: usize = 6;
const MESSAGES: u32 = 500;
/// Messages in one write.
const BATCH: u32 = 20;

/// Six publishers on six topics and nine subscribers, spread over these ways to the daemon.
fn everything_arrives_once_and_in_order(ways: &[Address]) {
    let topics: Vec<String> = (0..TOPICS).map(|number| format!("delivery/{number}")).collect();
    let publishers = 6;
    let filters: [&[&str]; 3] =
        [&["delivery/#"], &["delivery/1", "delivery/2"], &["+/0", "delivery/3", "delivery/+"]];
    let way = |number: usize| &ways[number % ways.len()];
    thread::scope(|scope| {
        for number in 0..9 {
            let mut subscriber = Client::connect(way(number));
            // Consecutive subscribers differ in their way, every third in its filters.
            let filters = filters[number / 3];
            let subscription = subscriber.subscribe_to_all(filters);
            let matching = topics
                .iter()
                .filter(|topic| filters.iter().any(|filter| filter_matches(filter, topic)))
                .count();
            scope.spawn(move || {
                let mut account = Account::new(subscription);
                let mut heard = HashMap::new();
                let owed = (matching * publishers) as u64 * u64::from(MESSAGES);
                while account.received() < owed {
                    let message = subscriber.next_message();
                    account.take(&Heard::Message(message.clone()));
                    let (publisher, number) = numbers_in(&message.payload);
                    let last = heard.entry((message.topic, publisher)).or_insert(0);
                    assert_eq!(number, *last + 1, "each publisher's messages come in order");
                    *last = number;
                }
                assert_eq!(heard.len(), matching * publishers);
            });
        }
        for publisher in 0..publishers {
            let topics = &topics;
            scope.spawn(move || {
                let mut client = Client::connect(way(publisher));
                for number in 1..=MESSAGES {
                    for topic in topics {
                        client.publish(topic, format!("{publisher} {number}").as_bytes());
                    }
                    if number % BATCH == 0 {
                        client.flush();
                    }
                }
                client.catch_up();
            });
        }
    });
}

fn numbers_in(payload: &[u8]) -> (u32, u32) {
    let text = std::str::from_utf8(payload).expect("text");
    let (publisher, number) = text.split_once(' ').expect("two numbers");
    (publisher.parse().expect("a number"), number.parse().expect("a number"))
}

#[test]
fn every_message_arrives_once_and_in_order_over_ipv4() {
    let daemon = Daemon::start(&[]);
    everything_arrives_once_and_in_order(&[daemon.v4()]);
    daemon.end_well();
}

#[test]
fn every_message_arrives_once_and_in_order_over_ipv6() {
    let daemon = Daemon::start(&[]);
    everything_arrives_once_and_in_order(&[daemon.v6()]);
    daemon.end_well();
}

#[test]
fn every_message_arrives_once_and_in_order_over_the_unix_socket() {
    let daemon = Daemon::start(&[]);
    everything_arrives_once_and_in_order(&[daemon.unix()]);
    daemon.end_well();
}

#[test]
fn publishers_and_subscribers_meet_whatever_way_each_came() {
    let daemon = Daemon::start(&[]);
    everything_arrives_once_and_in_order(&[daemon.v4(), daemon.v6(), daemon.unix()]);
    daemon.end_well();
}

#[test]
fn metadata_payload_key_and_time_to_live_arrive_as_they_were_published() {
    let daemon = Daemon::start(&[]);
    let (mut subscriber, mut publisher) = (daemon.client(), daemon.client());
    subscriber.subscribe(&["as/it/is"]);
    let headers: [(&str, &[u8]); 3] = [("unit", b"kWh"), ("unit", b"\0\xff"), ("", b"")];
    let mut metadata = MetadataBuilder::default();
    let metadata = metadata.encode(Some("application/octet-stream"), Some("c-1"), headers).to_vec();
    let header = Header::new(FrameKind::Message, 0, 0)
        .with_flags(MessageFlags::KEYED.with(MessageFlags::ACK))
        .with_key_hash(0xFEED)
        .with_ttl_ms(60_000);
    // Every length of padding, and no payload at all.
    for length in 0..20u8 {
        let payload: Vec<u8> = (0..length).collect();
        let number = publisher.publish_with("as/it/is", &header, &metadata, &payload);
        let accepted = publisher.confirmation(number);
        let message = subscriber.next_message();
        assert_eq!((&message.metadata, &message.payload), (&metadata, &payload));
        assert_eq!((message.key_hash, message.ttl_ms), (0xFEED, 60_000));
        assert_eq!(message.flags, MessageFlags::KEYED.0, "what concerned the publisher is gone");
        assert_eq!(message.sequence, accepted.sequence);
        assert!(message.timestamp_us > 0);
    }
    daemon.end_well();
}

#[test]
fn the_answer_to_a_publish_tells_how_many_subscriptions_it_went_to() {
    let daemon = Daemon::start(&[]);
    let (mut subscriber, mut publisher) = (daemon.client(), daemon.client());
    for subscribers in 0..4 {
        let accepted = publisher.publish_accepted("counted", b"x");
        assert_eq!(accepted.delivered, subscribers);
        assert_eq!(accepted.sequence, u64::from(subscribers) + 1, "numbers are dense");
        subscriber.subscribe(&["counted"]);
    }
    daemon.end_well();
}
