//! Filters, and several subscriptions on one connection.

use std::collections::BTreeSet;

use nexusd_tests::{Client, Daemon, Heard};
use nexusd_wire::SubscriptionId;

/// Publishes one message to each topic, which are in all queues when this returns; they carry their
/// topic's name.
fn publish_each(publisher: &mut Client, topics: &[&str]) {
    for topic in topics {
        publisher.publish_accepted(topic, topic.as_bytes());
    }
}

/// Everything delivered until a message on `end` has come for each of `subscriptions`.
fn until_end(
    client: &mut Client,
    end: &str,
    subscriptions: &[SubscriptionId],
) -> Vec<(SubscriptionId, String)> {
    let mut waiting: BTreeSet<SubscriptionId> = subscriptions.iter().copied().collect();
    let mut delivered = Vec::new();
    while !waiting.is_empty() {
        let message = client.next_message();
        assert_eq!(message.payload, message.topic.as_bytes());
        if &*message.topic == end {
            assert!(waiting.remove(&message.subscription), "the end comes once for each");
        } else {
            delivered.push((message.subscription, message.topic.to_string()));
        }
    }
    delivered
}

#[test]
fn wildcard_filters_take_what_they_match_and_nothing_else() {
    let topics = ["a", "a/b", "a/b/c", "a/x/c", "a/", "/", "b", "b/b", "A/b", "a/b/c/d", "$a/b"];
    let expected: [(&str, &[&str]); 9] = [
        ("a", &["a"]),
        ("a/+", &["a/b", "a/"]),
        ("a/#", &["a", "a/b", "a/b/c", "a/x/c", "a/", "a/b/c/d"]),
        ("+/b", &["a/b", "b/b", "A/b"]),
        ("a/+/c", &["a/b/c", "a/x/c"]),
        ("+", &["a", "b"]),
        ("+/+", &["a/b", "a/", "/", "b/b", "A/b"]),
        ("#", &["a", "a/b", "a/b/c", "a/x/c", "a/", "/", "b", "b/b", "A/b", "a/b/c/d"]),
        ("$a/#", &["$a/b"]),
    ];
    let daemon = Daemon::start(&[]);
    let (mut subscriber, mut publisher) = (daemon.client(), daemon.client());
    let subscriptions: Vec<SubscriptionId> =
        expected.iter().map(|(filter, _)| subscriber.subscribe(&[filter, "$end"])).collect();
    publish_each(&mut publisher, &topics);
    publish_each(&mut publisher, &["$end"]);
    let delivered = until_end(&mut subscriber, "$end", &subscriptions);
    for ((filter, expected), subscription) in expected.iter().zip(subscriptions) {
        // Between topics there is no order.
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        let mut matched: Vec<&str> = delivered
            .iter()
            .filter(|(of, _)| *of == subscription)
            .map(|(_, topic)| &**topic)
            .collect();
        matched.sort_unstable();
        assert_eq!(matched, expected, "filter {filter}");
    }
    daemon.end_well();
}

#[test]
fn each_subscription_of_a_connection_gets_its_own_copy() {
    let daemon = Daemon::start(&[]);
    let (mut subscriber, mut publisher) = (daemon.client(), daemon.client());
    let subscriptions: Vec<_> = (0..20).map(|_| subscriber.subscribe(&["shared"])).collect();
    assert_eq!(subscriptions.iter().collect::<BTreeSet<_>>().len(), 20, "ids differ");
    for _ in 0..50 {
        publisher.publish("shared", b"shared");
    }
    let last = publisher.publish_accepted("shared", b"shared");
    assert_eq!((last.sequence, last.delivered), (51, 20));
    let mut counts = std::collections::HashMap::new();
    for _ in 0..51 * 20 {
        let message = subscriber.next_message();
        let count = counts.entry(message.subscription).or_insert(0);
        *count += 1;
        assert_eq!(message.sequence, *count, "in order for each");
    }
    assert!(subscriptions.iter().all(|subscription| counts[subscription] == 51));
    daemon.end_well();
}

#[test]
fn a_message_that_matches_several_filters_of_a_subscription_comes_once() {
    let daemon = Daemon::start(&[]);
    let (mut subscriber, mut publisher) = (daemon.client(), daemon.client());
    let filters = ["a/b", "a/+", "a/#", "#", "a/b", "end"];
    let subscription = subscriber.subscribe(&filters);
    publish_each(&mut publisher, &["a/b", "a/c", "end"]);
    let delivered = until_end(&mut subscriber, "end", &[subscription]);
    let mut topics: Vec<&str> = delivered.iter().map(|(_, topic)| &**topic).collect();
    topics.sort_unstable();
    assert_eq!(topics, ["a/b", "a/c"]);
    daemon.end_well();
}

#[test]
fn nothing_of_a_subscription_comes_behind_its_end() {
    let daemon = Daemon::start(&[]);
    let (mut subscriber, mut publisher) = (daemon.client(), daemon.client());
    let given_up = subscriber.subscribe_to_all(&["busy"]);
    let kept = subscriber.subscribe_to_all(&["busy"]);
    // Some are delivered, some are queued, some come later.
    for _ in 0..2_000 {
        publisher.publish("busy", &[7; 500]);
    }
    publisher.flush();
    let asked = subscriber.ask_to_unsubscribe(given_up);
    subscriber.flush();
    for _ in 0..2_000 {
        publisher.publish("busy", &[7; 500]);
    }
    publisher.catch_up();
    let (mut is_over, mut received) = (false, 0);
    while received < 4_000 {
        match subscriber.hear() {
            Heard::Message(message) if message.subscription == kept => {
                received += 1;
                assert_eq!(message.sequence, received, "the other one is not disturbed");
            }
            Heard::Message(message) => {
                assert_eq!(message.subscription, given_up);
                assert!(!is_over, "a message of a subscription that has ended");
            }
            Heard::Unsubscribed { request, success, .. } => {
                assert!(success && request == asked);
                is_over = true;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(is_over);
    assert_eq!(publisher.publish_accepted("busy", b"").delivered, 1);
    daemon.end_well();
}

#[test]
fn a_subscription_that_is_not_there_cannot_be_given_up() {
    let daemon = Daemon::start(&[]);
    let (mut one, mut other) = (daemon.client(), daemon.client());
    let subscription = one.subscribe(&["t"]);
    let refused = (false, "Subscription not found".to_owned());
    assert_eq!(other.unsubscribe(subscription), refused, "it belongs to somebody else");
    assert_eq!(other.publish_accepted("t", b"").delivered, 1, "and still stands");
    assert_eq!(one.unsubscribe(subscription), (true, String::new()));
    assert_eq!(one.unsubscribe(subscription), refused, "it is gone");
    assert_eq!(other.publish_accepted("t", b"").delivered, 0);
    daemon.end_well();
}
