//! The relay: frames are cut by their length field and each is copied once per subscriber.
//!
//! What a plain message server has to do at the least, and nothing else: no topics, no numbers, no
//! queues beyond a send buffer. The daemon is stated against it; it in turn has to stay close to the
//! pump, so that it is no straw man.

use nexusd_wire::{Cut, DecodeError, FrameCutter};

use crate::forwarder::{Copying, Forwarder, Subscribers};

/// Longest frame passed on: more than the daemon lets through.
const FRAME_BYTES_MAX: u32 = 128 << 20;

/// The relay as a service.
pub(crate) type Relay = Forwarder<FrameByFrame>;

/// Copies whole frames, one at a time.
pub(crate) struct FrameByFrame;

impl Copying for FrameByFrame {
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
        while let Cut::Frame(frame) = cutter.next(&mut bytes)? {
            subscribers.push(frame.bytes());
        }
        Ok(())
    }
}
