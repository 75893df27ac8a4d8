//! The shard's log: accepted messages, once each, in the form that leaves the machine.
//!
//! Memory is a fixed budget of segments. Queues refer to runs of frames by [`Extent`]; a segment
//! lives while an extent refers to it, and is written again from its start as soon as none does, so
//! that light traffic stays in a few cache-warm pages. When the budget is used up, the shard
//! recycles the oldest segment: what is still wanted of it is copied to a compact block, or dropped
//! by policy (`shard/memory.rs` decides; the log only owns the bytes).
//!
//! This file is the budget, the tail, the references and the age order; what comes into the log in memory of
//! its own is in `log/landing.rs` and `log/adopting.rs`, what other shards read of it in `log/lending.rs`.
//!
//! Invariants: `used_bytes` is the sum of all memory held but not borrowed, never above the budget; a
//! segment with references or pins is never freed or rewritten; frames start at multiples of 8 and
//! lie whole in one segment; only bytes behind the last frame are written.
#![allow(unsafe_code)]

mod adopting;
mod extent;
mod landing;
mod lending;
mod memory;
mod segment;

pub(crate) use extent::Extent;
pub(crate) use lending::Return;
pub(crate) use memory::{Memory, PREFETCHED_BYTES, Sole, prefetch_header};
use nexusd_wire::{HEADER_BYTES, Header};
use segment::Segment;
pub(crate) use segment::{SegmentId, SegmentKind};

use crate::gap::Gap;
use crate::limits::{
    EVACUATION_SHARE, EXTENT_BYTES, FREE_SEGMENTS_KEPT, GAPS_SHARE, SEGMENT_BYTES,
    SEGMENTS_RECALLED,
};
use crate::plant::{Plant, is_planted};
use crate::shard::routing::ShardMask;
use crate::subscriber_queue::QueueId;

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
    /// Of these, memory of losses that are to be told.
    gap_bytes: usize,
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
            gap_bytes: 0,
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
    #[inline(always)]
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

    /// A loss is to be told, and is kept until it needs not be told again.
    pub(crate) fn charge_gap(&mut self, gap: &Gap) {
        self.gap_bytes += gap.memory();
        self.charge(gap.memory());
    }

    /// It needs not.
    pub(crate) fn discharge_gap(&mut self, gap: &Gap) {
        self.gap_bytes -= gap.memory();
        self.discharge(gap.memory());
    }

    /// Memory of losses that are to be told, perhaps again.
    #[inline]
    pub(crate) fn gap_bytes(&self) -> usize {
        self.gap_bytes
    }

    /// How much of it there may be, beside what each subscription is spared.
    #[inline]
    pub(crate) fn gap_budget(&self) -> usize {
        self.budget_bytes / GAPS_SHARE
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

    /// Bytes written to the segment.
    pub(crate) fn end(&self, segment: SegmentId) -> u32 {
        self.segments[segment.0 as usize].len
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
