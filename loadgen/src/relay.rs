//! The relay: frames are cut by their length field, and what a receive brought of whole ones is copied
//! once per subscriber.
//!
//! What a plain message server has to do at the least, and nothing else: no topics, no numbers, no
//! queues beyond a send buffer. The daemon is stated against it; it in turn has to stay close to the
//! pump, so that it is no straw man.

use nexusd_wire::{Cut, DecodeError, FrameCutter, HEADER_BYTES, aligned};

use crate::forwarder::{Copying, Forwarder, Subscribers};

/// Longest frame passed on: more than the daemon lets through.
const FRAME_BYTES_MAX: u32 = 128 << 20;

/// The relay as a service.
pub(crate) type Relay = Forwarder<WholeFrames>;

/// Copies whole frames.
pub(crate) struct WholeFrames;

impl Copying for WholeFrames {
    type Stream = FrameCutter;

    fn stream() -> FrameCutter {
        FrameCutter::new(FRAME_BYTES_MAX, FRAME_BYTES_MAX, usize::MAX)
    }

    #[inline]
    fn copy(
        cutter: &mut FrameCutter,
        mut bytes: &[u8],
        subscribers: &mut Subscribers<'_>,
    ) -> Result<(), DecodeError> {
        if cutter.stashed() > 0 {
            // The frame that began in an earlier receive.
            match cutter.next(&mut bytes)? {
                Cut::Frame(frame) => subscribers.push(frame.bytes()),
                _ => return Ok(()),
            }
        }
        let (whole, rest) = bytes.split_at(whole_frames(bytes));
        subscribers.push(whole);
        bytes = rest;
        // Keeps what is not whole yet, or says what is wrong with it.
        cutter.skipped(whole.len());
        cutter.next(&mut bytes).map(|_| ())
    }
}

/// Bytes at the front that are whole frames, going by nothing but their lengths.
fn whole_frames(bytes: &[u8]) -> usize {
    let mut end = 0;
    while let Some(total) = bytes.get(end..).and_then(<[u8]>::first_chunk) {
        let stride = aligned(u32::from_le_bytes(*total) as usize);
        if stride < HEADER_BYTES || stride > bytes.len() - end {
            break;
        }
        end += stride;
    }
    end
}
