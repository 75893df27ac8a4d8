//! What messages flow through: everything of a shard but its connections.
//!
//! The plane knows connections only by their ids. What they are to be told stands in its lists
//! (`newly_ready`, `holds`, `condemned`, `released`, `acks`) until `shard.rs` and the files beside it tell
//! them, before the event ends.
//!
//! A message's way through it: `publish.rs` takes it to the log, `fan_out.rs` to the queues; `passing_on.rs`
//! takes it to the shard that owns its topic, where `crossing.rs` goes on with it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use nexusd_wire::{NodeId, SubscriptionId, TopicId};
use slab::Slab;

use super::event::ConnectionId;
use super::expiring::Expiring;
use super::fetching::Fetching;
use super::losing::UnnamedLosses;
use super::neighbour::{Neighbour, Neighbours};
use super::passing_on::Passing;
use super::publish::Run;
use super::retained::{Scan, ScanId};
use super::routing::{PublisherId, Routing, ShardMask};
use super::wiring::{NodeWide, Wiring};
use crate::foreign_topics::ForeignTopics;
use crate::gap::Gap;
use crate::history::History;
use crate::limits::{
    BATCHES_MAX, BATCHES_PER_NEIGHBOUR, CLIENT_BYTES_MIN, CLIENT_SHARE, Limits, RETAINED_SHARE,
};
use crate::log::{Log, SegmentKind};
use crate::metrics::Metrics;
use crate::owed_acks::AckPart;
use crate::retained::RetainedValues;
use crate::session::Binding;
use crate::subscriber_queue::{Item, QueueId, SubscriberQueue};
use crate::subscription_index::SubscriptionIndex;
use crate::topic::Topics;

/// What messages flow through: everything of a shard but its connections.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) routing: Routing,
    pub(crate) node: Arc<NodeWide>,
    pub(crate) neighbours: Neighbours,
    pub(crate) log: Log,
    pub(crate) history: History,
    pub(crate) topics: Topics,
    pub(crate) foreign: ForeignTopics,
    pub(crate) index: SubscriptionIndex,
    pub(crate) queues: Slab<SubscriberQueue>,
    pub(crate) metrics: Metrics,
    pub(crate) limits: Limits,
    pub(super) run: Option<Run>,
    pub(super) passing: Option<Passing>,
    /// Messages that were passed on to their owners, but for those that were since.
    pub(super) passed: u64,
    /// The owners to which some were.
    pub(super) passed_to: ShardMask,
    /// Changes of topic so far.
    pub(super) turns: u64,
    /// Topics of the messages that are looked ahead to; empty in between.
    pub(super) ahead: Vec<TopicId>,
    /// Queues that have something to send since their connections were last told.
    pub(crate) newly_ready: Vec<QueueId>,
    /// Publishers that a full queue began to hold back, with that queue.
    pub(crate) holds: Vec<(PublisherId, QueueId)>,
    /// Queues that overflowed and whose policy is to end their connection.
    pub(crate) condemned: Vec<QueueId>,
    /// Publishers that a queue no longer holds back, with that queue.
    pub(crate) released: Vec<(PublisherId, QueueId)>,
    /// What became of acknowledged messages.
    pub(crate) acks: Vec<(PublisherId, AckPart)>,
    /// Filters that subscriptions of clients began, or ended, to want.
    pub(crate) interest_changes: Vec<(Box<str>, bool)>,
    /// There is so much of `holds` and `acks` that reading has to pause for it.
    pub(crate) has_news: bool,
    /// Full `block` queues and since when, the one that is due first in front.
    pub(crate) blocked: BTreeSet<(u64, QueueId)>,
    /// This node.
    pub(crate) own: NodeId,
    /// Queues of this shard's links.
    pub(crate) link_queues: Vec<QueueId>,
    /// All subscriptions, by id.
    pub(crate) subscriptions: HashMap<SubscriptionId, QueueId>,
    /// Those that are parked, the one that expires first in front.
    pub(crate) parked: BTreeSet<(u64, QueueId)>,
    /// Retained values of this shard's topics.
    pub(crate) retained: RetainedValues,
    /// Searches for retained values that are not over, by subscription.
    pub(crate) scans: BTreeMap<SubscriptionId, Scan>,
    /// Those of which a queue of this shard has asked for the next portion.
    pub(crate) scans_due: Vec<ScanId>,
    /// What is asked of other nodes for subscriptions that come back.
    pub(super) fetching: Fetching,
    /// Queues with messages that will expire.
    pub(crate) expiring: Expiring,
    /// Losses that nobody could name, found out on this shard.
    pub(super) losses: u64,
    pub(super) unnamed_losses: UnnamedLosses,
    /// When the first event came, and how old the node was then: its wall clock may be set later.
    pub(super) born: Option<(u64, u64)>,
    /// Time of the event that is dealt with.
    pub(crate) now_us: u64,
    /// The same by the wall clock, microseconds since 1970.
    pub(crate) wall_us: u64,
    /// Segments that neighbours were asked to give back and have not answered for.
    pub(crate) recalls: usize,
    /// Publishers of this shard that wait for memory, in turn.
    pub(crate) waiting_for_memory: VecDeque<ConnectionId>,
    /// Memory of subscriptions, without the index, and of topic ids that clients bound.
    pub(crate) client_bytes: usize,
    /// Memory of losses to be told that was left when it was last made smaller.
    pub(crate) gap_bytes_left: usize,
    /// Generation of the open connection at each index, plus one; 0 where there is none.
    pub(crate) open_generations: Vec<u64>,
}

impl Plane {
    pub(crate) fn new(
        limits: Limits,
        (own_node, is_meshed): (NodeId, bool),
        seed: u64,
        wiring: Wiring,
    ) -> Self {
        let Wiring { own, shards, node, ends } = wiring;
        let routing = Routing::new(own, shards, seed);
        let credit = batches_per_neighbour(shards);
        let retained =
            RetainedValues::new(limits.memory_bytes / RETAINED_SHARE / shards, is_meshed);
        let neighbours = ends.into_iter().map(|ends| Neighbour::new(ends, credit, seed)).collect();
        Self {
            routing,
            neighbours: Neighbours::new(own, neighbours),
            // A quarter is left for what queues and connections need beside the log.
            log: Log::new(limits.memory_bytes / 4 * 3 / shards),
            topics: Topics::new(routing, Arc::clone(&node), limits.memory_bytes, seed),
            history: History::new(limits.replay_messages, limits.replay_bytes / shards),
            node,
            foreign: ForeignTopics::new(routing, limits.memory_bytes),
            index: SubscriptionIndex::new(seed),
            queues: Slab::new(),
            metrics: Metrics::default(),
            limits,
            run: None,
            passing: None,
            passed: 0,
            passed_to: ShardMask::default(),
            turns: 0,
            ahead: Vec::new(),
            losses: 0,
            unnamed_losses: UnnamedLosses::default(),
            newly_ready: Vec::new(),
            holds: Vec::new(),
            condemned: Vec::new(),
            released: Vec::new(),
            acks: Vec::new(),
            interest_changes: Vec::new(),
            has_news: false,
            blocked: BTreeSet::new(),
            own: own_node,
            link_queues: Vec::new(),
            subscriptions: HashMap::new(),
            parked: BTreeSet::new(),
            retained,
            scans: BTreeMap::new(),
            scans_due: Vec::new(),
            fetching: Fetching::new(is_meshed),
            expiring: Expiring::default(),
            born: None,
            now_us: 0,
            wall_us: 0,
            recalls: 0,
            waiting_for_memory: VecDeque::new(),
            client_bytes: 0,
            gap_bytes_left: 0,
            open_generations: Vec::new(),
        }
    }

    /// How long ago the node started.
    pub(super) fn age_us(&self) -> u64 {
        self.born.map_or(0, |(first_us, age_us)| self.now_us - first_us + age_us)
    }

    /// A queue is a link's.
    pub(super) fn add_link_queue(&mut self, id: QueueId) {
        self.link_queues.push(id);
        self.node.set_has_links(self.routing.own, true);
    }

    /// Whether clients may have the shard keep `bytes` more of subscriptions and topic ids.
    pub(crate) fn may_keep_for_clients(&self, bytes: usize) -> bool {
        let most = self.limits.memory_bytes / CLIENT_SHARE / self.routing.shards();
        self.client_bytes + self.index.bytes() + bytes <= most.max(CLIENT_BYTES_MIN)
    }

    /// The same, and makes room for it: parked subscriptions end for clients that are there, the one
    /// that expires first before others.
    pub(crate) fn make_room_for_clients(&mut self, bytes: usize) -> bool {
        while !self.may_keep_for_clients(bytes) {
            let Some(&(_, first)) = self.parked.first() else { return false };
            self.remove_queue(first);
        }
        true
    }

    /// The name of a topic, of whichever shard.
    pub(crate) fn topic_name(&self, topic: TopicId) -> &str {
        if self.routing.owner(topic) == self.routing.own {
            self.topics.name(topic)
        } else {
            self.foreign.name(topic)
        }
    }

    /// A publisher's topic id no longer stands for its topic.
    pub(crate) fn release_binding(&mut self, binding: Binding) {
        match binding {
            Binding::Topic(topic) => self.topics.topic(topic).publishers -= 1,
            Binding::Elsewhere(owner, handle) => self.neighbours.of(owner).close_topic(handle),
            Binding::Refused | Binding::Free => {}
        }
    }

    /// Checks what must hold between events. For tests and the simulator.
    pub(crate) fn assert_invariants(&self) {
        assert!(self.run.is_none(), "runs end with the bytes they came in");
        assert!(self.newly_ready.is_empty() && self.released.is_empty(), "connections were told");
        assert!(self.holds.is_empty() && self.acks.is_empty(), "publishers were told");
        self.log.assert_invariants();
        self.history.assert_invariants(&self.log);
        let mut references = BTreeMap::new();
        let (mut messages, mut bytes) = (0, 0);
        for (_, queue) in &self.queues {
            queue.assert_invariants(&self.log);
            messages += queue.messages;
            bytes += queue.bytes;
            for item in &queue.items {
                if let Item::Extent(extent) = item {
                    *references.entry(extent.segment).or_insert(0) += 1;
                }
            }
            for extent in queue.stream.extents() {
                *references.entry(extent.segment).or_insert(0) += 1;
            }
            assert!(queue.is_ready || queue.is_empty(), "what waits has its turn");
        }
        let gaps = self.queues.iter().flat_map(|(_, queue)| queue.gaps());
        assert_eq!(gaps.map(Gap::memory).sum::<usize>(), self.log.gap_bytes(), "gaps are counted");
        assert!(!self.is_over_gap_budget(), "gaps take no more than they may");
        assert_eq!(messages, self.metrics.queued_messages, "queued messages are counted");
        assert_eq!(bytes, self.metrics.queued_bytes, "queued bytes are counted");
        for (segment, held) in self.log.references() {
            if self.log.kind(segment) != SegmentKind::Landing {
                let counted = references.get(&segment).copied().unwrap_or(0);
                assert_eq!(held, counted, "references are the queues'");
            }
        }
    }
}

/// How many batches may be on their way to one other shard: a few of them, and few in all when there
/// are many shards.
fn batches_per_neighbour(shards: usize) -> usize {
    (BATCHES_MAX / shards).clamp(BATCHES_PER_NEIGHBOUR.0, BATCHES_PER_NEIGHBOUR.1)
}
