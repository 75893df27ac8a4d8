//! What a subscriber missed and topics still have: asked of every owner, put into the queue before live
//! messages.
//!
//! A subscription that says how far its client had come asks the owners of those topics together with
//! the confirmation that they know its filters. An owner answers topic by topic with what it holds
//! (`history.rs`); what it sends behind its confirmation is live.

use std::collections::{BTreeMap, BTreeSet};

use nexusd_wire::control::{self, DeliveryMode, GapReason};
use nexusd_wire::{NodeId, Sequence, SubscriptionId, TopicId, filter_matches};

use super::answering::Answer;
use super::event::ConnectionId;
use super::fan_out::is_open;
use super::fetching::Target;
use super::parcel::{Item as ParcelItem, LentRun, Replay};
use super::plane::Plane;
use super::routing::ShardIndex;
use crate::gap::Gap;
use crate::log::Extent;
use crate::plant::{Plant, is_planted};
use crate::subscriber_queue::{Item, QueueId, ReplayComplete};

/// A topic of which something is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WantedTopic {
    pub(crate) name: Box<str>,
    /// The newest message that the client has had; 0: it wants the newest there is.
    pub(crate) after: u64,
    /// The number was given by another node: what is held here may all be new.
    pub(crate) is_foreign: bool,
    /// For each node whose messages the client has had, that node's number of the newest one.
    pub(crate) origins: Vec<(NodeId, u64)>,
    /// Those among them that have ended, and of which the client has had all.
    pub(crate) ended: BTreeSet<NodeId>,
}

impl WantedTopic {
    /// Whether its client has had all that other nodes have had for it.
    fn misses_none(&self) -> bool {
        self.origins.iter().all(|(node, _)| self.ended.contains(node))
    }
}

/// What an owner has of a topic that is wanted.
#[derive(Debug)]
pub(crate) struct Held {
    topic: TopicId,
    /// The first and the last message that are not held any more.
    lost: Option<(Sequence, Sequence)>,
    /// More may be lost, nobody knows how much.
    is_unknown: bool,
    extents: Vec<Extent>,
    newest: Sequence,
}

impl Plane {
    /// The topics whose positions a Subscribe tells and that its filters match, by owner.
    pub(super) fn wanted_by_owner(
        &self,
        subscribe: &control::Subscribe<'_>,
        node: NodeId,
        filters: &[Box<str>],
    ) -> Vec<Vec<WantedTopic>> {
        let mut by_topic: BTreeMap<&str, WantedTopic> = BTreeMap::new();
        let ended: BTreeSet<_> =
            subscribe.ended().into_iter().flatten().map(NodeId::from).collect();
        for position in subscribe.positions().into_iter().flatten() {
            let (name, after) = (position.topic(), position.sequence());
            if !filters.iter().any(|filter| filter_matches(filter, name)) {
                continue;
            }
            let origin = position.origin().map_or(node, NodeId::from);
            let wanted = by_topic.entry(name).or_insert_with(|| WantedTopic {
                name: name.into(),
                after,
                is_foreign: false,
                origins: Vec::new(),
                ended: BTreeSet::new(),
            });
            wanted.is_foreign |= origin != node;
            if origin != node && ended.contains(&origin) {
                wanted.ended.insert(origin);
            }
            if wanted.origins.iter().all(|(known, _)| *known != origin) {
                wanted.origins.push((origin, after));
            }
        }
        let mut by_owner = vec![Vec::new(); self.routing.shards()];
        for wanted in by_topic.into_values() {
            by_owner[self.routing.owner_of(&wanted.name).index()].push(wanted);
        }
        by_owner
    }

    /// What is held of one of this shard's topics. `None`: there is no such topic, or nothing is missing.
    fn held(&self, wanted: &WantedTopic) -> Option<Held> {
        let topic = self.topics.find(&wanted.name)?;
        let standing = self.topics.standing(topic)?;
        let (mut after, mut is_unknown) = (wanted.after, false);
        if wanted.is_foreign {
            after = standing.first - 1;
            // Nodes that have ended have left nothing. A topic of this name may have been here before.
            is_unknown = after > 0 || !wanted.misses_none();
        } else if after > standing.newest || (after > 0 && after < standing.first - 1) {
            // A number that this node has not given yet is one of its life before.
            (after, is_unknown) = (standing.first - 1, true);
        } else if after == 0 {
            after = standing.newest.saturating_sub(1).max(standing.first - 1);
        }
        if after >= standing.newest && !is_unknown {
            return None;
        }
        let after = after + u64::from(is_planted(Plant::PositionOffByOne));
        let newest_run = self.topics.newest_run(topic);
        let (extents, oldest) =
            self.history.above(topic, newest_run, standing, after, &self.log, self.now_us);
        // The newest alone was asked for: there is no loss in not having it.
        let is_asked_for = wanted.after > 0 || wanted.is_foreign;
        let lost = (oldest > after + 1 && is_asked_for)
            .then(|| (Sequence(after + 1), Sequence(oldest - 1)));
        let newest = Sequence(standing.newest);
        Some(Held { topic, lost, is_unknown, extents, newest })
    }

    /// Puts what is held of this shard's topics into one of its queues.
    pub(super) fn replay(&mut self, id: QueueId, wanted: &[WantedTopic]) {
        if !wanted.is_empty() {
            self.settle_history();
        }
        for wanted in wanted {
            if wanted.is_foreign && self.fetching.is_possible() {
                let (shard, queue) = (self.routing.own, id);
                let subscription = self.queues[id.0 as usize].subscription;
                self.begin_fetch(Target { shard, queue, subscription }, wanted);
            } else if let Some(held) = self.held(wanted) {
                let Held { topic, lost, is_unknown, extents, newest } = held;
                let gap = missed(GapReason::ReplayWindow, topic, lost, is_unknown);
                self.begin_replay(id, topic, gap);
                for extent in &extents {
                    self.push_replay(id, *extent);
                }
                self.end_replay(id, topic, &extents, newest);
            }
        }
        self.stay_in_budget();
    }

    /// Lends what is held of this shard's topics to the shard of a queue.
    pub(super) fn replay_elsewhere(
        &mut self,
        to: ShardIndex,
        queue: QueueId,
        subscription: SubscriptionId,
        wanted: &[WantedTopic],
    ) {
        if !wanted.is_empty() {
            self.settle_history();
        }
        for wanted in wanted {
            if wanted.is_foreign && self.fetching.is_possible() {
                self.begin_fetch(Target { shard: to, queue, subscription }, wanted);
                continue;
            }
            let Some(held) = self.held(wanted) else { continue };
            let Held { topic, lost, is_unknown, extents, newest } = held;
            self.name_to(topic, to);
            let lend = |extent: &Extent| {
                let memory = self.log.lend(extent.segment, to)?;
                Some(LentRun::addressed(*extent, memory))
            };
            let runs = extents.iter().filter_map(lend).collect();
            let newest = Some(newest);
            let answer = None;
            let replay =
                Replay { queue, subscription, topic, lost, is_unknown, runs, newest, answer };
            self.neighbours.of(to).tell(ParcelItem::Replay(Box::new(replay)));
        }
        self.stay_in_budget();
    }

    /// An owner has answered: what it holds goes into the queue, if that is still there.
    pub(super) fn on_replay(&mut self, lender: ShardIndex, replay: Replay) {
        let Replay { queue: id, subscription, topic, lost, is_unknown, runs, newest, answer } =
            replay;
        let is_there = self.is_same_queue(id, subscription);
        if is_there {
            let gap = match newest {
                Some(_) => missed(GapReason::ReplayWindow, topic, lost, is_unknown),
                None => runs.is_empty().then(Gap::of_retained_value),
            };
            self.begin_replay(id, topic, gap);
            if let Some(Answer { request, is_partial, .. }) = answer {
                self.begin_answer(id, request, is_partial);
            }
        }
        let mut extents = Vec::with_capacity(runs.len());
        for LentRun { mut extent, memory, .. } in runs {
            extent.segment = self.log.borrow(lender, extent.segment, memory);
            if is_there {
                self.push_replay(id, extent);
            }
            self.log.release(extent.segment);
            extents.push(extent);
        }
        if let Some(newest) = newest.filter(|_| is_there) {
            self.end_replay(id, topic, &extents, newest);
        }
        if let Some(answer) = answer.filter(|_| is_there) {
            self.end_answer(id, answer);
        }
        self.stay_in_budget();
    }

    /// Whether a slot still holds the queue of this subscription.
    pub(super) fn is_same_queue(&self, id: QueueId, subscription: SubscriptionId) -> bool {
        let queue = self.queues.get(id.0 as usize);
        queue.is_some_and(|queue| queue.subscription == subscription && !queue.is_dying)
    }

    /// A queue that was empty has something to send.
    pub(super) fn make_ready(&mut self, id: QueueId) {
        let queue = &mut self.queues[id.0 as usize];
        if !queue.is_ready {
            queue.is_ready = true;
            self.newly_ready.push(id);
        }
    }

    /// Messages of a topic come to a queue outside the usual way, behind a loss, if there is one.
    pub(super) fn begin_replay(&mut self, id: QueueId, topic: TopicId, gap: Option<Gap>) {
        let queue = &mut self.queues[id.0 as usize];
        queue.push_bind(topic);
        // What a link lacks of retained values it finds out by itself.
        if let Some(gap) = gap.filter(|_| !queue.is_link) {
            self.log.charge_gap(&gap);
            queue.items.push_back(Item::Gap(Box::new(gap)));
        }
        let connection = queue.connection;
        self.note_bound(topic, connection);
        self.make_ready(id);
    }

    pub(super) fn push_replay(&mut self, id: QueueId, extent: Extent) {
        let mut origins = BTreeSet::new();
        self.log.note_origins(&extent, &mut origins);
        let queue = &mut self.queues[id.0 as usize];
        for origin in origins {
            queue.introduce(origin);
        }
        queue.replay_messages += u64::from(extent.messages);
        queue.replay_bytes += u64::from(extent.len);
        queue.push(id, extent, &mut self.log);
        self.metrics.queued_messages += u64::from(extent.messages);
        self.metrics.queued_bytes += u64::from(extent.len);
        if extent.expiry != crate::expiry::Expiry::NEVER {
            self.expiring.note(queue, id, extent.expiry);
        }
        debug_assert_ne!(extent.mode, DeliveryMode::Live);
        self.make_ready(id);
    }

    fn end_replay(&mut self, id: QueueId, topic: TopicId, extents: &[Extent], newest: Sequence) {
        let messages = extents.iter().map(|extent| u64::from(extent.messages)).sum();
        let complete = ReplayComplete { topic, messages, latest: newest };
        if messages > 0 && !is_planted(Plant::ReplayCompleteMissing) {
            let queue = &mut self.queues[id.0 as usize];
            queue.items.push_back(Item::ReplayComplete(Box::new(complete)));
        }
    }

    /// Makes sure that another shard knows the name of one of this shard's topics.
    pub(super) fn name_to(&mut self, id: TopicId, shard: ShardIndex) {
        let topic = self.topics.topic(id);
        if !topic.named_to.contains(shard) {
            topic.named_to.insert(shard);
            let name = topic.name.clone();
            self.neighbours.of(shard).tell(ParcelItem::Name { topic: id, name });
        }
    }

    /// A connection is told the name of a topic outside the usual way.
    pub(super) fn note_bound(&mut self, topic: TopicId, connection: ConnectionId) {
        let open_generations = &self.open_generations;
        let audience = if self.routing.owner(topic) == self.routing.own {
            Some(&mut self.topics.topic(topic).audience)
        } else {
            self.foreign
                .refreshed(topic, &self.index, &self.queues)
                .map(|known| &mut known.audience)
        };
        if let Some(audience) = audience {
            audience.note_bound(connection, |told| is_open(open_generations, told));
        }
    }
}

/// The gap that tells what is not held, if there is anything.
fn missed(
    reason: GapReason,
    topic: TopicId,
    lost: Option<(Sequence, Sequence)>,
    is_unknown: bool,
) -> Option<Gap> {
    let mut gap = Gap::new(reason);
    if let Some((first, last)) = lost {
        gap.note(topic, first, last.0 - first.0 + 1);
    }
    if is_unknown {
        gap.note_unknown();
    }
    (!gap.is_empty()).then_some(gap)
}
