//! Applications that speak gRPC, beside those that speak the native protocol.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nexusd_grpc::proto::message_event::Event;
use nexusd_grpc::proto::{
    GapRecoveryMode, Header, Message, OverflowPolicy, PublishRequest, ResumeSubscribeRequest,
    SubscribeRequest,
};
use nexusd_tests::{Bystanders, Client, Daemon, Events, Grpc, Heard, Listened, SOON, eventually};
use nexusd_wire::{FrameKind, Header as FrameHeader, MessageFlags, MetadataBuilder};
use tonic::Code;

/// Two shards: a subscription's connection may have to move to the one that keeps it.
const SHARDS: [&str; 2] = ["--shards", "2"];

fn request(topic: &str, payload: &[u8]) -> PublishRequest {
    PublishRequest {
        topic: topic.to_owned(),
        payload: payload.to_vec().into(),
        ..PublishRequest::default()
    }
}

fn resume(id: &str) -> ResumeSubscribeRequest {
    ResumeSubscribeRequest {
        subscription_id: id.to_owned(),
        gap_recovery_mode: GapRecoveryMode::GapRecoveryReplayBuffer.into(),
        ..ResumeSubscribeRequest::default()
    }
}

/// Publishes numbers to a topic, in order.
fn publish_numbers(grpc: &Grpc, topic: &str, numbers: std::ops::Range<u32>) {
    let requests = numbers.map(|number| request(topic, &number.to_le_bytes())).collect();
    for response in grpc.publish_all(requests) {
        assert!(response.success, "{response:?}");
    }
}

fn number_of(message: &Message) -> u32 {
    u32::from_le_bytes(message.payload[..].try_into().expect("a number"))
}

/// The numbers that come until `last`, whether live or again, and the gaps among them.
fn numbers_until(events: &mut Events, last: u32) -> (Vec<u32>, Vec<i64>) {
    let (mut numbers, mut gaps) = (Vec::new(), Vec::new());
    while numbers.last() != Some(&last) {
        match events.event() {
            Event::Message(message) | Event::ReplayMessage(message) => {
                numbers.push(number_of(&message));
            }
            Event::Gap(gap) => gaps.push(gap.missed),
            Event::ReplayComplete(_) | Event::Heartbeat(_) | Event::BackpressureWarning(_) => {}
            other => panic!("{other:?}"),
        }
    }
    (numbers, gaps)
}

#[test]
fn both_protocols_carry_the_same_messages() {
    let daemon = Daemon::start(&SHARDS);
    let (grpc, mut native) = (Grpc::connect(&daemon), daemon.client());
    let mut events = grpc.subscribe(&["plant/+/t", "plant/#"]);
    native.subscribe(&["plant/#"]);

    let said = PublishRequest {
        content_type: "text/plain".to_owned(),
        correlation_id: "c-1".to_owned(),
        ttl_ms: 60_000,
        headers: vec![
            Header { key: "k".to_owned(), value: vec![0, 255].into() },
            Header { key: "k".to_owned(), value: "again".into() },
        ],
        ..request("plant/a/t", b"hello")
    };
    let response = grpc.try_publish(said).expect("it is accepted");
    let id = format!("{}/1/plant/a/t", daemon.told("node"));
    assert_eq!((response.success, response.message_id.as_str()), (true, id.as_str()));
    assert_eq!((response.subscriber_count, response.sequence_number), (2, 1));
    let message = events.message();
    assert_eq!((message.message_id.as_str(), message.topic.as_str()), (id.as_str(), "plant/a/t"));
    assert_eq!(
        (&message.payload[..], message.content_type.as_str()),
        (&b"hello"[..], "text/plain")
    );
    assert_eq!((message.correlation_id.as_str(), message.headers.len()), ("c-1", 2));
    assert_eq!(
        (message.headers[0].key.as_str(), &message.headers[0].value[..]),
        ("k", &[0, 255][..])
    );
    assert_eq!((message.sequence_number, message.origin_sequence), (1, 1));
    assert_eq!(message.source_node_id, daemon.told("node"));
    assert!(message.timestamp_ms > 1_700_000_000_000, "{}", message.timestamp_ms);
    assert_eq!(native.next_message().payload, b"hello");

    let mut builder = MetadataBuilder::default();
    let metadata = builder.encode(Some("a/b"), None, [("x", &b"y"[..])]);
    let header = FrameHeader::new(FrameKind::Message, 0, 0).with_flags(MessageFlags::ACK);
    native.publish_with("plant/b", &header, metadata, b"from native");
    native.flush();
    let message = events.message();
    assert_eq!((message.topic.as_str(), &message.payload[..]), ("plant/b", &b"from native"[..]));
    assert_eq!((message.content_type.as_str(), message.headers.len()), ("a/b", 1));
    daemon.end_well();
}

#[test]
fn a_stream_of_publishes_is_answered_in_order_and_one_bad_message_ends_nothing() {
    let daemon = Daemon::start(&SHARDS);
    let grpc = Grpc::connect(&daemon);
    let mut events = grpc.subscribe(&["a"]);
    let requests = (0..3_000u32).map(|number| match number {
        1_000 => request("a/#", b"no topic"),
        2_000 => PublishRequest { ttl_ms: -1, ..request("a", b"no time") },
        _ => request("a", &number.to_le_bytes()),
    });
    let responses = grpc.publish_all(requests.collect());
    assert_eq!(responses.len(), 3_000);
    let mut sequence = 0;
    for (at, response) in responses.iter().enumerate() {
        if matches!(at, 1_000 | 2_000) {
            assert!(!response.success && !response.error_message.is_empty(), "{response:?}");
            assert_eq!(response.error_code, i32::from(Code::InvalidArgument));
        } else {
            sequence += 1;
            assert_eq!((response.success, response.sequence_number), (true, sequence), "{at}");
        }
    }
    for number in (0..3_000).filter(|number| !matches!(number, 1_000 | 2_000)) {
        assert_eq!(number_of(&events.message()), number);
    }
    daemon.end_well();
}

#[test]
fn what_is_wrong_has_the_code_that_says_so() {
    let daemon = Daemon::start(&["--max-payload", "100K"]);
    let grpc = Grpc::connect(&daemon);
    let publish = |request| grpc.try_publish(request).expect_err("it is refused").code();
    assert_eq!(publish(request("", b"")), Code::InvalidArgument);
    assert_eq!(publish(request("a/+", b"")), Code::InvalidArgument);
    assert_eq!(publish(request("a", &[0; (100 << 10) + 1])), Code::InvalidArgument);
    assert_eq!(publish(request("a", &[0; 200 << 10])), Code::InvalidArgument);
    assert_eq!(publish(PublishRequest { ttl_ms: -1, ..request("a", b"") }), Code::InvalidArgument);
    assert_eq!(publish(request("$SYS/a", b"")), Code::PermissionDenied);
    let subscribe = |topics: &[&str], max_buffer_size, overflow_policy| {
        let topics = topics.iter().map(|&topic| topic.to_owned()).collect();
        let request = SubscribeRequest {
            topics,
            max_buffer_size,
            overflow_policy,
            ..SubscribeRequest::default()
        };
        grpc.subscribe_with(request).expect_err("it is refused").code()
    };
    assert_eq!(subscribe(&[], 0, 0), Code::InvalidArgument);
    assert_eq!(subscribe(&["a//#/b"], 0, 0), Code::InvalidArgument);
    assert_eq!(subscribe(&["a"], -1, 0), Code::InvalidArgument);
    assert_eq!(subscribe(&["a"], 0, 77), Code::InvalidArgument);
    let resume = |request| grpc.resume(request).expect_err("it is refused").code();
    assert_eq!(resume(self::resume("7")), Code::NotFound);
    assert_eq!(resume(self::resume(&"0".repeat(32))), Code::NotFound);
    let last_message_id = "nothing".to_owned();
    let bad = ResumeSubscribeRequest { last_message_id, ..self::resume("") };
    assert_eq!(resume(bad), Code::InvalidArgument);
    assert_eq!(resume(self::resume("")), Code::InvalidArgument);
    let unknown = grpc.unsubscribe("7", false);
    assert_eq!(
        (unknown.success, unknown.error_message.as_str()),
        (false, "Subscription not found")
    );
    daemon.end_well();
}

#[test]
fn retained_values_come_first_and_as_what_they_are() {
    let daemon = Daemon::start(&SHARDS);
    let grpc = Grpc::connect(&daemon);
    let retained = |value: &[u8]| PublishRequest { retain: true, ..request("state", value) };
    grpc.try_publish(retained(b"on")).expect("it is accepted");
    let subscribe = || {
        let topics = vec!["#".to_owned()];
        let request =
            SubscribeRequest { topics, receive_retained: true, ..SubscribeRequest::default() };
        grpc.subscribe_with(request).expect("it is confirmed")
    };
    let mut events = subscribe();
    match events.event() {
        Event::RetainedMessage(message) => assert_eq!(&message.payload[..], b"on"),
        other => panic!("{other:?}"),
    }
    grpc.publish("state", b"live");
    assert_eq!(&events.message().payload[..], b"live");
    grpc.try_publish(retained(b"")).expect("it is cleared");
    let mut events = subscribe();
    grpc.publish("state", b"live again");
    assert_eq!(&events.message().payload[..], b"live again");
    daemon.end_well();
}

/// A subscription whose stream ended behind its first 1,500 messages, of which the client knows the first
/// `known`; there are 3,000 when it comes back as `had` says.
fn come_back(
    known: u32,
    had: impl FnOnce(ResumeSubscribeRequest, &Message) -> ResumeSubscribeRequest,
) -> (Vec<u32>, Vec<i64>) {
    let daemon = Daemon::start(&SHARDS);
    let grpc = Grpc::connect(&daemon);
    let mut events = grpc.subscribe(&["a"]);
    publish_numbers(&grpc, "a", 0..1_500);
    let mut last = None;
    for number in 0..1_500 {
        let message = events.message();
        assert_eq!(number_of(&message), number);
        if number + 1 == known {
            last = Some(message);
        }
    }
    let id = events.info.subscription_id.clone();
    drop(events);
    publish_numbers(&grpc, "a", 1_500..3_000);
    let mut events = grpc.resume(had(resume(&id), &last.expect("a message"))).expect("it goes on");
    assert_eq!(events.info.subscription_id, id);
    assert_eq!(events.info.topics, ["a"]);
    let came = numbers_until(&mut events, 2_999);
    publish_numbers(&grpc, "a", 3_000..3_001);
    assert_eq!(numbers_until(&mut events, 3_000), (vec![3_000], vec![]));
    daemon.end_well();
    came
}

#[test]
fn who_names_the_last_message_misses_nothing_and_gets_nothing_twice() {
    let (numbers, gaps) = come_back(1_400, |request, last| ResumeSubscribeRequest {
        last_message_id: last.message_id.clone(),
        ..request
    });
    assert_eq!((numbers, gaps), ((1_400..3_000).collect(), vec![]));
}

#[test]
fn who_tells_positions_misses_nothing_and_gets_nothing_twice() {
    let (numbers, gaps) = come_back(1_500, |request, last| ResumeSubscribeRequest {
        last_sequence_per_topic: HashMap::from([("a".to_owned(), last.sequence_number)]),
        // Positions count for more.
        last_message_id: format!("{}/1/a", last.source_node_id),
        ..request
    });
    assert_eq!((numbers, gaps), ((1_500..3_000).collect(), vec![]));
}

#[test]
fn who_tells_nothing_misses_nothing_and_gets_the_newest_again() {
    let (numbers, gaps) = come_back(1_500, |request, _| request);
    let first = numbers[0];
    assert!((1..=1_500).contains(&first), "{first}");
    // What was acknowledged may not have come, and nobody has said so.
    assert_eq!((numbers, gaps), ((first..3_000).collect(), vec![-1]));
}

#[test]
fn who_lost_more_than_is_kept_for_it_gets_what_the_node_still_holds() {
    let (numbers, gaps) = come_back(10, |request, last| ResumeSubscribeRequest {
        last_sequence_per_topic: HashMap::from([("a".to_owned(), last.sequence_number)]),
        ..request
    });
    assert_eq!((numbers, gaps), ((10..3_000).collect(), vec![]));
}

#[test]
fn who_lost_more_than_is_kept_for_it_and_wants_no_replay_is_told() {
    let (numbers, gaps) = come_back(10, |request, last| ResumeSubscribeRequest {
        last_sequence_per_topic: HashMap::from([("a".to_owned(), last.sequence_number)]),
        gap_recovery_mode: GapRecoveryMode::GapRecoveryNone.into(),
        ..request
    });
    let first = numbers[0];
    assert_eq!(numbers, (first..3_000).collect::<Vec<_>>());
    assert_eq!(gaps, [i64::from(first) - 10], "the rest is told");
}

/// What comes of a subscription to two topics, of which the client reads 100 messages of `a` and nothing of `b`
/// before it breaks off; there are 3,000 of each.
#[test]
fn who_breaks_off_amid_messages_on_their_way_gets_each_of_them_or_is_told() {
    let daemon = Daemon::start(&SHARDS);
    let (grpc, other) = (Grpc::connect(&daemon), Grpc::connect(&daemon));
    let mut events = grpc.subscribe(&["a", "b"]);
    publish_numbers(&other, "a", 0..3_000);
    let mut last = 0;
    for number in 0..100 {
        let message = events.message();
        assert_eq!(number_of(&message), number);
        last = message.sequence_number;
    }
    publish_numbers(&other, "b", 0..3_000);
    let id = events.info.subscription_id.clone();
    drop(events);
    let request = ResumeSubscribeRequest {
        last_sequence_per_topic: HashMap::from([("a".to_owned(), last)]),
        ..resume(&id)
    };
    let mut events = grpc.resume(request).expect("it goes on");
    publish_numbers(&other, "end", 0..1);
    let (mut came, mut missed) = (HashMap::new(), HashMap::new());
    while came.values().sum::<i64>() + missed.values().sum::<i64>() < 5_900 {
        match events.event() {
            Event::Message(message) | Event::ReplayMessage(message) => {
                *came.entry(message.topic).or_insert(0i64) += 1;
            }
            Event::Gap(gap) => {
                assert_eq!(gap.elsewhere, 0, "{gap:?}");
                for range in gap.ranges {
                    *missed.entry(range.topic).or_insert(0) += range.last - range.first + 1;
                }
            }
            Event::ReplayComplete(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let of = |counts: &HashMap<String, i64>, topic| counts.get(topic).copied().unwrap_or(0);
    assert_eq!(of(&came, "a") + of(&missed, "a"), 2_900, "{came:?} {missed:?}");
    assert_eq!(of(&came, "b") + of(&missed, "b"), 3_000, "{came:?} {missed:?}");
    daemon.end_well();
}

#[test]
fn a_return_that_is_given_up_can_be_made_again() {
    let daemon = Daemon::start(&SHARDS);
    let grpc = Grpc::connect(&daemon);
    let mut events = grpc.subscribe(&["a"]);
    let id = events.info.subscription_id.clone();
    publish_numbers(&grpc, "a", 0..500);
    let mut last = events.message();
    for _ in 1..200 {
        last = events.message();
    }
    drop(events);
    let request = ResumeSubscribeRequest { last_message_id: last.message_id, ..resume(&id) };
    for micros in (0..2_000).step_by(40) {
        let request = request.clone();
        let time = Duration::from_micros(micros);
        // Sometimes it is answered in time, and the stream is dropped at once.
        let _ = grpc.call(|mut client| async move {
            tokio::time::timeout(time, client.resume_subscribe(request)).await
        });
    }
    let mut resumed = None;
    eventually("no earlier return is under way", || match grpc.resume(request.clone()) {
        Ok(events) => resumed.replace(events).is_none(),
        Err(status) => {
            assert_eq!(status.code(), Code::Aborted, "{status}");
            false
        }
    });
    let mut events = resumed.expect("it goes on");
    assert_eq!(numbers_until(&mut events, 499), ((200..500).collect(), vec![]));
    daemon.end_well();
}

#[test]
fn a_stream_that_is_not_read_ends_when_another_call_says_so() {
    let daemon = Daemon::start(&SHARDS);
    let (grpc, other) = (Grpc::connect(&daemon), Grpc::connect(&daemon));
    let stalled: Vec<Events> = (0..2).map(|_| grpc.subscribe(&["a"])).collect();
    let requests = (0..1_000).map(|_| request("a", &[7; 10_000])).collect();
    other.publish_all(requests);
    let ids: Vec<&str> =
        stalled.iter().map(|events| events.info.subscription_id.as_str()).collect();
    let since = Instant::now();
    assert!(other.unsubscribe(ids[0], false).success);
    let paused = other.unsubscribe(ids[1], true);
    assert!(paused.success, "{paused:?}");
    assert!(other.resume(resume(ids[1])).is_ok(), "it goes on elsewhere");
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    daemon.end_well();
}

#[test]
fn a_paused_subscription_goes_on_and_an_ended_one_does_not() {
    let daemon = Daemon::start(&SHARDS);
    let grpc = Grpc::connect(&daemon);
    let mut events = grpc.subscribe(&["a"]);
    let id = events.info.subscription_id.clone();
    publish_numbers(&grpc, "a", 0..1);
    let last = events.message();
    let paused = grpc.unsubscribe(&id, true);
    assert!(paused.success && paused.pause_ttl_ms == 300_000, "{paused:?}");
    assert_eq!(events.end(), Code::Ok);
    let again = grpc.unsubscribe(&id, true);
    assert!(again.success && again.pause_ttl_ms > 200_000, "{again:?}");
    publish_numbers(&grpc, "a", 1..10);
    let request = ResumeSubscribeRequest { last_message_id: last.message_id, ..resume(&id) };
    let mut events = grpc.resume(request.clone()).expect("it goes on");
    assert!(events.info.replay_started);
    for number in 1..10 {
        match events.event() {
            Event::ReplayMessage(message) => assert_eq!(number_of(&message), number),
            other => panic!("{other:?}"),
        }
    }
    match events.event() {
        Event::ReplayComplete(complete) => {
            assert_eq!((complete.topic.as_str(), complete.replayed_count), ("a", 9));
            assert_eq!(complete.latest_sequence, 10);
        }
        other => panic!("{other:?}"),
    }
    // Another stream takes it over while this one stands.
    let mut other = Grpc::connect(&daemon).resume(request).expect("it goes on");
    assert_eq!(events.end(), Code::Aborted);
    publish_numbers(&grpc, "a", 10..11);
    numbers_until(&mut other, 10);
    assert!(grpc.unsubscribe(&id, false).success);
    assert_eq!(other.end(), Code::Ok);
    assert_eq!(grpc.resume(resume(&id)).expect_err("it has ended").code(), Code::NotFound);
    assert!(!grpc.unsubscribe(&id, false).success);
    daemon.end_well();
}

#[test]
fn a_parked_subscription_expires() {
    let daemon = Daemon::start(&["--paused-subscription-ttl", "200"]);
    let grpc = Grpc::connect(&daemon);
    let id = grpc.subscribe(&["a"]).info.subscription_id;
    eventually("it has expired", || !grpc.unsubscribe(&id, true).success);
    assert_eq!(grpc.resume(resume(&id)).expect_err("it has expired").code(), Code::NotFound);
    daemon.end_well();
}

#[test]
fn a_client_without_a_subscription_subscribes_behind_its_positions() {
    let daemon = Daemon::start(&SHARDS);
    let grpc = Grpc::connect(&daemon);
    publish_numbers(&grpc, "a", 0..4);
    let anew = ResumeSubscribeRequest {
        topics: vec!["a".to_owned()],
        last_sequence_per_topic: HashMap::from([("a".to_owned(), 2)]),
        ..resume("")
    };
    let mut events = grpc.resume(anew).expect("it is confirmed");
    publish_numbers(&grpc, "a", 4..5);
    assert_eq!(numbers_until(&mut events, 4), (vec![2, 3, 4], vec![]));
    daemon.end_well();
}

#[test]
fn names_of_messages_hold_where_numbers_of_a_daemon_that_was_restarted_do_not() {
    let daemon = Daemon::start(&SHARDS);
    let grpc = Grpc::connect(&daemon);
    let mut events = grpc.subscribe(&["+"]);
    publish_numbers(&grpc, "a", 0..2);
    publish_numbers(&grpc, "b", 2..3);
    let had = [events.message(), events.message(), events.message()];
    daemon.end_well();

    let daemon = Daemon::start(&SHARDS);
    let grpc = Grpc::connect(&daemon);
    publish_numbers(&grpc, "a", 3..7);
    publish_numbers(&grpc, "b", 7..8);
    let anew = |request: ResumeSubscribeRequest, last: u32| {
        let request = ResumeSubscribeRequest { topics: vec!["+".to_owned()], ..request };
        let mut events = grpc.resume(request).expect("it is confirmed");
        publish_numbers(&grpc, "b", last..last + 1);
        let (mut numbers, gaps) = numbers_until(&mut events, last);
        numbers.sort_unstable();
        (numbers, gaps)
    };
    let last_message_ids = had[1..].iter().map(|message| message.message_id.clone()).collect();
    let named = anew(ResumeSubscribeRequest { last_message_ids, ..resume("") }, 8);
    assert_eq!(named, (vec![3, 4, 5, 6, 7, 8], vec![-1, -1]), "both topics, behind a gap each");
    // The daemon has given this number to another message meanwhile, and cannot know; the other it has not given yet.
    let numbers = HashMap::from([("a".to_owned(), 2), ("b".to_owned(), 9)]);
    let told = anew(ResumeSubscribeRequest { last_sequence_per_topic: numbers, ..resume("") }, 9);
    assert_eq!(told, (vec![5, 6, 7, 8, 9], vec![-1]));
    daemon.end_well();
}

#[test]
fn a_slow_client_loses_by_its_policy_is_told_and_holds_up_nobody() {
    let daemon = Daemon::start(&SHARDS);
    let (grpc, slow) = (Grpc::connect(&daemon), Grpc::connect(&daemon));
    let request = SubscribeRequest {
        topics: vec!["a".to_owned()],
        max_buffer_size: 1_000,
        overflow_policy: OverflowPolicy::OverflowDropOldest.into(),
        ..SubscribeRequest::default()
    };
    let mut stalled = slow.subscribe_with(request).expect("it is confirmed");
    let mut healthy = grpc.subscribe(&["a"]);
    let bystanders = Bystanders::start(&daemon);
    let mut payload = [0; 4_000];
    let mut number = 0u32;
    let mut round = |grpc: &Grpc, healthy: &mut Events| {
        let requests = (0..500u32).map(|at| {
            payload[..4].copy_from_slice(&(number + at).to_le_bytes());
            request_of(&payload)
        });
        let responses = grpc.publish_all(requests.collect());
        for at in 0..500 {
            let message = healthy.message();
            let got = u32::from_le_bytes(message.payload[..4].try_into().expect("a number"));
            assert_eq!(got, number + at);
        }
        number += 500;
        responses.iter().any(|response| response.subscribers_dropped > 0) || number >= 40_000
    };
    // Until the window, the buffers on the way and the queue are full, and beyond.
    while !round(&grpc, &mut healthy) {}
    let last = number;
    let (mut seen, mut missed, mut warned) = (0, 0, false);
    while seen + missed < i64::from(last) {
        match stalled.event() {
            Event::Message(_) => seen += 1,
            Event::Gap(gap) => {
                assert_eq!(gap.reason, "slow_consumer");
                missed += gap.missed;
            }
            Event::BackpressureWarning(warning) => {
                warned |= warning.messages_dropped > 0 && warning.queue_limit == 1_000;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen + missed, i64::from(last), "every message came or was told");
    assert!(missed > 0 && warned, "missed {missed}, warned {warned}");
    bystanders.unharmed();
    daemon.end_well();
}

fn request_of(payload: &[u8]) -> PublishRequest {
    request("a", payload)
}

#[test]
fn a_daemon_that_ends_says_so_and_waits_for_no_idle_stream() {
    let daemon = Daemon::start(&SHARDS);
    let grpc = Grpc::connect(&daemon);
    assert_eq!(grpc.health() as i32, 1);
    let mut events = grpc.subscribe(&["a"]);
    let mut daemon = daemon;
    daemon.terminate();
    assert_eq!(events.end(), Code::Unavailable);
    let ended = daemon.wait();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    assert!(ended.took < Duration::from_secs(3), "{:?}", ended.took);
}

#[test]
fn a_daemon_that_ends_gives_streams_what_is_queued_first() {
    let mut daemon = Daemon::start(&SHARDS);
    let (grpc, slow) = (Grpc::connect(&daemon), Grpc::connect(&daemon));
    let mut events = slow.subscribe(&["a"]);
    let mut payload = [0; 4_000];
    let messages = 4_000u32;
    for first in (0..messages).step_by(500) {
        let requests = (first..first + 500).map(|number| {
            payload[..4].copy_from_slice(&number.to_le_bytes());
            request_of(&payload)
        });
        let responses = grpc.publish_all(requests.collect());
        assert!(responses.iter().all(|it| it.subscribers_dropped == 0), "the queue holds all");
    }
    daemon.terminate();
    for number in 0..messages {
        let got = events.message();
        assert_eq!(got.payload[..4], number.to_le_bytes(), "nothing is missing");
    }
    assert_eq!(events.end(), Code::Unavailable);
    assert_eq!(daemon.wait().status.code(), Some(0));
}

#[test]
fn native_clients_are_counted_beside_those_of_grpc() {
    let daemon = Daemon::start(&["--max-connections", "3"]);
    let grpc = Grpc::connect(&daemon);
    let _events = grpc.subscribe(&["a"]);
    let native: [Client; 2] = [daemon.client(), daemon.client()];
    let refused = grpc.try_publish(request("a", b"1")).expect_err("there is no room");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    drop(native);
    eventually("there is room again", || grpc.try_publish(request("a", b"1")).is_ok());
    // That may have been the place of one of the two, and the other has not left yet.
    let mut native = None;
    eventually("a native client has room again as well", || {
        let mut client = Client::open(&daemon.v4());
        client.hello();
        client.flush();
        let first = client.listen(SOON);
        native = matches!(first, Listened::Heard(Heard::Welcome { .. })).then_some(client);
        native.is_some()
    });
    let topics = vec!["a".to_owned()];
    let refused = grpc.subscribe_with(SubscribeRequest { topics, ..SubscribeRequest::default() });
    assert_eq!(refused.expect_err("there is no room").code(), Code::ResourceExhausted);
    daemon.end_well();
}
