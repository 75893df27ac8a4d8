//! Who on this shard wants a topic's messages: the queues that match it, as last asked of the
//! subscription index, and the connections that know its name.
//!
//! Invariant: a queue of the list gets the topic's name before its first message.

use std::ops::{Deref, DerefMut};

use slab::Slab;

use crate::limits::{AUDIENCES_BYTES_MIN, AUDIENCES_SHARE, MATCH_BYTES};
use crate::plant::{Plant, is_planted};
use crate::prefetch::prefetch;
use crate::shard::event::ConnectionId;
use crate::subscriber_queue::{QueueId, SubscriberQueue};
use crate::subscription_index::{Found, SubscriptionIndex};

/// One queue that wants the topic's messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Match {
    pub(crate) queue: QueueId,
    /// The queue's connection is told the topic's name ahead of the next message.
    pub(crate) bound: bool,
    /// The queue is another node's.
    pub(crate) is_link: bool,
}

/// Queues, by slot. A single one, as most topics have, lies within: no further line of memory for it.
#[derive(Debug)]
pub(crate) enum Matches {
    One(Match),
    Many(Box<[Match]>),
}

const _: () = assert!(size_of::<Matches>() == size_of::<Box<[Match]>>(), "the one costs nothing");

impl Default for Matches {
    fn default() -> Self {
        Self::Many(Box::default())
    }
}

impl Deref for Matches {
    type Target = [Match];

    #[inline(always)]
    fn deref(&self) -> &[Match] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(matches) => matches,
        }
    }
}

impl DerefMut for Matches {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [Match] {
        match self {
            Self::One(one) => std::slice::from_mut(one),
            Self::Many(matches) => matches,
        }
    }
}

/// How many queues the audiences of many topics list together, and how many they may. Beyond it topics
/// forget theirs, and ask the index anew when a message comes.
#[derive(Debug)]
pub(crate) struct Listed {
    queues: usize,
    most: usize,
}

impl Listed {
    /// For the topics of one of `shards` shards: its own ones, or those of others.
    pub(crate) fn new(memory_bytes: usize, shards: usize) -> Self {
        let share = memory_bytes / AUDIENCES_SHARE / shards / 2;
        Self { queues: 0, most: share.max(AUDIENCES_BYTES_MIN) / MATCH_BYTES }
    }

    /// The list of an audience has changed.
    pub(crate) fn note(&mut self, before: usize, after: usize) {
        self.queues = self.queues + after - before;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.queues > self.most
    }

    /// Whether enough has been forgotten.
    pub(crate) fn has_room(&self) -> bool {
        self.queues <= self.most / 2
    }
}

/// In this order, because topics have what their messages need side by side.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Audience {
    /// Connections that were told the name.
    pub(crate) bound: Vec<ConnectionId>,
    generation: u64,
    /// Queues that want the messages; true for `generation` of the index.
    pub(crate) matches: Matches,
}

impl Audience {
    /// How far into it what messages need begins.
    pub(crate) const HOT_AT: usize = std::mem::offset_of!(Self, generation);

    /// Has the processor fetch what messages need.
    #[inline(always)]
    pub(crate) fn prefetch(&self) {
        prefetch(&raw const self.generation);
    }

    /// Has it fetch the first of the queues.
    #[inline(always)]
    pub(crate) fn prefetch_matches(&self) {
        if let Matches::Many(matches) = &self.matches {
            prefetch(matches.as_ptr());
        }
    }

    /// Whether the index has changed since it was asked.
    #[inline]
    pub(crate) fn is_stale(&self, index: &SubscriptionIndex) -> bool {
        let is_kept = is_planted(Plant::StaleMatches) && !self.matches.is_empty();
        self.generation != index.generation() && !is_kept
    }

    /// Whether the queues are the same, and all were told the names.
    #[inline(always)]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (&self.matches, &other.matches) {
            (Matches::One(one), Matches::One(other)) => one.bound && one == other,
            (Matches::Many(all), Matches::Many(others)) => {
                all.len() == others.len()
                    && all.iter().zip(others).all(|(one, other)| one.bound && one == other)
            }
            _ => false,
        }
    }

    /// Asks the index anew, keeping what connections were told. `found` is scratch.
    #[cold]
    pub(crate) fn refresh(
        &mut self,
        topic: &str,
        index: &SubscriptionIndex,
        queues: &Slab<SubscriberQueue>,
        found: &mut Vec<u32>,
    ) -> Found {
        let beside = index.find(topic, found);
        let Self { matches: old, generation, .. } = self;
        let was_bound = |slot: u32| {
            // Slots are reused: only a queue made before the old list was is the one it names.
            queues[slot as usize].created_at <= *generation
                && old
                    .binary_search_by_key(&slot, |entry| entry.queue.0)
                    .is_ok_and(|at| old[at].bound)
        };
        let entry = |&slot: &u32| Match {
            queue: QueueId(slot),
            bound: was_bound(slot),
            is_link: queues[slot as usize].is_link,
        };
        self.matches = match found.as_slice() {
            [one] => Matches::One(entry(one)),
            many => Matches::Many(many.iter().map(entry).collect()),
        };
        self.generation = index.generation();
        beside
    }

    /// Forgets who wants the messages and who knows the name, which is told again.
    pub(crate) fn forget(&mut self, listed: &mut Listed) {
        listed.note(self.matches.len(), 0);
        *self = Self::default();
    }

    /// Notes that a connection is told the topic's name. `is_open` tells which connections still
    /// exist; the list is thinned out before it would grow.
    pub(crate) fn note_bound(
        &mut self,
        connection: ConnectionId,
        is_open: impl Fn(ConnectionId) -> bool,
    ) {
        if self.bound.len() == self.bound.capacity() {
            self.bound.sort_unstable();
            self.bound.dedup();
            self.bound.retain(|&told| is_open(told));
        }
        self.bound.push(connection);
    }
}
