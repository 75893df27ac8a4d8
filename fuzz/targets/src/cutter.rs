//! The frame cutter under arbitrary chunking.

use nexusd_wire::{Cut, DecodeError, FrameCutter, HEADER_BYTES};

use crate::input::Input;

const MESSAGE_BYTES_MAX: u32 = 1 << 16;
const CONTROL_BYTES_MAX: u32 = 1 << 14;

/// Cuts a stream in one piece and in pieces: both must find the same frames and the same error.
///
/// Bytes: the bound above which frames are large (an index), how many piece sizes follow, the sizes,
/// the stream.
pub fn cutter(data: &[u8]) {
    let mut input = Input(data);
    let large_bytes = [usize::MAX, 48, 64, 300][usize::from(input.byte() % 4)];
    let count = usize::from(input.byte() % 8) + 1;
    let sizes: Vec<usize> = (0..count).map(|_| usize::from(input.byte()) + 1).collect();
    let stream = input.0;
    let whole = cut(stream, large_bytes, &[usize::MAX]);
    let pieces = cut(stream, large_bytes, &sizes);
    assert_eq!(whole, pieces);
}

/// Position and bytes of each frame, and what ended the stream. Large frames are put together by
/// their owner, which is here; one that is not complete counts with the bytes it has.
fn cut(
    stream: &[u8],
    large_bytes: usize,
    sizes: &[usize],
) -> (Vec<(u64, Vec<u8>)>, Option<DecodeError>) {
    let mut cutter = FrameCutter::new(MESSAGE_BYTES_MAX, CONTROL_BYTES_MAX, large_bytes);
    let mut frames: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut missing = 0;
    let mut rest = stream;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (mut piece, behind) = rest.split_at((*size).min(rest.len()));
        rest = behind;
        loop {
            let taken = missing.min(piece.len());
            if let Some((_, large)) = frames.last_mut() {
                large.extend_from_slice(&piece[..taken]);
            }
            piece = &piece[taken..];
            missing -= taken;
            cutter.skipped(taken);
            if missing > 0 {
                break;
            }
            let at = cutter.position();
            match cutter.next(&mut piece) {
                Ok(Cut::Frame(frame)) => {
                    assert_eq!(frame.at(), at);
                    assert_eq!(frame.bytes().len(), frame.header().stride());
                    assert!(
                        frame.payload().len() + frame.metadata_bytes().len() <= frame.bytes().len()
                    );
                    frames.push((at, frame.bytes().to_vec()));
                }
                Ok(Cut::Large { head, stride, .. }) => {
                    assert!(head.len() >= HEADER_BYTES && head.len() <= stride);
                    assert!(stride > large_bytes);
                    missing = stride - head.len();
                    frames.push((at, head.to_vec()));
                }
                Ok(Cut::Incomplete) => {
                    assert!(piece.is_empty());
                    assert!(cutter.stashed() <= MESSAGE_BYTES_MAX as usize + 8);
                    break;
                }
                Err(error) => {
                    assert_eq!(error.at(), at);
                    return (frames, Some(error));
                }
            }
        }
    }
    (frames, None)
}
