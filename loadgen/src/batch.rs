//! The frames a publisher writes: encoded once, patched in place for every write.
//!
//! A batch is one buffer that holds the same frame over and over. Before a write, number, intended
//! time and send time are patched into as many of them as go out, three or four stores a message;
//! nothing is encoded, allocated or copied again. Targets differ only in the frame they give.

use std::ops::Range;

use crate::stamp::Stamp;

/// Bytes of one write at an unlimited rate, give or take a frame: enough that the cost of the
/// system call disappears among the messages, and little enough to stay in the second-level cache.
pub(crate) const WRITE_BYTES: usize = 128 << 10;

/// One encoded message of a target, and where in it the generator writes.
#[derive(Clone, Debug)]
pub(crate) struct FrameTemplate {
    /// The bytes of one message, up to where the next one starts.
    pub(crate) bytes: Vec<u8>,
    /// Where in them the payload stands.
    pub(crate) payload: Range<usize>,
    /// Where the frame itself carries the publisher's number (from 1, 8 bytes, little endian).
    pub(crate) sequence_at: Option<usize>,
}

/// Frames ready to be patched and written.
#[derive(Debug)]
pub(crate) struct Batch {
    frames: Vec<u8>,
    template: FrameTemplate,
    capacity: u64,
}

impl Batch {
    /// A batch of `messages` frames, or of what fits [`WRITE_BYTES`] if that is `None`.
    pub(crate) fn new(template: FrameTemplate, messages: Option<u64>) -> Self {
        let stride = template.bytes.len().max(1);
        let fitting = (WRITE_BYTES / stride).max(1);
        let capacity = messages.map_or(fitting, |messages| {
            usize::try_from(messages).unwrap_or(usize::MAX).clamp(1, fitting)
        });
        Self { frames: template.bytes.repeat(capacity), template, capacity: capacity as u64 }
    }

    /// The most messages of one write.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Patches the next `count` messages (at most [`Self::capacity`]), the first of which has number
    /// `first`, and lends them for writing.
    #[inline]
    pub(crate) fn prepare(
        &mut self,
        first: u64,
        count: u64,
        sent_ns: u64,
        mut intended_ns: impl FnMut(u64) -> u64,
    ) -> &[u8] {
        let stride = self.template.bytes.len();
        let count = count.min(self.capacity) as usize;
        let sequence_at = self.template.sequence_at;
        let payload = self.template.payload.clone();
        for (frame, counter) in self.frames.chunks_exact_mut(stride).take(count).zip(first..) {
            if let Some(place) = sequence_at.and_then(|at| frame[at..].first_chunk_mut()) {
                *place = (counter + 1).to_le_bytes();
            }
            let stamp =
                Stamp { counter, intended_ns: intended_ns(counter), sent_ns: Some(sent_ns) };
            stamp.write(&mut frame[payload.clone()]);
        }
        &self.frames[..count * stride]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(payload_bytes: usize) -> FrameTemplate {
        FrameTemplate {
            bytes: vec![0xEE; 8 + payload_bytes + 8],
            payload: 8..8 + payload_bytes,
            sequence_at: Some(0),
        }
    }

    #[test]
    fn frames_are_patched_in_place_and_nothing_else_changes() {
        let mut batch = Batch::new(template(32), Some(3));
        let bytes = batch.prepare(10, 2, 500, |n| n * 100).to_vec();
        assert_eq!(bytes.len(), 2 * 48);
        for (frame, counter) in bytes.chunks_exact(48).zip(10..) {
            assert_eq!(frame[..8], u64::to_le_bytes(counter + 1));
            let expected = Stamp { counter, intended_ns: counter * 100, sent_ns: Some(500) };
            assert_eq!(Stamp::read(&frame[8..]), Some(expected));
            assert_eq!(frame[8 + 24..], [0xEE; 16]);
        }
    }

    #[test]
    fn a_send_time_never_overwrites_what_follows_a_short_payload() {
        let mut batch = Batch::new(template(16), Some(1));
        let frame = batch.prepare(0, 1, 500, |_| 0);
        assert_eq!(frame[8 + 16..], [0xEE; 8]);
    }

    #[test]
    fn a_write_holds_at_least_one_message_and_at_most_the_write_bound() {
        assert_eq!(Batch::new(template(WRITE_BYTES), None).capacity(), 1);
        let batch = Batch::new(template(112), None);
        assert_eq!(batch.capacity(), (WRITE_BYTES / 128) as u64);
        assert_eq!(Batch::new(template(112), Some(1)).capacity(), 1);
    }
}
