//! Which queues want a topic: the filters of all subscriptions, as a trie of levels.
//!
//! A publish never walks the trie: topics cache what it answers and ask again when
//! [`SubscriptionIndex::generation`] has moved on. All children of all nodes live in one hash table
//! keyed by parent and level, so a lookup per level is one probe however wide a node is.
//!
//! Of other shards' subscriptions the index knows which shards have a filter, not whose they are.
//!
//! Invariant: every node but the root has a subscriber, a child, or both.

use std::hash::{BuildHasher, Hash, Hasher};

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use crate::limits::INDEX_NODE_BYTES;
use crate::shard::routing::{ShardIndex, ShardMask};
use crate::subscriber_queue::QueueId;

/// A keyed hash, so that clients cannot choose colliding names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyedHash(u64);

impl KeyedHash {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl BuildHasher for KeyedHash {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, !self.0)
    }
}

const ROOT: u32 = 0;

#[derive(Debug, Default)]
struct Node {
    parent: u32,
    level: Box<str>,
    /// Child for `+`; 0 is none, because the root is nobody's child.
    plus: u32,
    /// Children, `+` included.
    children: u32,
    /// Queues whose filter ends here.
    exact: Vec<QueueId>,
    /// Queues whose filter ends in `#` below here, which matches this level too.
    rest: Vec<QueueId>,
    /// Other shards with such queues.
    exact_elsewhere: ShardMask,
    rest_elsewhere: ShardMask,
}

impl Node {
    fn is_unused(&self) -> bool {
        self.children == 0
            && self.exact.is_empty()
            && self.rest.is_empty()
            && self.exact_elsewhere.union(self.rest_elsewhere).is_empty()
    }
}

/// What a lookup found, beside the queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Found {
    /// Nodes looked at.
    pub(crate) looks: usize,
    /// Other shards with matching queues.
    pub(crate) elsewhere: ShardMask,
}

/// The filters of all subscriptions of a shard.
#[derive(Debug)]
pub struct SubscriptionIndex {
    nodes: Vec<Node>,
    vacant: Vec<u32>,
    children: HashTable<u32>,
    hash: KeyedHash,
    generation: u64,
    /// Memory of the live nodes.
    bytes: usize,
}

impl SubscriptionIndex {
    /// An empty index; `seed` keys its hash.
    pub fn new(seed: u64) -> Self {
        Self {
            nodes: vec![Node::default()],
            vacant: Vec::new(),
            children: HashTable::new(),
            hash: KeyedHash::new(seed),
            generation: 1,
            bytes: 0,
        }
    }

    /// Changes whenever the answer to some lookup may have changed.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// All answers are to be asked for anew; returns the generation from which on.
    pub(crate) fn renew(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// Memory taken by the levels of all filters, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many places there are for [`Self::filter_at`].
    pub(crate) fn places(&self) -> usize {
        self.nodes.len() * 2
    }

    /// The filter that ends at a place, and the queues that have it; there is one at some places alone.
    pub(crate) fn filter_at(&self, place: usize) -> Option<(String, &[QueueId])> {
        let (mut at, is_rest) = (place / 2, place % 2 == 1);
        let node = self.nodes.get(at)?;
        let queues = if is_rest { &node.rest } else { &node.exact };
        if queues.is_empty() {
            return None;
        }
        let mut levels: Vec<&str> = is_rest.then_some("#").into_iter().collect();
        while at != ROOT as usize {
            levels.push(&self.nodes[at].level);
            at = self.nodes[at].parent as usize;
        }
        levels.reverse();
        Some((levels.join("/"), queues))
    }

    /// Adds a well-formed filter of the queue in slot `queue`. Returns whether no other queue of this
    /// shard had it.
    pub fn insert(&mut self, filter: &str, queue: u32) -> bool {
        let (node, is_rest) = self.place_or_insert(filter);
        let queues = if is_rest { &mut node.rest } else { &mut node.exact };
        queues.push(QueueId(queue));
        queues.len() == 1
    }

    /// Removes one filter of a queue, added before. Returns whether no queue of this shard has it any
    /// more.
    pub fn remove(&mut self, filter: &str, queue: u32) -> bool {
        let Some((place, is_rest)) = self.place(filter) else {
            return false;
        };
        let node = &mut self.nodes[place as usize];
        let queues = if is_rest { &mut node.rest } else { &mut node.exact };
        if let Some(at) = queues.iter().position(|held| held.0 == queue) {
            queues.swap_remove(at);
        }
        let is_last = queues.is_empty();
        self.generation += 1;
        self.prune(place);
        is_last
    }

    /// Another shard has queues with this filter.
    pub(crate) fn insert_elsewhere(&mut self, filter: &str, shard: ShardIndex) {
        let (node, is_rest) = self.place_or_insert(filter);
        let shards = if is_rest { &mut node.rest_elsewhere } else { &mut node.exact_elsewhere };
        shards.insert(shard);
    }

    /// It has none any more.
    pub(crate) fn remove_elsewhere(&mut self, filter: &str, shard: ShardIndex) {
        let Some((place, is_rest)) = self.place(filter) else {
            return;
        };
        let node = &mut self.nodes[place as usize];
        let shards = if is_rest { &mut node.rest_elsewhere } else { &mut node.exact_elsewhere };
        shards.remove(shard);
        self.generation += 1;
        self.prune(place);
    }

    /// The node where a filter ends, and whether it ends there in `#`; made if need be.
    fn place_or_insert(&mut self, filter: &str) -> (&mut Node, bool) {
        self.generation += 1;
        let (prefix, is_rest) = split_rest(filter);
        let mut node = ROOT;
        for level in prefix.into_iter().flat_map(|prefix| prefix.split('/')) {
            node = self.child_or_insert(node, level);
        }
        (&mut self.nodes[node as usize], is_rest)
    }

    fn place(&self, filter: &str) -> Option<(u32, bool)> {
        let (prefix, is_rest) = split_rest(filter);
        let mut node = ROOT;
        for level in prefix.into_iter().flat_map(|prefix| prefix.split('/')) {
            node = self.child(node, level)?;
        }
        Some((node, is_rest))
    }

    /// Writes the slots of all queues that want `topic` to `found`: sorted, each once. Returns how
    /// many nodes it looked at, which filters with many `+` can make very many.
    pub fn matches(&self, topic: &str, found: &mut Vec<u32>) -> usize {
        self.find(topic, found).looks
    }

    /// The same, with the other shards that want `topic`.
    pub(crate) fn find(&self, topic: &str, found: &mut Vec<u32>) -> Found {
        found.clear();
        let mut beside = Found::default();
        self.walk(ROOT, Some(topic), topic.starts_with('$'), found, &mut beside);
        found.sort_unstable();
        found.dedup();
        beside
    }

    /// Follows `levels` (`None`: all are used up) below `node`. `is_system`: the first level starts
    /// with `$` and is still ahead, so that wildcards do not apply to it.
    fn walk(
        &self,
        node: u32,
        levels: Option<&str>,
        is_system: bool,
        found: &mut Vec<u32>,
        beside: &mut Found,
    ) {
        beside.looks += 1;
        let here = &self.nodes[node as usize];
        if !is_system {
            found.extend(here.rest.iter().map(|queue| queue.0));
            beside.elsewhere = beside.elsewhere.union(here.rest_elsewhere);
        }
        let Some(levels) = levels else {
            found.extend(here.exact.iter().map(|queue| queue.0));
            beside.elsewhere = beside.elsewhere.union(here.exact_elsewhere);
            return;
        };
        if here.children == 0 {
            return;
        }
        let (level, rest) = match levels.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (levels, None),
        };
        if here.plus != 0 && !is_system {
            self.walk(here.plus, rest, false, found, beside);
        }
        if let Some(child) = self.named_child(node, level) {
            self.walk(child, rest, false, found, beside);
        }
    }

    fn child(&self, node: u32, level: &str) -> Option<u32> {
        match level {
            "+" => Some(self.nodes[node as usize].plus).filter(|&plus| plus != 0),
            _ => self.named_child(node, level),
        }
    }

    fn named_child(&self, parent: u32, level: &str) -> Option<u32> {
        let is_child = |&child: &u32| {
            let node = &self.nodes[child as usize];
            node.parent == parent && *node.level == *level
        };
        self.children.find(hash(self.hash, parent, level), is_child).copied()
    }

    fn child_or_insert(&mut self, parent: u32, level: &str) -> u32 {
        if let Some(child) = self.child(parent, level) {
            return child;
        }
        let node = Node { parent, level: level.into(), ..Node::default() };
        self.bytes += INDEX_NODE_BYTES + level.len();
        let child = match self.vacant.pop() {
            Some(slot) => {
                self.nodes[slot as usize] = node;
                slot
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        };
        self.nodes[parent as usize].children += 1;
        if level == "+" {
            self.nodes[parent as usize].plus = child;
        } else {
            let (nodes, key) = (&self.nodes, self.hash);
            let rehash = |&child: &u32| {
                let node = &nodes[child as usize];
                hash(key, node.parent, &node.level)
            };
            self.children.insert_unique(hash(key, parent, level), child, rehash);
        }
        child
    }

    /// Removes `node` and its ancestors as far as nobody uses them.
    fn prune(&mut self, mut node: u32) {
        while node != ROOT && self.nodes[node as usize].is_unused() {
            let Node { parent, level, .. } = std::mem::take(&mut self.nodes[node as usize]);
            self.bytes -= INDEX_NODE_BYTES + level.len();
            self.nodes[parent as usize].children -= 1;
            if &*level == "+" {
                self.nodes[parent as usize].plus = 0;
            } else if let Ok(entry) =
                self.children.find_entry(hash(self.hash, parent, &level), |&child| child == node)
            {
                entry.remove();
            }
            self.vacant.push(node);
            node = parent;
        }
    }
}

/// Splits a final `#` off: `a/b/#` is (`a/b`, rest), `#` is (nothing, rest).
fn split_rest(filter: &str) -> (Option<&str>, bool) {
    if filter == "#" {
        return (None, true);
    }
    match filter.strip_suffix("/#") {
        Some(prefix) => (Some(prefix), true),
        None => (Some(filter), false),
    }
}

fn hash(key: KeyedHash, parent: u32, level: &str) -> u64 {
    let mut hasher = key.build_hasher();
    parent.hash(&mut hasher);
    level.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(index: &SubscriptionIndex, topic: &str) -> Vec<u32> {
        let mut found = Vec::new();
        index.matches(topic, &mut found);
        found
    }

    #[test]
    fn the_index_agrees_with_the_plain_rule_through_inserts_and_removals() {
        let levels = ["a", "b", "", "$x", "+", "#"];
        let mut filters = Vec::new();
        for first in levels {
            filters.push(first.to_string());
            for second in levels {
                filters.push(format!("{first}/{second}"));
                for third in levels {
                    filters.push(format!("{first}/{second}/{third}"));
                }
            }
        }
        let topics: Vec<_> =
            filters.iter().filter(|name| nexusd_wire::check_topic(name).is_ok()).cloned().collect();
        filters.retain(|filter| nexusd_wire::check_filter(filter).is_ok());
        let mut index = SubscriptionIndex::new(7);
        for (queue, filter) in filters.iter().enumerate() {
            index.insert(filter, queue as u32);
        }
        let mut held: Vec<(usize, &String)> = filters.iter().enumerate().collect();
        while !held.is_empty() {
            for topic in &topics {
                let wanted: Vec<u32> = held
                    .iter()
                    .filter(|(_, filter)| nexusd_wire::filter_matches(filter, topic))
                    .map(|(queue, _)| *queue as u32)
                    .collect();
                assert_eq!(found(&index, topic), wanted, "topic {topic:?}");
            }
            for _ in 0..7 {
                if held.is_empty() {
                    break;
                }
                let (queue, filter) = held.remove(held.len() / 2);
                index.remove(filter, queue as u32);
            }
        }
        assert_eq!(index.nodes.len(), index.vacant.len() + 1, "all nodes are given back");
        assert_eq!(index.bytes(), 0);
    }

    #[test]
    fn all_filters_can_be_listed_with_the_queues_that_have_them() {
        let mut index = SubscriptionIndex::new(7);
        let filters = ["#", "/", "+", "a//b", "a/#", "a/+/#", "$SYS/a"];
        for (queue, filter) in filters.iter().enumerate() {
            index.insert(filter, queue as u32);
        }
        index.insert("a/#", 99);
        let mut listed: Vec<_> = (0..index.places())
            .filter_map(|place| index.filter_at(place))
            .map(|(filter, queues)| (filter, queues.len()))
            .collect();
        listed.sort();
        let mut expected =
            filters.map(|filter| (filter.to_owned(), 1 + usize::from(filter == "a/#")));
        expected.sort();
        assert_eq!(listed, expected);
    }

    #[test]
    fn a_queue_with_two_matching_filters_is_found_once() {
        let mut index = SubscriptionIndex::new(7);
        index.insert("a/+", 3);
        index.insert("a/#", 3);
        assert_eq!(found(&index, "a/b"), [3]);
    }
}
