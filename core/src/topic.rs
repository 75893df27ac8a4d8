//! One topic that this shard owns: numbers its messages and knows who wants them; and the table of
//! all its topics.
//!
//! Invariants: sequence numbers are dense and never reused while the daemon runs: a topic that is
//! forgotten raises the floor that new topics start above. A topic that a connected publisher has
//! bound, or that somebody subscribes to, is not forgotten.
//! Never touches sockets or the clock.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use nexusd_wire::TopicId;
use slab::Slab;

use crate::audience::{Audience, Listed};
use crate::history::{RunRef, Standing};
use crate::limits::{INDEX_LOOKS_PER_SCAN, TOPIC_IDLE_US};
use crate::prefetch::prefetch;
use crate::retained::Retained;
use crate::shard::event::ConnectionId;
use crate::shard::routing::{Routing, ShardMask};
use crate::shard::wiring::NodeWide;
use crate::subscriber_queue::SubscriberQueue;
use crate::subscription_index::{KeyedHash, SubscriptionIndex};
use crate::topic_slots::TopicSlots;

/// What a message needs of it are the 64 bytes from the audience's generation on. The allocator puts the
/// table of many topics 16 bytes behind the start of a page, so that these are one line of the cache.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Topic {
    pub(crate) name: Box<str>,
    /// The number of its first message, whether there was one or not: none below it is of this topic.
    pub(crate) first: u64,
    pub(crate) audience: Audience,
    /// Number of the newest message.
    pub(crate) sequence: u64,
    /// The run of its newest message, if that is kept for replay.
    pub(crate) newest_run: RunRef,
    /// When that came, in units of [`USED_UNIT_BITS`], rounded up.
    used_at: u32,
    /// Publishers that have the topic bound: connections of this shard, and other shards.
    pub(crate) publishers: u32,
    /// This node accepted no message below this number itself; 0: none at all.
    pub(crate) first_own: u64,
    /// Other shards that want the messages; as true as the audience's list.
    pub(crate) wanted_by: ShardMask,
    pub(crate) retained: Option<Box<Retained>>,
    /// Other shards that know the name.
    pub(crate) named_to: ShardMask,
}

const _: () = assert!(size_of::<Topic>() == 128, "two lines of the cache");
/// How far into a topic the line is.
const HOT_AT: usize = std::mem::offset_of!(Topic, audience) + Audience::HOT_AT;
const _: () =
    assert!(HOT_AT == 48, "what lies before it, and the allocator's 16 bytes, are a line");

impl Topic {
    /// It has had a message.
    #[inline(always)]
    pub(crate) fn used(&mut self, now_us: u64) {
        self.used_at = used_at(now_us);
    }

    fn is_idle(&self, now_us: u64) -> bool {
        now_us >= (u64::from(self.used_at) << USED_UNIT_BITS) + TOPIC_IDLE_US
    }
}

/// Two to this many microseconds are about a second.
const USED_UNIT_BITS: u32 = 20;

#[inline(always)]
fn used_at(now_us: u64) -> u32 {
    (now_us >> USED_UNIT_BITS) as u32 + 1
}

/// A topic that was forgotten, and who has to be told.
pub(crate) struct Forgotten {
    pub(crate) topic: TopicId,
    pub(crate) connections: Vec<ConnectionId>,
    pub(crate) shards: ShardMask,
}

/// All topics that a shard owns.
#[derive(Debug)]
pub(crate) struct Topics {
    routing: Routing,
    /// Counts the topics of all shards, for their limit.
    node: Arc<NodeWide>,
    slots: TopicSlots,
    by_name: HashTable<u32>,
    hash: KeyedHash,
    /// New topics number their messages above this.
    floor: u64,
    /// Where the search for idle topics goes on.
    idle_cursor: usize,
    listed: Listed,
    /// Where audiences are forgotten next.
    forgetting_cursor: usize,
    found: Vec<u32>,
}

impl Topics {
    pub(crate) fn new(
        routing: Routing,
        node: Arc<NodeWide>,
        memory_bytes: usize,
        seed: u64,
    ) -> Self {
        Self {
            listed: Listed::new(memory_bytes, routing.shards()),
            forgetting_cursor: 0,
            routing,
            node,
            slots: TopicSlots::default(),
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
        &mut self.slots[self.routing.slot(id)]
    }

    pub(crate) fn name(&self, id: TopicId) -> &str {
        &self.slots[self.routing.slot(id)].name
    }

    /// Slots that topics may be in.
    pub(crate) fn slots(&self) -> usize {
        self.slots.slots()
    }

    /// The topic in this slot, if there is one.
    pub(crate) fn at(&self, slot: usize) -> Option<&Topic> {
        self.slots.get(slot)
    }

    /// The id that a topic in this slot has.
    pub(crate) fn id_of(&self, slot: usize) -> TopicId {
        self.routing.id(slot)
    }

    /// Whether there is a topic of this id, and it has a retained value.
    pub(crate) fn has_retained(&self, id: TopicId) -> bool {
        self.slots.get(self.routing.slot(id)).is_some_and(|topic| topic.retained.is_some())
    }

    /// The topic of this name, if there is one.
    pub(crate) fn find(&self, name: &str) -> Option<TopicId> {
        let slots = &self.slots;
        let hash = self.hash.hash_one(name);
        let slot = self.by_name.find(hash, |&slot| &*slots[slot as usize].name == name)?;
        Some(self.routing.id(*slot as usize))
    }

    /// Where the topic stands with its numbers, if there is one of this id.
    pub(crate) fn standing(&self, id: TopicId) -> Option<Standing> {
        let topic = self.slots.get(self.routing.slot(id))?;
        Some(Standing { first: topic.first, newest: topic.sequence })
    }

    /// Whether messages that this node accepted itself may be among those from `after` to before `oldest`.
    pub(crate) fn has_own_between(&self, id: TopicId, after: u64, oldest: u64) -> bool {
        let first_own = self.slots.get(self.routing.slot(id)).map_or(0, |topic| topic.first_own);
        oldest > after + 1 && first_own != 0 && first_own < oldest
    }

    /// The run of the topic's newest message.
    pub(crate) fn newest_run(&self, id: TopicId) -> RunRef {
        self.slots[self.routing.slot(id)].newest_run
    }

    pub(crate) fn set_newest_run(&mut self, id: TopicId, run: RunRef) {
        self.slots[self.routing.slot(id)].newest_run = run;
    }

    /// The topic of this name, which this shard owns; made if it is new and the node has fewer than
    /// `limit`.
    pub(crate) fn find_or_insert(
        &mut self,
        name: &str,
        limit: usize,
        now_us: u64,
    ) -> Option<TopicId> {
        if let Some(found) = self.find(name) {
            return Some(found);
        }
        let hash = self.hash.hash_one(name);
        if !self.node.add_topic(limit) {
            return None;
        }
        let slot = self.slots.insert(Topic {
            name: name.into(),
            sequence: self.floor,
            first: self.floor + 1,
            // It may have been forgotten, and with it what it had.
            first_own: u64::from(self.floor > 0),
            newest_run: RunRef::NONE,
            retained: None,
            audience: Audience::default(),
            wanted_by: ShardMask::default(),
            named_to: ShardMask::default(),
            publishers: 0,
            used_at: used_at(now_us),
        }) as u32;
        let (slots, key) = (&self.slots, self.hash);
        self.by_name.insert_unique(hash, slot, |&slot| key.hash_one(&*slots[slot as usize].name));
        Some(self.routing.id(slot as usize))
    }

    /// Brings what is known of the topic's audience up to date with the index. Returns how many nodes
    /// of the index that took.
    #[inline]
    pub(crate) fn refresh_audience(
        &mut self,
        id: TopicId,
        index: &SubscriptionIndex,
        queues: &Slab<SubscriberQueue>,
    ) -> usize {
        let topic = &mut self.slots[self.routing.slot(id)];
        if !topic.audience.is_stale(index) {
            return 0;
        }
        let before = topic.audience.matches.len();
        let found = topic.audience.refresh(&topic.name, index, queues, &mut self.found);
        topic.wanted_by = found.elsewhere;
        self.listed.note(before, topic.audience.matches.len());
        if self.listed.is_over() {
            self.forget_audiences(self.routing.slot(id));
        }
        found.looks
    }

    /// Two topics, if the messages of one go to the very queues that those of the other go to, and to no
    /// other shard, and all of them were told both names.
    #[inline(always)]
    pub(crate) fn alike(
        &mut self,
        one: TopicId,
        other: TopicId,
        index: &SubscriptionIndex,
    ) -> Option<(&mut Topic, &mut Topic)> {
        let (one, other) = (self.routing.slot(one), self.routing.slot(other));
        let [one, other] = self.slots.two(one, other)?;
        let is_known = !one.audience.is_stale(index) && !other.audience.is_stale(index);
        let is_lent = !one.wanted_by.union(other.wanted_by).is_empty();
        let are_alike = is_known && !is_lent && one.audience.is_same(&other.audience);
        are_alike.then_some((one, other))
    }

    /// Has the processor fetch what a message of the topic needs first.
    #[inline(always)]
    pub(crate) fn prefetch(&self, id: TopicId) {
        if let Some(topic) = self.slots.place(self.routing.slot(id)) {
            topic.audience.prefetch();
        }
    }

    /// The same for where the topic stands with its numbers.
    #[inline(always)]
    pub(crate) fn prefetch_standing(&self, id: TopicId) {
        if let Some(topic) = self.slots.place(self.routing.slot(id)) {
            prefetch(&raw const topic.first);
            prefetch(&raw const topic.sequence);
        }
    }

    /// The same for what a message needs after that.
    #[inline(always)]
    pub(crate) fn prefetch_audience(&self, id: TopicId) {
        if let Some(topic) = self.slots.place(self.routing.slot(id)) {
            topic.audience.prefetch_matches();
        }
    }

    /// Has topics forget who wants their messages, but for one of them.
    #[cold]
    fn forget_audiences(&mut self, spared: usize) {
        for _ in 0..self.slots.slots() {
            if self.listed.has_room() {
                return;
            }
            let slot = self.forgetting_cursor;
            self.forgetting_cursor = if slot + 1 >= self.slots.slots() { 0 } else { slot + 1 };
            if slot != spared
                && let Some(topic) = self.slots.get_mut(slot)
            {
                topic.audience.forget(&mut self.listed);
            }
        }
    }

    /// Looks at the next `count` slots for topics idle for a minute and forgets them. Ends early where
    /// topics are costly to match.
    pub(crate) fn forget_idle(
        &mut self,
        count: usize,
        now_us: u64,
        index: &SubscriptionIndex,
        queues: &Slab<SubscriberQueue>,
    ) -> Vec<Forgotten> {
        let mut forgotten = Vec::new();
        let mut looks = 0;
        for _ in 0..count.min(self.slots.slots()) {
            if looks > INDEX_LOOKS_PER_SCAN {
                break;
            }
            let slot = self.idle_cursor;
            self.idle_cursor = if slot + 1 >= self.slots.slots() { 0 } else { slot + 1 };
            let Some(topic) = self.slots.get(slot) else {
                continue;
            };
            if topic.publishers > 0 || topic.retained.is_some() {
                continue;
            }
            if !topic.is_idle(now_us) {
                continue;
            }
            let id = self.routing.id(slot);
            // Where there is no room for what idle topics remember, it is asked for and not kept.
            if topic.audience.is_stale(index) && !self.listed.has_room() {
                let found = index.find(&topic.name, &mut self.found);
                looks += found.looks;
                if !self.found.is_empty() || !found.elsewhere.is_empty() {
                    continue;
                }
            }
            looks += self.refresh_audience(id, index, queues);
            let topic = &self.slots[slot];
            if !topic.audience.matches.is_empty() || !topic.wanted_by.is_empty() {
                continue;
            }
            looks += topic.audience.bound.len();
            let topic = self.slots.remove(slot);
            let hash = self.hash.hash_one(&*topic.name);
            if let Ok(entry) = self.by_name.find_entry(hash, |&held| held as usize == slot) {
                entry.remove();
            }
            self.floor = self.floor.max(topic.sequence);
            self.node.remove_topic();
            forgotten.push(Forgotten {
                topic: id,
                connections: topic.audience.bound,
                shards: topic.named_to,
            });
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::routing::ShardIndex;

    #[test]
    fn filters_that_are_costly_to_match_do_not_stretch_the_search_for_idle_topics() {
        let mut index = SubscriptionIndex::new(7);
        // Every way of writing twelve levels as `a` or `+`, with an end that no topic has.
        for number in 0..1 << 12 {
            let level = |at: usize| if number >> at & 1 == 0 { "a/" } else { "+/" };
            let filter: String = (0..12).map(level).chain(["end"]).collect();
            index.insert(&filter, 0);
        }
        let routing = Routing::new(ShardIndex::new(0), 1, 7);
        let mut topics = Topics::new(routing, Arc::new(NodeWide::new(1)), 0, 7);
        for number in 0..100 {
            let name = format!("{}{number}", "a/".repeat(12));
            topics.find_or_insert(&name, usize::MAX, 0);
        }
        let queues = Slab::new();
        let mut scans = 0;
        while topics.len() > 0 {
            let before = topics.len();
            topics.forget_idle(5_000, 2 * TOPIC_IDLE_US, &index, &queues);
            assert!(before - topics.len() <= 5, "a scan looks at a bounded part of the index");
            scans += 1;
            assert!(scans <= 100, "and still gets there");
        }
    }
}
