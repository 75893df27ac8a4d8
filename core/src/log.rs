//! The shard's log: accepted messages, once each, in the form that leaves the machine.
//!
//! Memory is a fixed budget of segments. Queues refer to runs of frames by [`Extent`]; a segment
//! lives while an extent refers to it, and is written again from its start as soon as none does, so
//! that light traffic stays in a few cache-warm pages. When the budget is used up, the shard
//! recycles the oldest segment: what is still wanted of it is copied to a compact block, or dropped
//! by policy (`shard/memory.rs` decides; this file only owns the bytes).
//!
//! Other shards read messages where they lie. Each extent that another shard is told of ([`Log::lend`])
//! holds a reference here until that shard gives it back ([`Log::take_back`]); over there the segment
//! stands among its own as a borrowed one ([`Log::borrow`]), of which the log keeps no budget.
//!
//! Invariants: `used_bytes` is the sum of all memory held but not borrowed, never above the budget; a
//! segment with references or pins is never freed or rewritten; frames start at multiples of 8 and
//! lie whole in one segment; only bytes behind the last frame are written.
#![allow(unsafe_code)]

mod memory;

pub(crate) use memory::{Memory, PREFETCHED_BYTES, Sole, prefetch_header};
use nexusd_wire::control::DeliveryMode;
use nexusd_wire::{HEADER_BYTES, Header, Sequence, TopicId};

use crate::expiry::Expiry;
use crate::limits::{
    EVACUATION_SHARE, EXTENT_BYTES, FREE_SEGMENTS_KEPT, LANDING_SHARE, SEGMENT_BYTES,
    SEGMENTS_RECALLED,
};
use crate::plant::{Plant, is_planted};
use crate::shard::routing::{ShardIndex, ShardMask};
use crate::subscriber_queue::QueueId;

/// A segment's slot in the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SegmentId(pub(crate) u32);

impl SegmentId {
    /// No segment.
    pub(crate) const NONE: Self = Self(u32::MAX);
}

/// A run of whole frames in one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extent {
    pub(crate) segment: SegmentId,
    pub(crate) start: u32,
    pub(crate) len: u32,
    pub(crate) messages: u32,
    /// The topic of all of them: they are then numbered one by one. `None` if there are several.
    pub(crate) topic: Option<TopicId>,
    /// Why they are delivered.
    pub(crate) mode: DeliveryMode,
    /// When they end, all at once.
    pub(crate) expiry: Expiry,
}

impl Extent {
    pub(crate) fn end(&self) -> u32 {
        self.start + self.len
    }

    /// Lengthens the extent by one that follows it directly, and is like it in all that messages of an
    /// extent have in common; whether it does and is.
    #[inline]
    pub(crate) fn absorb(&mut self, next: &Self) -> bool {
        let follows = self.segment == next.segment && self.end() == next.start;
        // Between what is replayed there may have been messages that expired.
        let is_live = self.mode == DeliveryMode::Live && next.mode == DeliveryMode::Live;
        if !follows || !is_live || self.expiry != next.expiry {
            return false;
        }
        self.len += next.len;
        self.messages += next.messages;
        self.topic = self.topic.filter(|topic| Some(*topic) == next.topic);
        true
    }
}

/// What a segment is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SegmentKind {
    /// A share of the log, of [`SEGMENT_BYTES`].
    Log,
    /// One large frame that is still being received; owned by its connection.
    Landing,
    /// One large frame.
    Large,
    /// What was saved of recycled segments for one queue.
    Block,
    /// Another shard's, whose messages are wanted here.
    Borrowed {
        /// That shard.
        lender: ShardIndex,
        /// The segment's slot over there.
        slot: SegmentId,
    },
}

/// A segment that nobody here wants any more goes back to the shard it was borrowed from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Return {
    pub(crate) lender: ShardIndex,
    pub(crate) slot: SegmentId,
    /// How many extents of it were borrowed.
    pub(crate) extents: u32,
}

#[derive(Debug)]
struct Segment {
    /// `None` in a vacant slot.
    memory: Option<Memory>,
    kind: SegmentKind,
    /// Bytes written.
    len: u32,
    /// Bytes there are.
    capacity: u32,
    /// Extents, open runs and landings that refer to it, other shards' included.
    references: u32,
    /// Of these, the other shards'; of a borrowed segment, the extents that came from its shard.
    lent: u32,
    /// Shards that have some of it; meaningful while `lent` is not 0.
    borrowers: ShardMask,
    /// Borrowers were asked to give it back.
    is_recalled: bool,
    /// It has messages that are kept for replay, for which it has one reference.
    is_kept: bool,
    /// Slices of it that running sends read.
    pins: u32,
    /// Position in age order; higher is younger.
    serial: u64,
    /// Neighbours in age order (`Log` and `Large` only).
    older: SegmentId,
    younger: SegmentId,
    /// Queues that may have extents here; may name some twice, or some that moved on.
    holders: Vec<QueueId>,
}

impl Segment {
    /// The bytes from `start` to `end`, which are written.
    #[inline]
    fn written(&self, start: u32, end: u32) -> &[u8] {
        debug_assert!(end <= self.len || self.kind == SegmentKind::Landing);
        match &self.memory {
            // SAFETY: frames stay as they are while anything refers to them, and whoever asks does;
            // the log writes behind them (`append`), and a borrowed segment's shard does the same.
            Some(memory) => unsafe { memory.bytes(start as usize, end as usize) },
            None => None,
        }
        .unwrap_or_default()
    }

    fn is_borrowed(&self) -> bool {
        matches!(self.kind, SegmentKind::Borrowed { .. })
    }
}

/// The log of one shard.
#[derive(Debug)]
pub(crate) struct Log {
    segments: Vec<Segment>,
    vacant: Vec<SegmentId>,
    spare: Vec<Memory>,
    tail: SegmentId,
    oldest: SegmentId,
    youngest: SegmentId,
    next_serial: u64,
    used_bytes: usize,
    block_bytes: usize,
    landing_bytes: usize,
    /// Of these, bytes that another shard is about to take.
    given_bytes: usize,
    /// Bytes of segments that are kept for replay alone.
    idle_bytes: usize,
    /// Memory of lists about what lies in the log.
    charged_bytes: usize,
    /// References to all segments together; each is an extent somewhere that takes memory too.
    references: usize,
    budget_bytes: usize,
    /// Borrowed segments, by shard and slot over there.
    borrowed: Vec<Vec<SegmentId>>,
    /// Borrowed segments that are to go back.
    returns: Vec<Return>,
}

impl Log {
    /// An empty log that will hold at most `budget_bytes`, but at least three segments.
    pub(crate) fn new(budget_bytes: usize) -> Self {
        Self {
            segments: Vec::new(),
            vacant: Vec::new(),
            spare: Vec::new(),
            tail: SegmentId::NONE,
            oldest: SegmentId::NONE,
            youngest: SegmentId::NONE,
            next_serial: 0,
            used_bytes: 0,
            block_bytes: 0,
            landing_bytes: 0,
            given_bytes: 0,
            idle_bytes: 0,
            charged_bytes: 0,
            references: 0,
            budget_bytes: budget_bytes.max(3 * SEGMENT_BYTES),
            borrowed: Vec::new(),
            returns: Vec::new(),
        }
    }

    /// The segment being written and the place of the next frame, if `stride` bytes fit there.
    #[inline]
    pub(crate) fn room(&self, stride: usize) -> Option<(SegmentId, u32)> {
        let tail = self.segments.get(self.tail.0 as usize)?;
        (tail.len as usize + stride <= tail.capacity as usize).then_some((self.tail, tail.len))
    }

    /// Copies `frame`, under `header` in place of its own, behind the tail's last frame; `false` if
    /// the tail has no room for it.
    #[inline]
    pub(crate) fn append(&mut self, header: &Header, frame: &[u8]) -> bool {
        let Some(tail) = self.segments.get_mut(self.tail.0 as usize) else { return false };
        let start = tail.len as usize;
        let Some(memory) = &mut tail.memory else { return false };
        // SAFETY: nothing refers to bytes behind the last frame.
        let place = unsafe { memory.bytes_mut(start, start + frame.len()) };
        let Some(place) = place else { return false };
        let (head, body) = place.split_at_mut(HEADER_BYTES);
        head.copy_from_slice(header.bytes());
        body.copy_from_slice(&frame[HEADER_BYTES..]);
        tail.len += frame.len() as u32;
        true
    }

    /// Copies whole frames, as they are, behind the tail's last frame; where they are then, or `None` if
    /// the tail has no room for them.
    pub(crate) fn append_again(&mut self, frames: &[u8]) -> Option<(SegmentId, u32)> {
        let tail = self.segments.get_mut(self.tail.0 as usize)?;
        let start = tail.len as usize;
        // SAFETY: nothing refers to bytes behind the last frame.
        let place = unsafe { tail.memory.as_mut()?.bytes_mut(start, start + frames.len()) }?;
        place.copy_from_slice(frames);
        tail.len += frames.len() as u32;
        Some((self.tail, start as u32))
    }

    /// The segment has messages that are kept for replay.
    pub(crate) fn keep(&mut self, segment: SegmentId) {
        let slot = &mut self.segments[segment.0 as usize];
        debug_assert!(!slot.is_kept && slot.memory.is_some());
        self.references += 1;
        slot.references += 1;
        slot.is_kept = true;
        if slot.references == 1 {
            self.idle_bytes += slot.capacity as usize;
        }
    }

    /// It has none any more.
    pub(crate) fn unkeep(&mut self, segment: SegmentId) {
        let slot = &mut self.segments[segment.0 as usize];
        slot.is_kept = false;
        if slot.references == 1 {
            self.idle_bytes -= slot.capacity as usize;
        }
        self.release(segment);
    }

    /// Whether it has some.
    pub(crate) fn is_kept(&self, segment: SegmentId) -> bool {
        self.segments.get(segment.0 as usize).is_some_and(|segment| segment.is_kept)
    }

    /// Whether replay alone keeps the segment, and nothing is written to it.
    pub(crate) fn is_idle(&self, id: SegmentId) -> bool {
        let segment = &self.segments[id.0 as usize];
        segment.is_kept && segment.references == 1 && segment.pins == 0 && id != self.tail
    }

    /// Bytes of segments that are kept for replay alone.
    pub(crate) fn idle_bytes(&self) -> usize {
        self.idle_bytes
    }

    /// A list about what lies in the log has grown by so many bytes.
    pub(crate) fn charge(&mut self, bytes: usize) {
        self.charged_bytes += bytes;
    }

    /// It has shrunk.
    pub(crate) fn discharge(&mut self, bytes: usize) {
        self.charged_bytes -= bytes;
    }

    /// Whether `bytes` more may be taken from the system; gives spare segments back if that helps.
    pub(crate) fn may_allocate(&mut self, bytes: usize) -> bool {
        if is_planted(Plant::MemoryLimitIgnored) {
            return true;
        }
        while self.shared_bytes() + bytes > self.budget_bytes - self.block_budget() {
            let Some(memory) = self.spare.pop() else {
                return false;
            };
            self.used_bytes -= memory.len();
        }
        true
    }

    /// Whether [`Self::open_tail`] will succeed.
    pub(crate) fn may_open_tail(&mut self) -> bool {
        !self.spare.is_empty() || self.may_allocate(SEGMENT_BYTES)
    }

    /// Stops writing to the tail; it is freed when its last reference goes.
    pub(crate) fn close_tail(&mut self) {
        let tail = std::mem::replace(&mut self.tail, SegmentId::NONE);
        if tail != SegmentId::NONE {
            self.free_if_unused(tail);
        }
    }

    /// Makes a fresh segment the tail. The caller has seen [`Self::may_open_tail`].
    pub(crate) fn open_tail(&mut self) {
        debug_assert_eq!(self.tail, SegmentId::NONE);
        let memory = match self.spare.pop() {
            Some(memory) => memory,
            None => {
                self.used_bytes += SEGMENT_BYTES;
                Memory::zeroed(SEGMENT_BYTES)
            }
        };
        self.tail = self.insert(memory, SegmentKind::Log);
        self.make_youngest(self.tail);
    }

    /// The tail, which was just opened, changes its memory for `batch`, which holds frames of another
    /// shard's publishers from `start` on: they lie behind its end, to be taken in by
    /// [`Self::lengthen`]. The caller gets a reference to it.
    pub(crate) fn adopt(&mut self, batch: &mut Sole, start: usize) -> Option<SegmentId> {
        let id = self.tail;
        let tail = self.segments.get_mut(id.0 as usize)?;
        debug_assert_eq!((tail.len, tail.references, tail.pins), (0, 0, 0), "a fresh tail");
        debug_assert_eq!(tail.capacity as usize, batch.len(), "batches are as long as segments");
        let fresh = tail.memory.take()?;
        let fresh = Sole::of(fresh).unwrap_or_else(|| {
            debug_assert!(false, "memory is free only when all who borrowed it are done");
            Sole::zeroed(SEGMENT_BYTES)
        });
        tail.memory = Some(std::mem::replace(batch, fresh).into_memory());
        tail.len = start as u32;
        self.retain(id, 1);
        Some(id)
    }

    /// Bytes written to the segment.
    pub(crate) fn end(&self, segment: SegmentId) -> u32 {
        self.segments[segment.0 as usize].len
    }

    /// `bytes` behind the segment's last frame.
    pub(crate) fn beyond(&mut self, segment: SegmentId, bytes: u32) -> &mut [u8] {
        let segment = &mut self.segments[segment.0 as usize];
        let start = segment.len as usize;
        match &mut segment.memory {
            // SAFETY: nothing refers to bytes behind the last frame.
            Some(memory) => unsafe { memory.bytes_mut(start, start + bytes as usize) },
            None => None,
        }
        .unwrap_or_default()
    }

    /// `bytes` behind the segment's last frame are frames of it from now on.
    pub(crate) fn lengthen(&mut self, segment: SegmentId, bytes: u32) {
        let segment = &mut self.segments[segment.0 as usize];
        segment.len += bytes;
        debug_assert!(segment.len <= segment.capacity, "frames lie whole in their segment");
    }

    /// Whether a large frame of `stride` bytes may be received beside those that are, if there is
    /// or can be made room for it.
    pub(crate) fn may_land(&self, stride: usize) -> bool {
        let shared = self.budget_bytes - self.block_budget();
        match self.landing_bytes {
            0 => stride <= shared,
            landing => landing + stride <= shared / LANDING_SHARE,
        }
    }

    /// Takes memory for one large frame, with one reference held by the caller. The caller has seen
    /// [`Self::may_allocate`].
    pub(crate) fn open_landing(&mut self, stride: usize) -> SegmentId {
        self.used_bytes += stride;
        self.landing_bytes += stride;
        let segment = self.insert(Memory::zeroed(stride), SegmentKind::Landing);
        self.retain(segment, 1);
        segment
    }

    /// The memory of a landing.
    pub(crate) fn landing_memory(&mut self, segment: SegmentId) -> &mut [u8] {
        let segment = &mut self.segments[segment.0 as usize];
        debug_assert_eq!(segment.kind, SegmentKind::Landing);
        match &mut segment.memory {
            // SAFETY: a landing is its connection's alone until it joins the log.
            Some(memory) => unsafe { memory.bytes_mut(0, segment.capacity as usize) },
            None => None,
        }
        .unwrap_or_default()
    }

    /// A landing is complete and goes to another shard: its memory. It counts as a landing here until
    /// that shard says that it has it ([`Self::taken_away`]).
    pub(crate) fn give_away(&mut self, segment: SegmentId) -> Option<Memory> {
        let slot = &mut self.segments[segment.0 as usize];
        debug_assert_eq!((slot.kind, slot.references), (SegmentKind::Landing, 1));
        let memory = slot.memory.take()?;
        slot.references = 0;
        self.references -= 1;
        self.given_bytes += memory.len();
        self.vacant.push(segment);
        Some(memory)
    }

    /// What was given away is no longer ours to count.
    pub(crate) fn taken_away(&mut self, bytes: usize) {
        self.given_bytes -= bytes;
        self.landing_bytes -= bytes;
        self.used_bytes -= bytes;
    }

    /// A landing of another shard is ours now, as if it had landed here. The caller has seen
    /// [`Self::may_allocate`].
    pub(crate) fn take_landing(&mut self, memory: Memory) -> SegmentId {
        self.used_bytes += memory.len();
        self.landing_bytes += memory.len();
        let segment = self.insert(memory, SegmentKind::Landing);
        self.retain(segment, 1);
        segment
    }

    /// A landing is complete: it joins the log as the youngest segment, holding one frame.
    pub(crate) fn landed(&mut self, segment: SegmentId) {
        let landing = &mut self.segments[segment.0 as usize];
        landing.kind = SegmentKind::Large;
        landing.len = landing.capacity;
        self.landing_bytes -= landing.capacity as usize;
        self.make_youngest(segment);
    }

    /// Copies an extent's bytes to the end of the block being built.
    pub(crate) fn copy_to_block(&self, block: &mut Vec<u8>, extent: &Extent) {
        block.extend_from_slice(self.bytes(extent.segment, extent.start, extent.len));
    }

    /// Whether a block of `bytes` may be kept: blocks have a share of the budget to themselves, so
    /// that there is room for them when the rest is used up.
    pub(crate) fn may_keep_block(&self, bytes: usize) -> bool {
        self.block_bytes + bytes <= self.block_budget()
    }

    /// What counts against the budget but for the blocks' share: segments, and the queues' extents.
    fn shared_bytes(&self) -> usize {
        self.used_bytes - self.block_bytes + self.references * EXTENT_BYTES + self.charged_bytes
    }

    /// Whether queues' extents have grown beyond what the budget leaves for them.
    #[inline]
    pub(crate) fn is_over_budget(&self) -> bool {
        self.shared_bytes() > self.budget_bytes - self.block_budget()
    }

    fn block_budget(&self) -> usize {
        self.budget_bytes / EVACUATION_SHARE
    }

    /// Keeps `bytes` as a block, without references yet. The caller has seen
    /// [`Self::may_keep_block`].
    pub(crate) fn keep_block(&mut self, bytes: Vec<u8>) -> SegmentId {
        let memory = Memory::from_bytes(bytes);
        self.used_bytes += memory.len();
        self.block_bytes += memory.len();
        let len = memory.len() as u32;
        let segment = self.insert(memory, SegmentKind::Block);
        self.segments[segment.0 as usize].len = len;
        segment
    }

    /// Adds a reference.
    #[inline]
    pub(crate) fn retain(&mut self, segment: SegmentId, references: u32) {
        let slot = &mut self.segments[segment.0 as usize];
        if slot.is_kept && slot.references == 1 {
            self.idle_bytes -= slot.capacity as usize;
        }
        slot.references += references;
        self.references += references as usize;
    }

    /// Gives a reference back; the last one frees the segment.
    #[inline]
    pub(crate) fn release(&mut self, segment: SegmentId) {
        let slot = &mut self.segments[segment.0 as usize];
        debug_assert!(slot.references > 0, "a reference was given back twice");
        slot.references -= 1;
        self.references -= 1;
        if slot.references == 0 {
            self.free_if_unused(segment);
        } else if slot.is_kept && slot.references == 1 {
            self.become_idle(segment);
        }
    }

    /// Nothing but replay keeps the segment any more. No queue holds anything of it, and the tail's new
    /// serial tells queues that they have to be noted as holders again.
    fn become_idle(&mut self, id: SegmentId) {
        let segment = &mut self.segments[id.0 as usize];
        self.idle_bytes += segment.capacity as usize;
        if id == self.tail {
            segment.holders.clear();
            self.unlink(id);
            self.make_youngest(id);
        }
    }

    /// A running send reads from the segment.
    #[inline]
    pub(crate) fn pin(&mut self, segment: SegmentId) {
        self.segments[segment.0 as usize].pins += 1;
    }

    /// That send has ended.
    #[inline]
    pub(crate) fn unpin(&mut self, segment: SegmentId) {
        let slot = &mut self.segments[segment.0 as usize];
        debug_assert!(slot.pins > 0, "a segment was unpinned twice");
        slot.pins -= 1;
        if slot.pins == 0 && slot.references == 0 {
            self.free_if_unused(segment);
        }
    }

    /// Notes that `queue` has its first extent in the segment.
    #[inline]
    pub(crate) fn add_holder(&mut self, segment: SegmentId, queue: QueueId) {
        let holders = &mut self.segments[segment.0 as usize].holders;
        // Queues that get messages of several shards come again and again.
        if holders.len() == holders.capacity() {
            holders.sort_unstable();
            holders.dedup();
        }
        holders.push(queue);
    }

    /// Takes the list of queues that may have extents in the segment, sorted, each once.
    pub(crate) fn take_holders(&mut self, segment: SegmentId) -> Vec<QueueId> {
        let mut holders = std::mem::take(&mut self.segments[segment.0 as usize].holders);
        holders.sort_unstable();
        holders.dedup();
        holders
    }

    /// Puts the list back, for a segment that could not be recycled.
    pub(crate) fn restore_holders(&mut self, segment: SegmentId, holders: Vec<QueueId>) {
        self.segments[segment.0 as usize].holders = holders;
    }

    /// Segments that could be recycled, oldest first: `previous` is the last one looked at.
    pub(crate) fn next_recyclable(&self, previous: Option<SegmentId>) -> Option<SegmentId> {
        let mut at = match previous {
            None => self.oldest,
            Some(segment) => self.segments[segment.0 as usize].younger,
        };
        while at != SegmentId::NONE {
            let segment = &self.segments[at.0 as usize];
            if segment.pins == 0 && at != self.tail {
                return Some(at);
            }
            at = segment.younger;
        }
        None
    }

    /// Another shard is told of an extent of the segment. The reference that it holds comes back
    /// with [`Self::take_back`].
    pub(crate) fn lend(&mut self, segment: SegmentId, to: ShardIndex) -> Option<Memory> {
        self.retain(segment, 1);
        let slot = &mut self.segments[segment.0 as usize];
        if slot.lent == 0 {
            slot.borrowers = ShardMask::default();
        }
        slot.lent += 1;
        slot.borrowers.insert(to);
        slot.memory.clone()
    }

    /// Other shards are done with so many extents of the segment.
    pub(crate) fn take_back(&mut self, segment: SegmentId, extents: u32) {
        let Some(slot) = self.segments.get_mut(segment.0 as usize) else { return };
        debug_assert!(slot.lent >= extents, "no more comes back than was lent");
        slot.lent -= extents;
        slot.is_recalled = slot.is_recalled && slot.lent > 0;
        slot.references -= extents;
        self.references -= extents as usize;
        if slot.references == 0 {
            self.free_if_unused(segment);
        } else if slot.is_kept && slot.references == 1 && extents > 0 {
            self.become_idle(segment);
        }
    }

    /// An extent of another shard's segment came: the segment's slot here, with one more reference,
    /// which is the caller's.
    pub(crate) fn borrow(
        &mut self,
        lender: ShardIndex,
        slot: SegmentId,
        memory: Memory,
    ) -> SegmentId {
        if self.borrowed.len() <= lender.index() {
            self.borrowed.resize_with(lender.index() + 1, Vec::new);
        }
        let of_lender = &mut self.borrowed[lender.index()];
        if of_lender.len() <= slot.0 as usize {
            of_lender.resize(slot.0 as usize + 1, SegmentId::NONE);
        }
        let mut segment = of_lender[slot.0 as usize];
        if segment == SegmentId::NONE {
            let len = memory.len() as u32;
            segment = self.insert(memory, SegmentKind::Borrowed { lender, slot });
            self.segments[segment.0 as usize].len = len;
            self.borrowed[lender.index()][slot.0 as usize] = segment;
        }
        self.segments[segment.0 as usize].lent += 1;
        self.retain(segment, 1);
        segment
    }

    /// Splits the messages of one topic off the front of an extent, or all of it where that says that
    /// it has but one; `None` once it is used up.
    pub(crate) fn split_off_topic(&self, extent: &mut Extent) -> Option<(TopicId, Extent)> {
        if extent.len == 0 {
            return None;
        }
        let topic = self.header(extent.segment, extent.start).topic();
        let mut part = Extent { len: 0, messages: 0, topic: Some(topic), ..*extent };
        while part.len < extent.len {
            let header = self.header(extent.segment, part.end());
            if header.topic() != topic {
                break;
            }
            part.len += header.stride() as u32;
            part.messages += 1;
        }
        extent.start = part.end();
        extent.len -= part.len;
        extent.messages -= part.messages;
        Some((topic, part))
    }

    /// Splits at most so many messages off the front of an extent.
    pub(crate) fn split_off_front(&self, extent: &mut Extent, messages: u64) -> Extent {
        let mut front = Extent { len: 0, messages: 0, ..*extent };
        while u64::from(front.messages) < messages && front.messages < extent.messages {
            front.len += self.header(extent.segment, front.end()).stride() as u32;
            front.messages += 1;
        }
        extent.start = front.end();
        extent.len -= front.len;
        extent.messages -= front.messages;
        front
    }

    /// The number of an extent's last message.
    pub(crate) fn last_sequence(&self, extent: &Extent) -> Sequence {
        let first = self.header(extent.segment, extent.start).sequence();
        Sequence(first.0 + u64::from(extent.messages) - 1)
    }

    /// The slot here of another shard's segment, if some of it is borrowed.
    pub(crate) fn borrowed(&self, lender: ShardIndex, slot: SegmentId) -> Option<SegmentId> {
        let found = *self.borrowed.get(lender.index())?.get(slot.0 as usize)?;
        (found != SegmentId::NONE).then_some(found)
    }

    /// The next borrowed segment that is to go back.
    pub(crate) fn next_return(&mut self) -> Option<Return> {
        self.returns.pop()
    }

    /// The shards that have to give the segment back before it can be freed. Each is asked once.
    pub(crate) fn recall(&mut self, segment: SegmentId) -> ShardMask {
        let slot = &mut self.segments[segment.0 as usize];
        if slot.lent == 0 || std::mem::replace(&mut slot.is_recalled, true) {
            return ShardMask::default();
        }
        slot.borrowers
    }

    /// Segments that were asked for and did not come may be asked for again.
    pub(crate) fn forget_recalls(&mut self) {
        self.segments.iter_mut().for_each(|segment| segment.is_recalled = false);
    }

    /// Whether so little is left of the budget that room should be made ahead of need.
    pub(crate) fn is_nearly_full(&self) -> bool {
        let ahead = SEGMENTS_RECALLED * SEGMENT_BYTES;
        self.shared_bytes() - self.idle_bytes + ahead
            > self.budget_bytes - self.block_budget() + self.spare_bytes()
    }

    fn spare_bytes(&self) -> usize {
        self.spare.len() * SEGMENT_BYTES
    }

    /// Whether what is wanted of the segment can be copied to a block. A large message cannot: it
    /// would take as much there.
    pub(crate) fn is_evacuable(&self, segment: SegmentId) -> bool {
        let segment = &self.segments[segment.0 as usize];
        match segment.kind {
            SegmentKind::Log => true,
            SegmentKind::Borrowed { .. } => segment.capacity as usize == SEGMENT_BYTES,
            _ => false,
        }
    }

    /// Whether other shards have some of the segment.
    pub(crate) fn is_lent(&self, segment: SegmentId) -> bool {
        let segment = &self.segments[segment.0 as usize];
        segment.lent > 0 && !segment.is_borrowed()
    }

    /// What the segment is for.
    pub(crate) fn kind(&self, segment: SegmentId) -> SegmentKind {
        self.segments[segment.0 as usize].kind
    }

    /// Whether the segment still has its memory.
    pub(crate) fn is_live(&self, segment: SegmentId) -> bool {
        self.segments[segment.0 as usize].memory.is_some()
    }

    /// Position of the segment in age order.
    pub(crate) fn serial(&self, segment: SegmentId) -> u64 {
        self.segments[segment.0 as usize].serial
    }

    /// `len` bytes of a segment from `start`.
    #[inline]
    pub(crate) fn bytes(&self, segment: SegmentId, start: u32, len: u32) -> &[u8] {
        self.segments[segment.0 as usize].written(start, start + len)
    }

    /// The header of the frame at `start`.
    #[inline]
    pub(crate) fn header(&self, segment: SegmentId, start: u32) -> &Header {
        let segment = &self.segments[segment.0 as usize];
        let bytes = segment.written(start, start + HEADER_BYTES as u32);
        Header::peek(bytes).expect("extents start at frames, which are longer than a header")
    }

    /// Memory held now, that of the queues' extents included, in bytes.
    pub(crate) fn used_bytes(&self) -> usize {
        self.used_bytes + self.references * EXTENT_BYTES + self.charged_bytes
    }

    /// Gives memory kept for reuse beyond [`FREE_SEGMENTS_KEPT`] back to the system.
    pub(crate) fn trim(&mut self) {
        while self.spare.len() > FREE_SEGMENTS_KEPT {
            if let Some(memory) = self.spare.pop() {
                self.used_bytes -= memory.len();
            }
        }
    }

    fn insert(&mut self, memory: Memory, kind: SegmentKind) -> SegmentId {
        let serial = self.next_serial;
        self.next_serial += 1;
        let capacity = memory.len() as u32;
        if let Some(slot) = self.vacant.pop() {
            let segment = &mut self.segments[slot.0 as usize];
            segment.memory = Some(memory);
            segment.kind = kind;
            segment.len = 0;
            segment.capacity = capacity;
            segment.serial = serial;
            return slot;
        }
        self.segments.push(Segment {
            memory: Some(memory),
            kind,
            len: 0,
            capacity,
            lent: 0,
            borrowers: ShardMask::default(),
            is_recalled: false,
            references: 0,
            is_kept: false,
            pins: 0,
            serial,
            older: SegmentId::NONE,
            younger: SegmentId::NONE,
            holders: Vec::new(),
        });
        SegmentId(self.segments.len() as u32 - 1)
    }

    fn make_youngest(&mut self, segment: SegmentId) {
        let serial = self.next_serial;
        self.next_serial += 1;
        let older = std::mem::replace(&mut self.youngest, segment);
        match older {
            SegmentId::NONE => self.oldest = segment,
            older => self.segments[older.0 as usize].younger = segment,
        }
        let slot = &mut self.segments[segment.0 as usize];
        slot.serial = serial;
        slot.older = older;
        slot.younger = SegmentId::NONE;
    }

    fn unlink(&mut self, id: SegmentId) {
        let Segment { older, younger, .. } = self.segments[id.0 as usize];
        match older {
            SegmentId::NONE => self.oldest = younger,
            older => self.segments[older.0 as usize].younger = younger,
        }
        match younger {
            SegmentId::NONE => self.youngest = older,
            younger => self.segments[younger.0 as usize].older = older,
        }
    }

    fn free_if_unused(&mut self, id: SegmentId) {
        let segment = &mut self.segments[id.0 as usize];
        if segment.references > 0 || segment.pins > 0 {
            return;
        }
        segment.holders.clear();
        if id == self.tail {
            // Nobody wants anything of it: write it again from its start, while it is in the cache.
            // The new serial tells queues that they have to be noted as holders again.
            segment.len = 0;
            self.unlink(id);
            self.make_youngest(id);
            return;
        }
        let Some(memory) = segment.memory.take() else { return };
        let kind = segment.kind;
        segment.is_recalled = false;
        if matches!(kind, SegmentKind::Log | SegmentKind::Large) {
            self.unlink(id);
        }
        match kind {
            SegmentKind::Log => self.spare.push(memory),
            SegmentKind::Large => self.used_bytes -= memory.len(),
            SegmentKind::Landing => {
                self.used_bytes -= memory.len();
                self.landing_bytes -= memory.len();
            }
            SegmentKind::Block => {
                self.used_bytes -= memory.len();
                self.block_bytes -= memory.len();
            }
            SegmentKind::Borrowed { lender, slot } => {
                let extents = std::mem::take(&mut self.segments[id.0 as usize].lent);
                self.borrowed[lender.index()][slot.0 as usize] = SegmentId::NONE;
                drop(memory);
                self.returns.push(Return { lender, slot, extents });
            }
        }
        self.vacant.push(id);
    }

    /// Checks what must hold between calls. For tests and the simulator.
    pub(crate) fn assert_invariants(&self) {
        let own = self.segments.iter().filter(|segment| !segment.is_borrowed());
        let held: usize = own.filter_map(|segment| segment.memory.as_ref()).map(Memory::len).sum();
        let spare: usize = self.spare.iter().map(|memory| memory.len()).sum();
        assert_eq!(held + spare + self.given_bytes, self.used_bytes, "memory is accounted");
        assert!(self.used_bytes <= self.budget_bytes, "memory stays inside its budget");
        let references: usize =
            self.segments.iter().map(|segment| segment.references as usize).sum();
        assert_eq!(references, self.references, "references are counted");
        let idle =
            self.segments.iter().filter(|segment| segment.is_kept && segment.references == 1);
        let idle: usize = idle.map(|segment| segment.capacity as usize).sum();
        assert_eq!(idle, self.idle_bytes, "idle memory is counted");
        let mut at = self.oldest;
        let mut serial = None;
        while at != SegmentId::NONE {
            let segment = &self.segments[at.0 as usize];
            assert!(serial < Some(segment.serial), "segments stand in age order");
            assert!(segment.memory.is_some(), "freed segments leave the age order");
            serial = Some(segment.serial);
            at = segment.younger;
        }
    }

    /// Checks that nothing is lent, borrowed or given away. For tests and the simulator.
    pub(crate) fn assert_nothing_under_way(&self) {
        assert!(self.segments.iter().all(|segment| segment.lent == 0), "what was lent came back");
        assert_eq!(self.given_bytes, 0, "what was given away was taken");
        assert!(self.returns.is_empty(), "what is to go back has gone");
    }

    /// References to each live segment from this shard, for comparison with the queues.
    pub(crate) fn references(&self) -> impl Iterator<Item = (SegmentId, u32)> + '_ {
        self.segments.iter().enumerate().filter(|(_, segment)| segment.memory.is_some()).map(
            |(slot, segment)| {
                let lent = if segment.is_borrowed() { 0 } else { segment.lent };
                let kept = u32::from(segment.is_kept);
                (SegmentId(slot as u32), segment.references - lent - kept)
            },
        )
    }
}
