//! From a run of messages to the queues that want it.
//!
//! Each queue of this shard gets a run as one extent (`flush_run`). Shards whose queues
//! want it are told where it lies (`lend_run`), borrow its segment, and hand it to theirs the same way
//! (`deliver_lent`). A queue that is full by then is dealt with here, by its policy. Every shard counts for
//! an acknowledged message what became of it at its own queues.

use nexusd_wire::TopicId;
use nexusd_wire::control::PublishStatus;
use slab::Slab;

use super::backpressure::{self, Around, Overflow};
use super::event::{ConnectionId, Now};
use super::parcel::{Item as ParcelItem, LentRun};
use super::plane::Plane;
use super::publish::Run;
use super::routing::{PublisherId, ShardIndex, ShardMask};
use crate::audience::{Audience, Match};
use crate::expiry::Expiry;
use crate::limits::ACKS_PER_FRAME;
use crate::link::{FetchId, Origin};
use crate::log::{Extent, Log};
use crate::owed_acks::{AckPart, AckRange, OwnersPart};
use crate::plant::{Plant, is_planted};
use crate::subscriber_queue::{QueueId, SubscriberQueue};

/// A plane's hall for a topic of `owner`. A macro, because a method would borrow the topics too.
macro_rules! hall {
    ($plane:expr, $owner:expr) => {
        Hall {
            owner: $owner,
            queues: &mut $plane.queues,
            desk: Desk {
                newly_ready: &mut $plane.newly_ready,
                has_news: &mut $plane.has_news,
                open_generations: &$plane.open_generations,
                around: Around {
                    log: &mut $plane.log,
                    metrics: &mut $plane.metrics,
                    blocked: &mut $plane.blocked,
                    holds: &mut $plane.holds,
                    condemned: &mut $plane.condemned,
                    expiring: &mut $plane.expiring,
                },
            },
        }
    };
}

/// What became of a run at this shard's queues.
#[derive(Clone, Copy, Default, Debug)]
struct Outcome {
    delivered: u32,
    dropped: u32,
    blocked: u32,
}

impl Plane {
    /// Hands the open run, if there is one, to the queues that want it, and to other shards whose
    /// queues do.
    pub(crate) fn flush_run(&mut self, now: Now) {
        self.passing = None;
        let Some(run) = self.run.take() else { return };
        if run.fetch != FetchId::NONE {
            return self.hand_fetched(&run);
        }
        self.topics.refresh_audience(run.topic, &self.index, &self.queues);
        let topic = self.topics.topic(run.topic);
        run.end_part(topic, &mut self.history, &mut self.log, now);
        let messages = u64::from(run.extent.messages);
        self.metrics.messages_in += messages;
        self.metrics.bytes_in += u64::from(run.extent.len);
        if run.origin.is_some() {
            self.metrics.relayed += messages;
        }
        let mut wanted_by = topic.wanted_by;
        if topic.audience.matches.is_empty() && wanted_by.is_empty() {
            self.metrics.no_subscribers += messages;
        }
        if run.is_state() {
            wanted_by = wanted_by.union(self.node.shards_with_links());
            wanted_by.remove(self.routing.own);
        }
        let from = (run.publisher, run.origin);
        match (run.acks, run.publisher) {
            (Some(acks), Some(publisher)) => {
                let owner = OwnersPart {
                    sequence: run.sequence.0 + 1 - u64::from(acks.count),
                    shards: wanted_by.len(),
                    status: PublishStatus::Accepted,
                };
                let mut told = Telling { publisher, acks, owner: Some(owner) };
                let mut rest = run.extent;
                while let Some(part) =
                    told.next_part(&mut rest, &topic.audience, &self.queues, &self.log)
                {
                    let hall = &mut hall!(self, self.routing.own);
                    let outcome = fan_out(&mut topic.audience, run.topic, &part, from, hall, now);
                    self.acks.push(told.of(&part, outcome));
                }
                self.has_news |= self.acks.len() >= ACKS_PER_FRAME;
            }
            _ => {
                let hall = &mut hall!(self, self.routing.own);
                fan_out(&mut topic.audience, run.topic, &run.extent, from, hall, now);
            }
        }
        if run.is_state() {
            self.hand_to_links(run.topic, &run.extent, now);
        }
        if !wanted_by.is_empty() {
            self.lend_run(&run, wanted_by);
        }
        self.log.release(run.extent.segment);
        if self.log.is_over_budget() {
            self.shrink_to_budget();
        }
    }

    /// Tells other shards of a run that queues of theirs want.
    fn lend_run(&mut self, run: &Run, wanted_by: ShardMask) {
        let topic = self.topics.topic(run.topic);
        for shard in wanted_by {
            let neighbour = self.neighbours.of(shard);
            if !topic.named_to.contains(shard) {
                topic.named_to.insert(shard);
                let name = topic.name.clone();
                neighbour.tell(ParcelItem::Name { topic: run.topic, name });
            }
            let from = (run.publisher, run.origin);
            neighbour.lend(run.extent, from, run.is_state(), run.acks, &mut self.log);
        }
    }

    /// Hands messages that lie in another shard's log to the queues that want them.
    pub(crate) fn deliver_lent(&mut self, lender: ShardIndex, run: LentRun, now: Now) {
        let LentRun { mut extent, memory, publisher, origin, is_state, acks } = run;
        let from = (publisher, origin);
        extent.segment = self.log.borrow(lender, extent.segment, memory);
        let segment = extent.segment;
        let told =
            acks.zip(publisher).map(|(acks, publisher)| Telling { publisher, acks, owner: None });
        match extent.topic {
            Some(topic) => {
                self.deliver_foreign(topic, &extent, from, told, now);
                if is_state {
                    self.hand_to_links(topic, &extent, now);
                }
            }
            None => {
                while let Some((topic, part)) = self.log.split_off_topic(&mut extent) {
                    // Of several topics, only the last message is acknowledged.
                    let told = told.filter(|_| extent.messages == 0);
                    self.deliver_foreign(topic, &part, from, told, now);
                    if is_state {
                        self.hand_to_links(topic, &part, now);
                    }
                }
            }
        }
        self.log.release(segment);
        if self.log.is_over_budget() {
            self.shrink_to_budget();
        }
    }

    /// Hands a retained value, or that it was cleared, to the links of this shard that have not had it as
    /// one that is wanted: all nodes have the same ones.
    #[cold]
    fn hand_to_links(&mut self, topic: TopicId, extent: &Extent, now: Now) {
        for at in 0..self.link_queues.len() {
            let id = self.link_queues[at];
            let audience = match self.routing.owner(topic) == self.routing.own {
                true => &self.topics.topic(topic).audience,
                false => match self.foreign.refreshed(topic, &self.index, &self.queues) {
                    Some(known) => &known.audience,
                    None => return,
                },
            };
            let has_had_it =
                audience.matches.binary_search_by_key(&id, |entry| entry.queue).is_ok();
            let queue = &mut self.queues[id.0 as usize];
            if has_had_it || queue.awaits.contains(self.routing.owner(topic)) {
                continue;
            }
            queue.push_bind(topic);
            queue.push(id, *extent, &mut self.log);
            self.metrics.queued_messages += u64::from(extent.messages);
            self.metrics.queued_bytes += u64::from(extent.len);
            if extent.expiry != Expiry::NEVER {
                self.expiring.note(queue, id, extent.expiry);
            }
            let connection = queue.connection;
            let hall = hall!(self, self.routing.own);
            let Hall { queues, mut desk, .. } = hall;
            let queue = &mut queues[id.0 as usize];
            if queue.is_over_limit() {
                backpressure::overflow(queue, id, extent, None, &mut desk.around, now);
            }
            self.make_ready(id);
            self.note_bound(topic, connection);
        }
    }

    fn deliver_foreign(
        &mut self,
        topic: TopicId,
        extent: &Extent,
        from: (Option<PublisherId>, Option<Origin>),
        told: Option<Telling>,
        now: Now,
    ) {
        let owner = self.routing.owner(topic);
        let Some(known) = self.foreign.refreshed(topic, &self.index, &self.queues) else {
            debug_assert!(false, "a topic is named before its first run");
            self.acks.extend(told.map(|mut told| told.of(extent, Outcome::default())));
            return;
        };
        let Some(mut told) = told else {
            fan_out(&mut known.audience, topic, extent, from, &mut hall!(self, owner), now);
            return;
        };
        let mut rest = *extent;
        while let Some(part) = told.next_part(&mut rest, &known.audience, &self.queues, &self.log) {
            let hall = &mut hall!(self, owner);
            let outcome = fan_out(&mut known.audience, topic, &part, from, hall, now);
            self.acks.push(told.of(&part, outcome));
        }
        self.has_news |= self.acks.len() >= ACKS_PER_FRAME;
    }
}

/// What is told of a run's acknowledged messages, its last ones.
#[derive(Clone, Copy)]
struct Telling {
    publisher: PublisherId,
    acks: AckRange,
    /// What the owner of their topic says of the first of them.
    owner: Option<OwnersPart>,
}

impl Telling {
    /// Takes off the front of `rest` what will fare alike at all queues: everything, unless one may refuse some of it.
    fn next_part(
        &self,
        rest: &mut Extent,
        audience: &Audience,
        queues: &Slab<SubscriberQueue>,
        log: &Log,
    ) -> Option<Extent> {
        let may_refuse = |entry: &Match| queues[entry.queue.0 as usize].may_refuse(rest);
        let is_alike = self.acks.count <= 1 || !audience.matches.iter().any(may_refuse);
        let part = match is_alike {
            true => rest.take(),
            false => log.split_off_front(rest, 1),
        };
        Some(part).filter(|part| part.messages > 0)
    }

    /// What became of `part`, the next of the run.
    fn of(&mut self, part: &Extent, outcome: Outcome) -> (PublisherId, AckPart) {
        let acks = self.acks.split_off_front(part.messages);
        let owner = self.owner;
        if let Some(owner) = &mut self.owner {
            owner.sequence += u64::from(acks.count);
        }
        let miscount = u32::from(is_planted(Plant::AckMiscounts));
        let Outcome { delivered, dropped, blocked } = outcome;
        (self.publisher, AckPart { acks, delivered: delivered + miscount, dropped, blocked, owner })
    }
}

/// What a run of messages meets on its way to the queues: of the plane, all but the topics.
struct Hall<'a> {
    /// The shard that owns the topic.
    owner: ShardIndex,
    queues: &'a mut Slab<SubscriberQueue>,
    desk: Desk<'a>,
}

/// What is noted down for each queue.
struct Desk<'a> {
    newly_ready: &'a mut Vec<QueueId>,
    has_news: &'a mut bool,
    open_generations: &'a [u64],
    around: Around<'a>,
}

/// Adds a run to every queue of this shard that wants it.
#[inline]
fn fan_out(
    audience: &mut Audience,
    topic: TopicId,
    extent: &Extent,
    (publisher, origin): (Option<PublisherId>, Option<Origin>),
    hall: &mut Hall<'_>,
    now: Now,
) -> Outcome {
    if let Some(origin) = origin {
        return fan_out_relayed(audience, topic, extent, origin, hall, now);
    }
    let mut outcome = Outcome::default();
    for at in 0..audience.matches.len() {
        let queue = &mut hall.queues[audience.matches[at].queue.0 as usize];
        if queue.may_have(hall.owner) {
            let to = (audience as &mut Audience, at, queue);
            hand_over(to, topic, extent, publisher, (&mut hall.desk, &mut outcome), now);
        }
    }
    outcome
}

/// The same for what comes from another node: it is not for links, nor for subscriptions that get it, or
/// had it, otherwise.
fn fan_out_relayed(
    audience: &mut Audience,
    topic: TopicId,
    extent: &Extent,
    origin: Origin,
    hall: &mut Hall<'_>,
    now: Now,
) -> Outcome {
    let mut outcome = Outcome::default();
    for at in 0..audience.matches.len() {
        let is_link = audience.matches[at].is_link && !is_planted(Plant::RelayedOn);
        let queue = &mut hall.queues[audience.matches[at].queue.0 as usize];
        if is_link || queue.keeps_out(topic, origin) || !queue.may_have(hall.owner) {
            continue;
        }
        queue.introduce(origin);
        let to = (audience as &mut Audience, at, queue);
        hand_over(to, topic, extent, None, (&mut hall.desk, &mut outcome), now);
    }
    outcome
}

impl SubscriberQueue {
    /// Whether what an owner has now is for the queue.
    #[inline(always)]
    fn may_have(&self, owner: ShardIndex) -> bool {
        !self.awaits.contains(owner) || is_planted(Plant::ConfirmedEarly)
    }
}

/// Adds a run to the queue of one that is to have it.
#[inline(always)]
fn hand_over(
    (audience, at, queue): (&mut Audience, usize, &mut SubscriberQueue),
    topic: TopicId,
    extent: &Extent,
    publisher: Option<PublisherId>,
    (desk, outcome): (&mut Desk<'_>, &mut Outcome),
    now: Now,
) {
    let entry = &mut audience.matches[at];
    let id = entry.queue;
    outcome.delivered += 1;
    if !entry.bound {
        entry.bound = true;
        if !is_planted(Plant::LostBind) {
            queue.push_bind(topic);
        }
        audience.note_bound(queue.connection, |told| is_open(desk.open_generations, told));
    }
    queue.push(id, *extent, desk.around.log);
    desk.around.metrics.queued_messages += u64::from(extent.messages);
    desk.around.metrics.queued_bytes += u64::from(extent.len);
    if !queue.is_ready {
        queue.is_ready = true;
        desk.newly_ready.push(id);
    }
    if extent.expiry != Expiry::NEVER {
        desk.around.expiring.note(queue, id, extent.expiry);
    }
    if queue.is_over_limit() {
        match backpressure::overflow(queue, id, extent, publisher, &mut desk.around, now) {
            Overflow::OldestDropped => {}
            Overflow::NewestDropped => {
                outcome.delivered -= 1;
                outcome.dropped += 1;
            }
            Overflow::Held => {
                *desk.has_news = true;
                outcome.blocked += 1;
            }
        }
    }
}

/// Whether a connection id still belongs to an open connection.
pub(crate) fn is_open(open_generations: &[u64], id: ConnectionId) -> bool {
    open_generations.get(id.index as usize) == Some(&(u64::from(id.generation) + 1))
}
