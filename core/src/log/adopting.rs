//! Batches of other shards' publishers that become the log's tail, without a copy.
//!
//! The tail changes its memory for the batch's; its frames then lie behind the tail's end, and are taken in
//! as they are numbered. Until then they are nobody's, and may be written.
#![allow(unsafe_code)]

use super::{Log, SegmentId, Sole};
use crate::limits::SEGMENT_BYTES;

impl Log {
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
}
