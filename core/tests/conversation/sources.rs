//! Limits per source address: who is refused, what it is told, and who is not.

use nexusd_core::inspection::Request;
use nexusd_core::{Limits, PeerAddress};
use nexusd_wire::MessageFlags;
use nexusd_wire::control::ErrorCode;

use crate::desk::{Desk, Heard, SeatId};

const SECOND_US: u64 = 1_000_000;

fn from(ip: &str) -> PeerAddress {
    PeerAddress::Tcp((ip.parse::<std::net::IpAddr>().expect("an address"), 40_000).into())
}

fn desk(limits: &Limits) -> Desk {
    Desk::with_shards(Limits { memory_bytes: 16 << 20, ..limits.clone() }, 2)
}

/// Opens a connection that is refused; what it is told.
fn refused(desk: &mut Desk, ip: &str) -> String {
    let outside = desk.open_from(from(ip));
    let last = Heard::Error { code: ErrorCode::LimitReached, fatal: true, offset: 0 };
    assert_eq!(desk.heard(outside), [last]);
    assert!(desk.is_closed(outside));
    desk.complaint(outside).to_owned()
}

/// Publishes one message that is acknowledged; whether it was accepted.
fn is_accepted(desk: &mut Desk, publisher: SeatId) -> bool {
    desk.publish(publisher, 0, b"x", MessageFlags::ACK);
    match desk.heard(publisher)[..] {
        [Heard::Ack { sequence, .. }] => sequence != 0,
        ref other => panic!("no acknowledgement but {other:?}"),
    }
}

fn accepted_of(desk: &mut Desk, publisher: SeatId, messages: usize) -> usize {
    (0..messages).filter(|_| is_accepted(desk, publisher)).count()
}

#[test]
fn a_source_with_all_its_connections_is_refused_one_more_and_others_are_not() {
    let mut desk = desk(&Limits { connections_per_source: 2, ..Limits::default() });
    // They live on different shards.
    let inside = [desk.greet_from(from("192.0.2.1")), desk.greet_from(from("192.0.2.1"))];
    let text = refused(&mut desk, "192.0.2.1");
    assert_eq!(
        text,
        "192.0.2.1 has 2 connections, which is the limit of one source \
         (--max-connections-per-source)"
    );
    desk.greet_from(from("192.0.2.2"));
    desk.greet_from(PeerAddress::Unix);
    assert_eq!(desk.metrics().source_connections_refused, 1);
    assert_eq!(desk.metrics().connections_refused, 0);

    desk.end(inside[0]);
    desk.greet_from(from("192.0.2.1"));
    refused(&mut desk, "192.0.2.1");
}

#[test]
fn an_ipv6_network_is_one_source() {
    let mut desk = desk(&Limits { connections_per_source: 1, ..Limits::default() });
    desk.greet_from(from("2001:db8::1"));
    let text = refused(&mut desk, "2001:db8::2");
    assert!(text.starts_with("2001:db8::/64 has 1 connections"), "{text}");
    desk.greet_from(from("2001:db8:0:1::1"));
}

#[test]
fn who_connects_faster_than_a_source_may_is_refused_until_time_has_passed() {
    let mut desk = desk(&Limits { accept_rate_per_source: 4, ..Limits::default() });
    for _ in 0..4 {
        let client = desk.greet_from(from("192.0.2.1"));
        desk.end(client);
    }
    let text = refused(&mut desk, "192.0.2.1");
    assert_eq!(
        text,
        "192.0.2.1 opens more than 4 connections a second, which is the limit of one source \
         (--accept-rate-per-source)"
    );
    desk.greet_from(from("192.0.2.2"));
    assert_eq!(desk.metrics().source_accepts_refused, 1);

    desk.pass(SECOND_US / 4);
    desk.greet_from(from("192.0.2.1"));
    refused(&mut desk, "192.0.2.1");
    desk.pass(10 * SECOND_US);
    for _ in 0..4 {
        desk.greet_from(from("192.0.2.1"));
    }
    refused(&mut desk, "192.0.2.1");
}

#[test]
fn a_publish_beyond_the_rate_of_its_source_is_refused_and_the_connection_goes_on() {
    let mut desk = desk(&Limits { publish_rate_per_source: 10, ..Limits::default() });
    let publisher = desk.greet_from(from("192.0.2.1"));
    desk.bind(publisher, 0, "t");
    assert_eq!(accepted_of(&mut desk, publisher, 25), 10);
    desk.pass(SECOND_US / 2);
    assert_eq!(accepted_of(&mut desk, publisher, 25), 5);
    desk.pass(60 * SECOND_US / 2);
    desk.pong(publisher);
    desk.heard(publisher);
    assert_eq!(accepted_of(&mut desk, publisher, 25), 10, "a second's worth at most");
    let metrics = desk.metrics();
    assert_eq!((metrics.source_messages_refused, metrics.rejected), (50, 50));
}

#[test]
fn messages_that_come_together_are_accepted_up_to_the_rate() {
    for topic in ["a", "b", "c", "d"] {
        let mut desk = desk(&Limits { publish_rate_per_source: 10, ..Limits::default() });
        let subscriber = desk.greet();
        desk.subscribe(subscriber, &["#"]);
        let publisher = desk.greet_from(from("192.0.2.1"));
        desk.bind(publisher, 0, topic);
        let mut bytes = Vec::new();
        for number in 0..30_u8 {
            bytes.extend(desk.message(publisher, 0, &[number], MessageFlags::default()));
        }
        desk.say(publisher, &bytes);
        let heard = desk.heard(subscriber);
        let payloads = heard.into_iter().filter_map(|heard| match heard {
            Heard::Message { payload, .. } => Some(payload[0]),
            _ => None,
        });
        assert!(payloads.eq(0..10), "the first ten, in order");
    }
}

#[test]
fn a_flood_of_messages_is_told_once_a_second_and_how_many_were_refused() {
    let mut desk = desk(&Limits { publish_rate_per_source: 1, ..Limits::default() });
    let publisher = desk.greet_from(from("192.0.2.1"));
    desk.bind(publisher, 0, "t");
    let errors = |desk: &mut Desk| {
        for _ in 0..100 {
            desk.publish(publisher, 0, b"x", MessageFlags::default());
        }
        let heard = desk.heard(publisher);
        let is_of_the_rate = |heard: &Heard| {
            matches!(heard, Heard::Error { code: ErrorCode::LimitReached, fatal: false, .. })
        };
        assert!(heard.iter().all(is_of_the_rate), "{heard:?}");
        heard.len()
    };
    assert_eq!(errors(&mut desk), 1);
    let text = "192.0.2.1 publishes more than 1 messages a second, which is the limit of one source \
                (--publish-rate-per-source)";
    assert_eq!(desk.complaint(publisher), text);
    assert_eq!(errors(&mut desk), 0);
    desk.pass(SECOND_US);
    assert_eq!(errors(&mut desk), 1);
    let again = format!("{text}; 198 more were refused since this was last said");
    assert_eq!(desk.complaint(publisher), again);
    assert_eq!(desk.metrics().source_messages_refused, 298);
}

#[test]
fn connections_of_a_source_share_its_rate_and_coming_back_does_not_renew_it() {
    let mut desk = desk(&Limits { publish_rate_per_source: 10, ..Limits::default() });
    // One on each shard, and one that belongs to somebody else.
    let ours = [desk.greet_from(from("192.0.2.1")), desk.greet_from(from("192.0.2.1"))];
    let other = desk.greet_from(from("192.0.2.2"));
    for publisher in [ours[0], ours[1], other] {
        desk.bind(publisher, 0, "t");
    }
    assert_eq!(accepted_of(&mut desk, ours[0], 6), 6);
    assert_eq!(accepted_of(&mut desk, ours[1], 6), 4);
    assert_eq!(accepted_of(&mut desk, other, 6), 6);
    desk.end(ours[0]);
    desk.end(ours[1]);
    let back = desk.greet_from(from("192.0.2.1"));
    desk.bind(back, 0, "t");
    assert_eq!(accepted_of(&mut desk, back, 6), 0);
    desk.pass(SECOND_US / 2);
    assert_eq!(accepted_of(&mut desk, back, 6), 5);
}

#[test]
fn a_large_message_counts_as_one_and_what_follows_a_refused_one_is_read() {
    let mut desk = desk(&Limits { publish_rate_per_source: 1, ..Limits::default() });
    let subscriber = desk.greet();
    desk.subscribe(subscriber, &["#"]);
    let publisher = desk.greet_from(from("192.0.2.1"));
    desk.bind(publisher, 0, "t");
    let large = vec![7; 300_000];
    desk.publish(publisher, 0, &large, MessageFlags::ACK);
    desk.publish(publisher, 0, &large, MessageFlags::ACK);
    assert!(!is_accepted_by(&desk.heard(publisher), 2), "the second one is too fast");
    desk.pass(SECOND_US);
    assert!(is_accepted(&mut desk, publisher), "the stream is where it should be");
    let heard = desk.heard(subscriber);
    let lengths = heard.iter().filter_map(|heard| match heard {
        Heard::Message { payload, .. } => Some(payload.len()),
        _ => None,
    });
    assert!(lengths.eq([large.len(), 1]));
}

fn is_accepted_by(heard: &[Heard], number: u64) -> bool {
    let ack = heard.iter().find_map(|heard| match heard {
        Heard::Ack { publisher_sequence, sequence, .. } if *publisher_sequence == number => {
            Some(*sequence)
        }
        _ => None,
    });
    ack.expect("it is answered") != 0
}

#[test]
fn limits_that_change_hold_for_connections_from_then_on() {
    let mut desk = desk(&Limits::default());
    let early = desk.greet_from(from("192.0.2.1"));
    desk.bind(early, 0, "t");
    let take_on = |desk: &mut Desk, limits: &Limits| {
        for shard in 0..desk.shards() {
            desk.ask(shard, Request::TakeOn(Box::new(limits.clone())));
        }
    };
    let limits =
        Limits { connections_per_source: 1, publish_rate_per_source: 2, ..Limits::default() };
    take_on(&mut desk, &limits);
    assert_eq!(accepted_of(&mut desk, early, 5), 5, "it began without limits");
    let late = desk.greet_from(from("192.0.2.1"));
    refused(&mut desk, "192.0.2.1");
    desk.bind(late, 0, "t");
    assert_eq!(accepted_of(&mut desk, late, 5), 2);
    take_on(&mut desk, &Limits::default());
    assert_eq!(accepted_of(&mut desk, late, 5), 5);
    desk.greet_from(from("192.0.2.1"));
    desk.end(late);
    take_on(&mut desk, &limits);
    desk.greet_from(from("192.0.2.1"));
    refused(&mut desk, "192.0.2.1");
}

#[test]
fn the_unix_socket_is_never_limited() {
    let mut desk = desk(&Limits {
        connections_per_source: 1,
        accept_rate_per_source: 1,
        publish_rate_per_source: 1,
        ..Limits::default()
    });
    for _ in 0..5 {
        let publisher = desk.greet();
        desk.bind(publisher, 0, "t");
        assert_eq!(accepted_of(&mut desk, publisher, 5), 5);
    }
}

#[test]
fn without_limits_no_source_is_limited() {
    let mut desk = desk(&Limits::default());
    for _ in 0..100 {
        let publisher = desk.greet_from(from("192.0.2.1"));
        desk.bind(publisher, 0, "t");
        assert_eq!(accepted_of(&mut desk, publisher, 20), 20);
    }
}
