//! Queues with messages that will expire, and the reaper that takes those out in time.
//!
//! A message that has expired is not sent, whether the reaper came by or not (`flush.rs` looks); the
//! reaper gives its memory back when nobody reads. It looks only at queues of which something has
//! expired.

use std::collections::BTreeSet;

use super::plane::Plane;
use crate::expiry::Expiry;
use crate::subscriber_queue::{QueueId, SubscriberQueue};

/// The queues, the one of which something expires first in front.
#[derive(Debug, Default)]
pub(crate) struct Expiring {
    queues: BTreeSet<(Expiry, QueueId)>,
    /// The reaper does not come before.
    not_before_us: u64,
}

impl Expiring {
    /// A message that expires then was queued.
    #[cold]
    pub(crate) fn note(&mut self, queue: &mut SubscriberQueue, id: QueueId, expiry: Expiry) {
        if expiry < queue.expiry {
            self.forget(queue, id);
            queue.expiry = expiry;
            self.queues.insert((expiry, id));
        }
    }

    /// The queue is looked after no more.
    pub(crate) fn forget(&mut self, queue: &SubscriberQueue, id: QueueId) {
        if queue.expiry != Expiry::NEVER {
            self.queues.remove(&(queue.expiry, id));
        }
    }

    /// When the reaper is due, microseconds by the monotonic clock.
    /// The next search may begin at this time, if not earlier.
    pub(crate) fn hasten(&mut self, at_us: u64) {
        self.not_before_us = self.not_before_us.min(at_us);
    }

    pub(crate) fn due_us(&self) -> Option<u64> {
        let (first, _) = self.queues.first()?;
        Some(first.due_us()?.max(self.not_before_us))
    }
}

impl Plane {
    /// Takes expired messages out of all queues.
    pub(crate) fn reap_expired(&mut self) {
        self.expiring.not_before_us = self.now_us + self.limits.reaper_interval_us;
        while let Some(&(expiry, id)) = self.expiring.queues.first()
            && expiry.is_past(self.now_us)
        {
            self.expiring.queues.pop_first();
            let queue = &mut self.queues[id.0 as usize];
            let bytes = queue.bytes;
            let expired = queue.drop_expired(self.now_us, &mut self.log);
            self.metrics.queued_bytes -= bytes - queue.bytes;
            self.metrics.queued_messages -= expired;
            self.metrics.ttl_expired += expired;
            queue.warning.note_expired(expired);
            // What a running send reads is looked at when the reaper comes next.
            if queue.expiry != Expiry::NEVER {
                queue.expiry = queue.expiry.beyond(self.now_us);
                self.expiring.queues.insert((queue.expiry, id));
            }
            self.release_if_drained(id);
        }
    }

    /// Takes expired messages off the front of a queue that is about to be sent from.
    pub(crate) fn drop_expired_front(&mut self, id: QueueId) {
        let queue = &mut self.queues[id.0 as usize];
        if queue.expiry == Expiry::NEVER {
            return;
        }
        let bytes = queue.bytes;
        let expired = queue.drop_expired_front(self.now_us, &mut self.log);
        self.metrics.queued_bytes -= bytes - queue.bytes;
        self.metrics.queued_messages -= expired;
        self.metrics.ttl_expired += expired;
        queue.warning.note_expired(expired);
        if expired > 0 {
            self.release_if_drained(id);
        }
    }
}
