//! Messages whose time to live is over.

use std::time::{Duration, Instant};

use nexusd_tests::{Client, Daemon, Heard, eventually};
use nexusd_wire::{FrameKind, Header, SubscribeRequest};

/// More than the sockets between daemon and client hold.
const STALLING_MESSAGES: usize = 6_000;
/// Messages that expire.
const EXPIRING_MESSAGES: usize = 1_000;
const TTL: Duration = Duration::from_millis(300);
/// The daemon counts in whole milliseconds, and none is taken.
const MARGIN: Duration = Duration::from_millis(2);

/// Publishes what stalls a reader, then what expires behind it; returns when that was.
fn publish_what_expires(publisher: &mut Client, topic: &str, ttl_ms: u32) -> Instant {
    let lasting = Header::new(FrameKind::Message, 0, 0).with_ttl_ms(3_600_000);
    for _ in 0..STALLING_MESSAGES {
        publisher.publish_with(topic, &lasting, &[], &[b'l'; 1_000]);
    }
    let expiring = Header::new(FrameKind::Message, 0, 0).with_ttl_ms(ttl_ms);
    for _ in 0..EXPIRING_MESSAGES {
        publisher.publish_with(topic, &expiring, &[], b"expires");
    }
    publisher.catch_up();
    Instant::now()
}

/// What a reader that stalled gets once it reads: all that lasts, then the message that comes last.
fn gets_what_lasts(reader: &mut Client) {
    for number in 1..=STALLING_MESSAGES {
        let message = reader.next_message();
        assert_eq!((message.sequence, message.payload[0]), (number as u64, b'l'));
    }
    // That nothing is told of the others is meant so: they are no loss.
    let message = reader.next_message();
    assert_eq!(message.payload, b"last", "number {}", message.sequence);
    assert_eq!(message.sequence, (STALLING_MESSAGES + EXPIRING_MESSAGES + 1) as u64);
}

/// Readers over TCP and the unix socket that stall until what expires is over.
fn a_stalled_reader_never_gets_what_is_over(daemon: &Daemon, ttl_ms: u32) {
    for way in [daemon.v4(), daemon.unix()] {
        let topic = format!("expiring/{way}");
        let (mut reader, mut publisher) = (Client::connect_narrow(&way), daemon.client());
        reader.subscribe_to_all(&[&topic]);
        let published = publish_what_expires(&mut publisher, &topic, ttl_ms);
        eventually("their time is over", || published.elapsed() > TTL + MARGIN);
        let lasting = Header::new(FrameKind::Message, 0, 0).with_ttl_ms(3_600_000);
        publisher.publish_with(&topic, &lasting, &[], b"last");
        publisher.catch_up();
        gets_what_lasts(&mut reader);
    }
}

#[test]
fn a_message_whose_time_is_over_never_reaches_a_reader_that_stalled() {
    let daemon = Daemon::start(&["--shards", "2"]);
    a_stalled_reader_never_gets_what_is_over(&daemon, TTL.as_millis() as u32);
    daemon.end_well();
}

#[test]
fn a_message_without_a_time_to_live_has_the_daemons() {
    let daemon = Daemon::start(&["--shards", "2", "--default-message-ttl", "300"]);
    a_stalled_reader_never_gets_what_is_over(&daemon, 0);
    daemon.end_well();
}

/// What became of messages before their time was over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// They were queued for somebody who is away.
    Queued,
    /// They were sent, and not acknowledged.
    Sent,
    /// They met a line that had just been cut.
    Cut,
}

/// A reader that had one message, broke off, and comes back when the time of the others is over.
fn is_not_replayed(fate: Fate) {
    let daemon = Daemon::start(&["--shards", "2"]);
    let (mut reader, mut publisher) = (daemon.client(), daemon.client());
    let subscription = reader.subscribe_with(&SubscribeRequest {
        filters: &["expiring"],
        counted: true,
        ..SubscribeRequest::default()
    });
    publisher.publish_accepted("expiring", b"lasts");
    assert_eq!(reader.next_message().sequence, 1);
    match fate {
        Fate::Queued => {
            reader.pause(subscription);
        }
        Fate::Sent => {}
        Fate::Cut => reader.line().cut(),
    }
    let expiring = Header::new(FrameKind::Message, 0, 0).with_ttl_ms(TTL.as_millis() as u32);
    for _ in 0..10 {
        publisher.publish_with("expiring", &expiring, &[], b"expires");
    }
    publisher.publish_accepted("expiring", b"lasts");
    let published = Instant::now();
    if fate == Fate::Sent {
        (2..=12).for_each(|sequence| assert_eq!(reader.next_message().sequence, sequence));
    }
    drop(reader);
    eventually("their time is over", || published.elapsed() > TTL + MARGIN);
    let mut reader = Client::connect_for(&daemon.v4(), subscription);
    let answer = reader.resume(subscription, 1);
    assert_eq!((answer.gap_detected, answer.missed), (false, 0), "that is no loss");
    let message = reader.next_message();
    assert_eq!((message.sequence, &*message.payload), (12, &b"lasts"[..]));
    match reader.hear() {
        Heard::ReplayComplete(replayed) => assert_eq!(replayed.latest, 12, "{replayed:?}"),
        other => panic!("{other:?}"),
    }
    daemon.end_well();
}

#[test]
fn a_message_whose_time_is_over_is_not_replayed_to_who_comes_back() {
    is_not_replayed(Fate::Queued);
}

#[test]
fn a_message_that_was_sent_in_time_is_not_sent_again_when_its_time_is_over() {
    is_not_replayed(Fate::Sent);
}

#[test]
fn a_message_that_met_a_cut_line_is_not_replayed_when_its_time_is_over() {
    is_not_replayed(Fate::Cut);
}
