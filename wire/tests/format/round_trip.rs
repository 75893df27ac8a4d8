//! Every kind of frame, with any values, comes back as it was written.

use nexusd_wire::{Cut, FRAME_ALIGNMENT, Frame, FrameCutter, HEADER_BYTES};
use proptest::prelude::*;

use crate::sample::{Sample, any_sample};

/// Cuts the one frame that `bytes` are and hands it to `read`.
pub(crate) fn with_frame<T>(bytes: &[u8], read: impl FnOnce(&Frame<'_>) -> T) -> T {
    let mut input = bytes;
    let mut cutter = FrameCutter::new(u32::MAX, u32::MAX, usize::MAX);
    match cutter.next(&mut input) {
        Ok(Cut::Frame(frame)) => {
            let result = read(&frame);
            assert!(input.is_empty(), "one frame, no more");
            result
        }
        other => panic!("not a whole frame: {other:?}"),
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(sample in any_sample()) {
        let decoded = with_frame(&sample.bytes(), Sample::decode);
        prop_assert_eq!(decoded, Ok(sample));
    }

    #[test]
    fn lengths_are_exact_and_padding_is_zero(sample in any_sample()) {
        let bytes = sample.bytes();
        with_frame(&bytes, |frame| {
            let header = frame.header();
            assert_eq!(bytes.len() % FRAME_ALIGNMENT, 0);
            assert_eq!(header.stride(), bytes.len());
            assert!(bytes.len() - header.total() < FRAME_ALIGNMENT);
            assert!(bytes[header.total()..].iter().all(|byte| *byte == 0));
            let metadata_end = HEADER_BYTES + header.metadata_len();
            assert!(bytes[metadata_end..header.payload_start()].iter().all(|byte| *byte == 0));
            assert_eq!(frame.payload().len(), header.payload_len());
        });
    }

    /// A receive buffer starts a frame wherever the one before it ended, and a body has no
    /// alignment in memory.
    #[test]
    fn frames_are_read_at_any_address(sample in any_sample(), offset in 0_usize..16) {
        let mut buffer = vec![0xAA; offset];
        sample.encode(&mut buffer);
        let decoded = with_frame(&buffer[offset..], Sample::decode);
        prop_assert_eq!(decoded, Ok(sample));
    }

    #[test]
    fn an_encoder_that_wrote_other_frames_before_writes_the_same(
        first in any_sample(),
        second in any_sample(),
    ) {
        let mut both = first.bytes();
        let start = both.len();
        second.encode(&mut both);
        prop_assert_eq!(&both[..start], &first.bytes()[..]);
        prop_assert_eq!(&both[start..], &second.bytes()[..]);
    }
}
