//! What another node gets over its link of what this one accepted earlier and still holds.
//!
//! It asks for that of a topic, for a subscription that comes back: the messages go ahead of the live ones,
//! between two ReplayAnswers (`asking.rs` is the other end). And from a node that has just started it gets
//! what that accepted before it knew what the other wants: that is as good as live.

use std::sync::Arc;

use nexusd_wire::control::{self, DeliveryMode};
use nexusd_wire::{
    Frame, NodeId, SubscriptionId, TopicId, check_filter, check_topic, filter_matches,
};

use super::Shard;
use super::event::ConnectionId;
use super::fetching::Target;
use super::parcel::{Item as ParcelItem, LentRun, Replay};
use super::plane::Plane;
use super::routing::{ShardIndex, ShardMask};
use super::violation::Violation;
use crate::limits::{ASKED_FILTER_KEPT_US, EARLY_MESSAGES_US, FETCHES_MAX};
use crate::log::Extent;
use crate::plant::{Plant, is_planted};
use crate::subscriber_queue::{Item, QueueId};

/// What a peer asks for of a topic.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) request: u64,
    pub(crate) topic: Box<str>,
    /// The newest message that is not wanted; `None`: all are.
    pub(crate) after: Option<u64>,
}

/// What a peer asks before it has told what it wants: that is waited for.
#[derive(Clone, Debug)]
pub(crate) enum AskedEarly {
    Messages(Asked),
    Interest { request: u64, filters: Vec<Box<str>> },
}

/// Stands in a link's queue before and behind the messages of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    pub(crate) request: u64,
    pub(crate) is_end: bool,
    /// More was asked for than is held.
    pub(crate) is_partial: bool,
}

impl Answer {
    /// That an interest is known.
    fn known(request: u64) -> Self {
        Self { request, is_end: true, is_partial: false }
    }
}

/// What this shard holds of what was asked for.
struct Held {
    topic: TopicId,
    extents: Vec<Extent>,
    is_partial: bool,
}

impl Shard {
    pub(super) fn on_replay_request(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
    ) -> Result<(), Violation> {
        let request = frame.body::<control::ReplayRequest<'_>>()?;
        let topic = request.topic();
        if let Err(cause) = check_topic(topic) {
            return Err(Violation::by(frame, &format!("a topic of the peer's: {cause}")));
        }
        let Some(peer) = self.peer_of(id) else { return Ok(()) };
        let (request, topic, after) = (request.request(), topic.into(), request.after());
        let asked = Asked { request, topic, after };
        let Some(link) = self.links.get_mut(&peer) else { return Ok(()) };
        if link.has_told {
            self.answer_peer(peer, &asked);
        } else if link.asked_early.len() < FETCHES_MAX {
            // What is as good as live to the peer goes first, and that is known when it tells what it wants.
            link.asked_early.push(AskedEarly::Messages(asked));
        }
        Ok(())
    }

    /// Without memory for it the answer is that not all is held.
    fn answer_peer(&mut self, peer: NodeId, asked: &Asked) {
        let Some(link) = self.links.get(&peer) else { return };
        let Some((subscription, queue)) = link.queue else { return };
        if !self.keep_asked_filter(peer, queue, &asked.topic) {
            let nothing = Answer { request: asked.request, is_end: true, is_partial: true };
            return self.plane.end_answer(queue, nothing);
        }
        let owner = self.plane.routing.owner_of(&asked.topic);
        if owner == self.plane.routing.own {
            self.plane.answer(queue, asked);
        } else {
            let item = ParcelItem::Answer { queue, subscription, asked: asked.clone() };
            self.plane.neighbours.of(owner).tell(item);
        }
    }

    /// From now on the peer gets the topic's live messages, though what it wants may not have been told yet.
    /// Once it has been, this is of no use any more. Returns whether there is memory for it.
    fn keep_asked_filter(&mut self, peer: NodeId, queue: QueueId, topic: &str) -> bool {
        let memory = Self::filter_memory(topic);
        let Some(link) = self.links.get_mut(&peer) else { return false };
        let until_us = self.now_us + ASKED_FILTER_KEPT_US;
        if let Some(until) = link.asked.get_mut(topic) {
            *until = until_us;
            return true;
        }
        if link.filters.contains(topic) || is_planted(Plant::AskedNotKept) {
            return true;
        }
        if !self.plane.may_keep_for_clients(memory) {
            return false;
        }
        link.asked.insert(topic.into(), until_us);
        link.filter_bytes += memory;
        self.plane.client_bytes += memory;
        self.index_filter(queue, topic, true);
        true
    }

    /// The peer has told that it wants the filter itself; whether it is indexed for that already.
    pub(super) fn take_asked_filter(&mut self, peer: NodeId, filter: &str) -> bool {
        let Some(link) = self.links.get_mut(&peer) else { return false };
        let was_asked = link.asked.remove(filter).is_some();
        if was_asked {
            let memory = Self::filter_memory(filter);
            link.filter_bytes -= memory;
            self.plane.client_bytes -= memory;
        }
        was_asked
    }

    /// The peer wants to be sure that what it wants is known. It is, as soon as all shards have heard of it.
    pub(super) fn on_interest_request(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
    ) -> Result<(), Violation> {
        let request = frame.body::<control::InterestRequest<'_>>()?;
        let filters: Vec<Box<str>> = request.filters().iter().map(Box::from).collect();
        let cause = filters.iter().find_map(|filter| check_filter(filter).err());
        if let Some(cause) = cause {
            return Err(Violation::by(frame, &format!("a filter of the peer's: {cause}")));
        }
        let Some(peer) = self.peer_of(id) else { return Ok(()) };
        let Some(link) = self.links.get_mut(&peer) else { return Ok(()) };
        let request = request.request();
        if link.has_told {
            self.know_interest(peer, request, &filters);
        } else if link.asked_early.len() < FETCHES_MAX {
            link.asked_early.push(AskedEarly::Interest { request, filters });
        }
        Ok(())
    }

    /// Answers as soon as all shards have heard of the filters. Without memory there is no answer, and the
    /// peer's client is told a little later.
    fn know_interest(&mut self, peer: NodeId, request: u64, filters: &[Box<str>]) {
        let Some((_, queue)) = self.links.get(&peer).and_then(|link| link.queue) else { return };
        if !filters.iter().all(|filter| self.keep_asked_filter(peer, queue, filter)) {
            return;
        }
        let Some(link) = self.links.get_mut(&peer) else { return };
        let mut unknown_to = ShardMask::default();
        for neighbour in self.plane.neighbours.all() {
            unknown_to.insert(neighbour.shard);
            neighbour.tell(ParcelItem::Know { peer, request });
        }
        if unknown_to.is_empty() {
            self.plane.end_answer(queue, Answer::known(request));
        } else if link.unknown_to.len() < FETCHES_MAX {
            link.unknown_to.insert(request, unknown_to);
        }
    }

    /// A shard has heard of what a peer wants.
    pub(super) fn on_known(&mut self, peer: NodeId, request: u64, from: ShardIndex) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let Some(unknown_to) = link.unknown_to.get_mut(&request) else { return };
        unknown_to.remove(from);
        if unknown_to.is_empty() {
            link.unknown_to.remove(&request);
            if let Some((_, queue)) = link.queue {
                self.plane.end_answer(queue, Answer::known(request));
            }
        }
    }

    /// Whether a peer is to get, once it has told what it wants, what this node accepted before: one that has
    /// just started hands that over as if it were live. A peer whose link was given up and stands again had it,
    /// or was told.
    pub(super) fn has_early_messages_for(&self, peer: NodeId) -> bool {
        let has_told = self.links.get(&peer).is_some_and(|link| link.has_told);
        let is_young = self.plane.age_us() < EARLY_MESSAGES_US;
        is_young && !has_told && !self.had_early_messages.contains(&peer)
    }

    /// The peer has told what it wants. From now on each owner hands it what is live behind what is early;
    /// retained values that it lacks are found out behind both.
    pub(super) fn hand_over_early_messages(&mut self, peer: NodeId) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let asked_early = std::mem::take(&mut link.asked_early);
        if let Some((subscription, queue)) = link.queue
            && let Some(held) = self.plane.queues.get_mut(queue.0 as usize)
            && held.awaits.contains(self.plane.routing.own)
        {
            self.had_early_messages.insert(peer);
            held.awaits.remove(self.plane.routing.own);
            let filters: Arc<[Box<str>]> = link.filters.iter().cloned().collect();
            for neighbour in self.plane.neighbours.all() {
                let filters = Arc::clone(&filters);
                neighbour.tell(ParcelItem::EarlyMessages { queue, subscription, filters });
            }
            let target = Target { shard: self.plane.routing.own, queue, subscription };
            self.plane.hand_over_early(target, &filters);
            self.compare_retained(peer);
        }
        for asked in asked_early {
            match asked {
                AskedEarly::Messages(asked) => self.answer_peer(peer, &asked),
                AskedEarly::Interest { request, filters } => {
                    self.know_interest(peer, request, &filters);
                }
            }
        }
    }

    /// Another shard has handed over what is early of its topics.
    pub(super) fn early_messages_end(
        &mut self,
        from: ShardIndex,
        queue: QueueId,
        subscription: SubscriptionId,
    ) {
        if !self.plane.is_same_queue(queue, subscription) {
            return;
        }
        self.plane.queues[queue.0 as usize].awaits.remove(from);
        let mut links = self.links.iter();
        let link = links.find(|(_, link)| link.queue == Some((subscription, queue)));
        if let Some((&peer, _)) = link {
            self.compare_retained(peer);
        }
    }

    /// Forgets what a peer asked for a while ago.
    pub(super) fn forget_asked_filters(&mut self, peer: NodeId, now_us: u64) {
        let Some(link) = self.links.get(&peer) else { return };
        let old: Vec<Box<str>> = link
            .asked
            .iter()
            .filter(|(_, until)| **until <= now_us)
            .map(|(filter, _)| filter.clone())
            .collect();
        let queue = link.queue;
        for filter in old {
            self.take_asked_filter(peer, &filter);
            if let Some((_, queue)) = queue {
                self.index_filter(queue, &filter, false);
            }
        }
    }
}

impl Plane {
    /// Puts the answer into the queue of a link of this shard.
    pub(super) fn answer(&mut self, queue: QueueId, asked: &Asked) {
        if let Some(held) = self.held_for_peer(asked) {
            let Held { topic, extents, is_partial } = held;
            self.begin_replay(queue, topic, None);
            self.begin_answer(queue, asked.request, is_partial);
            for extent in extents {
                self.push_replay(queue, extent);
            }
            self.end_answer(queue, Answer { request: asked.request, is_end: true, is_partial });
        }
        self.stay_in_budget();
    }

    /// Lends the answer to the shard of a link.
    pub(super) fn answer_elsewhere(
        &mut self,
        to: ShardIndex,
        queue: QueueId,
        subscription: SubscriptionId,
        asked: &Asked,
    ) {
        if let Some(held) = self.held_for_peer(asked) {
            let Held { topic, extents, is_partial } = held;
            self.name_to(topic, to);
            let lend = |extent: &Extent| {
                let memory = self.log.lend(extent.segment, to)?;
                Some(LentRun::addressed(*extent, memory))
            };
            let runs = extents.iter().filter_map(lend).collect();
            let answer = Some(Answer { request: asked.request, is_end: true, is_partial });
            let (lost, is_unknown, newest) = (None, false, None);
            let replay =
                Replay { queue, subscription, topic, lost, is_unknown, runs, newest, answer };
            self.neighbours.of(to).tell(ParcelItem::Replay(Box::new(replay)));
        }
        self.stay_in_budget();
    }

    /// Hands all that this node accepted for topics of this shard, and that is wanted, to the queue of a link.
    pub(super) fn hand_over_early(&mut self, target: Target, filters: &[Box<str>]) {
        self.settle_history();
        for slot in 0..self.topics.slots() {
            let topic = self.topics.id_of(slot);
            let Some(standing) = self.topics.standing(topic) else { continue };
            let name = self.topics.name(topic);
            if standing.newest == 0 || !filters.iter().any(|it| filter_matches(it, name)) {
                continue;
            }
            // What is not held any more was accepted for nobody, and is no loss.
            let (own, _) = self.accepted_after(topic, 0);
            self.hand_to(target, topic, &own);
        }
        self.stay_in_budget();
    }

    /// What this node accepted for a topic behind a message and still holds; and whether there was more.
    fn accepted_after(&self, topic: TopicId, after: u64) -> (Vec<Extent>, bool) {
        let mut own = Vec::new();
        let Some(standing) = self.topics.standing(topic).filter(|it| after < it.newest) else {
            return (own, false);
        };
        let newest_run = self.topics.newest_run(topic);
        let (held, oldest) =
            self.history.above(topic, newest_run, standing, after, &self.log, self.now_us);
        for extent in &held {
            self.log.split_where(extent, &mut own, |header| header.origin() == 0);
        }
        (own, self.topics.has_own_between(topic, after, oldest))
    }

    /// `None`: the node has as many topics as it may, so nothing can be said.
    fn held_for_peer(&mut self, asked: &Asked) -> Option<Held> {
        let topic = self.topics.find_or_insert(&asked.topic, self.limits.topics, self.now_us)?;
        self.settle_history();
        let after = asked.after.unwrap_or(0) + u64::from(is_planted(Plant::AnswerOffByOne));
        let (mut extents, is_partial) = self.accepted_after(topic, after);
        extents.iter_mut().for_each(|extent| extent.mode = DeliveryMode::Fetched);
        Some(Held { topic, extents, is_partial })
    }

    pub(super) fn begin_answer(&mut self, queue: QueueId, request: u64, is_partial: bool) {
        let items = &mut self.queues[queue.0 as usize].items;
        items.push_back(Item::Answer(Answer { request, is_end: false, is_partial }));
    }

    pub(super) fn end_answer(&mut self, queue: QueueId, answer: Answer) {
        self.queues[queue.0 as usize].items.push_back(Item::Answer(answer));
        self.make_ready(queue);
    }
}
