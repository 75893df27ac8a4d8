//! Segments that other shards read where they lie.
//!
//! Each extent that another shard is told of ([`Log::lend`]) holds a reference here until that shard
//! gives it back ([`Log::take_back`]); over there the segment stands among its own as a borrowed one
//! ([`Log::borrow`]), of which its log keeps no budget. When its last extent over there goes, all of them
//! go back at once ([`Log::next_return`]).
//!
//! Invariant: a lent segment is neither freed nor rewritten. When room is needed, it is asked for
//! ([`Log::recall`]), and passed over until it comes back.

use super::{Log, Memory, SegmentId, SegmentKind};
use crate::shard::routing::{ShardIndex, ShardMask};

/// A segment that nobody here wants any more goes back to the shard it was borrowed from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Return {
    pub(crate) lender: ShardIndex,
    pub(crate) slot: SegmentId,
    /// How many extents of it were borrowed.
    pub(crate) extents: u32,
}

impl Log {
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

    /// Whether other shards have some of the segment.
    pub(crate) fn is_lent(&self, segment: SegmentId) -> bool {
        let segment = &self.segments[segment.0 as usize];
        segment.lent > 0 && !segment.is_borrowed()
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

    /// The slot here of another shard's segment, if some of it is borrowed.
    pub(crate) fn borrowed(&self, lender: ShardIndex, slot: SegmentId) -> Option<SegmentId> {
        let found = *self.borrowed.get(lender.index())?.get(slot.0 as usize)?;
        (found != SegmentId::NONE).then_some(found)
    }

    /// The next borrowed segment that is to go back.
    pub(crate) fn next_return(&mut self) -> Option<Return> {
        self.returns.pop()
    }
}
