//! What happens around a queue that is full: publishers held back and let go on, messages cut, and
//! how a queue ends.

use std::collections::BTreeSet;

use nexusd_wire::control::{ErrorCode, GapReason, OverflowPolicy};

use super::event::Now;
use super::expiring::Expiring;
use super::parcel::Item;
use super::plane::Plane;
use super::routing::PublisherId;
use super::{Shard, fatal};
use crate::limits::BLOCK_RESUME_EIGHTHS;
use crate::log::{Extent, Log};
use crate::metrics::Metrics;
use crate::overflow;
use crate::plant::{Plant, is_planted};
use crate::subscriber_queue::{Presence, QueueId, SubscriberQueue};

/// What became of a queue that a run took beyond its bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Overflow {
    /// It gave up, or will give up, its oldest messages.
    OldestDropped,
    /// It did not take the newest messages of the run.
    NewestDropped,
    /// It keeps all, and its publisher is held back.
    Held,
}

/// Deals with a queue that `run`, its newest messages, took beyond its bounds: by its policy.
#[cold]
pub(super) fn overflow(
    queue: &mut SubscriberQueue,
    id: QueueId,
    run: &Extent,
    publisher: Option<PublisherId>,
    around: &mut Around<'_>,
    now: Now,
) -> Overflow {
    if !queue.is_overflowing(around.log) {
        return Overflow::OldestDropped;
    }
    // Nobody is there who could be ended, or for whom it would be worth waiting.
    let is_away = queue.presence != Presence::Connected;
    match queue.limits.policy {
        OverflowPolicy::DropNewest => {
            let bytes = queue.bytes;
            let dropped = overflow::refuse_newest(queue, around.log, run);
            around.metrics.count_dropped(GapReason::SlowConsumer, dropped);
            queue.warning.note_dropped(dropped, GapReason::SlowConsumer);
            around.metrics.queued_messages -= dropped;
            around.metrics.queued_bytes -= bytes - queue.bytes;
            return Overflow::NewestDropped;
        }
        OverflowPolicy::Disconnect if !is_away => {
            if !std::mem::replace(&mut queue.is_condemned, true) {
                around.condemned.push(id);
            }
            return Overflow::NewestDropped;
        }
        OverflowPolicy::Block
            if !queue.block_expired && !is_away && !is_planted(Plant::BlockDropsEarly) =>
        {
            if let Some(publisher) = publisher {
                hold_back(queue, id, publisher, around.blocked, around.holds, now);
                return Overflow::Held;
            }
        }
        _ => {}
    }
    cut(queue, around.log, around.metrics);
    Overflow::OldestDropped
}

/// What overflow touches beside the queue.
pub(super) struct Around<'a> {
    pub(super) log: &'a mut Log,
    pub(super) metrics: &'a mut Metrics,
    pub(super) blocked: &'a mut BTreeSet<(u64, QueueId)>,
    pub(super) holds: &'a mut Vec<(PublisherId, QueueId)>,
    pub(super) condemned: &'a mut Vec<QueueId>,
    pub(super) expiring: &'a mut Expiring,
}

/// Cuts a queue that is beyond its bounds, or remembers to, if a running send reads from it.
fn cut(queue: &mut SubscriberQueue, log: &mut Log, metrics: &mut Metrics) {
    if queue.in_flight {
        queue.overflow_due = true;
        return;
    }
    let bytes = queue.bytes;
    let dropped = overflow::cut_to_limit(queue, log);
    metrics.count_dropped(GapReason::SlowConsumer, dropped);
    queue.warning.note_dropped(dropped, GapReason::SlowConsumer);
    metrics.queued_messages -= dropped;
    metrics.queued_bytes -= bytes - queue.bytes;
}

/// Holds the publisher of a full `block` queue back.
fn hold_back(
    queue: &mut SubscriberQueue,
    id: QueueId,
    publisher: PublisherId,
    blocked: &mut BTreeSet<(u64, QueueId)>,
    holds: &mut Vec<(PublisherId, QueueId)>,
    now: Now,
) {
    if queue.blocked_since_us.is_none() {
        queue.blocked_since_us = Some(now.mono_us);
        blocked.insert((now.mono_us, id));
    }
    if queue.waiting.insert(publisher) {
        holds.push((publisher, id));
    }
}

impl Shard {
    /// A subscription fell behind further than its queue reaches, and its policy is `disconnect`.
    pub(super) fn disconnect_slow(&mut self, queue: QueueId, now: Now) {
        let Some(queue) = self.plane.queues.get(queue.0 as usize) else { return };
        // It may have been paused since.
        if !queue.is_condemned || queue.presence != Presence::Connected {
            return;
        }
        let text = format!(
            "subscription {} fell {} messages and {} bytes behind; its policy is disconnect",
            queue.subscription, queue.messages, queue.bytes
        );
        let id = queue.connection;
        self.plane.metrics.slow_disconnected += 1;
        self.fail(id, &fatal(ErrorCode::LimitReached, &text), now);
    }
}

impl Plane {
    /// Lets publishers go on if the queue has been drained to its low-water mark.
    pub(crate) fn release_if_drained(&mut self, id: QueueId) {
        let queue = &mut self.queues[id.0 as usize];
        if (queue.blocked_since_us.is_some() || queue.block_expired)
            && queue.is_within(BLOCK_RESUME_EIGHTHS)
        {
            queue.block_expired = false;
            self.unblock(id);
        }
    }

    /// The queue holds nobody back any more.
    pub(crate) fn unblock(&mut self, id: QueueId) {
        let queue = &mut self.queues[id.0 as usize];
        if let Some(since) = queue.blocked_since_us.take() {
            self.blocked.remove(&(since, id));
            let waiting = std::mem::take(&mut queue.waiting);
            self.released.extend(waiting.into_iter().map(|publisher| (publisher, id)));
        }
    }

    /// Ends the blocking of queues that held publishers back for too long: they drop their oldest
    /// and go on doing so until they have been drained. Returns when the next one is due.
    pub(crate) fn expire_blocking(&mut self, now: Now) -> Option<u64> {
        while let Some(&(since, id)) = self.blocked.first() {
            let due = since + self.limits.block_timeout_us;
            if due > now.mono_us || is_planted(Plant::BlockNeverExpires) {
                return Some(due);
            }
            let queue = &mut self.queues[id.0 as usize];
            queue.block_expired = true;
            if queue.is_overflowing(&mut self.log) {
                cut(queue, &mut self.log, &mut self.metrics);
            }
            self.unblock(id);
        }
        None
    }

    /// Takes a queue out: its filters, its place among the matches, its messages. A frame that is
    /// half on the wire keeps a dying queue alive until it is sent; returns whether the queue is
    /// gone already.
    pub(crate) fn remove_queue(&mut self, id: QueueId) -> bool {
        self.unblock(id);
        if !self.queues[id.0 as usize].is_dying {
            self.end_scans(id);
        }
        let queue = &mut self.queues[id.0 as usize];
        self.expiring.forget(queue, id);
        if let Presence::Parked { until_us } = queue.presence {
            self.forget_parked(id, until_us);
            self.queues[id.0 as usize].presence = Presence::Connected;
        }
        let queue = &mut self.queues[id.0 as usize];
        if !queue.is_dying && queue.is_link {
            queue.is_dying = true;
            self.subscriptions.remove(&queue.subscription);
            self.link_queues.retain(|link| *link != id);
            self.node.set_has_links(self.routing.own, !self.link_queues.is_empty());
        } else if !queue.is_dying {
            queue.is_dying = true;
            self.subscriptions.remove(&queue.subscription);
            self.metrics.subscriptions -= 1;
            self.client_bytes -= queue.subscription_bytes();
            let removed =
                if is_planted(Plant::UnsubscribeKeepsMatch) { 0 } else { queue.filters.len() };
            for filter in &queue.filters[..removed] {
                self.interest_changes.push((filter.clone(), false));
                if self.index.remove(filter, id.0) {
                    for neighbour in self.neighbours.all() {
                        let filter = filter.clone();
                        neighbour.tell(Item::Interest { filter, is_wanted: false });
                    }
                }
            }
        }
        if queue.in_flight {
            return false;
        }
        let before = (queue.messages, queue.bytes);
        let is_link = queue.is_link;
        let dropped = queue.truncate(&mut self.log);
        match is_link {
            true => self.metrics.dropped_link += dropped,
            false => self.metrics.dropped_disconnect += dropped,
        }
        self.metrics.queued_messages -= before.0 - queue.messages;
        self.metrics.queued_bytes -= before.1 - queue.bytes;
        if queue.items.is_empty() {
            self.queues.remove(id.0 as usize);
            return true;
        }
        false
    }

    /// Deals with overflow that had to wait for a running send.
    pub(crate) fn cut_if_due(&mut self, id: QueueId) {
        let queue = &mut self.queues[id.0 as usize];
        if std::mem::take(&mut queue.overflow_due) && queue.is_overflowing(&mut self.log) {
            cut(queue, &mut self.log, &mut self.metrics);
        }
    }
}
