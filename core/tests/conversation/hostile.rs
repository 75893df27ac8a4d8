//! What clients can do to each other and to the daemon's memory, and what they cannot.

use std::time::{Duration, Instant};

use nexusd_core::Limits;
use nexusd_core::limits::{GAPS_TOGETHER_MAX, SEGMENT_BYTES};
use nexusd_wire::control::{ErrorCode, OverflowPolicy};
use nexusd_wire::{
    FrameEncoder, FrameKind, HEADER_BYTES, Header, MessageFlags, Sequence, SubscribeRequest,
    TopicId,
};

use crate::desk::{Desk, Heard};

/// The first 48 bytes of a message of `payload_len` to topic id 0.
fn head_of_message(payload_len: usize) -> Vec<u8> {
    let mut head = Vec::new();
    let header = Header::new(FrameKind::Message, 0, payload_len).with_topic(TopicId(0));
    FrameEncoder::bare(&mut head, &header);
    assert_eq!(head.len(), HEADER_BYTES);
    head
}

fn sequences(heard: &[Heard]) -> Vec<u64> {
    let sequence = |heard: &Heard| match heard {
        Heard::Message { sequence, .. } => Some(*sequence),
        _ => None,
    };
    heard.iter().filter_map(sequence).collect()
}

fn gaps(heard: &[Heard]) -> Vec<Vec<(u32, u64, u64)>> {
    let gap = |heard: &Heard| match heard {
        Heard::Gap { entries, .. } => Some(entries.clone()),
        _ => None,
    };
    heard.iter().filter_map(gap).collect()
}

#[test]
fn memory_kept_for_reuse_is_given_up_before_any_message_is() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    desk.subscribe_with(subscriber, &["wanted"], OverflowPolicy::DropOldest, 0);
    desk.bind(publisher, 0, "wanted");
    desk.bind(publisher, 1, "other");
    // Nearly all of the log is taken once, and given back.
    desk.stall(subscriber);
    for _ in 0..80 {
        desk.publish(publisher, 0, &[7; 60_000], MessageFlags::default());
    }
    desk.go_on(subscriber);
    assert_eq!(sequences(&desk.heard(subscriber)).len(), 80);
    // Extents of their own for 9,000 messages, which take a fifth of the memory all told.
    desk.stall(subscriber);
    let mut bytes = Vec::new();
    for sequence in 0..9_000 {
        for topic in [0, 1] {
            let header = Header::new(FrameKind::Message, 0, 0)
                .with_topic(TopicId(topic))
                .with_sequence(Sequence(100 + sequence));
            FrameEncoder::message(&mut bytes, &header, &[], b"x");
        }
    }
    desk.say(publisher, &bytes);
    assert_eq!(desk.metrics().dropped_memory, 0);
    assert_eq!(desk.metrics().segments_evacuated, 0);
    desk.go_on(subscriber);
    assert_eq!(sequences(&desk.heard(subscriber)).len(), 9_000);
}

#[test]
fn a_block_queue_that_is_back_inside_its_bounds_loses_nothing_to_the_timeout() {
    // Name, Deliver and one to four messages of 56 bytes.
    for bytes in (250..450).step_by(50) {
        let mut desk = Desk::new();
        let (subscriber, publisher) = (desk.greet(), desk.greet());
        desk.subscribe_with(subscriber, &["t"], OverflowPolicy::Block, 8);
        desk.stall(subscriber);
        desk.bind(publisher, 0, "t");
        for _ in 0..9 {
            desk.publish(publisher, 0, b"payload", MessageFlags::default());
        }
        assert_eq!(desk.heard(publisher), [Heard::Pause]);
        desk.go_on_for(subscriber, bytes);
        desk.pass(5_000_000);
        assert_eq!(desk.heard(publisher), [Heard::Resume]);
        desk.go_on(subscriber);
        assert_eq!(sequences(&desk.heard(subscriber)), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
}

#[test]
fn memory_is_made_by_whole_segments_also_behind_a_half_sent_frame() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    desk.subscribe_with(subscriber, &["t"], OverflowPolicy::DropOldest, 0);
    desk.bind(publisher, 0, "t");
    desk.go_on_for(subscriber, 30_000);
    let per_segment = (SEGMENT_BYTES / 60_048) as u64;
    for _ in 0..200 {
        desk.publish(publisher, 0, &[7; 60_000], MessageFlags::default());
    }
    desk.go_on(subscriber);
    let heard = desk.heard(subscriber);
    let gaps = gaps(&heard);
    let [gap] = gaps.as_slice() else { panic!("one gap, not {gaps:?}") };
    let [(0, 2, last)] = gap.as_slice() else { panic!("one stretch from 2 on, not {gap:?}") };
    assert_eq!(last % per_segment, 0, "no message of a younger segment was dropped");
    assert_eq!(sequences(&heard), [vec![1], (last + 1..=200).collect()].concat());
}

#[test]
fn messages_are_not_dropped_for_memory_that_cannot_be_had() {
    let mut desk = Desk::new();
    let (cut, waiting, full) = (desk.greet(), desk.greet(), desk.greet());
    let publisher = desk.greet();
    desk.subscribe(cut, &["large"]);
    desk.subscribe(waiting, &["large"]);
    desk.subscribe_with(full, &["small"], OverflowPolicy::DropOldest, 0);
    desk.bind(publisher, 0, "large");
    desk.bind(publisher, 1, "small");
    desk.go_on_for(cut, 1_000);
    desk.stall(waiting);
    desk.stall(full);
    desk.publish(publisher, 0, &[1; 1_000_000], MessageFlags::default());
    // The rest of the large message has to stay for one connection: dropping it for the other
    // frees nothing.
    for _ in 0..200 {
        desk.publish(publisher, 1, &[7; 60_000], MessageFlags::default());
    }
    for subscriber in [cut, waiting] {
        desk.go_on(subscriber);
        let heard = desk.heard(subscriber);
        assert_eq!((sequences(&heard), gaps(&heard)), (vec![1], vec![]));
    }
}

#[test]
fn bytes_that_wait_are_never_overtaken_by_those_received_in_place() {
    let mut desk = Desk::new();
    let client = desk.greet();
    desk.bind(client, 0, "large");
    // Nearly as many unsent bytes as keep a connection from being read.
    desk.stall(client);
    let mut pings = Vec::new();
    for token in 0..5_461 {
        FrameEncoder::ping_or_pong(&mut pings, FrameKind::Ping, token);
    }
    desk.say(client, &pings);
    desk.say(client, &head_of_message(1_000_000));
    assert_eq!(desk.landing_zone(client), Some(1_000_000));
    // The daemon's own ping is one too many.
    desk.pass(30_500_000);
    desk.say(client, &[7; 1_000]);
    assert_eq!(desk.landing_zone(client), Some(999_000), "all that came is in its place");
}

#[test]
fn errors_stay_short_whatever_they_are_about() {
    let mut desk = Desk::new();
    let client = desk.greet();
    let name = "\u{1}".repeat(100_000);
    let mut subscribe = Vec::new();
    let request = SubscribeRequest { request: 3, filters: &[&name], ..Default::default() };
    FrameEncoder::new().subscribe(&mut subscribe, &request);
    desk.say(client, &subscribe);
    desk.bind(client, 0, &name);
    assert!(desk.metrics().bytes_out < 4_096);
    let heard = desk.heard(client);
    assert!(
        matches!(
            heard.as_slice(),
            [
                Heard::Error { code: ErrorCode::InvalidTopic, fatal: false, .. },
                Heard::Error { code: ErrorCode::InvalidTopic, fatal: false, .. },
            ]
        ),
        "{heard:?}"
    );
}

#[test]
fn acknowledgements_of_refused_messages_fit_their_frames() {
    let mut desk = Desk::new();
    let client = desk.greet();
    desk.bind(client, 0, "$SYS/forbidden");
    desk.heard(client);
    let mut bytes = Vec::new();
    for sequence in 1..=10_000 {
        let header = Header::new(FrameKind::Message, 0, 0)
            .with_sequence(Sequence(sequence))
            .with_flags(MessageFlags::ACK);
        FrameEncoder::message(&mut bytes, &header, &[], b"");
    }
    desk.say(client, &bytes);
    assert_eq!(desk.heard(client).len(), 10_000);
}

#[test]
fn large_messages_that_never_come_leave_room_for_others() {
    let mut desk = Desk::new();
    let subscriber = desk.greet();
    desk.subscribe(subscriber, &["t"]);
    for _ in 0..100 {
        let hostile = desk.greet();
        desk.bind(hostile, 0, "large");
        desk.say(hostile, &head_of_message(1_060_000));
    }
    let publisher = desk.greet();
    desk.bind(publisher, 0, "t");
    desk.publish(publisher, 0, b"payload", MessageFlags::default());
    assert_eq!(desk.heard(publisher), []);
    assert_eq!(sequences(&desk.heard(subscriber)), [1]);
}

#[test]
fn a_message_that_can_never_fit_costs_nobody_theirs() {
    let mut desk = Desk::with_limits(Limits {
        memory_bytes: 8 << 20,
        payload_bytes: 64 << 20,
        ..Limits::default()
    });
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    desk.subscribe(subscriber, &["t"]);
    desk.stall(subscriber);
    desk.bind(publisher, 0, "t");
    for _ in 0..4 {
        desk.publish(publisher, 0, &[7; 60_000], MessageFlags::default());
    }
    desk.say(publisher, &head_of_message(32 << 20));
    assert!(matches!(
        desk.heard(publisher).as_slice(),
        [Heard::Error { code: ErrorCode::LimitReached, fatal: false, .. }]
    ));
    desk.go_on(subscriber);
    let heard = desk.heard(subscriber);
    assert_eq!((sequences(&heard), gaps(&heard)), (vec![1, 2, 3, 4], vec![]));
}

#[test]
fn losses_of_alternating_kinds_do_not_pile_up() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    desk.subscribe_with(subscriber, &["t"], OverflowPolicy::DropOldest, 64);
    let filler = desk.greet();
    desk.subscribe_with(filler, &["filler"], OverflowPolicy::DropOldest, 0);
    desk.bind(publisher, 0, "t");
    desk.bind(publisher, 1, "filler");
    desk.stall(subscriber);
    desk.stall(filler);
    for _ in 0..40 {
        for _ in 0..70 {
            desk.publish(publisher, 0, &[7; 4_000], MessageFlags::default());
        }
        for _ in 0..88 {
            desk.publish(publisher, 1, &[7; 60_000], MessageFlags::default());
        }
    }
    assert!(desk.metrics().dropped_slow_consumer > 0 && desk.metrics().dropped_memory > 0);
    desk.go_on(subscriber);
    let heard = desk.heard(subscriber);
    assert!(gaps(&heard).len() <= GAPS_TOGETHER_MAX, "{heard:?}");
    let mut next = 1;
    for heard in heard {
        let stretches = match heard {
            Heard::Gap { entries, .. } => entries,
            Heard::Message { sequence, .. } => vec![(0, sequence, sequence)],
            _ => continue,
        };
        for (_, first, last) in stretches {
            assert_eq!(first, next, "losses are told in their order");
            next = last + 1;
        }
    }
    assert_eq!(next, 40 * 70 + 1);
}

#[test]
fn thousands_of_full_queues_of_one_client_do_not_stop_the_others() {
    let mut desk = Desk::with_limits(Limits::default());
    let (hostile, publisher) = (desk.greet(), desk.greet());
    let mut bytes = Vec::new();
    let mut encoder = FrameEncoder::new();
    for request in 1..=10_000 {
        let request = SubscribeRequest {
            request,
            filters: &["t"],
            policy: Some(OverflowPolicy::Block),
            queue_messages: Some(1),
            ..Default::default()
        };
        encoder.subscribe(&mut bytes, &request);
    }
    desk.say(hostile, &bytes);
    assert_eq!(desk.heard(hostile).len(), 10_000);
    desk.stall(hostile);
    desk.bind(publisher, 0, "t");
    desk.bind(publisher, 1, "nobody's");
    bytes.clear();
    for sequence in 0..400 {
        let header = Header::new(FrameKind::Message, 0, 0)
            .with_topic(TopicId(sequence as u32 % 2))
            .with_sequence(Sequence(sequence));
        FrameEncoder::message(&mut bytes, &header, &[], b"");
    }
    // Looking at all full queues for each full queue would take minutes.
    let begun = Instant::now();
    desk.say(publisher, &bytes);
    assert_eq!(desk.heard(publisher), [Heard::Pause]);
    desk.pass(5_000_000);
    assert_eq!(desk.heard(publisher), [Heard::Resume]);
    desk.end(hostile);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn names_that_wait_for_a_stalled_subscriber_cost_nothing_when_it_overflows() {
    const TOPICS: u32 = 60_000;
    let mut desk = Desk::with_limits(Limits::default());
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    desk.subscribe_with(subscriber, &["#"], OverflowPolicy::DropOldest, 1);
    desk.stall(subscriber);
    let mut encoder = FrameEncoder::new();
    let mut bytes = Vec::new();
    for topic in 0..TOPICS {
        encoder.topic_bind(&mut bytes, TopicId(topic), &format!("topic/{topic}"));
    }
    // Every topic once, so that its name waits; then every message drops the one before.
    for _ in 0..2 {
        for topic in 0..TOPICS {
            let header = Header::new(FrameKind::Message, 0, 0).with_topic(TopicId(topic));
            FrameEncoder::message(&mut bytes, &header, &[], b"");
        }
    }
    // Walking over all names for each message would take minutes.
    let begun = Instant::now();
    desk.say(publisher, &bytes);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    desk.go_on(subscriber);
    let heard = desk.heard(subscriber);
    let names = heard.iter().filter(|heard| matches!(heard, Heard::Bind { .. })).count();
    assert_eq!((names, sequences(&heard)), (TOPICS as usize, vec![2]));
}

#[test]
fn subscriptions_stay_inside_their_share_of_memory() {
    let mut desk = Desk::new();
    let hostile = desk.greet();
    let mut encoder = FrameEncoder::new();
    let mut refused = 0;
    for request in 1..=20 {
        // 20 levels each, none of them in another filter.
        let filters: Vec<String> =
            (0..500).map(|number| format!("{request}-{number}{}", "/x".repeat(20))).collect();
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        let mut bytes = Vec::new();
        let request = SubscribeRequest { request, filters: &filters, ..Default::default() };
        encoder.subscribe(&mut bytes, &request);
        desk.say(hostile, &bytes);
        refused += desk
            .heard(hostile)
            .iter()
            .filter(|heard| matches!(heard, Heard::Error { code: ErrorCode::LimitReached, .. }))
            .count();
    }
    assert!((15..20).contains(&refused), "{refused}");
    desk.end(hostile);
    let client = desk.greet();
    desk.subscribe(client, &["t"]);
}

#[test]
fn topic_ids_stay_inside_their_share_of_memory() {
    let mut desk = Desk::new();
    let hostile = desk.greet();
    let mut encoder = FrameEncoder::new();
    let mut bytes = Vec::new();
    for id in 0..300_000 {
        encoder.topic_bind(&mut bytes, TopicId(id), "t");
    }
    desk.say(hostile, &bytes);
    assert!(matches!(
        desk.heard(hostile).as_slice(),
        [Heard::Error { code: ErrorCode::LimitReached, fatal: true, .. }]
    ));
    let client = desk.greet();
    desk.bind(client, 0, "t");
    assert_eq!(desk.heard(client), []);
}
