//! What a subscription yields: messages, losses at the place where they happened, and what the daemon
//! says about them.

use std::sync::Arc;
use std::time::Duration;

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
    /// The subscription falls behind.
    Warning(Warning),
    /// What was replayed of a topic has come.
    ReplayComplete(ReplayComplete),
}

const _: () = assert!(size_of::<Event>() <= 72);

impl Event {
    /// The message, if it is one.
    pub fn into_message(self) -> Option<Message> {
        match self {
            Self::Message(message) => Some(message),
            _ => None,
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

/// A subscription falls behind: messages of it were dropped, which a [`Gap`] tells at its place, or
/// expired. At most one a second and subscription.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Warning {
    /// Messages dropped since the last warning.
    pub dropped: u64,
    /// Messages that expired in the daemon's queue since the last warning.
    pub expired: u64,
    /// Messages in the daemon's queue when it wrote this.
    pub depth: u64,
    /// Messages that the queue holds; 0 if bytes alone bound it.
    pub limit: u64,
    /// Why messages were dropped.
    pub reason: GapReason,
    /// Age of the oldest message in the queue, in milliseconds of precision.
    pub oldest_age: Duration,
}

/// The messages of a topic that were missed have come, as far as they were held. Live messages of
/// the topic follow.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ReplayComplete {
    /// The topic.
    pub topic: Arc<str>,
    /// Messages queued for the replay. Fewer came if some expired or were dropped on the way.
    pub replayed: u64,
    /// Number of the last of them.
    pub latest_sequence: u64,
}

/// Why messages were lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum GapReason {
    /// The application or its network was too slow; the subscription's queue overflowed.
    SlowConsumer,
    /// The messages were older than what the daemon keeps for replay.
    ReplayWindow,
    /// They were lost with a broken connection: on their way to a subscription that is not
    /// [counted](crate::SubscribeOptions::counted), or between two nodes.
    LinkLost,
    /// The daemon ran out of memory for its queues.
    Memory,
    /// The daemon did not know the subscription any more when the client came back (it has started
    /// anew, or was not reached within five minutes), and the subscription's topics are not known
    /// well enough to say that all it missed was replayed. What is missing here, if anything, nobody
    /// can know.
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
    /// What stands between the messages of a lost subscription and those of the one in its place.
    pub(crate) fn reconnected() -> Self {
        Self { reason: GapReason::Reconnected, missed: None, ranges: Vec::new(), elsewhere: 0 }
    }
}
