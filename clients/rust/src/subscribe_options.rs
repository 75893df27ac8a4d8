//! How a subscription is served: what an application may choose.

use crate::limits;
use crate::positions::Position;

/// What the daemon does when a subscription's queue is full.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum OverflowPolicy {
    /// Drop the oldest messages. Told by a [`Gap`](crate::Gap).
    DropOldest,
    /// Drop those that come. Told by a [`Gap`](crate::Gap).
    DropNewest,
    /// Hold publishers back for a while, then drop the oldest.
    Block,
    /// Close the connection, with all subscriptions it has; the client connects again.
    Disconnect,
}

/// What is done about messages that were missed while there was no connection and that the daemon
/// does not hold for this subscription any more. What it still holds comes in any case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum GapMode {
    /// Tell the gap.
    None,
    /// Tell the gap, and deliver the retained values of all topics that match.
    RetainedOnly,
    /// Replay those that are still held of their topic, and tell the gap of the rest.
    #[default]
    ReplayBuffer,
}

/// How a subscription is served. What is not set is the daemon's default.
#[derive(Clone, Debug)]
#[must_use = "options do nothing until they are given to a subscription"]
pub struct SubscribeOptions {
    pub(crate) policy: Option<OverflowPolicy>,
    pub(crate) queue_messages: Option<u32>,
    pub(crate) queue_bytes: Option<u64>,
    pub(crate) retained: bool,
    pub(crate) counted: bool,
    pub(crate) wait_mesh: bool,
    pub(crate) gap_mode: GapMode,
    pub(crate) buffer_messages: usize,
    pub(crate) buffer_bytes: usize,
    /// Taken out when a subscription begins.
    pub(crate) behind: Vec<Position>,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            policy: None,
            queue_messages: None,
            queue_bytes: None,
            retained: false,
            counted: true,
            wait_mesh: false,
            gap_mode: GapMode::default(),
            buffer_messages: limits::BUFFER_MESSAGES,
            buffer_bytes: limits::BUFFER_BYTES,
            behind: Vec::new(),
        }
    }
}

impl SubscribeOptions {
    /// The daemon's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the daemon does when its queue for this subscription is full.
    pub fn policy(mut self, policy: OverflowPolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// How many messages the daemon queues; 0 leaves bytes as the only bound.
    pub fn queue_messages(mut self, messages: u32) -> Self {
        self.queue_messages = Some(messages);
        self
    }

    /// How many bytes the daemon queues.
    pub fn queue_bytes(mut self, bytes: u64) -> Self {
        self.queue_bytes = Some(bytes);
        self
    }

    /// Whether subscribing waits, 1 s at most, until the other nodes of the mesh know what is wanted: what is
    /// published at any of them from then on is delivered. Default: no, which leaves out what is published
    /// elsewhere within the next milliseconds.
    pub fn wait_mesh(mut self, wait_mesh: bool) -> Self {
        self.wait_mesh = wait_mesh;
        self
    }

    /// Whether the retained values of all topics that match are delivered first. A topic's retained
    /// value comes before its live messages; between topics there is no order. Default: no.
    pub fn retained(mut self, retained: bool) -> Self {
        self.retained = retained;
        self
    }

    /// Whether the client acknowledges what has come, so that the daemon keeps what was on its way
    /// when the connection breaks and nothing of it is lost. Costs a small frame for every 512
    /// messages or 1 MiB, and at least one 250 ms after a message; more often if the queue is smaller
    /// than four times that. Without it what was on its way is told as a
    /// [`Gap`](crate::Gap) of reason [`LinkLost`](crate::GapReason::LinkLost). Default: yes.
    pub fn counted(mut self, counted: bool) -> Self {
        self.counted = counted;
        self
    }

    /// What is done about messages that were missed and are not queued any more when the
    /// subscription comes back. Default: [`GapMode::ReplayBuffer`].
    pub fn gap_mode(mut self, gap_mode: GapMode) -> Self {
        self.gap_mode = gap_mode;
        self
    }

    /// Begins behind these positions: what is still held of their topics behind them is replayed first, and
    /// live messages follow without a hole. So an application that was killed goes on behind what it had
    /// dealt with and written down, whatever had come to it beyond that.
    ///
    /// Of each topic, the newest message that was dealt with of each node where it is published:
    /// [`Message::origin`](crate::Message::origin) and
    /// [`Message::origin_sequence`](crate::Message::origin_sequence). The daemon asks the others of a mesh for
    /// theirs. If the only position of a topic is that of the daemon which is asked, all of the topic is
    /// taken to be published there.
    ///
    /// What is not held any more is told by a [`Gap`](crate::Gap) before the rest. One of reason
    /// [`Reconnected`](crate::GapReason::Reconnected) tells that more may be missing: a topic has no position
    /// of the daemon that is asked, which may have taken the place of another one; a filter has a wildcard,
    /// or is a topic without a position; or there are more than 1,024 topics. Only with
    /// [`GapMode::ReplayBuffer`] is anything replayed.
    pub fn behind(mut self, positions: impl IntoIterator<Item = Position>) -> Self {
        self.behind.extend(positions);
        self
    }

    /// How much waits on this side for the application: messages, and bytes as encoded. When either
    /// is reached the client stops reading from the daemon, up to one read (128 KiB or one larger
    /// message) later. Default: 4,096 and 8 MiB.
    pub fn buffer(mut self, messages: usize, bytes: usize) -> Self {
        self.buffer_messages = messages;
        self.buffer_bytes = bytes;
        self
    }
}
