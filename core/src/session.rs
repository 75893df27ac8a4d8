//! One connection's protocol state: what its client, or another node, has said and may say.
//!
//! The session knows which topics its client has bound for publishing, which subscriptions it
//! holds, which acks it is owed and what holds it back. It does not act: `shard.rs` decides what a
//! frame does.

use std::collections::BTreeSet;
use std::sync::Arc;

use nexusd_wire::{CHALLENGE_BYTES, SubscriptionId, TopicId};

use crate::link::{Guest, LinkSession};
use crate::owed_acks::OwedAcks;
use crate::shard::event::Door;
use crate::shard::output::Destination;
use crate::shard::parcel::TopicHandle;
use crate::shard::routing::ShardIndex;
use crate::sources::Source;
use crate::subscriber_queue::QueueId;

/// Where a session is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SessionState {
    /// Nothing but Hello may come.
    AwaitingHello,
    /// It belongs elsewhere: Hello named a subscription that another shard keeps, or it speaks HTTP/2.
    /// All that came is kept for there.
    Moving,
    /// This node dialled another one and said Hello: nothing but Welcome may come.
    AwaitingWelcome,
    /// Another node's Hello was answered: nothing but its first LinkAck may come.
    AwaitingLinkAck,
    /// Everything may come.
    Open,
    /// The daemon is draining: nothing more is read, what is queued is still sent.
    Draining,
    /// The last frames are on their way out; what still comes in is thrown away.
    Closing,
}

/// What a publisher's topic id stands for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Binding {
    /// A topic of the shard.
    Topic(TopicId),
    /// A topic of another shard.
    Elsewhere(ShardIndex, TopicHandle),
    /// A name that was refused, and told so: messages for it are refused too.
    Refused,
    /// Released by TopicUnbind.
    Free,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) state: SessionState,
    /// Where it goes, if it is moving.
    pub(crate) moves_to: Option<Destination>,
    /// Which way the connection came in.
    pub(crate) door: Door,
    /// The minor version of the protocol that both sides speak.
    #[cfg(feature = "protocol-next")]
    pub(crate) minor: u8,
    /// What the other node was given to sign, until it has.
    pub(crate) challenge: Option<Box<[u8; CHALLENGE_BYTES]>>,
    /// Another node that has said who it is, until its connection is the link.
    pub(crate) guest: Option<Box<Guest>>,
    /// It is the session of a link.
    pub(crate) link: Option<Box<LinkSession>>,
    /// The client's topic ids, dense from 0.
    pub(crate) bindings: Vec<Binding>,
    pub(crate) subscriptions: Vec<(SubscriptionId, QueueId)>,
    /// What its client is called, and its library, for people.
    pub(crate) name: Box<str>,
    pub(crate) software: Box<str>,
    /// Messages accepted from it, and sent to it, so far.
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    /// Changes of topic among the messages that were received last.
    pub(crate) turns: u64,
    /// Answers to acknowledged publishes, not yet sent.
    pub(crate) acks: OwedAcks,
    /// Newest publisher sequence that was accepted.
    pub(crate) last_accepted: u64,
    /// Full `block` queues that hold this publisher back, of any shard; there can be thousands.
    pub(crate) held_by: BTreeSet<(ShardIndex, QueueId)>,
    /// It waits for another shard, or for memory, to take its next message.
    pub(crate) is_waiting: bool,
    /// Bytes it is still read while held back.
    pub(crate) held_allowance: usize,
    /// Messages that its source may still publish, while its bytes are read and that is bounded.
    pub(crate) may_publish: Option<u64>,
    /// One of the two above is counted with each message.
    pub(crate) is_counted: bool,
    /// The source address it is counted with; `None` where nothing is bounded per source.
    pub(crate) source: Option<Arc<Source>>,
    /// When it was last told that its source publishes too fast.
    pub(crate) told_too_fast_us: Option<u64>,
    /// Messages that were refused for that since, without a word.
    pub(crate) refused_untold: u64,
    pub(crate) last_received_us: u64,
    /// When the unanswered ping was sent.
    pub(crate) pinged_at_us: Option<u64>,
    /// When something was last sent, for heartbeats.
    pub(crate) last_sent_us: u64,
    pub(crate) opened_at_us: u64,
    /// The client's Goodbye is said: it still gets the acknowledgements that it is owed.
    pub(crate) said_goodbye: bool,
    /// The daemon's Goodbye is said: what is queued is the last.
    pub(crate) was_told_goodbye: bool,
    /// And that all of that was sent: nothing follows.
    pub(crate) was_told_all: bool,
    /// When a closing session is cut off.
    pub(crate) close_deadline_us: Option<u64>,
}

impl Session {
    pub(crate) fn new(door: Door, now_us: u64) -> Self {
        Self {
            state: SessionState::AwaitingHello,
            moves_to: None,
            door,
            #[cfg(feature = "protocol-next")]
            minor: 0,
            challenge: None,
            guest: None,
            link: None,
            bindings: Vec::new(),
            subscriptions: Vec::new(),
            name: Box::default(),
            software: Box::default(),
            messages_in: 0,
            messages_out: 0,
            turns: 0,
            acks: OwedAcks::default(),
            last_accepted: 0,
            held_by: BTreeSet::new(),
            is_waiting: false,
            held_allowance: 0,
            may_publish: None,
            is_counted: false,
            source: None,
            told_too_fast_us: None,
            refused_untold: 0,
            last_received_us: now_us,
            pinged_at_us: None,
            last_sent_us: now_us,
            opened_at_us: now_us,
            said_goodbye: false,
            was_told_goodbye: false,
            was_told_all: false,
            close_deadline_us: None,
        }
    }

    /// The client's topic `id`, or `None` if it never bound it.
    pub(crate) fn binding(&self, id: TopicId) -> Option<Binding> {
        self.bindings.get(id.0 as usize).copied().filter(|binding| *binding != Binding::Free)
    }

    /// Whether its next message is more than its source may publish.
    pub(crate) fn is_too_fast(&self) -> bool {
        self.may_publish == Some(0)
    }

    /// Counts a message among those its source may publish.
    pub(crate) fn count_published(&mut self) {
        self.may_publish = self.may_publish.map(|left| left.saturating_sub(1));
    }

    /// Finds out whether messages are counted; to be called when `held_by` or `may_publish` changes.
    pub(crate) fn count_if_needed(&mut self) {
        self.is_counted = !self.held_by.is_empty() || self.may_publish.is_some();
    }

    /// Whether a full queue holds it back and its allowance is used up.
    pub(crate) fn is_held(&self) -> bool {
        !self.held_by.is_empty() && self.held_allowance == 0
    }
}
