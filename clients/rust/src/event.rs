//! What a subscription yields: messages, and losses at the place where they happened.

use std::sync::Arc;

use nexusd_wire::control;

use crate::message::Message;

/// One thing that happened to a subscription, in order.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message.
    Message(Message),
    /// Messages that should have come here were lost.
    Gap(Gap),
}

impl Event {
    /// The message, if it is one.
    pub fn into_message(self) -> Option<Message> {
        match self {
            Self::Message(message) => Some(message),
            Self::Gap(_) => None,
        }
    }
}

/// A loss, told at its place.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Gap {
    /// Why messages were lost.
    pub reason: GapReason,
    /// How many; `None` if nobody can know.
    pub missed: Option<u64>,
    /// Which, topic by topic; of at most 64 topics.
    pub ranges: Vec<MissedRange>,
    /// How many of the missed belong to topics that `ranges` does not name.
    pub elsewhere: u64,
}

/// Lost messages of one topic, by their numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MissedRange {
    /// The topic.
    pub topic: Arc<str>,
    /// The first lost message.
    pub first: u64,
    /// The last lost message.
    pub last: u64,
}

/// Why messages were lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum GapReason {
    /// The application or its network was too slow; the subscription's queue overflowed.
    SlowConsumer,
    /// The messages were older than what the daemon keeps for replay.
    ReplayWindow,
    /// They were lost between two nodes.
    LinkLost,
    /// The daemon ran out of memory for its queues.
    Memory,
    /// The connection broke and was made anew: what was published in between, if anything, is
    /// missing here.
    Reconnected,
}

impl GapReason {
    pub(crate) fn of(reason: control::GapReason) -> Self {
        match reason {
            control::GapReason::ReplayWindow => Self::ReplayWindow,
            control::GapReason::LinkLost => Self::LinkLost,
            control::GapReason::Memory => Self::Memory,
            _ => Self::SlowConsumer,
        }
    }
}

impl Gap {
    /// What stands between the messages before and after a broken connection.
    pub(crate) fn reconnected() -> Self {
        Self { reason: GapReason::Reconnected, missed: None, ranges: Vec::new(), elsewhere: 0 }
    }
}
