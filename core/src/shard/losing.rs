//! What was lost on a link: it takes the numbers it would have had here, and every subscription that
//! would have got it is told. Of what nobody can name, everybody is.

use nexusd_wire::control::GapReason;
use nexusd_wire::{Sequence, TopicId};

use super::event::Now;
use super::fan_out::is_open;
use super::parcel::Item as ParcelItem;
use super::plane::Plane;
use super::routing::ShardIndex;
use crate::gap::Gap;
use crate::limits::UNNAMED_LOSSES_US;
use crate::plant::{Plant, is_planted};
use crate::session::Binding;
use crate::subscriber_queue::{Item, QueueId, SubscriberQueue};

/// A loss that nobody can name, as all shards of the node call it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LossId {
    /// Where it was found out.
    shard: ShardIndex,
    number: u64,
}

/// Losses on links of topics that this node has no room for: what comes soon behind one is told together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UnnamedLosses {
    told_us: Option<u64>,
    is_owed: bool,
}

impl UnnamedLosses {
    /// When something has to be told.
    pub(super) fn due_us(&self) -> Option<u64> {
        let told_us = self.told_us.filter(|_| self.is_owed);
        told_us.map(|told_us| told_us + UNNAMED_LOSSES_US)
    }
}

impl Plane {
    /// Messages of a topic that a peer had bound are lost.
    pub(super) fn lose_bound(&mut self, binding: Binding, messages: u64, now: Now) {
        match binding {
            Binding::Topic(topic) => self.lose(topic, messages, now),
            Binding::Elsewhere(owner, handle) => {
                // Behind what came before.
                let owner = self.neighbours.of(owner);
                owner.close_batch();
                owner.tell(ParcelItem::LoseOnLink { handle, messages });
                self.passing = None;
            }
            Binding::Refused => self.lose_unnamed(messages, now),
            Binding::Free => {}
        }
    }

    /// Messages of topics that this node has no room for are lost: nobody knows who wanted them.
    #[cold]
    pub(super) fn lose_unnamed(&mut self, messages: u64, now: Now) {
        self.metrics.lost_on_links += messages;
        self.unnamed_losses.is_owed = true;
        self.tell_unnamed_losses(now);
    }

    /// Tells everybody of losses that have no name, unless that was done just now.
    pub(super) fn tell_unnamed_losses(&mut self, now: Now) {
        let UnnamedLosses { told_us, is_owed } = self.unnamed_losses;
        let was_told_now = told_us.is_some_and(|told| now.mono_us < told + UNNAMED_LOSSES_US);
        if is_owed && !was_told_now {
            self.unnamed_losses = UnnamedLosses { told_us: Some(now.mono_us), is_owed: false };
            self.lose_unknown(now);
        }
    }

    /// Messages of one of this shard's topics are lost.
    pub(super) fn lose(&mut self, id: TopicId, messages: u64, now: Now) {
        self.flush_run(now);
        self.metrics.lost_on_links += messages;
        self.topics.refresh_audience(id, &self.index, &self.queues);
        let topic = self.topics.topic(id);
        let first = Sequence(topic.sequence + 1);
        topic.sequence += messages;
        for shard in topic.wanted_by {
            self.name_to(id, shard);
            self.neighbours.of(shard).tell(ParcelItem::Lost { topic: id, first, messages });
        }
        self.tell_lost(id, first, messages);
    }

    /// Messages of another shard's topic are lost.
    pub(super) fn lose_foreign(&mut self, id: TopicId, first: Sequence, messages: u64) {
        if self.foreign.refreshed(id, &self.index, &self.queues).is_some() {
            self.tell_lost(id, first, messages);
        }
    }

    /// A peer may have lost messages that were for this node, and nobody knows of which topics: every
    /// subscription is told, behind what came before on each of its ways.
    pub(super) fn lose_unknown(&mut self, now: Now) {
        self.losses += 1;
        let loss = LossId { shard: self.routing.own, number: self.losses };
        for owner in self.neighbours.all() {
            if !is_planted(Plant::LossOfOneShard) {
                owner.close_batch();
                owner.tell(ParcelItem::LoseUnknown { loss });
            }
        }
        self.passing = None;
        self.lose_unknown_here(loss, now);
    }

    /// The same for the topics of this shard.
    pub(super) fn lose_unknown_here(&mut self, loss: LossId, now: Now) {
        self.flush_run(now);
        for neighbour in self.neighbours.all() {
            neighbour.tell(ParcelItem::UnknownLost { loss });
        }
        self.tell_unknown_lost(self.routing.own, loss);
    }

    /// Tells the subscriptions of this shard that may want one of the topics of `owner`.
    pub(super) fn tell_unknown_lost(&mut self, owner: ShardIndex, loss: LossId) {
        let routing = &self.routing;
        let may_be_of_owner =
            |filter: &str| filter.contains(['+', '#']) || routing.owner_of(filter) == owner;
        let is_told = |queue: &SubscriberQueue| {
            !queue.is_link
                && !queue.is_dying
                && queue.is_to_have(owner)
                && queue.filters.iter().any(|filter| may_be_of_owner(filter))
        };
        let queues = self.queues.iter().filter(|(_, queue)| is_told(queue));
        let told: Vec<_> = queues.map(|(slot, _)| QueueId(slot as u32)).collect();
        for id in told {
            let queue = &mut self.queues[id.0 as usize];
            // With nothing behind the other owners' word, this one says the same at the same place.
            let place = (queue.messages == 0).then(|| (loss, queue.stream.sent()));
            if place.is_none() || place != queue.unknown_told {
                queue.unknown_told = place;
                self.push_lost(id, Gap::note_unknown);
            }
        }
    }

    /// Tells the queues of this shard, whose audience is up to date.
    fn tell_lost(&mut self, topic: TopicId, first: Sequence, messages: u64) {
        let owner = self.routing.owner(topic);
        for at in 0.. {
            let audience = match owner == self.routing.own {
                true => &mut self.topics.topic(topic).audience,
                false => match self.foreign.refreshed(topic, &self.index, &self.queues) {
                    Some(known) => &mut known.audience,
                    None => return,
                },
            };
            let Some(entry) = audience.matches.get_mut(at) else { break };
            let id = entry.queue;
            let queue = &mut self.queues[id.0 as usize];
            if queue.is_link {
                // Its messages before and behind may lie beside each other.
                queue.expect_hole();
                continue;
            }
            if !queue.is_to_have(owner) {
                continue;
            }
            let is_bound = std::mem::replace(&mut entry.bound, true);
            if !is_bound {
                queue.push_bind(topic);
                let open_generations = &self.open_generations;
                audience.note_bound(queue.connection, |told| is_open(open_generations, told));
            }
            self.push_lost(id, |gap| gap.note(topic, first, messages));
        }
    }

    fn push_lost(&mut self, id: QueueId, note: impl FnOnce(&mut Gap)) {
        let queue = &mut self.queues[id.0 as usize];
        let is_being_sent = queue.items.len() <= queue.planned;
        match queue.items.back_mut() {
            Some(Item::Gap(gap)) if gap.reason() == GapReason::LinkLost && !is_being_sent => {
                self.log.discharge_gap(gap);
                note(gap);
                self.log.charge_gap(gap);
            }
            _ => {
                let mut gap = Gap::new(GapReason::LinkLost);
                note(&mut gap);
                self.log.charge_gap(&gap);
                queue.items.push_back(Item::Gap(Box::new(gap)));
            }
        }
        self.make_ready(id);
    }
}

impl SubscriberQueue {
    /// Whether what an owner has now is for the queue: that shard has confirmed that it knows it.
    fn is_to_have(&self, owner: ShardIndex) -> bool {
        !self.awaits.contains(owner)
    }

    /// What is queued next may not have the next number.
    fn expect_hole(&mut self) {
        if let Some(Item::Extent(last)) = self.items.back_mut() {
            last.expect_hole();
        }
    }
}
