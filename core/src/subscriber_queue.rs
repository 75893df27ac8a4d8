//! One subscription's queue: extents over the log, in the order they will be sent.
//!
//! Queueing a message that directly follows the last one only lengthens the last extent. Between
//! extents stand topic binds, which overflow cannot drop, and gaps, which tell a loss at its place.
//! The queue knows its bounds and whether it is beyond them; what happens then is decided in
//! `overflow.rs`.
//!
//! Invariants: `messages` and `bytes` are the sums over the extents; every extent holds one
//! reference to its segment; a frame whose first `front_sent` bytes are on the wire stays in front
//! until the rest is.

use std::collections::{BTreeSet, VecDeque};

use nexusd_wire::control::{DeliveryMode, GapReason, OverflowPolicy};
use nexusd_wire::{Sequence, SubscriptionId, SubscriptionReport, TopicId};

use crate::backpressure_warning::BackpressureWarning;
use crate::counted_stream::CountedStream;
use crate::expiry::Expiry;
use crate::gap::Gap;
use crate::limits::{FILTER_BYTES, ITEMS_KEPT, SUBSCRIPTION_BYTES};
use crate::link::Origin;
use crate::log::{Extent, Log, SegmentId, SegmentKind};
use crate::plant::{Plant, is_planted};
use crate::shard::answering::Answer;
use crate::shard::event::ConnectionId;
use crate::shard::gate::{Gate, Silent};
use crate::shard::losing::LossId;
use crate::shard::parking::Comeback;
use crate::shard::routing::{PublisherId, ShardMask};

/// A queue's slot in its shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct QueueId(pub(crate) u32);

/// One thing to send, in order.
#[derive(Debug)]
pub(crate) enum Item {
    /// A run of messages.
    Extent(Extent),
    /// The name of a topic, before its first message.
    Bind(TopicId),
    /// The name of another node, before the first message from there.
    NodeBind(Origin),
    /// A loss.
    Gap(Box<Gap>),
    /// The end of a topic's replay.
    ReplayComplete(Box<ReplayComplete>),
    /// The beginning, or the end, of what a peer asked for.
    Answer(Answer),
}

/// What a connection is told the name of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Name {
    Topic(TopicId),
    Node(Origin),
}

/// What was replayed of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReplayComplete {
    pub(crate) topic: TopicId,
    pub(crate) messages: u64,
    /// The number of the last one.
    pub(crate) latest: Sequence,
}

/// Whether and where a subscription waits for its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Presence {
    /// It has a connection.
    Connected,
    /// It will be parked as soon as the send that reads from it has ended, and with it a frame.
    Leaving,
    /// It has none, and waits until then (`Now::mono_us`).
    Parked { until_us: u64 },
}

/// The bounds of one queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct QueueLimits {
    /// Most messages; `u64::MAX` if bytes alone bound it.
    pub(crate) messages: u64,
    /// Most bytes.
    pub(crate) bytes: u64,
    pub(crate) policy: OverflowPolicy,
}

#[derive(Debug)]
pub(crate) struct SubscriberQueue {
    pub(crate) subscription: SubscriptionId,
    pub(crate) connection: ConnectionId,
    pub(crate) limits: QueueLimits,
    /// The Deliver frame that opens a run of this subscription's live messages.
    pub(crate) deliver_frame: Box<[u8]>,
    pub(crate) filters: Box<[Box<str>]>,
    /// It is what another node gets over a link, and the filters are the link's.
    pub(crate) is_link: bool,
    /// Other nodes that its connection was told the names of.
    origins: Vec<Origin>,
    /// Generation of the subscription index when the queue was made.
    pub(crate) created_at: u64,
    pub(crate) items: VecDeque<Item>,
    /// Topics to be named before the items: overflow passed their binds over. They stand apart, so
    /// that the next overflow does not walk over them again.
    pub(crate) binds: VecDeque<Name>,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// Of these, the ones that are not delivered live: they do not count against the limits.
    pub(crate) replay_messages: u64,
    pub(crate) replay_bytes: u64,
    /// What was sent.
    pub(crate) stream: CountedStream,
    pub(crate) warning: BackpressureWarning,
    pub(crate) presence: Presence,
    /// A client that will go on with it as soon as it is parked.
    pub(crate) comeback: Option<Box<Comeback>>,
    /// A client that came back and is not told how things stand yet.
    pub(crate) returning: Option<Box<Comeback>>,
    /// Shards that still have to say what they hold of what was lost.
    pub(crate) recovering: u32,
    /// Bytes of the first extent's first frame that are already on the wire.
    pub(crate) front_sent: u32,
    /// A running send reads from the queue: its front must stay as it is.
    pub(crate) in_flight: bool,
    /// Items at the front that the running send reads, in whole or in part.
    pub(crate) planned: usize,
    /// The same for `binds`.
    pub(crate) planned_binds: usize,
    /// The queue went beyond its bounds while in flight; overflow is dealt with when that ends.
    pub(crate) overflow_due: bool,
    /// The queue stands in its connection's list of queues to send from.
    pub(crate) is_ready: bool,
    /// The subscription is gone; only the rest of a frame that is half on the wire is kept.
    pub(crate) is_dying: bool,
    /// When a full `block` queue began to hold publishers back.
    pub(crate) blocked_since_us: Option<u64>,
    /// The queue blocked for too long and drops until it has been drained to its low-water mark.
    pub(crate) block_expired: bool,
    /// Publishers held back by this queue, of any shard.
    pub(crate) waiting: BTreeSet<PublisherId>,
    /// It overflowed, and its policy is to end its connection.
    pub(crate) is_condemned: bool,
    /// Not later than the earliest expiry of its messages.
    pub(crate) expiry: Expiry,
    /// Shards that have not confirmed yet that they know the filters. Messages of their topics are not
    /// for this queue before they have, and nothing is sent before all have.
    pub(crate) awaits: ShardMask,
    /// Topics of which other nodes have still to answer what they hold, which is to come before what is live.
    pub(crate) gates: Vec<Gate>,
    /// Something was asked of them, and they do not hold all that is missing.
    pub(crate) is_fetched: bool,
    pub(crate) is_partial: bool,
    /// Those that have not answered in time, and may still.
    pub(crate) silent: Vec<Silent>,
    /// The client was told that it exists.
    pub(crate) is_told: bool,
    /// Owners that have not handed over all retained values that are wanted; and of these, the ones that
    /// wait to be asked for more.
    pub(crate) scans: ShardMask,
    pub(crate) scans_idle: ShardMask,
    /// Searches for retained values begun so far.
    pub(crate) scans_begun: u32,
    /// The number of the Subscribe, for its answer.
    pub(crate) request: u64,
    /// The last loss of unknown size that was told behind all messages, and how many had been sent by then.
    pub(crate) unknown_told: Option<(LossId, u64)>,
    /// Serial of the segment of the newest extent: the queue is noted as a holder there.
    last_serial: Option<u64>,
}

impl SubscriberQueue {
    pub(crate) fn new(
        subscription: SubscriptionId,
        connection: ConnectionId,
        limits: QueueLimits,
        deliver_frame: Box<[u8]>,
        filters: Box<[Box<str>]>,
        stream: CountedStream,
        created_at: u64,
    ) -> Self {
        Self {
            subscription,
            connection,
            limits,
            deliver_frame,
            filters,
            is_link: false,
            origins: Vec::new(),
            created_at,
            items: VecDeque::new(),
            binds: VecDeque::new(),
            messages: 0,
            bytes: 0,
            replay_messages: 0,
            replay_bytes: 0,
            stream,
            warning: BackpressureWarning::default(),
            presence: Presence::Connected,
            comeback: None,
            returning: None,
            recovering: 0,
            front_sent: 0,
            in_flight: false,
            planned: 0,
            planned_binds: 0,
            overflow_due: false,
            is_ready: false,
            is_dying: false,
            blocked_since_us: None,
            block_expired: false,
            waiting: BTreeSet::new(),
            is_condemned: false,
            expiry: Expiry::NEVER,
            awaits: ShardMask::default(),
            gates: Vec::new(),
            is_fetched: false,
            is_partial: false,
            silent: Vec::new(),
            is_told: false,
            scans: ShardMask::default(),
            scans_idle: ShardMask::default(),
            scans_begun: 0,
            request: 0,
            unknown_told: None,
            last_serial: None,
        }
    }

    /// What its client is told before anything else.
    pub(crate) fn report(&self) -> SubscriptionReport {
        let (mut missed, mut is_unknown, mut replay_started) = (0, false, false);
        for item in &self.items {
            match item {
                Item::Gap(gap) if gap.reason() == GapReason::ReplayWindow => {
                    missed += gap.missed();
                    is_unknown |= gap.is_unknown();
                }
                Item::ReplayComplete(_) => replay_started = true,
                _ => {}
            }
        }
        SubscriptionReport {
            request: self.request,
            subscription: self.subscription,
            gap_detected: missed > 0 || is_unknown,
            missed_count: if is_unknown { -1 } else { missed as i64 },
            replay_started,
        }
    }

    /// Memory that the subscription is counted with, beside its queue and the index.
    pub(crate) fn subscription_bytes(&self) -> usize {
        let filters = self.filters.iter().map(|filter| FILTER_BYTES + filter.len());
        SUBSCRIPTION_BYTES + filters.sum::<usize>()
    }

    /// Queues a run of messages: lengthens the last extent if the run follows it directly.
    #[inline]
    pub(crate) fn push(&mut self, id: QueueId, mut run: Extent, log: &mut Log) {
        if self.is_link {
            // Between a node's own messages there may be others.
            run.expect_hole();
        }
        self.messages += u64::from(run.messages);
        self.bytes += u64::from(run.len);
        if let Some(Item::Extent(last)) = self.items.back_mut()
            && last.absorb(&run)
        {
            return;
        }
        log.retain(run.segment, 1);
        self.items.push_back(Item::Extent(run));
        let serial = Some(log.serial(run.segment));
        if self.last_serial != serial {
            self.last_serial = serial;
            log.add_holder(run.segment, id);
        }
    }

    /// Messages left the queue, at either end.
    #[inline]
    pub(crate) fn subtract(&mut self, mode: DeliveryMode, messages: u64, bytes: u64) {
        self.messages -= messages;
        self.bytes -= bytes;
        if mode != DeliveryMode::Live {
            self.replay_messages -= messages;
            self.replay_bytes -= bytes;
        }
    }

    /// Queues the name of another node, unless it was already.
    pub(crate) fn introduce(&mut self, origin: Origin) {
        if origin.0 != 0 && !self.origins.contains(&origin) {
            self.origins.push(origin);
            self.items.push_back(Item::NodeBind(origin));
        }
    }

    /// The same, ahead of everything.
    pub(crate) fn introduce_first(&mut self, origin: Origin) {
        if !self.origins.contains(&origin) {
            self.origins.push(origin);
            self.binds.push_back(Name::Node(origin));
        }
    }

    /// Its connection is another one, which was told nothing yet.
    pub(crate) fn forget_names(&mut self) {
        self.binds.clear();
        self.origins.clear();
    }

    /// Queues the name of a topic, ahead of its first message.
    pub(crate) fn push_bind(&mut self, topic: TopicId) {
        self.items.push_back(Item::Bind(topic));
    }

    /// Whether nothing is left to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.binds.is_empty()
    }

    /// Whether its client was sent all that was accepted for it until now.
    pub(crate) fn is_sent(&self) -> bool {
        let is_going_on = self.presence == Presence::Connected && !self.is_dying;
        let is_looked_for = self.returning.is_some() || self.recovering > 0;
        let is_under_way = is_looked_for || !self.scans.is_empty();
        self.is_told && is_going_on && !is_under_way && self.is_empty()
    }

    /// Whether nothing is to be done about the queue when a send from it has ended.
    #[inline]
    pub(crate) fn is_carefree(&self) -> bool {
        !self.overflow_due
            && !self.block_expired
            && self.blocked_since_us.is_none()
            && self.scans_idle.is_empty()
    }

    /// Whether its connection holds it: a send reads from it, or a frame of it is half on the wire.
    pub(crate) fn is_held(&self) -> bool {
        self.in_flight || self.front_sent > 0
    }

    /// Whether it may turn some of `run` away, or hold its publisher back for it.
    pub(crate) fn may_refuse(&self, run: &Extent) -> bool {
        let (messages, bytes) = (u64::from(run.messages), u64::from(run.len));
        self.limits.policy != OverflowPolicy::DropOldest && self.is_over_limit_with(messages, bytes)
    }

    /// Whether the queue holds more than its bounds allow.
    #[inline]
    pub(crate) fn is_over_limit(&self) -> bool {
        self.is_over_limit_with(0, 0)
    }

    /// Whether it would with so much more.
    #[inline]
    fn is_over_limit_with(&self, messages: u64, bytes: u64) -> bool {
        self.messages + self.stream.messages() - self.replay_messages + messages
            > self.limits.messages
            || self.bytes + self.stream.bytes() - self.replay_bytes + bytes > self.limits.bytes
    }

    /// Messages and bytes beyond the bounds.
    pub(crate) fn excess(&self) -> (u64, u64) {
        let messages = self.messages + self.stream.messages() - self.replay_messages;
        let bytes = self.bytes + self.stream.bytes() - self.replay_bytes;
        (messages.saturating_sub(self.limits.messages), bytes.saturating_sub(self.limits.bytes))
    }

    /// Gives up what was sent to get back inside the bounds; whether the queue is still beyond them.
    pub(crate) fn is_overflowing(&mut self, log: &mut Log) -> bool {
        let (messages, bytes) = self.excess();
        self.stream.forget(messages, bytes, log);
        self.is_over_limit()
    }

    /// Whether at most `eighths` of either bound are taken.
    pub(crate) fn is_within(&self, eighths: u64) -> bool {
        self.messages - self.replay_messages <= share(self.limits.messages, eighths)
            && self.bytes - self.replay_bytes <= share(self.limits.bytes, eighths)
    }

    /// Takes `sent` bytes of messages off the front: what a send of `planned` bytes with
    /// `planned_messages` whole frames achieved. Returns the frames that are now whole on the wire.
    pub(crate) fn consume(
        &mut self,
        sent: u32,
        planned: u32,
        planned_messages: u32,
        log: &mut Log,
    ) -> u32 {
        let Some(Item::Extent(front)) = self.items.front_mut() else {
            debug_assert!(false, "only extents are consumed");
            return 0;
        };
        let (taken_bytes, taken_messages);
        if sent == planned {
            (taken_bytes, taken_messages) = (self.front_sent + sent, planned_messages);
            self.front_sent = 0;
        } else {
            let mut passed = 0;
            let mut frames = 0;
            let reached = self.front_sent + sent;
            loop {
                let stride = log.header(front.segment, front.start + passed).stride() as u32;
                if passed + stride > reached {
                    break;
                }
                passed += stride;
                frames += 1;
            }
            (taken_bytes, taken_messages) = (passed, frames);
            self.front_sent = reached - passed + 8 * u32::from(is_planted(Plant::ShortSendSkips));
        }
        let taken = Extent { len: taken_bytes, messages: taken_messages, ..*front };
        front.start += taken_bytes;
        front.len -= taken_bytes;
        front.messages -= taken_messages;
        let is_last = front.len == 0;
        self.subtract(taken.mode, u64::from(taken_messages), u64::from(taken_bytes));
        self.stream.note_sent(taken, is_last, log);
        if is_last {
            self.items.pop_front();
            if self.items.is_empty() && self.items.capacity() > ITEMS_KEPT {
                self.items = VecDeque::new();
            }
        }
        taken_messages
    }

    /// Drops expired messages off the front, unless they are half on the wire or being sent; how many.
    pub(crate) fn drop_expired_front(&mut self, now_us: u64, log: &mut Log) -> u64 {
        debug_assert!(!self.in_flight);
        let before = self.messages;
        while let Some(Item::Extent(front)) = self.items.front()
            && front.expiry.is_past(now_us)
            && self.front_sent == 0
        {
            let Extent { segment, mode, messages, len, .. } = *front;
            self.subtract(mode, u64::from(messages), u64::from(len));
            log.release(segment);
            self.items.pop_front();
        }
        before - self.messages
    }

    /// Drops expired messages wherever they stand, but for those that a running send reads and a frame
    /// that is half on the wire; how many. What is left does not expire before `self.expiry`.
    pub(crate) fn drop_expired(&mut self, now_us: u64, log: &mut Log) -> u64 {
        let before = self.messages;
        let stays = self.planned.max(usize::from(self.front_sent > 0));
        let (mut at, mut earliest) = (0, Expiry::NEVER);
        let mut is_last_gone = false;
        let mut items = std::mem::take(&mut self.items);
        items.retain(|item| {
            at += 1;
            let Item::Extent(extent) = item else { return true };
            is_last_gone = at > stays && extent.expiry.is_past(now_us);
            if !is_last_gone {
                earliest = earliest.min(extent.expiry);
                return true;
            }
            self.subtract(extent.mode, u64::from(extent.messages), u64::from(extent.len));
            log.release(extent.segment);
            false
        });
        self.items = items;
        if is_last_gone && let Some(Item::Extent(last)) = self.items.back_mut() {
            last.expect_hole();
        }
        self.expiry = earliest;
        before - self.messages
    }

    /// Takes a bind or gap off the front: its frame is on the wire.
    pub(crate) fn pop_marker(&mut self, log: &mut Log) {
        if self.planned_binds > 0 {
            self.planned_binds -= 1;
            self.binds.pop_front();
        } else {
            debug_assert!(!matches!(self.items.front(), Some(Item::Extent(_))));
            if let Some(Item::Gap(gap)) = self.items.pop_front() {
                self.stream.note_gap(gap, log);
            }
        }
    }

    /// Losses that are to be told, and those that may have to be told again.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = &Gap> {
        let items = self.items.iter().filter_map(|item| match item {
            Item::Gap(gap) => Some(&**gap),
            _ => None,
        });
        items.chain(self.stream.gaps())
    }

    /// Makes those losses take as little memory as they can.
    pub(crate) fn shrink_gaps(&mut self, log: &mut Log) {
        for item in &mut self.items {
            if let Item::Gap(gap) = item {
                log.discharge_gap(gap);
                gap.forget_names();
                log.charge_gap(gap);
            }
        }
        self.stream.join_gaps(log);
    }

    /// Drops everything but the frame that is half on the wire; returns the messages dropped.
    pub(crate) fn truncate(&mut self, log: &mut Log) -> u64 {
        debug_assert!(!self.in_flight);
        let before = self.messages;
        self.overflow_due = false;
        self.binds.clear();
        self.stream.clear(log);
        let partial = self.detach_partial_frame(log);
        for item in self.items.drain(..) {
            match item {
                Item::Extent(extent) => log.release(extent.segment),
                Item::Gap(gap) => log.discharge_gap(&gap),
                Item::Bind(_) | Item::NodeBind(_) | Item::ReplayComplete(_) | Item::Answer(_) => {}
            }
        }
        self.items.extend(partial.map(Item::Extent));
        self.messages = u64::from(partial.is_some());
        self.bytes = partial.map_or(0, |extent| u64::from(extent.len));
        let is_live = partial.is_none_or(|extent| extent.mode == DeliveryMode::Live);
        (self.replay_messages, self.replay_bytes) =
            if is_live { (0, 0) } else { (self.messages, self.bytes) };
        before - self.messages
    }

    /// Takes the frame that is half on the wire out of the queue, as an extent of its own with its
    /// own reference. The sums still count it.
    pub(crate) fn detach_partial_frame(&mut self, log: &mut Log) -> Option<Extent> {
        if self.front_sent == 0 || is_planted(Plant::PartialFrameDropped) {
            return None;
        }
        let Some(Item::Extent(front)) = self.items.front_mut() else {
            return None;
        };
        let stride = log.header(front.segment, front.start).stride() as u32;
        let partial = Extent { len: stride, messages: 1, ..*front };
        front.start += stride;
        front.len -= stride;
        front.messages -= 1;
        if front.len == 0 {
            self.items.pop_front();
        } else {
            log.retain(partial.segment, 1);
        }
        Some(partial)
    }

    /// Bytes of the queue's half-sent frame, if it has one and that lies in `segment`.
    pub(crate) fn half_sent_in(&self, segment: SegmentId, log: &Log) -> usize {
        match self.items.front() {
            Some(Item::Extent(front)) if self.front_sent > 0 && front.segment == segment => {
                log.header(front.segment, front.start).stride()
            }
            _ => 0,
        }
    }

    /// Bytes of the queue's extents in `segment`. Extents in log segments stand in age order, so the
    /// walk ends at the first younger one; blocks and large frames may stand between.
    pub(crate) fn bytes_in(&self, segment: SegmentId, log: &Log) -> u64 {
        self.extents_in(segment, log).map(|extent| u64::from(extent.len)).sum()
    }

    fn extents_in<'a>(
        &'a self,
        segment: SegmentId,
        log: &'a Log,
    ) -> impl Iterator<Item = &'a Extent> {
        let serial = match log.kind(segment) {
            // Borrowed segments have their own age order, which is not known here, and replays come as
            // they are found.
            SegmentKind::Borrowed { .. } => u64::MAX,
            _ if self.replay_messages > 0 => u64::MAX,
            _ => log.serial(segment),
        };
        self.items
            .iter()
            .filter_map(|item| match item {
                Item::Extent(extent) => Some(extent),
                _ => None,
            })
            .take_while(move |extent| {
                log.kind(extent.segment) != SegmentKind::Log || log.serial(extent.segment) <= serial
            })
            .filter(move |extent| extent.segment == segment)
    }

    /// Moves everything the queue has in `segment`, which no running send reads, to a block of its
    /// own.
    pub(crate) fn evacuate(&mut self, segment: SegmentId, log: &mut Log) {
        let mut bytes = Vec::with_capacity(self.bytes_in(segment, log) as usize);
        for extent in self.extents_in(segment, log) {
            log.copy_to_block(&mut bytes, extent);
        }
        if bytes.is_empty() {
            return;
        }
        let block = log.keep_block(bytes);
        let mut moved = 0;
        for item in &mut self.items {
            if let Item::Extent(extent) = item
                && extent.segment == segment
            {
                if is_planted(Plant::EvacuationForgetsQueue) {
                    log.release(segment);
                    continue;
                }
                extent.segment = block;
                extent.start = moved;
                moved += extent.len;
                log.retain(block, 1);
                log.release(segment);
            }
        }
    }

    /// Checks what must hold between events. For tests and the simulator.
    pub(crate) fn assert_invariants(&self, log: &Log) {
        self.stream.assert_invariants(log);
        let (mut messages, mut bytes) = (0, 0);
        let (mut replay_messages, mut replay_bytes) = (0, 0);
        for item in &self.items {
            let Item::Extent(extent) = item else { continue };
            messages += u64::from(extent.messages);
            bytes += u64::from(extent.len);
            if extent.mode != DeliveryMode::Live {
                replay_messages += u64::from(extent.messages);
                replay_bytes += u64::from(extent.len);
            }
            let (mut at, mut frames) = (extent.start, 0);
            while at < extent.end() {
                at += log.header(extent.segment, at).stride() as u32;
                frames += 1;
            }
            assert_eq!(at, extent.end(), "extents end where a frame ends");
            assert_eq!(frames, extent.messages, "extents know how many frames they hold");
        }
        assert_eq!((messages, bytes), (self.messages, self.bytes), "sums are the extents'");
        let replay = (replay_messages, replay_bytes);
        assert_eq!(replay, (self.replay_messages, self.replay_bytes), "and so are the replay's");
        if !self.in_flight && self.limits.policy != OverflowPolicy::Block && !self.is_condemned {
            assert!(
                !self.is_over_limit() || (self.messages <= 1 && self.front_sent > 0),
                "a queue is never left beyond its bounds"
            );
        }
        assert!(self.in_flight || self.planned == 0, "only a running send has plans");
        assert!(self.in_flight || self.planned_binds == 0, "only a running send has plans");
        assert!(self.planned <= self.items.len(), "what is being sent stays in the queue");
        assert!(self.planned_binds <= self.binds.len(), "what is being sent stays in the queue");
        assert!(self.in_flight || !self.overflow_due, "overflow waits only for a running send");
    }
}

/// `eighths` of `limit`, without overflow for unbounded limits.
pub(crate) fn share(limit: u64, eighths: u64) -> u64 {
    if limit == u64::MAX { limit } else { limit.saturating_mul(eighths) / 8 }
}
