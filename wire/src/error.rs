//! What can be wrong with received bytes.

use crate::header::HEADER_BYTES;

/// Why bytes are not a frame: what is wrong and where. The connection that sent them cannot be
/// trusted to be in step any more; the receiver answers with an Error frame and closes it.
///
/// `at` is the position of the frame's first byte in the stream, from 0.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// `total` is smaller than a header.
    #[error(
        "frame at byte {at}: total length {total} is shorter than the {HEADER_BYTES}-byte header"
    )]
    TooShort {
        /// Position of the frame in the stream.
        at: u64,
        /// The length the header claims.
        total: u32,
    },
    /// `total` is larger than the receiver accepts.
    #[error("frame at byte {at}: total length {total} exceeds the limit of {limit} bytes")]
    TooLong {
        /// Position of the frame in the stream.
        at: u64,
        /// The length the header claims.
        total: u32,
        /// The most the receiver accepts for this kind of frame.
        limit: u32,
    },
    /// The metadata would reach beyond the frame.
    #[error(
        "frame at byte {at}: {metadata_len} bytes of metadata do not fit a frame of {total} bytes"
    )]
    MetadataOverrun {
        /// Position of the frame in the stream.
        at: u64,
        /// Length of the metadata the header claims.
        metadata_len: u16,
        /// Length of the frame the header claims.
        total: u32,
    },
    /// A kind this version of the protocol does not have.
    #[error("frame at byte {at}: unknown frame kind {kind}")]
    UnknownKind {
        /// Position of the frame in the stream.
        at: u64,
        /// The kind's number.
        kind: u8,
    },
    /// Mandatory flags (the high four bits) that the receiver does not know, or any flag on a
    /// control frame.
    #[error("frame at byte {at}: unknown mandatory flags {flags:#04x}")]
    UnknownFlags {
        /// Position of the frame in the stream.
        at: u64,
        /// The bits that are not known.
        flags: u8,
    },
    /// A control body or metadata table that does not verify.
    #[error("frame at byte {at}: {what} does not verify: {cause}")]
    Body {
        /// Position of the frame in the stream; 0 where the bytes stand alone.
        at: u64,
        /// Which table.
        what: &'static str,
        /// What the FlatBuffers verifier found.
        cause: String,
    },
}

impl DecodeError {
    /// Position in the stream of the frame at fault.
    pub fn at(&self) -> u64 {
        match self {
            Self::TooShort { at, .. }
            | Self::TooLong { at, .. }
            | Self::MetadataOverrun { at, .. }
            | Self::UnknownKind { at, .. }
            | Self::UnknownFlags { at, .. }
            | Self::Body { at, .. } => *at,
        }
    }
}
