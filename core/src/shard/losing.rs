//! What was lost on a link: it takes the numbers it would have had here, and every subscription that
//! would have got it is told.

use nexusd_wire::control::GapReason;
use nexusd_wire::{Sequence, TopicId};

use super::event::Now;
use super::fan_out::is_open;
use super::parcel::Item as ParcelItem;
use super::plane::Plane;
use super::routing::ShardIndex;
use crate::gap::Gap;
use crate::session::Binding;
use crate::subscriber_queue::{Item, QueueId, SubscriberQueue};

/// How much of a topic is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lost {
    /// So many messages.
    Messages(u64),
    /// Nobody knows.
    Unknown,
}

impl Lost {
    fn messages(self) -> u64 {
        match self {
            Self::Messages(messages) => messages,
            Self::Unknown => 0,
        }
    }

    fn note(self, gap: &mut Gap, topic: TopicId, first: Sequence) {
        match self {
            Self::Messages(messages) => gap.note(topic, first, messages),
            Self::Unknown => gap.note_unknown(),
        }
    }
}

impl Plane {
    /// Messages of a topic that a peer had bound are lost.
    pub(super) fn lose_bound(&mut self, binding: Binding, lost: Lost, now: Now) {
        match binding {
            Binding::Topic(topic) => self.lose(topic, lost, now),
            Binding::Elsewhere(owner, handle) => {
                // Behind what came before.
                let owner = self.neighbours.of(owner);
                owner.close_batch();
                owner.tell(ParcelItem::LoseOnLink { handle, lost });
                self.passing = None;
            }
            Binding::Refused | Binding::Free => {}
        }
    }

    /// Messages of one of this shard's topics are lost.
    pub(super) fn lose(&mut self, id: TopicId, lost: Lost, now: Now) {
        self.flush_run(now);
        self.metrics.lost_on_links += lost.messages();
        self.topics.refresh_audience(id, &self.index, &self.queues);
        let topic = self.topics.topic(id);
        let first = Sequence(topic.sequence + 1);
        topic.sequence += lost.messages();
        for shard in topic.wanted_by {
            self.name_to(id, shard);
            self.neighbours.of(shard).tell(ParcelItem::Lost { topic: id, first, lost });
        }
        self.tell_lost(id, first, lost);
    }

    /// Messages of another shard's topic are lost.
    pub(super) fn lose_foreign(&mut self, id: TopicId, first: Sequence, lost: Lost) {
        if self.foreign.refreshed(id, &self.index, &self.queues).is_some() {
            self.tell_lost(id, first, lost);
        }
    }

    /// Tells the queues of this shard, whose audience is up to date.
    fn tell_lost(&mut self, topic: TopicId, first: Sequence, lost: Lost) {
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
            self.push_lost(id, topic, first, lost);
        }
    }

    fn push_lost(&mut self, id: QueueId, topic: TopicId, first: Sequence, lost: Lost) {
        let queue = &mut self.queues[id.0 as usize];
        let is_being_sent = queue.items.len() <= queue.planned;
        match queue.items.back_mut() {
            Some(Item::Gap(gap)) if gap.reason() == GapReason::LinkLost && !is_being_sent => {
                self.log.discharge_gap(gap);
                lost.note(gap, topic, first);
                self.log.charge_gap(gap);
            }
            _ => {
                let mut gap = Gap::new(GapReason::LinkLost);
                lost.note(&mut gap, topic, first);
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
