//! What a client has to remember to understand the frames of a daemon.
//!
//! The names of the daemon's topic ids, the nodes behind its handles and the open run. It holds the daemon to the protocol: a
//! message without a Deliver before it, or of a topic whose name was not told, is a failure.

use std::collections::HashMap;
use std::sync::Arc;

use nexusd_wire::control::{self, DeliveryMode};
use nexusd_wire::{Frame, FrameKind, NodeId, SubscriptionId};

use crate::heard::{Complaint, Confirmation, Delivery, Heard, Loss, Replayed, Subscribed, Warning};

/// The body of a frame of the daemon's.
macro_rules! body {
    ($frame:expr, $table:ident) => {
        $frame
            .body::<control::$table<'_>>()
            .unwrap_or_else(|error| panic!("the daemon sent a bad body: {error}"))
    };
}

/// The state of one connection that its frames refer to.
#[derive(Default, Debug)]
pub(crate) struct Hearing {
    /// Names of the daemon's topic ids.
    topics: HashMap<u32, Arc<str>>,
    /// Nodes by the daemon's handles.
    nodes: HashMap<u32, NodeId>,
    /// The open run: whose, and why its messages come.
    run: Option<(SubscriptionId, DeliveryMode)>,
}

impl Hearing {
    /// What a frame says, in words of its own; `None` if it is nothing to be heard.
    pub(crate) fn interpret(&mut self, frame: &Frame<'_>) -> Option<Heard> {
        let header = frame.header();
        match frame.kind() {
            FrameKind::Message => return Some(Heard::Message(self.delivery(frame))),
            FrameKind::Gap => return Some(Heard::Gap(self.loss(frame))),
            FrameKind::ReplayComplete => return Some(Heard::ReplayComplete(self.replayed(frame))),
            FrameKind::Deliver => {
                let deliver = body!(frame, Deliver);
                self.run = Some((deliver.subscription().into(), deliver.mode()));
            }
            FrameKind::TopicBind => {
                let name = body!(frame, TopicBind).name();
                self.topics.insert(header.topic().0, Arc::from(name));
            }
            FrameKind::NodeBind => {
                let (handle, node) = (header.origin(), body!(frame, NodeBind).node().into());
                assert_ne!(handle, 0, "that is the daemon itself");
                let before = self.nodes.insert(handle, node);
                assert!(before.is_none_or(|before| before == node), "a handle stays a node's");
            }
            FrameKind::TopicUnbind => {
                self.topics.remove(&header.topic().0);
            }
            _ => return Some(interpret_other(frame)),
        }
        None
    }

    fn delivery(&self, frame: &Frame<'_>) -> Delivery {
        let header = frame.header();
        let origin = match header.origin() {
            0 => {
                assert_eq!(header.origin_sequence(), header.sequence(), "it is the origin");
                None
            }
            handle => {
                let node = self.nodes.get(&handle).copied();
                Some(node.unwrap_or_else(|| panic!("handle {handle} is no node yet")))
            }
        };
        let (subscription, mode) = self.run.expect("a Deliver before the first message");
        Delivery {
            subscription,
            mode,
            topic: self.name_of(header.topic().0),
            sequence: header.sequence().0,
            origin,
            origin_sequence: header.origin_sequence().0,
            timestamp_us: header.timestamp_us(),
            flags: header.flags().0,
            ttl_ms: header.ttl_ms(),
            key_hash: header.key_hash(),
            metadata: frame.metadata_bytes().to_vec(),
            payload: frame.payload().to_vec(),
        }
    }

    fn loss(&self, frame: &Frame<'_>) -> Loss {
        let gap = body!(frame, Gap);
        let entries = gap.entries().into_iter().flatten();
        Loss {
            subscription: gap.subscription().into(),
            reason: gap.reason(),
            missed: gap.missed(),
            entries: entries
                .map(|entry| (self.name_of(entry.topic()), entry.first(), entry.last()))
                .collect(),
            rest: gap.rest(),
        }
    }

    fn replayed(&self, frame: &Frame<'_>) -> Replayed {
        let complete = body!(frame, ReplayComplete);
        Replayed {
            subscription: complete.subscription().into(),
            topic: self.name_of(frame.header().topic().0),
            count: complete.replayed_count(),
            latest: complete.latest_sequence(),
        }
    }

    fn name_of(&self, id: u32) -> Arc<str> {
        let name = self.topics.get(&id).map(Arc::clone);
        name.unwrap_or_else(|| panic!("topic id {id} has no name yet"))
    }
}

/// What a frame says that stands for itself.
fn interpret_other(frame: &Frame<'_>) -> Heard {
    let token = frame.header().sequence().0;
    match frame.kind() {
        FrameKind::Welcome => {
            let welcome = body!(frame, Welcome);
            Heard::Welcome { node: welcome.node().into(), max_payload: welcome.max_payload() }
        }
        FrameKind::Ping => Heard::Ping(token),
        FrameKind::Pong => Heard::Pong(token),
        FrameKind::Heartbeat => Heard::Heartbeat,
        FrameKind::PublishPause => Heard::PublishPause,
        FrameKind::PublishResume => Heard::PublishResume,
        FrameKind::Goodbye => {
            let goodbye = body!(frame, Goodbye);
            Heard::Goodbye {
                last_accepted: goodbye.last_accepted(),
                is_complete: goodbye.is_complete(),
            }
        }
        FrameKind::Error => {
            let error = body!(frame, Error);
            Heard::Error(Complaint {
                code: error.code(),
                message: error.message().unwrap_or_default().to_owned(),
                fatal: error.fatal(),
                request: error.request(),
                offset: error.offset(),
                kind: error.kind(),
            })
        }
        FrameKind::PublishAck => {
            let ack = body!(frame, PublishAck);
            Heard::PublishAck(ack.entries().iter().map(confirmation).collect())
        }
        FrameKind::SubscriptionInfo => {
            let info = body!(frame, SubscriptionInfo);
            Heard::Subscribed(Subscribed {
                request: info.request(),
                subscription: info.subscription().into(),
                gap_detected: info.gap_detected(),
                missed: info.missed_count(),
                replay_started: info.replay_started(),
            })
        }
        FrameKind::UnsubscribeResult => {
            let result = body!(frame, UnsubscribeResult);
            Heard::Unsubscribed {
                request: result.request(),
                success: result.success(),
                message: result.message().unwrap_or_default().to_owned(),
                pause_ttl_ms: result.pause_ttl_ms(),
            }
        }
        FrameKind::BackpressureWarning => {
            let warning = body!(frame, BackpressureWarning);
            Heard::Warning(Warning {
                subscription: warning.subscription().into(),
                dropped: warning.dropped(),
                depth: warning.depth(),
                limit: warning.limit(),
                reason: warning.reason(),
                expired: warning.expired(),
                oldest_age_ms: warning.oldest_age_ms(),
            })
        }
        kind => panic!("daemons of this version do not send {kind:?}"),
    }
}

fn confirmation(entry: &control::PublishAckEntry) -> Confirmation {
    Confirmation {
        publisher_sequence: entry.publisher_sequence(),
        sequence: entry.sequence(),
        delivered: entry.delivered(),
        blocked: entry.blocked(),
        status: entry.status(),
    }
}
