//! Which shard owns what.
//!
//! A topic belongs to one shard, found from its name; that shard numbers its messages and keeps
//! them. Ids of topics are the node's: their low bits name the owner, so an id tells where it is
//! known without a look at anything. In the same way the id of a subscription names its home, the shard
//! that keeps it.

use std::hash::BuildHasher;

use nexusd_wire::{NodeId, SubscriptionId, TopicId};

use crate::limits::SHARDS_MAX;
use crate::shard::event::ConnectionId;
use crate::shard::parcel::TopicHandle;
use crate::subscription_index::KeyedHash;

/// The bits of a subscription's id that name its home.
const SUBSCRIPTION_HOME: u128 = SHARDS_MAX as u128 - 1;
const _: () = assert!(SHARDS_MAX.is_power_of_two(), "a home is some bits of an id");

/// One of the node's shards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ShardIndex(u8);

impl ShardIndex {
    /// The shard of this number. Panics if there can be no such shard.
    pub fn new(index: usize) -> Self {
        assert!(index < SHARDS_MAX, "a node has at most {SHARDS_MAX} shards");
        Self(index as u8)
    }

    /// Its number, from 0.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A set of shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ShardMask(u64);

impl ShardMask {
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn len(self) -> u32 {
        self.0.count_ones()
    }

    pub(crate) fn contains(self, shard: ShardIndex) -> bool {
        self.0 >> shard.0 & 1 == 1
    }

    pub(crate) fn insert(&mut self, shard: ShardIndex) {
        self.0 |= 1 << shard.0;
    }

    pub(crate) fn remove(&mut self, shard: ShardIndex) {
        self.0 &= !(1 << shard.0);
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Iterator for ShardMask {
    type Item = ShardIndex;

    /// Takes the lowest shard out.
    fn next(&mut self) -> Option<ShardIndex> {
        let lowest = (self.0 != 0).then(|| ShardIndex(self.0.trailing_zeros() as u8))?;
        self.remove(lowest);
        Some(lowest)
    }
}

/// Where a message comes from: a connection of one of the node's shards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct PublisherId {
    pub(crate) shard: ShardIndex,
    pub(crate) connection: ConnectionId,
}

/// Where a message goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route {
    /// A topic of this shard.
    Own(TopicId),
    /// A topic of another shard.
    Neighbour(ShardIndex, TopicHandle),
}

/// How topics are shared out among the shards of the node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Routing {
    pub(crate) own: ShardIndex,
    shards: usize,
    /// Low bits of a topic id that name its owner.
    bits: u32,
    hash: KeyedHash,
}

impl Routing {
    pub(crate) fn new(own: ShardIndex, shards: usize, seed: u64) -> Self {
        let bits = usize::BITS - (shards - 1).leading_zeros();
        // Not the hash of the tables, or those of a shard would fill unevenly.
        Self { own, shards, bits, hash: KeyedHash::new(seed.rotate_left(32)) }
    }

    pub(crate) fn shards(&self) -> usize {
        self.shards
    }

    /// The shard that owns the topic of this name.
    pub(crate) fn owner_of(&self, topic: &str) -> ShardIndex {
        match self.shards {
            1 => self.own,
            shards => ShardIndex((self.hash.hash_one(topic) % shards as u64) as u8),
        }
    }

    /// The shard that owns the topic of this id.
    #[inline]
    pub(crate) fn owner(&self, topic: TopicId) -> ShardIndex {
        ShardIndex((topic.0 & ((1 << self.bits) - 1)) as u8)
    }

    /// The id of the topic in a slot of this shard.
    #[inline]
    pub(crate) fn id(&self, slot: usize) -> TopicId {
        TopicId((slot as u32) << self.bits | u32::from(self.own.0))
    }

    /// The id of a subscription of this shard, made from random bits.
    pub(crate) fn subscription_id(&self, random: u128) -> SubscriptionId {
        SubscriptionId(random & !SUBSCRIPTION_HOME | u128::from(self.own.0))
    }

    /// The shard that keeps the subscription of this id; `None` if the node has no such shard.
    pub(crate) fn home_of(&self, subscription: SubscriptionId) -> Option<ShardIndex> {
        let home = (subscription.0 & SUBSCRIPTION_HOME) as usize;
        (home < self.shards).then(|| ShardIndex::new(home))
    }

    /// The owner's slot of a topic.
    #[inline]
    pub(crate) fn slot(&self, topic: TopicId) -> usize {
        (topic.0 >> self.bits) as usize
    }
}

/// The shard, of `shards`, that keeps the link to `peer`: ids of nodes are random.
pub fn home_of_node(peer: NodeId, shards: usize) -> ShardIndex {
    ShardIndex::new((peer.0 % shards as u128) as usize)
}

/// The shard, of `shards`, that owns `topic` on a node whose shards were made with `seed`.
pub fn owner_of(topic: &str, shards: usize, seed: u64) -> ShardIndex {
    Routing::new(ShardIndex(0), shards, seed).owner_of(topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_name_their_owner_and_slot() {
        for shards in [1, 2, 3, 4, 7, 64] {
            for own in [0, shards - 1] {
                let routing = Routing::new(ShardIndex::new(own), shards, 9);
                for slot in [0, 1, 1_999_999] {
                    let id = routing.id(slot);
                    assert_eq!((routing.owner(id).index(), routing.slot(id)), (own, slot));
                }
            }
        }
        assert_eq!(Routing::new(ShardIndex(0), 1, 9).id(5), TopicId(5));
    }

    #[test]
    fn ids_of_subscriptions_name_their_home_if_there_is_such_a_shard() {
        for random in [0, u128::MAX, 1 << 127 | 77] {
            let id = Routing::new(ShardIndex(6), 7, 9).subscription_id(random);
            assert_eq!(id.0 >> 6, random >> 6, "the rest is random");
            let home = |shards| Routing::new(ShardIndex(0), shards, 9).home_of(id);
            assert_eq!(home(64), Some(ShardIndex(6)));
            assert_eq!(home(7), Some(ShardIndex(6)));
            assert_eq!(home(6), None);
        }
    }

    #[test]
    fn topics_are_shared_out_evenly() {
        let mut counts = [0; 5];
        for number in 0..10_000 {
            counts[owner_of(&format!("sensors/{number}"), 5, 7).index()] += 1;
        }
        assert!(counts.iter().all(|count| (1_800..2_200).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_mask_gives_each_of_its_shards_once() {
        let mut mask = ShardMask::default();
        for shard in [63, 0, 7, 7] {
            mask.insert(ShardIndex(shard));
        }
        assert_eq!(mask.len(), 3);
        let shards: Vec<_> = mask.map(ShardIndex::index).collect();
        assert_eq!(shards, [0, 7, 63]);
    }
}
