//! What a client hears from a daemon, frame by frame, in its own memory.

use std::sync::Arc;

use nexusd_wire::control::{DeliveryMode, ErrorCode, GapReason, PublishStatus};
use nexusd_wire::{NodeId, SubscriptionId};

/// One frame of the daemon. Deliver, TopicBind and TopicUnbind are taken into account by the client
/// and are not heard.
#[derive(Clone, PartialEq, Debug)]
pub enum Heard {
    /// Hello was accepted.
    Welcome {
        /// The daemon's id.
        node: NodeId,
        /// Longest payload it accepts, in bytes.
        max_payload: u32,
    },
    /// Its token.
    Ping(u64),
    /// The token of the ping it answers.
    Pong(u64),
    /// The daemon stops.
    Goodbye {
        /// Number of the newest publish it accepted from this client.
        last_accepted: u64,
        /// All that it accepted for this client came before.
        is_complete: bool,
    },
    /// Something was wrong.
    Error(Complaint),
    /// Publishes were accepted or refused.
    PublishAck(Vec<Confirmation>),
    /// A full queue holds the client back.
    PublishPause,
    /// It no longer does.
    PublishResume,
    /// A subscription stands.
    Subscribed(Subscribed),
    /// A subscription was given up.
    Unsubscribed {
        /// The request it answers.
        request: u64,
        /// Whether there was such a subscription.
        success: bool,
        /// Why not.
        message: String,
        /// How long it stays parked; 0 if it does not.
        pause_ttl_ms: u64,
    },
    /// A message.
    Message(Delivery),
    /// Messages that were lost.
    Gap(Loss),
    /// All that was missed of a topic has come.
    ReplayComplete(Replayed),
    /// A subscription falls behind.
    Warning(Warning),
    /// A sign of life.
    Heartbeat,
}

/// The contents of a SubscriptionInfo.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subscribed {
    /// The request it answers.
    pub request: u64,
    /// Its id.
    pub subscription: SubscriptionId,
    /// Whether messages were lost.
    pub gap_detected: bool,
    /// How many; -1 if nobody knows.
    pub missed: i64,
    /// Whether messages are replayed.
    pub replay_started: bool,
}

/// The contents of an Error frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// What kind of error.
    pub code: ErrorCode,
    /// What is wrong.
    pub message: String,
    /// Whether the connection ends.
    pub fatal: bool,
    /// The request at fault, or 0.
    pub request: u64,
    /// Position of the frame at fault in the client's stream.
    pub offset: u64,
    /// Kind of the frame at fault, or 0.
    pub kind: u8,
}

/// What became of one publish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Confirmation {
    /// The publisher's number.
    pub publisher_sequence: u64,
    /// The daemon's number, or 0.
    pub sequence: u64,
    /// Subscriptions it was queued for.
    pub delivered: u32,
    /// Queues that hold the publisher back.
    pub blocked: u32,
    /// Accepted, or why not.
    pub status: PublishStatus,
}

/// One delivered message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// Whose delivery it is.
    pub subscription: SubscriptionId,
    /// Why it comes.
    pub mode: DeliveryMode,
    /// Name of its topic.
    pub topic: Arc<str>,
    /// Its number within the topic.
    pub sequence: u64,
    /// The node that accepted it; `None`: this daemon.
    pub origin: Option<NodeId>,
    /// Its number there.
    pub origin_sequence: u64,
    /// When that accepted it, in microseconds since 1970.
    pub timestamp_us: u64,
    /// Its flags.
    pub flags: u8,
    /// Its time to live in milliseconds.
    pub ttl_ms: u32,
    /// Its key's hash.
    pub key_hash: u32,
    /// Its metadata table.
    pub metadata: Vec<u8>,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// The contents of a Gap frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// Whose loss it is.
    pub subscription: SubscriptionId,
    /// Why.
    pub reason: GapReason,
    /// Messages lost in all; all ones if nobody knows.
    pub missed: u64,
    /// Topic, first and last lost number.
    pub entries: Vec<(Arc<str>, u64, u64)>,
    /// Messages lost of further topics.
    pub rest: u64,
}

impl Loss {
    /// Nobody knows how many there were.
    pub fn is_unknown(&self) -> bool {
        self.missed == u64::MAX
    }
}

/// The contents of a ReplayComplete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replayed {
    /// Whose replay it was.
    pub subscription: SubscriptionId,
    /// Its topic.
    pub topic: Arc<str>,
    /// Messages of the topic that were replayed.
    pub count: u64,
    /// Number of the last of them.
    pub latest: u64,
}

/// The contents of a BackpressureWarning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Warning {
    /// The subscription that falls behind.
    pub subscription: SubscriptionId,
    /// Messages dropped since the last warning.
    pub dropped: u64,
    /// Messages queued.
    pub depth: u64,
    /// Messages the queue holds.
    pub limit: u64,
    /// Why messages were dropped.
    pub reason: GapReason,
    /// Messages that expired in the queue.
    pub expired: u64,
    /// Age of the oldest queued message.
    pub oldest_age_ms: u64,
}
