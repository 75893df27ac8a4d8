//! The frames that `tests/golden/` shows. Their values tell one small story: a client subscribes to
//! temperatures and publishes one.

use nexusd_wire::control::{
    DeliveryMode, ErrorCode, Farewell, GapMode, GapReason, OverflowPolicy, PublishStatus, Role,
};
use nexusd_wire::{FrameKind, MessageFlags, NodeId, SubscriptionId};

use super::links::link_vectors;
use crate::sample::{AckSample, MessageSample, MetadataSample, Sample};

/// One file.
pub(crate) struct Vector {
    pub file: &'static str,
    pub sender: &'static str,
    pub says: &'static str,
    pub sample: Sample,
}

const CLIENT: &str = "client";
const DAEMON: &str = "daemon";
const EITHER: &str = "client or the daemon";

/// Of two nodes the one with the smaller id.
pub(crate) const NODE: NodeId = NodeId(0x0f1e_2d3c_4b5a_6978_8796_a5b4_c3d2_e1f0);
pub(crate) const OTHER_NODE: NodeId = NodeId(0x1111_2222_3333_4444_5555_6666_7777_8888);
/// Both halves small: the index shows them as JSON numbers, which not every language reads exactly.
const REPLY_NODE: NodeId = NodeId((1 << 64) | 2);
const SUBSCRIPTION: SubscriptionId = SubscriptionId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
const TOPIC: &str = "plant/boiler/temperature";
/// The daemon's id of the topic.
const DELIVERED_TOPIC: u32 = 7;
/// 2026-01-02 03:04:05.678901 UTC.
pub(crate) const TIMESTAMP_US: u64 = 1_767_323_045_678_901;
/// When the node started: 2026-01-02 00:00:00 UTC.
pub(crate) const START_US: u64 = 1_767_312_000_000_000;

/// Every field of a metadata table.
pub(crate) fn metadata_vector() -> MetadataSample {
    MetadataSample {
        content_type: Some("text/plain".into()),
        correlation_id: Some("reading-42".into()),
        reply_to: Some((REPLY_NODE, 3, 42)),
        headers: vec![
            ("unit".into(), b"celsius".to_vec()),
            ("unit".into(), "°C".as_bytes().to_vec()),
            ("raw".into(), vec![0x00, 0xff, 0x80]),
        ],
        trace_parent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        trace_state: Some("vendor=1".into()),
    }
}

fn publish() -> MessageSample {
    MessageSample {
        topic: 0,
        sequence: 1,
        flags: MessageFlags::ACK.0,
        payload: b"21.5".to_vec(),
        ..MessageSample::default()
    }
}

fn publish_with_everything() -> MessageSample {
    MessageSample {
        sequence: 2,
        flags: MessageFlags::ACK.with(MessageFlags::RETAIN).with(MessageFlags::KEYED).0,
        ttl_ms: 60_000,
        key_hash: 0x1234_5678,
        metadata: Some(metadata_vector()),
        payload: b"21.75".to_vec(),
        ..publish()
    }
}

fn delivery() -> MessageSample {
    MessageSample {
        topic: DELIVERED_TOPIC,
        sequence: 1,
        origin_sequence: 1,
        timestamp_us: TIMESTAMP_US,
        payload: b"21.5".to_vec(),
        ..MessageSample::default()
    }
}

fn delivery_with_metadata() -> MessageSample {
    MessageSample {
        sequence: 2,
        origin_sequence: 2,
        timestamp_us: TIMESTAMP_US + 1_000_000,
        metadata: Some(MetadataSample {
            content_type: Some("text/plain".into()),
            headers: vec![("unit".into(), b"celsius".to_vec())],
            ..MetadataSample::default()
        }),
        payload: b"21.75".to_vec(),
        ..delivery()
    }
}

/// All vectors, in the order of the kinds' numbers.
pub(crate) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    let mut add = |file, sender, says, sample| {
        all.push(Vector { file, sender, says, sample });
    };
    add(
        "hello.hex",
        CLIENT,
        "opens every connection",
        Sample::Hello {
            minor: 0,
            role: Role::Client,
            name: "meter".into(),
            software: "example/1.0".into(),
            resume: None,
            introduction: None,
        },
    );
    add(
        "hello_resume.hex",
        CLIENT,
        "opens the connection of a client that comes back for its subscriptions",
        Sample::Hello {
            minor: 0,
            role: Role::Client,
            name: "meter".into(),
            software: "example/1.0".into(),
            resume: Some(SUBSCRIPTION),
            introduction: None,
        },
    );
    add(
        "hello_minor.hex",
        CLIENT,
        "opens the connection of a client that speaks a later minor version, too",
        Sample::Hello {
            minor: 3,
            role: Role::Client,
            name: String::new(),
            software: String::new(),
            resume: None,
            introduction: None,
        },
    );
    add(
        "welcome.hex",
        DAEMON,
        "answers Hello",
        Sample::Welcome {
            minor: 0,
            node: NODE,
            software: "nexusd/0.1.0".into(),
            cluster: "default".into(),
            max_payload: 4 << 20,
            max_metadata: 16 << 10,
            introduction: None,
        },
    );
    add(
        "welcome_minor.hex",
        DAEMON,
        "answers Hello and settles on a later minor version",
        Sample::Welcome {
            minor: 3,
            node: NODE,
            software: String::new(),
            cluster: "default".into(),
            max_payload: 1024,
            max_metadata: 0,
            introduction: None,
        },
    );
    add(
        "ping.hex",
        EITHER,
        "asks for a Pong; the token stands in `sequence`",
        Sample::Ping { token: 77 },
    );
    add("pong.hex", EITHER, "answers a Ping with its token", Sample::Pong { token: 77 });
    add(
        "goodbye.hex",
        DAEMON,
        "ends the connection in order and says what was accepted",
        Sample::Goodbye {
            reason: "the daemon is stopping".into(),
            last_accepted: 2,
            farewell: Farewell::Ending,
            is_complete: false,
        },
    );
    add(
        "goodbye_complete.hex",
        DAEMON,
        "ends the connection in order; nothing follows",
        Sample::Goodbye {
            reason: "the daemon is stopping".into(),
            last_accepted: 2,
            farewell: Farewell::Ending,
            is_complete: true,
        },
    );
    add(
        "error.hex",
        DAEMON,
        "refuses a request; the connection goes on",
        Sample::Error {
            code: ErrorCode::InvalidTopic,
            message: "'#' must be the last level of a filter".into(),
            fatal: false,
            request: 5,
            offset: 1_024,
            kind: FrameKind::Subscribe.0,
        },
    );
    add(
        "error_fatal.hex",
        DAEMON,
        "reports bytes that are not a frame; the connection closes behind it",
        Sample::Error {
            code: ErrorCode::Malformed,
            message: "frame at byte 96: total length 12 is shorter than the 48-byte header".into(),
            fatal: true,
            request: 0,
            offset: 96,
            kind: 0,
        },
    );
    add(
        "topic_bind.hex",
        DAEMON,
        "names a topic id before the first message that carries it",
        Sample::TopicBind { topic: DELIVERED_TOPIC, name: TOPIC.into() },
    );
    add(
        "topic_bind_publisher.hex",
        CLIENT,
        "binds the publisher's own id, the first being 0, to a topic",
        Sample::TopicBind { topic: 0, name: TOPIC.into() },
    );
    add(
        "topic_unbind.hex",
        EITHER,
        "releases a topic id",
        Sample::TopicUnbind { topic: DELIVERED_TOPIC },
    );
    add(
        "node_bind.hex",
        DAEMON,
        "names the handle of a node, found in `origin` of messages from there",
        Sample::NodeBind { handle: 1, node: OTHER_NODE },
    );
    add("message.hex", DAEMON, "a delivered message", Sample::Message(delivery()));
    add(
        "message_metadata.hex",
        DAEMON,
        "a delivered message with metadata",
        Sample::Message(delivery_with_metadata()),
    );
    add(
        "message_publish.hex",
        CLIENT,
        "a publish that wants an acknowledgement",
        Sample::Message(publish()),
    );
    add(
        "message_publish_full.hex",
        CLIENT,
        "a publish with every flag, field and metadata field",
        Sample::Message(publish_with_everything()),
    );
    add(
        "message_empty.hex",
        CLIENT,
        "a publish with neither metadata nor payload",
        Sample::Message(MessageSample { payload: Vec::new(), flags: 0, sequence: 3, ..publish() }),
    );
    add(
        "publish_ack.hex",
        DAEMON,
        "acknowledges one publish and refuses another",
        Sample::PublishAck {
            entries: vec![
                AckSample {
                    publisher_sequence: 1,
                    sequence: 1,
                    delivered: 3,
                    dropped: 2,
                    blocked: 1,
                    status: PublishStatus::Accepted,
                },
                AckSample {
                    publisher_sequence: 2,
                    sequence: 0,
                    delivered: 0,
                    dropped: 0,
                    blocked: 0,
                    status: PublishStatus::Unsupported,
                },
            ],
        },
    );
    add(
        "publish_pause.hex",
        DAEMON,
        "asks the publisher to hold its messages",
        Sample::PublishPause,
    );
    add("publish_resume.hex", DAEMON, "lets the publisher go on", Sample::PublishResume);
    add(
        "subscribe.hex",
        CLIENT,
        "subscribes with the daemon's defaults",
        Sample::Subscribe {
            request: 1,
            filters: vec!["plant/+/temperature".into()],
            policy: None,
            queue_messages: None,
            queue_bytes: None,
            receive_retained: false,
            counted: false,
            positions: Vec::new(),
            wait_mesh: false,
            ended: Vec::new(),
        },
    );
    add(
        "subscribe_options.hex",
        CLIENT,
        "subscribes to two filters with every option given",
        Sample::Subscribe {
            request: 2,
            filters: vec!["plant/#".into(), "$SYS/#".into()],
            policy: Some(OverflowPolicy::Block),
            queue_messages: Some(0),
            queue_bytes: Some(1 << 20),
            receive_retained: true,
            counted: true,
            positions: Vec::new(),
            wait_mesh: true,
            ended: Vec::new(),
        },
    );
    add(
        "subscribe_positions.hex",
        CLIENT,
        "subscribes anew and says how far it had come",
        Sample::Subscribe {
            request: 3,
            filters: vec!["plant/#".into()],
            policy: None,
            queue_messages: None,
            queue_bytes: None,
            receive_retained: false,
            counted: true,
            positions: vec![(TOPIC.into(), 41, Some(NODE)), ("plant/pump/speed".into(), 0, None)],
            wait_mesh: false,
            ended: Vec::new(),
        },
    );
    add(
        "subscribe_ended.hex",
        CLIENT,
        "subscribes anew after a complete Goodbye of the node it was at",
        Sample::Subscribe {
            request: 3,
            filters: vec![TOPIC.into()],
            policy: None,
            queue_messages: None,
            queue_bytes: None,
            receive_retained: false,
            counted: true,
            positions: vec![(TOPIC.into(), 41, Some(NODE))],
            wait_mesh: false,
            ended: vec![NODE],
        },
    );
    add(
        "subscription_info.hex",
        DAEMON,
        "confirms a Subscribe",
        Sample::SubscriptionInfo {
            request: 1,
            subscription: SUBSCRIPTION,
            gap_detected: false,
            missed_count: 0,
            replay_started: false,
        },
    );
    add(
        "subscription_info_resumed.hex",
        DAEMON,
        "confirms a Resume behind a gap of unknown size",
        Sample::SubscriptionInfo {
            request: 4,
            subscription: SUBSCRIPTION,
            gap_detected: true,
            missed_count: -1,
            replay_started: true,
        },
    );
    add(
        "unsubscribe.hex",
        CLIENT,
        "ends a subscription",
        Sample::Unsubscribe { request: 3, subscription: SUBSCRIPTION, pause: false },
    );
    add(
        "unsubscribe_pause.hex",
        CLIENT,
        "parks a subscription",
        Sample::Unsubscribe { request: 3, subscription: SUBSCRIPTION, pause: true },
    );
    add(
        "unsubscribe_result.hex",
        DAEMON,
        "confirms an Unsubscribe",
        Sample::UnsubscribeResult { request: 3, success: true, message: None, pause_ttl_ms: 0 },
    );
    add(
        "unsubscribe_result_unknown.hex",
        DAEMON,
        "refuses an Unsubscribe",
        Sample::UnsubscribeResult {
            request: 3,
            success: false,
            message: Some("Subscription not found".into()),
            pause_ttl_ms: 0,
        },
    );
    add(
        "unsubscribe_result_parked.hex",
        DAEMON,
        "confirms that a subscription is parked, and for how long",
        Sample::UnsubscribeResult {
            request: 3,
            success: true,
            message: None,
            pause_ttl_ms: 300_000,
        },
    );
    add(
        "resume.hex",
        CLIENT,
        "goes on with a parked subscription",
        Sample::Resume {
            request: 4,
            subscription: SUBSCRIPTION,
            received_count: 1_000,
            gap_mode: GapMode::ReplayBuffer,
        },
    );
    add(
        "replay_complete.hex",
        DAEMON,
        "stands behind the last replayed message of a topic",
        Sample::ReplayComplete {
            topic: DELIVERED_TOPIC,
            subscription: SUBSCRIPTION,
            replayed_count: 5,
            latest_sequence: 105,
        },
    );
    add(
        "deliver.hex",
        DAEMON,
        "opens a run of live messages of one subscription",
        Sample::Deliver {
            subscription: SUBSCRIPTION,
            mode: DeliveryMode::Live,
            delivery_count: 0,
            now_us: 0,
        },
    );
    add(
        "deliver_replay.hex",
        DAEMON,
        "opens a run of replayed messages",
        Sample::Deliver {
            subscription: SUBSCRIPTION,
            mode: DeliveryMode::Replay,
            delivery_count: 0,
            now_us: 0,
        },
    );
    add(
        "deliver_retained.hex",
        DAEMON,
        "opens a run of retained values",
        Sample::Deliver {
            subscription: SUBSCRIPTION,
            mode: DeliveryMode::Retained,
            delivery_count: 0,
            now_us: 0,
        },
    );
    add(
        "deliver_redelivery.hex",
        DAEMON,
        "opens a run of messages delivered once more",
        Sample::Deliver {
            subscription: SUBSCRIPTION,
            mode: DeliveryMode::Redelivery,
            delivery_count: 2,
            now_us: 0,
        },
    );
    add(
        "gap.hex",
        DAEMON,
        "tells a loss: 10 to 19 and 30 of topic 7, 3 of topic 8, 5 messages of further topics",
        Sample::Gap {
            subscription: SUBSCRIPTION,
            reason: GapReason::Memory,
            missed: 17,
            entries: vec![(DELIVERED_TOPIC, 10, 19), (DELIVERED_TOPIC, 30, 30), (8, 3, 3)],
            rest: 5,
        },
    );
    add(
        "backpressure_warning.hex",
        DAEMON,
        "tells that a subscription falls behind",
        Sample::BackpressureWarning {
            subscription: SUBSCRIPTION,
            dropped: 1_250,
            depth: 8_750,
            limit: 10_000,
            reason: GapReason::LinkLost,
            expired: 12,
            oldest_age_ms: 1_500,
        },
    );
    add(
        "heartbeat.hex",
        DAEMON,
        "shows that a silent connection lives",
        Sample::Heartbeat { timestamp_us: TIMESTAMP_US },
    );
    add(
        "stream_ack.hex",
        CLIENT,
        "tells how many messages of each subscription have arrived",
        Sample::StreamAck { entries: vec![(SUBSCRIPTION, 1_000), (SubscriptionId(1), 2)] },
    );
    add(
        "ack.hex",
        CLIENT,
        "acknowledges all messages of topic 7 up to 12",
        Sample::Ack {
            subscription: SUBSCRIPTION,
            cumulative: true,
            messages: vec![(DELIVERED_TOPIC, 12)],
        },
    );
    add(
        "nack.hex",
        CLIENT,
        "asks for two messages again, in a second",
        Sample::Nack {
            subscription: SUBSCRIPTION,
            messages: vec![(DELIVERED_TOPIC, 13), (8, 1)],
            delay_ms: 1_000,
        },
    );
    add(
        "request.hex",
        CLIENT,
        "a request; laid out like a Message",
        Sample::Request(MessageSample {
            sequence: 42,
            ttl_ms: 2_000,
            metadata: Some(MetadataSample {
                reply_to: Some((REPLY_NODE, 3, 42)),
                ..MetadataSample::default()
            }),
            payload: b"read".to_vec(),
            ..MessageSample::default()
        }),
    );
    add(
        "reply.hex",
        CLIENT,
        "a reply; laid out like a Message",
        Sample::Reply(MessageSample {
            sequence: 42,
            metadata: Some(MetadataSample {
                reply_to: Some((REPLY_NODE, 3, 42)),
                ..MetadataSample::default()
            }),
            payload: b"21.5".to_vec(),
            ..MessageSample::default()
        }),
    );
    all.extend(link_vectors());
    all.sort_by_key(|vector| vector.sample.kind().0);
    all
}
