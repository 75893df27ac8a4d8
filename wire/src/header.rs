//! The fixed 48-byte header that opens every frame.
//!
//! [`Header`] is read in place: all fields are little endian and unaligned, so any 48 bytes can be
//! viewed as one. Its layout is proven against `schema/frame.fbs` when this file is compiled.
//! Invariant: a `Header` obtained from [`Header::check`] describes a frame whose metadata and
//! payload lie inside it; nothing validates that again.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::DecodeError;
pub use crate::generated::frame_generated::nexusd::frame::FrameKind;
use crate::ids::{Sequence, TopicId};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 48;
/// Frames, metadata and payloads start at multiples of this.
pub const FRAME_ALIGNMENT: usize = 8;
/// Protocol version: sides with different majors do not talk.
pub const PROTOCOL_MAJOR: u8 = 1;
/// Protocol version: the lower of both sides' minors is spoken.
pub const PROTOCOL_MINOR: u8 = if cfg!(feature = "protocol-next") { 1 } else { 0 };

/// Rounds a length up to the frame alignment.
#[inline]
pub const fn aligned(bytes: usize) -> usize {
    (bytes + FRAME_ALIGNMENT - 1) & !(FRAME_ALIGNMENT - 1)
}

/// The header of a frame, viewed in place. Field meanings: `schema/frame.fbs`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Header {
    total: U32,
    kind: u8,
    flags: u8,
    metadata_len: U16,
    topic: U32,
    origin: U32,
    sequence: U64,
    origin_sequence: U64,
    timestamp_us: U64,
    ttl_ms: U32,
    key_hash: U32,
}

/// Flags of message frames. The low nibble may be ignored by a receiver that does not know a bit;
/// the high nibble is mandatory: an unknown bit there is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MessageFlags(pub u8);

impl MessageFlags {
    /// `key_hash` holds the hash of the message's key.
    pub const KEYED: Self = Self(0x01);
    /// The publisher wants a PublishAck for this message.
    pub const ACK: Self = Self(0x10);
    /// The message becomes its topic's retained value.
    pub const RETAIN: Self = Self(0x20);
    /// All mandatory bits of this protocol version.
    pub const KNOWN_MANDATORY: Self = Self(Self::ACK.0 | Self::RETAIN.0);

    /// Whether all bits of `other` are set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any bit of `other` is set.
    #[inline]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The bits of both.
    #[inline]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits of `self` that are not in `other`.
    #[inline]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl Header {
    /// A header for a frame of `kind` whose body or payload has `payload_len` bytes behind
    /// `metadata_len` bytes of metadata; all other fields are 0.
    #[inline]
    pub fn new(kind: FrameKind, metadata_len: u16, payload_len: usize) -> Self {
        let total = HEADER_BYTES + aligned(metadata_len as usize) + payload_len;
        Self {
            total: U32::new(u32::try_from(total).unwrap_or(u32::MAX)),
            kind: kind.0,
            metadata_len: U16::new(metadata_len),
            ..Self::new_zeroed()
        }
    }

    /// The header at the start of `bytes`, unchecked; `None` if fewer than 48 are there.
    #[inline]
    pub fn peek(bytes: &[u8]) -> Option<&Self> {
        Self::ref_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    /// The same, to be changed in place.
    #[inline]
    pub fn peek_mut(bytes: &mut [u8]) -> Option<&mut Self> {
        Self::mut_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    /// Checks everything that can be wrong with a header by itself: the one check of the message
    /// path. `at` is the frame's stream position, for the error; the limits are totals in bytes.
    #[inline]
    pub fn check(
        &self,
        at: u64,
        message_bytes_max: u32,
        control_bytes_max: u32,
    ) -> Result<(), DecodeError> {
        let total = self.total.get();
        let start = HEADER_BYTES + aligned(self.metadata_len.get() as usize);
        let is_message = self.kind == FrameKind::Message.0;
        let limit = if is_message { message_bytes_max } else { control_bytes_max };
        if is_message
            && (total as usize) >= start
            && total <= limit
            && self.flags & 0xF0 & !MessageFlags::KNOWN_MANDATORY.0 == 0
        {
            return Ok(());
        }
        self.check_slowly(at, start, limit, is_message)
    }

    /// What [`Self::check`] does for control frames, and how it words what is wrong.
    #[cold]
    fn check_slowly(
        &self,
        at: u64,
        start: usize,
        limit: u32,
        is_message: bool,
    ) -> Result<(), DecodeError> {
        let total = self.total.get();
        if (total as usize) < HEADER_BYTES {
            return Err(DecodeError::TooShort { at, total });
        }
        if self.kind().is_none() {
            return Err(DecodeError::UnknownKind { at, kind: self.kind });
        }
        if total > limit {
            return Err(DecodeError::TooLong { at, total, limit });
        }
        if (total as usize) < start {
            return Err(DecodeError::MetadataOverrun {
                at,
                metadata_len: self.metadata_len.get(),
                total,
            });
        }
        let carries_message =
            is_message || matches!(self.kind(), Some(FrameKind::Request | FrameKind::Reply));
        let unknown = if carries_message {
            self.flags & 0xF0 & !MessageFlags::KNOWN_MANDATORY.0
        } else {
            self.flags
        };
        if unknown != 0 {
            return Err(DecodeError::UnknownFlags { at, flags: unknown });
        }
        Ok(())
    }

    /// The frame's kind, or `None` for a number this version does not know.
    #[inline]
    pub fn kind(&self) -> Option<FrameKind> {
        let kind = FrameKind(self.kind);
        #[cfg(feature = "protocol-next")]
        if kind == crate::next::NEXT_KIND {
            return Some(kind);
        }
        kind.variant_name().map(|_| kind)
    }

    /// The header as it travels.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        IntoBytes::as_bytes(self)
    }

    /// Exact bytes of the frame.
    #[inline]
    pub fn total(&self) -> usize {
        self.total.get() as usize
    }

    /// Bytes from this frame's start to the next one's.
    #[inline]
    pub fn stride(&self) -> usize {
        aligned(self.total())
    }

    /// Where the payload or body starts, in bytes from the frame's start.
    #[inline]
    pub fn payload_start(&self) -> usize {
        HEADER_BYTES + aligned(self.metadata_len())
    }

    /// Exact bytes of metadata.
    #[inline]
    pub fn metadata_len(&self) -> usize {
        self.metadata_len.get() as usize
    }

    /// Bytes of payload or body. Meaningful only on a checked header.
    #[inline]
    pub fn payload_len(&self) -> usize {
        self.total().saturating_sub(self.payload_start())
    }

    /// The flags of a message frame.
    #[inline]
    pub fn flags(&self) -> MessageFlags {
        MessageFlags(self.flags)
    }

    /// The topic id.
    #[inline]
    pub fn topic(&self) -> TopicId {
        TopicId(self.topic.get())
    }

    /// Handle of the origin node; 0 is the daemon at the other end of the connection.
    #[inline]
    pub fn origin(&self) -> u32 {
        self.origin.get()
    }

    /// The message's number: the publisher's own on its way in, the daemon's on its way out.
    #[inline]
    pub fn sequence(&self) -> Sequence {
        Sequence(self.sequence.get())
    }

    /// The message's number at its origin node.
    #[inline]
    pub fn origin_sequence(&self) -> Sequence {
        Sequence(self.origin_sequence.get())
    }

    /// Wall clock at which the origin accepted the message, in microseconds since 1970.
    #[inline]
    pub fn timestamp_us(&self) -> u64 {
        self.timestamp_us.get()
    }

    /// Time to live in milliseconds; 0 is none.
    #[inline]
    pub fn ttl_ms(&self) -> u32 {
        self.ttl_ms.get()
    }

    /// Hash of the message's key.
    #[inline]
    pub fn key_hash(&self) -> u32 {
        self.key_hash.get()
    }

    /// The same header with the kind and the lengths of `sized`.
    #[inline]
    #[must_use]
    pub fn with_lengths_of(mut self, sized: &Self) -> Self {
        self.total = sized.total;
        self.kind = sized.kind;
        self.metadata_len = sized.metadata_len;
        self
    }

    /// The same header with these flags.
    #[inline]
    #[must_use]
    pub fn with_flags(mut self, flags: MessageFlags) -> Self {
        self.flags = flags.0;
        self
    }

    /// The same header for this topic.
    #[inline]
    #[must_use]
    pub fn with_topic(mut self, topic: TopicId) -> Self {
        self.topic = U32::new(topic.0);
        self
    }

    /// The same header from this origin handle.
    #[inline]
    #[must_use]
    pub fn with_origin(mut self, origin: u32) -> Self {
        self.origin = U32::new(origin);
        self
    }

    /// The same header with this number.
    #[inline]
    #[must_use]
    pub fn with_sequence(mut self, sequence: Sequence) -> Self {
        self.sequence = U64::new(sequence.0);
        self
    }

    /// The same header with this number at its origin.
    #[inline]
    #[must_use]
    pub fn with_origin_sequence(mut self, sequence: Sequence) -> Self {
        self.origin_sequence = U64::new(sequence.0);
        self
    }

    /// The same header with this timestamp.
    #[inline]
    #[must_use]
    pub fn with_timestamp_us(mut self, timestamp_us: u64) -> Self {
        self.timestamp_us = U64::new(timestamp_us);
        self
    }

    /// The same header with this time to live.
    #[inline]
    #[must_use]
    pub fn with_ttl_ms(mut self, ttl_ms: u32) -> Self {
        self.ttl_ms = U32::new(ttl_ms);
        self
    }

    /// The same header with this key hash.
    #[inline]
    #[must_use]
    pub fn with_key_hash(mut self, key_hash: u32) -> Self {
        self.key_hash = U32::new(key_hash);
        self
    }
}

// The layout is the schema's: sizes and every offset, read out of the schema's text.
const _: () = {
    const SCHEMA: &[u8] = include_bytes!("../schema/frame.fbs");
    assert!(size_of::<Header>() == HEADER_BYTES);
    assert!(size_of::<crate::generated::frame_generated::nexusd::frame::Header>() == HEADER_BYTES);
    macro_rules! same_offset {
        ($($field:ident)*) => {
            $(assert!(std::mem::offset_of!(Header, $field) == schema_offset(SCHEMA, stringify!($field).as_bytes()));)*
        };
    }
    same_offset!(total kind flags metadata_len topic origin sequence origin_sequence timestamp_us ttl_ms key_hash);
};

/// Offset of `field` in the schema's `struct Header`, by adding up the sizes of the fields before
/// it. The struct is laid out without gaps, which the size assertion above proves.
const fn schema_offset(schema: &[u8], field: &[u8]) -> usize {
    let mut at = find(schema, b"struct Header {", 0) + b"struct Header {".len();
    let mut offset = 0;
    loop {
        while schema[at] == b' ' || schema[at] == b'\n' {
            at += 1;
        }
        let name_end = find(schema, b": ", at);
        let type_end = find(schema, b";", name_end);
        if equal(schema, at, name_end, field) {
            return offset;
        }
        offset += match schema.split_at(type_end).0.split_at(name_end + 2).1 {
            b"ubyte" => 1,
            b"ushort" => 2,
            b"uint" => 4,
            b"ulong" => 8,
            _ => panic!("struct Header holds a type this check does not know"),
        };
        at = find(schema, b"\n", type_end);
    }
}

const fn find(text: &[u8], wanted: &[u8], from: usize) -> usize {
    let mut at = from;
    while !equal(text, at, at + wanted.len(), wanted) {
        at += 1;
    }
    at
}

const fn equal(text: &[u8], start: usize, end: usize, wanted: &[u8]) -> bool {
    if end - start != wanted.len() {
        return false;
    }
    let mut i = 0;
    while i < wanted.len() {
        if text[start + i] != wanted[i] {
            return false;
        }
        i += 1;
    }
    true
}
