//! How a connection begins, goes on and ends.

use std::time::Duration;

use nexusd_tests::{Client, Daemon, Heard};
use nexusd_wire::SubscribeRequest;
use nexusd_wire::control::ErrorCode;

/// Hello, a subscription and a publish to it, as bytes not yet sent.
fn say_everything(client: &mut Client) {
    client.hello();
    client.ask_to_subscribe(&SubscribeRequest { filters: &["all/#"], ..Default::default() });
    client.publish_asking("all/at/once", b"so soon");
    client.ping(7);
}

/// What comes back.
fn everything_is_answered(client: &mut Client) {
    client.welcome();
    client
        .wait_for("SubscriptionInfo", |heard| matches!(heard, Heard::Subscribed(_)).then_some(()));
    let confirmation = client.confirmation(1);
    assert_eq!((confirmation.sequence, confirmation.delivered), (1, 1));
    let message = client.next_message();
    assert_eq!((&*message.topic, &*message.payload), ("all/at/once", &b"so soon"[..]));
    client.wait_for("Pong", |heard| (*heard == Heard::Pong(7)).then_some(()));
}

#[test]
fn hello_subscribe_and_publish_may_be_said_in_one_write() {
    for way in [Daemon::v4, Daemon::v6, Daemon::unix] {
        // One each: nobody's subscription may still be there when the next one counts.
        let daemon = Daemon::start(&[]);
        let mut client = Client::open(&way(&daemon));
        say_everything(&mut client);
        client.flush();
        client.welcome();
        client.wait_for("SubscriptionInfo", |heard| {
            matches!(heard, Heard::Subscribed(_)).then_some(())
        });
        assert_eq!(client.confirmation(1).delivered, 1);
        assert_eq!(client.next_message().payload, b"so soon");
        daemon.end_well();
    }
}

#[test]
fn a_stream_that_trickles_in_byte_by_byte_is_understood() {
    let daemon = Daemon::start(&[]);
    let mut client = Client::open(&daemon.v4());
    say_everything(&mut client);
    for byte in client.take_outgoing() {
        client.raw(&[byte]);
        client.flush();
    }
    everything_is_answered(&mut client);
    daemon.end_well();
}

#[test]
fn subscriptions_are_confirmed_before_their_first_message() {
    let daemon = Daemon::start(&[]);
    let (mut publisher, mut subscriber) = (daemon.client(), daemon.client());
    for _ in 0..200 {
        publisher.publish("early", b"x");
        publisher.flush();
        let request = SubscribeRequest { filters: &["early"], ..Default::default() };
        let asked = subscriber.ask_to_subscribe(&request);
        subscriber.flush();
        publisher.publish("early", b"x");
        publisher.flush();
        let subscription = match subscriber.hear() {
            Heard::Subscribed(subscribed) => {
                assert_eq!(subscribed.request, asked);
                subscribed.subscription
            }
            other => panic!("before the subscription was confirmed: {other:?}"),
        };
        publisher.catch_up();
        let asked = subscriber.ask_to_unsubscribe(subscription);
        subscriber.wait_for("UnsubscribeResult", |heard| {
            matches!(heard, Heard::Unsubscribed { request, .. } if *request == asked).then_some(())
        });
        while subscriber.is_keeping() {
            assert!(matches!(subscriber.hear(), Heard::Message(_)));
        }
    }
    daemon.end_well();
}

#[test]
fn a_client_that_says_goodbye_gets_its_answers_and_then_the_end() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.client();
    for _ in 0..100 {
        client.publish_asking("last/words", b"x");
    }
    client.ping(1);
    client.goodbye();
    client.flush();
    let rest = client.rest();
    let answered: usize = rest
        .iter()
        .map(|heard| if let Heard::PublishAck(entries) = heard { entries.len() } else { 0 })
        .sum();
    assert_eq!(answered, 100);
    assert!(rest.contains(&Heard::Pong(1)), "{rest:?}");
    daemon.end_well();
}

#[test]
fn names_that_break_the_rules_are_refused_and_the_conversation_goes_on() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.client();
    let long = "x".repeat(256);
    for topic in ["", "a/+", "#", "a\0b", &long, "$SYS/x"] {
        let number = client.publish_asking(topic, b"");
        let complaint = client.wait_for("Error", |heard| match heard {
            Heard::Error(complaint) => Some(complaint.clone()),
            _ => None,
        });
        assert!(!complaint.fatal, "{complaint:?}");
        let expected =
            if topic == "$SYS/x" { ErrorCode::Rejected } else { ErrorCode::InvalidTopic };
        assert_eq!(complaint.code, expected, "{complaint:?}");
        assert_eq!(client.confirmation(number).sequence, 0, "nothing was accepted");
    }
    for filter in ["", "a+", "#/a", "a\0", &long] {
        let request = SubscribeRequest { filters: &["fine", filter], ..Default::default() };
        let asked = client.ask_to_subscribe(&request);
        let complaint = client.wait_for("Error", |heard| match heard {
            Heard::Error(complaint) => Some(complaint.clone()),
            _ => None,
        });
        assert_eq!((complaint.request, complaint.fatal), (asked, false), "{complaint:?}");
        assert_eq!(complaint.code, ErrorCode::InvalidTopic, "{complaint:?}");
    }
    let longest = "x".repeat(255);
    client.subscribe(&[&longest]);
    assert_eq!(client.publish_accepted(&longest, b"").delivered, 1);
    daemon.end_well();
}

#[test]
fn a_daemon_that_has_nothing_to_say_is_silent() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.client();
    client.subscribe(&["never"]);
    assert_eq!(client.listen(Duration::from_millis(300)), nexusd_tests::Listened::Silence);
    daemon.end_well();
}
