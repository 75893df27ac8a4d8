//! What a connection hears of a shard, frame by frame.

use nexusd_wire::control::{self, DeliveryMode, ErrorCode};
use nexusd_wire::{Frame, FrameKind, NodeId, SubscriptionId};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    Bind {
        topic: u32,
        name: String,
    },
    Unbind {
        topic: u32,
    },
    NodeBind {
        origin: u32,
        node: NodeId,
    },
    Deliver {
        subscription: SubscriptionId,
    },
    /// A Deliver of another mode than live.
    DeliverAs {
        mode: DeliveryMode,
        subscription: SubscriptionId,
    },
    Warning {
        dropped: u64,
    },
    ReplayComplete {
        topic: u32,
        messages: u64,
        latest: u64,
    },
    Message {
        topic: u32,
        sequence: u64,
        payload: Vec<u8>,
    },
    Gap {
        entries: Vec<(u32, u64, u64)>,
        missed: u64,
    },
    Ack {
        publisher_sequence: u64,
        sequence: u64,
        delivered: u32,
    },
    /// The same, with queues that did not take the message.
    AckDropped {
        publisher_sequence: u64,
        delivered: u32,
        dropped: u32,
    },
    Unsubscribed {
        success: bool,
    },
    Subscribed {
        subscription: SubscriptionId,
    },
    /// The same, of a subscription that catches up.
    Resumed {
        subscription: SubscriptionId,
        missed: i64,
        replays: bool,
    },
    Error {
        code: ErrorCode,
        fatal: bool,
        offset: u64,
    },
    Goodbye {
        last_accepted: u64,
    },
    /// The same, behind all that was accepted for it.
    CompleteGoodbye {
        last_accepted: u64,
    },
    Welcome,
    Pause,
    Resume,
    Ping,
    Other(FrameKind),
}

/// What one frame says.
pub(crate) fn understand(frame: &Frame<'_>, heard: &mut Vec<Heard>) {
    let header = frame.header();
    let topic = header.topic().0;
    heard.push(match frame.kind() {
        FrameKind::TopicBind => {
            let body = frame.body::<control::TopicBind<'_>>().expect("a body");
            Heard::Bind { topic, name: body.name().into() }
        }
        FrameKind::TopicUnbind => Heard::Unbind { topic },
        FrameKind::NodeBind => {
            let body = frame.body::<control::NodeBind<'_>>().expect("a body");
            Heard::NodeBind { origin: header.origin(), node: body.node().into() }
        }
        FrameKind::Deliver => {
            let body = frame.body::<control::Deliver<'_>>().expect("a body");
            let subscription = body.subscription().into();
            match body.mode() {
                DeliveryMode::Live => Heard::Deliver { subscription },
                mode => Heard::DeliverAs { mode, subscription },
            }
        }
        FrameKind::Message => Heard::Message {
            topic,
            sequence: header.sequence().0,
            payload: frame.payload().to_vec(),
        },
        FrameKind::Gap => {
            let body = frame.body::<control::Gap<'_>>().expect("a body");
            let entries = body.entries().into_iter().flatten();
            let entries =
                entries.map(|entry| (entry.topic(), entry.first(), entry.last())).collect();
            Heard::Gap { entries, missed: body.missed() }
        }
        FrameKind::PublishAck => {
            let body = frame.body::<control::PublishAck<'_>>().expect("a body");
            heard.extend(body.entries().iter().map(|entry| {
                let (publisher_sequence, delivered) =
                    (entry.publisher_sequence(), entry.delivered());
                match entry.dropped() {
                    0 => Heard::Ack { publisher_sequence, sequence: entry.sequence(), delivered },
                    dropped => Heard::AckDropped { publisher_sequence, delivered, dropped },
                }
            }));
            return;
        }
        FrameKind::UnsubscribeResult => {
            let body = frame.body::<control::UnsubscribeResult<'_>>().expect("a body");
            Heard::Unsubscribed { success: body.success() }
        }
        FrameKind::SubscriptionInfo => {
            let body = frame.body::<control::SubscriptionInfo<'_>>().expect("a body");
            let subscription = body.subscription().into();
            let (missed, replays) = (body.missed_count(), body.replay_started());
            assert_eq!(body.gap_detected(), missed != 0);
            match (missed, replays) {
                (0, false) => Heard::Subscribed { subscription },
                _ => Heard::Resumed { subscription, missed, replays },
            }
        }
        FrameKind::BackpressureWarning => {
            let body = frame.body::<control::BackpressureWarning<'_>>().expect("a body");
            Heard::Warning { dropped: body.dropped() }
        }
        FrameKind::ReplayComplete => {
            let body = frame.body::<control::ReplayComplete<'_>>().expect("a body");
            let (messages, latest) = (body.replayed_count(), body.latest_sequence());
            Heard::ReplayComplete { topic, messages, latest }
        }
        FrameKind::Error => {
            let body = frame.body::<control::Error<'_>>().expect("a body");
            Heard::Error { code: body.code(), fatal: body.fatal(), offset: body.offset() }
        }
        FrameKind::Goodbye => {
            let body = frame.body::<control::Goodbye<'_>>().expect("a body");
            let last_accepted = body.last_accepted();
            match body.is_complete() {
                true => Heard::CompleteGoodbye { last_accepted },
                false => Heard::Goodbye { last_accepted },
            }
        }
        FrameKind::Welcome => Heard::Welcome,
        FrameKind::PublishPause => Heard::Pause,
        FrameKind::PublishResume => Heard::Resume,
        FrameKind::Ping => Heard::Ping,
        other => Heard::Other(other),
    });
}
