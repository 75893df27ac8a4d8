//! Room in the log, when the budget is used up: what the oldest segments still hold is saved or
//! dropped.
//!
//! What is kept for replay alone goes first. Then the oldest segment is looked at: of what is still
//! wanted of it, up to an eighth is copied to compact blocks, one per queue, those queues first that
//! hold the least; so a few old messages of stalled readers do not hold whole segments, and the
//! greediest queue pays first. The rest is dropped from the queues that hold it, counted, and told by
//! a Gap. Segments that a running send reads are passed over; those that other shards have
//! something of are asked for, and passed over until they come back.

use nexusd_wire::control::GapReason;

use super::parcel::Item;
use super::plane::Plane;
use super::routing::ShardIndex;
use crate::gap::Gap;
use crate::limits::{
    EVACUATION_SHARE, GAPS_BYTES_SPARED, SEGMENT_BYTES, SEGMENTS_LEFT_ALONE, SEGMENTS_RECALLED,
    SURVIVOR_BYTES_MAX, WORTH_MOVING_SHARE,
};
use crate::log::{SegmentId, SegmentKind};
use crate::overflow;
use crate::subscriber_queue::{QueueId, SubscriberQueue};

impl Plane {
    /// Opens a fresh tail, recycling old segments as needed; `false` if running sends hold
    /// everything. No run may be open.
    pub(crate) fn renew_tail(&mut self) -> bool {
        let is_open = self.open_fresh_tail();
        if is_open {
            self.history.settle(&mut self.log, &mut self.topics);
        }
        is_open
    }

    /// The same, and leaves the tail empty: what was rescued of other segments still needs a place.
    pub(crate) fn open_fresh_tail(&mut self) -> bool {
        self.log.close_tail();
        self.tidy_history();
        while !self.log.may_open_tail() {
            if !self.recycle_one() {
                return false;
            }
        }
        self.log.open_tail();
        if self.log.is_nearly_full() {
            self.recall_oldest(SEGMENTS_RECALLED);
        }
        true
    }

    /// Makes room for one large frame of `stride` bytes; `false` if it cannot be made. No run may
    /// be open.
    pub(crate) fn make_room_for_large(&mut self, stride: usize) -> bool {
        if !self.log.may_land(stride) {
            return false;
        }
        // Large messages need no new tail, behind which this is done otherwise.
        self.tidy_history();
        if self.history.homeless_bytes() >= SURVIVOR_BYTES_MAX / 2 {
            self.settle_history();
        }
        while !self.log.may_allocate(stride) {
            // The tail is no candidate while it is written to.
            self.log.close_tail();
            if !self.recycle_one() {
                return false;
            }
        }
        true
    }

    /// Recycles until the queues' extents are inside the budget again: many queues with many short
    /// extents can outgrow the log they refer to. Free segments are given back first.
    #[cold]
    pub(crate) fn shrink_to_budget(&mut self) {
        while !self.log.may_allocate(0) {
            self.log.close_tail();
            if !self.recycle_one() {
                return;
            }
        }
    }

    /// The same, if they have outgrown it.
    pub(crate) fn stay_in_budget(&mut self) {
        if self.log.is_over_budget() {
            self.shrink_to_budget();
        }
    }

    /// Whether losses that are to be told, perhaps again, take more memory than they may. What cannot be
    /// made smaller is looked at again only when there is twice as much.
    #[inline]
    pub(crate) fn is_over_gap_budget(&self) -> bool {
        let spared = self.queues.len() * GAPS_BYTES_SPARED;
        let most = (self.log.gap_budget() + spared).max(2 * self.gap_bytes_left);
        self.log.gap_bytes() > most
    }

    /// Joins losses and forgets what they name, of those subscriptions first that have the most, until
    /// they take half of what they may.
    #[cold]
    pub(crate) fn shrink_gaps(&mut self) {
        let memory = |queue: &SubscriberQueue| queue.gaps().map(Gap::memory).sum::<usize>();
        let mut by_memory: Vec<_> =
            self.queues.iter().map(|(slot, queue)| (memory(queue), slot)).collect();
        by_memory.sort_unstable();
        for (_, slot) in by_memory.into_iter().rev() {
            if self.log.gap_bytes() <= self.log.gap_budget() / 2 {
                break;
            }
            self.queues[slot].shrink_gaps(&mut self.log);
        }
        self.gap_bytes_left = self.log.gap_bytes();
    }

    /// Gives segments back that are kept for replay though little of them is still wanted, of which a few are looked
    /// at each time, and then the oldest ones until what is kept is within its bound.
    pub(crate) fn tidy_history(&mut self) {
        for segment in self.history.next_looks() {
            if !self.log.is_idle(segment) {
                continue;
            }
            let wanted = self.history.wanted_bytes(segment, &self.topics, self.now_us);
            let is_worth_moving = wanted <= SEGMENT_BYTES / WORTH_MOVING_SHARE
                && self.history.segments() > SEGMENTS_LEFT_ALONE
                && self.may_move(segment);
            if (wanted == 0 || is_worth_moving)
                && self.history.rescue_all(segment, &self.log, &self.topics, self.now_us)
            {
                self.history.give_up(segment, &mut self.log);
            }
        }
        while self.history.is_over(&self.log) && self.give_up_idle() {}
    }

    /// Finds messages that are kept for replay a place, if some have none. No run may be open.
    pub(crate) fn settle_history(&mut self) {
        let homeless = self.history.homeless_bytes();
        if homeless > 0 && (self.log.room(homeless).is_some() || self.open_fresh_tail()) {
            self.history.settle(&mut self.log, &mut self.topics);
        }
    }

    /// Whether what is wanted of a segment can move: a large message cannot.
    fn may_move(&self, segment: SegmentId) -> bool {
        self.log.kind(segment) == SegmentKind::Log
    }

    /// Gives up the oldest segment that is kept for replay alone; `false` if there is none.
    fn give_up_idle(&mut self) -> bool {
        if self.log.idle_bytes() == 0 {
            return false;
        }
        let Some(segment) = self.history.oldest_idle(&self.log) else { return false };
        let wanted = self.history.wanted_bytes(segment, &self.topics, self.now_us);
        self.give_up_history(segment, wanted);
        true
    }

    /// Keeps a segment no longer for replay. What is still wanted of it moves, as far as there is room, unless that is
    /// more than half of a segment: then the oldest messages go.
    fn give_up_history(&mut self, segment: SegmentId, wanted: usize) {
        // Few among many are not seen by a look at some, but found here.
        if wanted <= SURVIVOR_BYTES_MAX {
            self.history.rescue(segment, &self.log, &self.topics, self.now_us);
        }
        self.history.give_up(segment, &mut self.log);
    }

    /// Frees a segment that replay alone keeps, or the oldest one that can be freed; `false` if none
    /// can.
    fn recycle_one(&mut self) -> bool {
        if self.give_up_idle() {
            return true;
        }
        let mut candidate = None;
        while let Some(segment) = self.log.next_recyclable(candidate) {
            if !self.log.is_lent(segment) && self.recycle(segment) {
                return true;
            }
            candidate = Some(segment);
        }
        self.recall_oldest(usize::MAX);
        false
    }

    /// Asks other shards to give some segments back that they have something of, of the `among`
    /// oldest ones.
    fn recall_oldest(&mut self, among: usize) {
        let (mut candidate, mut asked) = (None, 0);
        for _ in 0..among {
            let Some(segment) = self.log.next_recyclable(candidate) else { break };
            if asked >= SEGMENTS_RECALLED {
                break;
            }
            candidate = Some(segment);
            for shard in self.log.recall(segment) {
                self.recalls += 1;
                asked += 1;
                self.neighbours.of(shard).tell(Item::Recall { segment });
            }
        }
    }

    /// Another shard wants its segment back: what queues here have in it is saved or dropped.
    pub(crate) fn give_back(&mut self, lender: ShardIndex, slot: SegmentId) {
        if let Some(segment) = self.log.borrowed(lender, slot) {
            self.recycle(segment);
        }
    }

    fn recycle(&mut self, segment: SegmentId) -> bool {
        let mut holders = self.log.take_holders(segment);
        // What was sent already goes first.
        for id in &holders {
            if let Some(queue) = self.queues.get_mut(id.0 as usize) {
                queue.stream.forget_through(segment, &mut self.log);
            }
        }
        if !self.log.is_live(segment) {
            return true;
        }
        // Where a half-sent frame cannot be moved, dropping the others' messages frees nothing.
        let half_sent = |id: &QueueId| {
            let queue = self.queues.get(id.0 as usize);
            queue.map_or(0, |queue| queue.half_sent_in(segment, &self.log))
        };
        let stuck: usize = holders.iter().map(half_sent).sum();
        if stuck > 0 && (!self.log.is_evacuable(segment) || !self.log.may_keep_block(stuck)) {
            self.log.restore_holders(segment, holders);
            return false;
        }
        // Holders are kept alive by a reference of our own while they are dealt with.
        self.log.retain(segment, 1);
        if self.log.is_kept(segment) {
            let wanted = self.history.wanted_bytes(segment, &self.topics, self.now_us);
            self.give_up_history(segment, wanted);
        }
        let held = |id: &QueueId| self.queues.get(id.0 as usize).map_or(0, |queue| queue.bytes);
        holders.sort_by_cached_key(held);
        let mut spared = 0;
        for id in &holders {
            let Some(queue) = self.queues.get_mut(id.0 as usize) else {
                continue;
            };
            let live = queue.bytes_in(segment, &self.log) as usize;
            if live == 0 {
                continue;
            }
            let is_spared = spared + live < SEGMENT_BYTES / EVACUATION_SHARE
                && self.log.is_evacuable(segment)
                && self.log.may_keep_block(live);
            if is_spared {
                spared += live;
            } else {
                let before = (queue.messages, queue.bytes);
                let dropped = overflow::drop_through(queue, &mut self.log, segment);
                self.metrics.dropped_memory += dropped;
                queue.warning.note_dropped(dropped, GapReason::Memory);
                self.metrics.queued_messages -= before.0 - queue.messages;
                self.metrics.queued_bytes -= before.1 - queue.bytes;
            }
            // A frame that is half on the wire cannot be dropped, only moved.
            let rest = queue.bytes_in(segment, &self.log) as usize;
            if rest > 0 && self.log.is_evacuable(segment) && self.log.may_keep_block(rest) {
                queue.evacuate(segment, &mut self.log);
            }
        }
        self.metrics.segments_evacuated += u64::from(spared > 0);
        self.log.release(segment);
        if self.log.is_live(segment) {
            self.log.restore_holders(segment, holders);
            return false;
        }
        true
    }
}
