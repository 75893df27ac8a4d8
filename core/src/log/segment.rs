//! One segment of the log: its memory, what it is for, and who still needs it.
//!
//! Whoever needs it is counted, in references and in pins; when the last of them has gone, what becomes of
//! its memory is the log's to say.
#![allow(unsafe_code)]

use super::Memory;
use crate::shard::routing::{ShardIndex, ShardMask};
use crate::subscriber_queue::QueueId;

/// A segment's slot in the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SegmentId(pub(crate) u32);

impl SegmentId {
    /// No segment.
    pub(crate) const NONE: Self = Self(u32::MAX);
}

/// What a segment is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SegmentKind {
    /// A share of the log, of [`SEGMENT_BYTES`](crate::limits::SEGMENT_BYTES).
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

#[derive(Debug)]
pub(super) struct Segment {
    /// `None` in a vacant slot.
    pub(super) memory: Option<Memory>,
    pub(super) kind: SegmentKind,
    /// Bytes written.
    pub(super) len: u32,
    /// Bytes there are.
    pub(super) capacity: u32,
    /// Extents, open runs and landings that refer to it, other shards' included.
    pub(super) references: u32,
    /// Of these, the other shards'; of a borrowed segment, the extents that came from its shard.
    pub(super) lent: u32,
    /// Shards that have some of it; meaningful while `lent` is not 0.
    pub(super) borrowers: ShardMask,
    /// Borrowers were asked to give it back.
    pub(super) is_recalled: bool,
    /// It has messages that are kept for replay, for which it has one reference.
    pub(super) is_kept: bool,
    /// Slices of it that running sends read.
    pub(super) pins: u32,
    /// Position in age order; higher is younger.
    pub(super) serial: u64,
    /// Neighbours in age order (`Log` and `Large` only).
    pub(super) older: SegmentId,
    pub(super) younger: SegmentId,
    /// Queues that may have extents here; may name some twice, or some that moved on.
    pub(super) holders: Vec<QueueId>,
}

impl Segment {
    /// The bytes from `start` to `end`, which are written.
    #[inline]
    pub(super) fn written(&self, start: u32, end: u32) -> &[u8] {
        debug_assert!(end <= self.len || self.kind == SegmentKind::Landing);
        match &self.memory {
            // SAFETY: frames stay as they are while anything refers to them, and whoever asks does;
            // the log writes behind them (`append`), and a borrowed segment's shard does the same.
            Some(memory) => unsafe { memory.bytes(start as usize, end as usize) },
            None => None,
        }
        .unwrap_or_default()
    }

    pub(super) fn is_borrowed(&self) -> bool {
        matches!(self.kind, SegmentKind::Borrowed { .. })
    }
}
