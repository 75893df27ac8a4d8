//! Memory of large frames that are still being received.
//!
//! A landing is its connection's alone, and all of it may be written. Once it is complete it joins the log
//! as a segment of one frame, or goes to the shard that owns its topic and joins the log there.
//!
//! Invariant: landings count against the budget; one given away counts until the other shard has it.
#![allow(unsafe_code)]

use super::{Log, Memory, SegmentId, SegmentKind};
use crate::limits::LANDING_SHARE;

impl Log {
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

    /// A landing is complete: it joins the log as the youngest segment, holding one frame.
    pub(crate) fn landed(&mut self, segment: SegmentId) {
        let landing = &mut self.segments[segment.0 as usize];
        landing.kind = SegmentKind::Large;
        landing.len = landing.capacity;
        self.landing_bytes -= landing.capacity as usize;
        self.make_youngest(segment);
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
}
