//! What a release to come adds to the protocol, as the rules of versions allow: the feature
//! `protocol-next`, for the test that nodes of two releases live beside each other. No release has it.
//!
//! A later minor has a kind of frame more, messages have a flag more that who does not know it ignores, and
//! the table of every body and beacon has a field more. What a daemon does with them stands in `core`.

use crate::header::{FRAME_ALIGNMENT, FrameKind, MessageFlags, aligned};

/// A kind of frame that the next minor has, a header alone: the last number there is for links.
pub const NEXT_KIND: FrameKind = FrameKind(127);
/// A flag of messages that may be ignored.
pub const NEXT_FLAG: MessageFlags = MessageFlags(0x08);
/// Where the further field of every table is: beyond the fields of any.
const FIELD: usize = 20;
/// What it holds.
const VALUE: u32 = 0x4e45_5854;

/// A finished body as schemas with a further field make it.
///
/// The table's fields stay where they are in relation to what they point to, which lies behind them all.
/// The table begins 8 bytes earlier instead, with the further field in front of the others, and has a
/// vtable of its own.
pub(crate) fn grown(body: &[u8]) -> Vec<u8> {
    let at = u32_at(body, 0);
    let vtable = at.wrapping_sub(u32_at(body, at));
    let known = usize::from(u16_at(body, vtable)) - 4;
    let table_bytes = u16_at(body, vtable + 2) + 8;

    let mut fields = [0; 2 * (FIELD + 1)];
    for (new, old) in fields.chunks_exact_mut(2).zip(body[vtable + 4..][..known].chunks_exact(2)) {
        let offset = u16_at(old, 0);
        new.copy_from_slice(&(if offset == 0 { 0 } else { offset + 8 }).to_le_bytes());
    }
    fields[2 * FIELD..].copy_from_slice(&4u16.to_le_bytes());

    let vtable_bytes = 4 + fields.len();
    // Alignment is kept: the old table's bytes move by a multiple of it.
    let new_at = 4 + aligned(vtable_bytes) + (at + FRAME_ALIGNMENT - 4) % FRAME_ALIGNMENT;
    let mut grown = (new_at as u32).to_le_bytes().to_vec();
    grown.extend((vtable_bytes as u16).to_le_bytes());
    grown.extend(table_bytes.to_le_bytes());
    grown.extend(fields);
    grown.resize(new_at, 0);
    grown.extend((new_at as u32 - 4).to_le_bytes());
    grown.extend(VALUE.to_le_bytes());
    grown.extend(&body[at..]);
    debug_assert_eq!((grown.len() - body.len()) % FRAME_ALIGNMENT, 0, "alignment is kept");
    grown
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    let four = bytes[at..].first_chunk().expect("a finished body");
    u32::from_le_bytes(*four) as usize
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(*bytes[at..].first_chunk().expect("a finished body"))
}
