//! One topic: numbers its messages and knows its matching queues; and the table of all topics.
//!
//! Invariants: sequence numbers are dense and never reused while the daemon runs: a topic that is
//! forgotten raises the floor that new topics start above. A topic that a connected publisher has
//! bound, or that somebody subscribes to, is not forgotten.
//! Never touches sockets or the clock.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use nexusd_wire::{Sequence, TopicId};
use slab::Slab;

use crate::limits::{INDEX_LOOKS_PER_SCAN, TOPIC_IDLE_US};
use crate::plant::{Plant, is_planted};
use crate::shard::event::ConnectionId;
use crate::subscriber_queue::{QueueId, SubscriberQueue};
use crate::subscription_index::{KeyedHash, SubscriptionIndex};

/// One queue that wants the topic's messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Match {
    pub(crate) queue: QueueId,
    /// The queue's connection is told the topic's name ahead of the next message.
    pub(crate) bound: bool,
}

#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Box<str>,
    /// Number of the newest message.
    pub(crate) sequence: u64,
    /// Queues that want the messages, by slot; true for `generation` of the index.
    pub(crate) matches: Vec<Match>,
    generation: u64,
    /// Connections that were told the name.
    pub(crate) bound: Vec<ConnectionId>,
    /// Publishers' connections that have the topic bound.
    pub(crate) publishers: u32,
    pub(crate) used_at_us: u64,
}

/// All topics of a shard. A topic's slot is its daemon-wide id.
#[derive(Debug)]
pub(crate) struct Topics {
    slots: Slab<Topic>,
    by_name: HashTable<u32>,
    hash: KeyedHash,
    /// New topics number their messages above this.
    floor: u64,
    /// Where the search for idle topics goes on.
    idle_cursor: usize,
    found: Vec<u32>,
}

impl Topics {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            slots: Slab::new(),
            by_name: HashTable::new(),
            hash: KeyedHash::new(seed),
            floor: 0,
            idle_cursor: 0,
            found: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    pub(crate) fn topic(&mut self, id: TopicId) -> &mut Topic {
        &mut self.slots[id.0 as usize]
    }

    pub(crate) fn name(&self, id: TopicId) -> &str {
        &self.slots[id.0 as usize].name
    }

    /// The topic of this name; made if it is new and there are fewer than `limit`.
    pub(crate) fn find_or_insert(
        &mut self,
        name: &str,
        limit: usize,
        now_us: u64,
    ) -> Option<TopicId> {
        let hash = self.hash.hash_one(name);
        let slots = &self.slots;
        if let Some(&slot) = self.by_name.find(hash, |&slot| &*slots[slot as usize].name == name) {
            return Some(TopicId(slot));
        }
        if self.slots.len() >= limit {
            return None;
        }
        let slot = self.slots.insert(Topic {
            name: name.into(),
            sequence: self.floor,
            matches: Vec::new(),
            generation: 0,
            bound: Vec::new(),
            publishers: 0,
            used_at_us: now_us,
        }) as u32;
        let (slots, key) = (&self.slots, self.hash);
        self.by_name.insert_unique(hash, slot, |&slot| key.hash_one(&*slots[slot as usize].name));
        Some(TopicId(slot))
    }

    /// Brings the topic's matches up to date with the index, keeping what connections were told.
    /// Returns how many nodes of the index that took.
    #[inline]
    pub(crate) fn refresh_matches(
        &mut self,
        id: TopicId,
        index: &SubscriptionIndex,
        queues: &Slab<SubscriberQueue>,
    ) -> usize {
        let topic = &mut self.slots[id.0 as usize];
        let is_stale = is_planted(Plant::StaleMatches) && !topic.matches.is_empty();
        if topic.generation != index.generation() && !is_stale {
            return Self::rebuild_matches(topic, &mut self.found, index, queues);
        }
        0
    }

    #[cold]
    fn rebuild_matches(
        topic: &mut Topic,
        found: &mut Vec<u32>,
        index: &SubscriptionIndex,
        queues: &Slab<SubscriberQueue>,
    ) -> usize {
        let looks = index.matches(&topic.name, found);
        let Topic { matches: old, generation, .. } = topic;
        let was_bound = |slot: u32| {
            // Slots are reused: only a queue made before the old list was is the one it names.
            queues[slot as usize].created_at <= *generation
                && old
                    .binary_search_by_key(&slot, |entry| entry.queue.0)
                    .is_ok_and(|at| old[at].bound)
        };
        topic.matches = found
            .iter()
            .map(|&slot| Match { queue: QueueId(slot), bound: was_bound(slot) })
            .collect();
        topic.generation = index.generation();
        looks
    }

    /// The number of the topic's next message.
    #[inline]
    pub(crate) fn number(&mut self, id: TopicId) -> Sequence {
        let topic = &mut self.slots[id.0 as usize];
        topic.sequence += 1;
        Sequence(topic.sequence)
    }

    /// Looks at the next `count` slots for topics idle for a minute, forgets them, and returns the
    /// ids with the connections that were told their names. Ends early where topics are costly to
    /// match.
    pub(crate) fn forget_idle(
        &mut self,
        count: usize,
        now_us: u64,
        index: &SubscriptionIndex,
        queues: &Slab<SubscriberQueue>,
    ) -> Vec<(TopicId, Vec<ConnectionId>)> {
        let mut forgotten = Vec::new();
        let mut looks = 0;
        for _ in 0..count.min(self.slots.capacity()) {
            if looks > INDEX_LOOKS_PER_SCAN {
                break;
            }
            let slot = self.idle_cursor;
            self.idle_cursor = if slot + 1 >= self.slots.capacity() { 0 } else { slot + 1 };
            let Some(topic) = self.slots.get(slot) else {
                continue;
            };
            if topic.publishers > 0 || now_us.saturating_sub(topic.used_at_us) < TOPIC_IDLE_US {
                continue;
            }
            looks += self.refresh_matches(TopicId(slot as u32), index, queues);
            if !self.slots[slot].matches.is_empty() {
                continue;
            }
            let topic = self.slots.remove(slot);
            let hash = self.hash.hash_one(&*topic.name);
            if let Ok(entry) = self.by_name.find_entry(hash, |&held| held as usize == slot) {
                entry.remove();
            }
            self.floor = self.floor.max(topic.sequence);
            forgotten.push((TopicId(slot as u32), topic.bound));
        }
        forgotten
    }
}

/// Notes that a connection is told the topic's name. `is_open` tells which connections still exist;
/// the list is thinned out before it would grow.
pub(crate) fn note_bound(
    topic: &mut Topic,
    connection: ConnectionId,
    is_open: impl Fn(ConnectionId) -> bool,
) {
    if topic.bound.len() == topic.bound.capacity() {
        topic.bound.sort_unstable();
        topic.bound.dedup();
        topic.bound.retain(|&told| is_open(told));
    }
    topic.bound.push(connection);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_are_costly_to_match_do_not_stretch_the_search_for_idle_topics() {
        let mut index = SubscriptionIndex::new(7);
        // Every way of writing twelve levels as `a` or `+`, with an end that no topic has.
        for number in 0..1 << 12 {
            let level = |at: usize| if number >> at & 1 == 0 { "a/" } else { "+/" };
            let filter: String = (0..12).map(level).chain(["end"]).collect();
            index.insert(&filter, 0);
        }
        let mut topics = Topics::new(7);
        for number in 0..100 {
            let name = format!("{}{number}", "a/".repeat(12));
            topics.find_or_insert(&name, usize::MAX, 0);
        }
        let queues = Slab::new();
        let mut scans = 0;
        while topics.len() > 0 {
            let before = topics.len();
            topics.forget_idle(5_000, TOPIC_IDLE_US, &index, &queues);
            assert!(before - topics.len() <= 5, "a scan looks at a bounded part of the index");
            scans += 1;
        }
        assert!(scans <= 100, "and still gets there");
    }
}
