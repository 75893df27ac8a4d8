//! The cutter finds the same frames however the stream is chopped, waits for what is missing, and
//! names the place of what is wrong.

use nexusd_wire::{Cut, DecodeError, FrameCutter, FrameKind, HEADER_BYTES, Header};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::sample::{Sample, small_sample};

const NO_LIMIT: u32 = u32::MAX;

/// A frame as it was cut: its position and all its bytes.
type CutFrame = (u64, Vec<u8>);

/// Cuts `stream` given in chunks of the sizes in `sizes`, taken round and round. Frames reported as
/// large are put together here, as their owner would.
fn cut(
    cutter: &mut FrameCutter,
    stream: &[u8],
    sizes: &[usize],
) -> (Vec<CutFrame>, Option<DecodeError>) {
    let mut frames = Vec::new();
    // A large frame under way, and the bytes it still lacks.
    let mut large: Option<(CutFrame, usize)> = None;
    let mut rest = stream;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let size = (*sizes.next().expect("sizes")).min(rest.len());
        let (mut chunk, behind) = rest.split_at(size);
        rest = behind;
        loop {
            if let Some(((_, bytes), missing)) = &mut large {
                let taken = (*missing).min(chunk.len());
                bytes.extend_from_slice(&chunk[..taken]);
                chunk = &chunk[taken..];
                *missing -= taken;
                cutter.skipped(taken);
                if *missing > 0 {
                    break;
                }
                frames.extend(large.take().map(|(frame, _)| frame));
            }
            let at = cutter.position();
            match cutter.next(&mut chunk) {
                Ok(Cut::Frame(frame)) => frames.push((frame.at(), frame.bytes().to_vec())),
                Ok(Cut::Large { head, stride, .. }) => {
                    assert!(head.len() >= HEADER_BYTES && head.len() <= stride);
                    large = Some(((at, head.to_vec()), stride - head.len()));
                }
                Ok(Cut::Incomplete) => {
                    assert!(chunk.is_empty(), "an incomplete frame takes all there is");
                    break;
                }
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// What a stream of these frames is, and what must be cut from it.
fn stream_of(samples: &[Sample]) -> (Vec<u8>, Vec<CutFrame>) {
    let mut stream = Vec::new();
    let frames = samples
        .iter()
        .map(|sample| {
            let at = stream.len();
            sample.encode(&mut stream);
            (at as u64, stream[at..].to_vec())
        })
        .collect();
    (stream, frames)
}

fn header(total: u32, kind: u8, flags: u8, metadata_len: u16) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[0..4].copy_from_slice(&total.to_le_bytes());
    bytes[4] = kind;
    bytes[5] = flags;
    bytes[6..8].copy_from_slice(&metadata_len.to_le_bytes());
    bytes
}

/// What a cutter with limits of 4,096 (messages) and 1,024 bytes (others) says to this header
/// behind a valid frame, given whole and byte by byte.
fn refusal(hostile: &[u8]) -> Option<DecodeError> {
    let mut stream = Sample::Ping { token: 1 }.bytes();
    let position = stream.len() as u64;
    stream.extend_from_slice(hostile);
    let mut whole = FrameCutter::new(4_096, 1_024, usize::MAX);
    let (frames, error) = cut(&mut whole, &stream, &[stream.len()]);
    assert_eq!(frames.first().map(|(at, _)| *at), Some(0));
    let mut trickled = FrameCutter::new(4_096, 1_024, usize::MAX);
    let (trickled_frames, trickled_error) = cut(&mut trickled, &stream, &[1]);
    assert_eq!(frames, trickled_frames);
    assert_eq!(error, trickled_error);
    if let Some(error) = &error {
        assert_eq!(error.at(), position);
        assert!(trickled.stashed() <= HEADER_BYTES, "a refused frame is not collected");
    }
    error
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_frames(
        samples in vec(small_sample(), 1..12),
        sizes in vec(1_usize..300, 1..20),
    ) {
        let (stream, frames) = stream_of(&samples);
        let mut cutter = FrameCutter::new(NO_LIMIT, NO_LIMIT, usize::MAX);
        let (found, error) = cut(&mut cutter, &stream, &sizes);
        prop_assert_eq!(error, None);
        prop_assert_eq!(found, frames);
        prop_assert_eq!(cutter.position(), stream.len() as u64);
        prop_assert_eq!(cutter.stashed(), 0);
    }

    #[test]
    fn large_frames_are_handed_over_whatever_the_chunking(
        samples in vec(small_sample(), 1..12),
        sizes in vec(1_usize..300, 1..20),
        large_bytes in 0_usize..400,
    ) {
        let (stream, frames) = stream_of(&samples);
        let mut cutter = FrameCutter::new(NO_LIMIT, NO_LIMIT, large_bytes);
        let (found, error) = cut(&mut cutter, &stream, &sizes);
        prop_assert_eq!(error, None);
        prop_assert_eq!(found, frames);
        prop_assert_eq!(cutter.position(), stream.len() as u64);
    }

    #[test]
    fn what_is_behind_a_frame_that_has_not_come_whole_is_known(samples in vec(small_sample(), 2..4)) {
        let (stream, frames) = stream_of(&samples);
        let (_, first) = &frames[0];
        for end in 0..first.len() {
            let mut cutter = FrameCutter::new(NO_LIMIT, NO_LIMIT, usize::MAX);
            cut(&mut cutter, &stream[..end], &[usize::MAX]);
            let behind = cutter.behind_stash(&stream[end..]);
            // Without a byte of it, nothing is held back.
            let expected = if end == 0 { &stream[..] } else { &stream[first.len()..] };
            prop_assert_eq!(behind, expected);
            prop_assert!(cutter.behind_stash(&[]).is_empty());
        }
    }

    #[test]
    fn every_truncation_waits(samples in vec(small_sample(), 1..4)) {
        let (stream, frames) = stream_of(&samples);
        for end in 0..stream.len() {
            let mut cutter = FrameCutter::new(NO_LIMIT, NO_LIMIT, usize::MAX);
            let (found, error) = cut(&mut cutter, &stream[..end], &[usize::MAX]);
            prop_assert_eq!(error, None);
            let whole = frames.iter().filter(|(at, bytes)| *at as usize + bytes.len() <= end);
            prop_assert_eq!(found.len(), whole.count());
            prop_assert_eq!(cutter.position() as usize + cutter.stashed(), end);
        }
    }

    #[test]
    fn giving_memory_back_loses_nothing(
        samples in vec(small_sample(), 1..6),
        size in 1_usize..100,
    ) {
        let (stream, frames) = stream_of(&samples);
        let mut cutter = FrameCutter::new(NO_LIMIT, NO_LIMIT, usize::MAX);
        let mut found = Vec::new();
        for chunk in stream.chunks(size) {
            let mut chunk = chunk;
            while let Ok(Cut::Frame(frame)) = cutter.next(&mut chunk) {
                found.push((frame.at(), frame.bytes().to_vec()));
                cutter.shrink();
            }
            cutter.shrink();
        }
        prop_assert_eq!(found, frames);
    }

    /// A flipped bit gives another frame, makes the cutter wait, or is refused; an error stands
    /// where the cutter stands, or names the frame whose body it is.
    #[test]
    fn a_flipped_bit_is_survived_and_placed(
        samples in vec(small_sample(), 1..4),
        position in any::<prop::sample::Index>(),
        bit in 0_u8..8,
        size in 1_usize..200,
    ) {
        let (mut stream, _) = stream_of(&samples);
        let byte = position.index(stream.len());
        stream[byte] ^= 1 << bit;
        let mut cutter = FrameCutter::new(NO_LIMIT, NO_LIMIT, usize::MAX);
        let mut next_at = 0;
        for chunk in stream.chunks(size) {
            let mut chunk = chunk;
            loop {
                match cutter.next(&mut chunk) {
                    Ok(Cut::Frame(frame)) => {
                        prop_assert_eq!(frame.at(), next_at);
                        next_at += frame.bytes().len() as u64;
                        if let Err(error) = decode_leniently(&frame) {
                            prop_assert_eq!(error.at(), frame.at());
                        }
                    }
                    Ok(Cut::Incomplete) => break,
                    Ok(Cut::Large { .. }) => prop_assert!(false, "nothing is large here"),
                    Err(error) => {
                        prop_assert_eq!(error.at(), next_at);
                        return Ok(());
                    }
                }
            }
        }
    }

    #[test]
    fn any_header_is_refused_or_describes_a_frame(bytes in any::<[u8; HEADER_BYTES]>()) {
        let header = Header::peek(&bytes).expect("a whole header");
        match header.check(7, 4_096, 1_024) {
            Err(error) => prop_assert_eq!(error.at(), 7),
            Ok(()) => {
                prop_assert!(header.kind().is_some());
                prop_assert!(header.payload_start() <= header.total());
                prop_assert!(header.total() <= 4_096);
            }
        }
    }
}

/// Reads everything of a frame that may be damaged.
pub(crate) fn decode_leniently(frame: &nexusd_wire::Frame<'_>) -> Result<(), DecodeError> {
    // The version is the session's to judge; the samples know version 1 alone.
    if let FrameKind::Hello | FrameKind::Welcome = frame.kind() {
        return crate::bodies::read_body(frame);
    }
    Sample::decode(frame).map(|_| ())
}

#[test]
fn a_total_shorter_than_a_header_is_refused() {
    for total in 0..48 {
        for kind in [FrameKind::Message, FrameKind::Ping, FrameKind::Subscribe] {
            let refused = refusal(&header(total, kind.0, 0, 0));
            assert!(matches!(refused, Some(DecodeError::TooShort { total: t, .. }) if t == total));
        }
    }
}

#[test]
fn a_total_beyond_the_limit_of_its_kind_is_refused() {
    for total in [4_097, 1 << 20, u32::MAX - 7, u32::MAX] {
        let refused = refusal(&header(total, FrameKind::Message.0, 0, 0));
        assert!(matches!(refused, Some(DecodeError::TooLong { limit: 4_096, .. })));
    }
    for total in [1_025, 4_096, u32::MAX] {
        let refused = refusal(&header(total, FrameKind::Subscribe.0, 0, 0));
        assert!(matches!(refused, Some(DecodeError::TooLong { limit: 1_024, .. })));
    }
    assert_eq!(refusal(&header(4_096, FrameKind::Message.0, 0, 0)), None);
    assert_eq!(refusal(&header(1_024, FrameKind::Subscribe.0, 0, 0)), None);
}

#[test]
fn metadata_that_overruns_its_frame_is_refused() {
    for (total, metadata_len) in [(48, 1), (55, 1), (56, 9), (63, 9), (1_000, u16::MAX)] {
        let refused = refusal(&header(total, FrameKind::Message.0, 0, metadata_len));
        assert!(
            matches!(refused, Some(DecodeError::MetadataOverrun { .. })),
            "{total} {metadata_len}"
        );
    }
    assert_eq!(refusal(&header(56, FrameKind::Message.0, 0, 1)), None);
}

#[test]
fn a_kind_that_does_not_exist_is_refused() {
    for kind in (0..=u8::MAX).filter(|kind| !FrameKind::ENUM_VALUES.contains(&FrameKind(*kind))) {
        let refused = refusal(&header(48, kind, 0, 0));
        assert!(matches!(refused, Some(DecodeError::UnknownKind { kind: k, .. }) if k == kind));
    }
}

#[test]
fn unknown_flags_are_refused_where_they_must_be_known() {
    for bit in 0..8 {
        let flags = 1 << bit;
        let control = refusal(&header(48, FrameKind::Ping.0, flags, 0));
        assert!(matches!(control, Some(DecodeError::UnknownFlags { flags: f, .. }) if f == flags));
        for kind in [FrameKind::Message, FrameKind::Request, FrameKind::Reply] {
            let refused = refusal(&header(48, kind.0, flags, 0));
            let known = flags & 0x3F == flags;
            assert_eq!(refused.is_none(), known, "{kind:?} {flags:#04x}");
        }
    }
}

#[test]
fn every_message_of_an_error_is_one_line_that_says_where() {
    let hostile = [
        header(47, FrameKind::Ping.0, 0, 0),
        header(4_097, FrameKind::Message.0, 0, 0),
        header(48, FrameKind::Message.0, 0, 1),
        header(48, 200, 0, 0),
        header(48, FrameKind::Ping.0, 1, 0),
    ];
    for hostile in hostile {
        let said = refusal(&hostile).expect("a refusal").to_string();
        assert!(said.starts_with("frame at byte 48: "), "{said}");
        assert!(!said.contains('\n'), "{said}");
    }
}

#[test]
fn a_refused_stream_stays_refused() {
    let mut cutter = FrameCutter::new(4_096, 1_024, usize::MAX);
    let hostile = header(47, FrameKind::Ping.0, 0, 0);
    for byte in &hostile[..47] {
        assert!(matches!(cutter.next(&mut &[*byte][..]), Ok(Cut::Incomplete)));
    }
    for _ in 0..3 {
        assert!(cutter.next(&mut &hostile[47..]).is_err());
    }
}
