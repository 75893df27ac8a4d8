//! How the shards of a node are joined: a ring from each to each, and the few numbers that all of
//! them count together.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nexusd_wire::NodeId;

use super::inbox::{self, Receiver, Sender};
use super::parcel::Parcel;
use super::routing::{ShardIndex, ShardMask};
use crate::limits::{PARCELS_PER_INBOX, SHARDS_MAX};
use crate::link::Origin;
use crate::sources::Sources;

/// What one shard needs to be one of several. Made for all of them at once by [`wire`].
#[derive(Debug)]
pub struct Wiring {
    pub(crate) own: ShardIndex,
    pub(crate) shards: usize,
    pub(crate) node: Arc<NodeWide>,
    pub(crate) ends: Vec<Ends>,
}

/// One shard's ends of the rings to and from another.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) shard: ShardIndex,
    pub(crate) sender: Sender<Parcel>,
    pub(crate) receiver: Receiver<Parcel>,
}

/// Joins `shards` shards, from 1 to [`SHARDS_MAX`]: the wiring of each, in order.
pub fn wire(shards: usize) -> Vec<Wiring> {
    assert!((1..=SHARDS_MAX).contains(&shards), "a node has from 1 to {SHARDS_MAX} shards");
    let node = Arc::new(NodeWide::new(shards));
    let mut wirings: Vec<_> = (0..shards)
        .map(|own| Wiring {
            own: ShardIndex::new(own),
            shards,
            node: Arc::clone(&node),
            ends: Vec::new(),
        })
        .collect();
    for one in 0..shards {
        for other in one + 1..shards {
            let (there, from_one) = inbox::ring(PARCELS_PER_INBOX);
            let (back, from_other) = inbox::ring(PARCELS_PER_INBOX);
            let ends =
                |shard, sender, receiver| Ends { shard: ShardIndex::new(shard), sender, receiver };
            wirings[one].ends.push(ends(other, there, from_other));
            wirings[other].ends.push(ends(one, back, from_one));
        }
    }
    wirings
}

/// What the shards of a node count together. Touched when connections and topics come and go, and for
/// the bytes of a receive where the rate of a source is bounded; never for a message.
#[derive(Debug)]
pub(crate) struct NodeWide {
    /// Connections of each shard, those on their way to it included.
    connections: Box<[AtomicUsize]>,
    /// Connections of all shards, counted for themselves: one that moves is there all the time.
    connections_in_all: AtomicUsize,
    topics: AtomicUsize,
    pub(crate) sources: Sources,
    /// Other nodes whose messages came here, by their number less one. Asked when a link begins, and when
    /// a connection is told of a node.
    origins: Mutex<Vec<NodeId>>,
    /// Shards that have links, by bit.
    with_links: AtomicU64,
}

impl NodeWide {
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            connections: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
            connections_in_all: AtomicUsize::new(0),
            topics: AtomicUsize::new(0),
            sources: Sources::default(),
            origins: Mutex::default(),
            with_links: AtomicU64::new(0),
        }
    }

    /// Counts one more topic unless there are `limit`; whether it did.
    pub(crate) fn add_topic(&self, limit: usize) -> bool {
        let add = |topics| (topics < limit).then_some(topics + 1);
        self.topics.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    pub(crate) fn remove_topic(&self) {
        self.topics.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether a shard has links.
    pub(crate) fn set_has_links(&self, shard: ShardIndex, has_links: bool) {
        let bit = 1 << shard.index();
        match has_links {
            true => self.with_links.fetch_or(bit, Ordering::AcqRel),
            false => self.with_links.fetch_and(!bit, Ordering::AcqRel),
        };
    }

    /// The shards that have links.
    pub(crate) fn shards_with_links(&self) -> ShardMask {
        ShardMask::from_bits(self.with_links.load(Ordering::Acquire))
    }

    /// The number of another node, which it keeps.
    pub(crate) fn origin_of(&self, node: NodeId) -> Origin {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        let known = origins.iter().rposition(|known| *known == node);
        let at = known.unwrap_or_else(|| {
            origins.push(node);
            origins.len() - 1
        });
        Origin(at as u32 + 1)
    }

    /// The node of this number.
    pub(crate) fn node_of(&self, origin: Origin) -> NodeId {
        let origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        origins.get(origin.0 as usize - 1).copied().unwrap_or_default()
    }

    /// Connections of all shards.
    pub(crate) fn connections(&self) -> usize {
        self.connections_in_all.load(Ordering::Relaxed)
    }

    /// The shard with the fewest connections.
    pub(crate) fn least_loaded(&self) -> ShardIndex {
        let load = |shard: &usize| self.connections[*shard].load(Ordering::Relaxed);
        ShardIndex::new((0..self.connections.len()).min_by_key(load).unwrap_or(0))
    }

    pub(crate) fn add_connection(&self, shard: ShardIndex) {
        self.connections_in_all.fetch_add(1, Ordering::Relaxed);
        self.connections[shard.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// A connection goes from one shard to another.
    pub(crate) fn move_connection(&self, from: ShardIndex, to: ShardIndex) {
        self.connections[to.index()].fetch_add(1, Ordering::Relaxed);
        self.connections[from.index()].fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn remove_connection(&self, shard: ShardIndex) {
        self.connections[shard.index()].fetch_sub(1, Ordering::Relaxed);
        self.connections_in_all.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_moves_is_counted_once_and_where_it_is() {
        let node = NodeWide::new(3);
        let [first, second] = [0, 1].map(ShardIndex::new);
        node.add_connection(first);
        node.move_connection(first, second);
        let of = |shard: usize| node.connections[shard].load(Ordering::Relaxed);
        assert_eq!((node.connections(), of(0), of(1)), (1, 0, 1));
        assert_eq!(node.least_loaded(), first);
        node.remove_connection(second);
        assert_eq!((node.connections(), of(0), of(1)), (0, 0, 0));
    }
}
