//! What a parked queue had to drop and its topics still have: a client that comes back may want it.
//!
//! Owners are asked for the messages that the queue's gaps name. What comes takes the place of what was
//! lost, so a topic's messages stay in order; the client is told how things stand once all owners have
//! answered.

use std::collections::VecDeque;

use nexusd_wire::control::GapReason;
use nexusd_wire::{Sequence, SubscriptionId, TopicId};

use super::parcel::{Item as ParcelItem, LentRun};
use super::plane::Plane;
use super::routing::ShardIndex;
use crate::expiry::Expiry;
use crate::limits::LOSSES_RECOVERED_MAX;
use crate::log::{Extent, Log};
use crate::plant::{Plant, is_planted};
use crate::subscriber_queue::{Item, QueueId};

/// Messages of a topic, by their first and last number.
pub(crate) type Range = (TopicId, Sequence, Sequence);

/// What an owner holds of such a range, up to its end.
pub(crate) type Recovered = (Range, Vec<LentRun>);

impl Plane {
    /// Looks for what the gaps of a queue name; whether other shards have to answer first.
    pub(super) fn recover(&mut self, id: QueueId) -> bool {
        let mut by_owner = vec![Vec::new(); self.routing.shards()];
        if !is_planted(Plant::RecoveredOutOfPlace) {
            name_topics_once(&mut self.queues[id.0 as usize].items, &mut self.log);
        }
        let named = self.queues[id.0 as usize].items.iter().filter_map(|item| match item {
            Item::Gap(gap) if gap.reason() != GapReason::LinkLost => Some(gap),
            _ => None,
        });
        let mut lost: Vec<_> = named.flat_map(|gap| gap.ranges()).collect();
        // Each takes a search: a reader that stops again and again can have lost something very often.
        lost.drain(..lost.len().saturating_sub(LOSSES_RECOVERED_MAX));
        for range in lost {
            by_owner[self.routing.owner(range.0).index()].push(range);
        }
        let own = self.routing.own;
        if !by_owner[own.index()].is_empty() {
            self.settle_history();
        }
        // From the last one on, so that each goes right behind its gap.
        for range in std::mem::take(&mut by_owner[own.index()]).into_iter().rev() {
            let extents = self.held_between(range);
            self.put_back(id, range, &extents);
        }
        let queue = &mut self.queues[id.0 as usize];
        let subscription = queue.subscription;
        for neighbour in self.neighbours.all() {
            let ranges = std::mem::take(&mut by_owner[neighbour.shard.index()]);
            if !ranges.is_empty() {
                queue.recovering += 1;
                neighbour.tell(ParcelItem::Recover { queue: id, subscription, ranges });
            }
        }
        queue.recovering > 0
    }

    /// What is held of some of a topic's messages, oldest first and without a hole up to the last one.
    fn held_between(&self, (topic, first, last): Range) -> Vec<Extent> {
        let Some(standing) = self.topics.standing(topic) else { return Vec::new() };
        if first.0 < standing.first || last.0 > standing.newest {
            return Vec::new();
        }
        let newest_run = self.topics.newest_run(topic);
        let after = first.0 - 1;
        let (extents, _) =
            self.history.above(topic, newest_run, standing, after, &self.log, self.now_us);
        let until_last = |mut extent: Extent| {
            let first = self.log.header(extent.segment, extent.start).sequence().0;
            let messages = (last.0 + 1).saturating_sub(first);
            Some(self.log.split_off_front(&mut extent, messages)).filter(|front| front.messages > 0)
        };
        extents.into_iter().filter_map(until_last).collect()
    }

    /// Lends what is held of some messages to the shard of a queue.
    pub(super) fn recover_elsewhere(&mut self, to: ShardIndex, ranges: &[Range]) -> Vec<Recovered> {
        self.settle_history();
        let mut recovered = Vec::new();
        for &range in ranges {
            let mut runs = Vec::new();
            for extent in self.held_between(range) {
                let memory = self.log.lend(extent.segment, to);
                let run = |memory| LentRun::addressed(extent, memory);
                runs.extend(memory.map(run));
            }
            recovered.push((range, runs));
        }
        recovered
    }

    /// An owner has answered; whether that was the last answer that the queue waits for.
    pub(super) fn on_recovered(
        &mut self,
        lender: ShardIndex,
        id: QueueId,
        subscription: SubscriptionId,
        recovered: Vec<Recovered>,
    ) -> bool {
        let is_there = self.is_same_queue(id, subscription);
        // An earlier Resume may have asked; then nothing is put into a queue that has its turn again.
        let is_awaited = is_there && self.queues[id.0 as usize].returning.is_some();
        for (range, runs) in recovered.into_iter().rev() {
            let mut extents = Vec::with_capacity(runs.len());
            for LentRun { mut extent, memory, .. } in runs {
                extent.segment = self.log.borrow(lender, extent.segment, memory);
                extents.push(extent);
            }
            if is_awaited {
                self.put_back(id, range, &extents);
            }
            extents.iter().for_each(|extent| self.log.release(extent.segment));
        }
        if !is_there {
            return false;
        }
        let queue = &mut self.queues[id.0 as usize];
        queue.recovering -= 1;
        queue.recovering == 0
    }

    /// Puts messages where a gap says that they are missing, if it still does.
    fn put_back(&mut self, id: QueueId, (topic, _, last): Range, extents: &[Extent]) {
        let Some(oldest) = extents.first() else { return };
        let from = self.log.header(oldest.segment, oldest.start).sequence();
        let queue = &mut self.queues[id.0 as usize];
        let place = queue.items.iter_mut().position(|item| match item {
            Item::Gap(gap) => gap.take_back(topic, from, last),
            _ => false,
        });
        let Some(place) = place else { return };
        let behind = queue.items.split_off(place + 1);
        for &extent in extents {
            queue.items.push_back(Item::Extent(extent));
            queue.messages += u64::from(extent.messages);
            queue.bytes += u64::from(extent.len);
            queue.replay_messages += u64::from(extent.messages);
            queue.replay_bytes += u64::from(extent.len);
            self.metrics.queued_messages += u64::from(extent.messages);
            self.metrics.queued_bytes += u64::from(extent.len);
            self.log.retain(extent.segment, 1);
            self.log.add_holder(extent.segment, id);
            if extent.expiry != Expiry::NEVER {
                self.expiring.note(queue, id, extent.expiry);
            }
        }
        queue.items.extend(behind);
        if let Item::Gap(gap) = &queue.items[place]
            && gap.is_empty()
        {
            self.log.discharge_gap(gap);
            queue.items.remove(place);
        }
    }
}

/// Divides the gaps that name a topic more than once.
fn name_topics_once(items: &mut VecDeque<Item>, log: &mut Log) {
    for item in std::mem::take(items) {
        match item {
            Item::Gap(gap) if gap.reason() != GapReason::LinkLost => {
                log.discharge_gap(&gap);
                for gap in gap.once_each() {
                    log.charge_gap(&gap);
                    items.push_back(Item::Gap(Box::new(gap)));
                }
            }
            item => items.push_back(item),
        }
    }
}
