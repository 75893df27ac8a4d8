//! Cutting whole frames out of a byte stream, without copying those that arrive in one piece.

use crate::error::DecodeError;
use crate::header::{FrameKind, HEADER_BYTES, Header};
use crate::metadata::Metadata;
use crate::verify::verify;

/// A whole frame with a checked header, borrowed from the bytes it arrived in.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    header: &'a Header,
    bytes: &'a [u8],
    at: u64,
}

impl<'a> Frame<'a> {
    /// Views `bytes` as one frame again that a cutter has lent: its stride, padding included.
    pub fn new(bytes: &'a [u8], at: u64) -> Option<Self> {
        Header::peek(bytes).map(|header| Self { header, bytes, at })
    }

    /// The header.
    #[inline]
    pub fn header(&self) -> &'a Header {
        self.header
    }

    /// What the frame is. Checked frames have a known kind.
    #[inline]
    pub fn kind(&self) -> FrameKind {
        FrameKind(self.bytes[4])
    }

    /// The whole frame: header, metadata, payload and padding.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Position of the frame's first byte in the stream.
    #[inline]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The payload of a message, the body of a control frame.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(self.header.payload_start()..self.header.total()).unwrap_or_default()
    }

    /// The raw metadata table; empty if there is none.
    #[inline]
    pub fn metadata_bytes(&self) -> &'a [u8] {
        self.bytes.get(HEADER_BYTES..HEADER_BYTES + self.header.metadata_len()).unwrap_or_default()
    }

    /// Verifies and views the metadata. `Ok(None)` if there is none.
    pub fn metadata(&self) -> Result<Option<Metadata<'a>>, DecodeError> {
        match self.metadata_bytes() {
            [] => Ok(None),
            bytes => Metadata::decode_at(bytes, self.at).map(Some),
        }
    }

    /// Verifies and views the body of a control frame, one of the tables in [`crate::control`].
    pub fn body<T>(&self) -> Result<T::Inner, DecodeError>
    where
        T: flatbuffers::Follow<'a> + flatbuffers::Verifiable + 'a,
    {
        let what = self.kind().variant_name().unwrap_or("body");
        verify::<T>(self.payload(), self.at, what)
    }
}

/// What [`FrameCutter::next`] found.
#[derive(Debug)]
pub enum Cut<'a> {
    /// A whole frame.
    Frame(Frame<'a>),
    /// A message frame longer than the cutter's large-frame bound, or its start. The cutter has
    /// taken `head` (at least the header) from the input and forgets the frame: its owner must take
    /// the `stride - head.len()` bytes that follow, wherever they arrive, and say so with
    /// [`FrameCutter::skipped`].
    Large {
        /// The frame's first bytes.
        head: &'a [u8],
        /// Bytes of the whole frame, padding included.
        stride: usize,
        /// Position of the frame's first byte in the stream.
        at: u64,
    },
    /// The input is used up; what is left of it waits for the rest of its frame.
    Incomplete,
}

/// Cuts a byte stream into frames, chunk by chunk.
///
/// A frame that lies whole in a chunk is lent from there. One that straddles chunks is put together
/// in a stash first: at most one frame, never more than the bounds given to [`FrameCutter::new`].
#[derive(Debug)]
pub struct FrameCutter {
    /// The bytes so far of a frame that has not arrived whole.
    stash: Vec<u8>,
    /// The stash holds a frame lent out by the last call; it is dropped by the next.
    stash_is_lent: bool,
    /// Stream position behind everything cut so far, i.e. of the first byte of `stash` or input.
    position: u64,
    message_bytes_max: u32,
    control_bytes_max: u32,
    large_bytes: usize,
}

impl FrameCutter {
    /// A cutter for a stream whose message frames have at most `message_bytes_max` bytes in total
    /// and all others at most `control_bytes_max`. Message frames with a stride above `large_bytes`
    /// are not stashed but reported as [`Cut::Large`]; `usize::MAX` stashes all.
    pub fn new(message_bytes_max: u32, control_bytes_max: u32, large_bytes: usize) -> Self {
        Self {
            stash: Vec::new(),
            stash_is_lent: false,
            position: 0,
            message_bytes_max,
            control_bytes_max,
            large_bytes: large_bytes.max(HEADER_BYTES),
        }
    }

    /// Takes the next frame from the front of `input`, advancing it. After an error the stream is
    /// out of step for good.
    #[inline(always)]
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Cut<'s>, DecodeError> {
        if self.stash_is_lent {
            self.stash.clear();
            self.stash_is_lent = false;
        }
        if !self.stash.is_empty() {
            return self.next_from_stash(input);
        }
        let bytes: &'i [u8] = input;
        if let Some(header) = Header::peek(bytes) {
            header.check(self.position, self.message_bytes_max, self.control_bytes_max)?;
            let stride = header.stride();
            if stride > self.large_bytes && header.kind() == Some(FrameKind::Message) {
                let (head, rest) = bytes.split_at(stride.min(bytes.len()));
                *input = rest;
                let at = self.position;
                self.position += head.len() as u64;
                return Ok(Cut::Large { head, stride, at });
            }
            if stride <= bytes.len() {
                let (frame, rest) = bytes.split_at(stride);
                *input = rest;
                let at = self.position;
                self.position += stride as u64;
                return Ok(Cut::Frame(Frame { header, bytes: frame, at }));
            }
        }
        self.stash.extend_from_slice(bytes);
        *input = &[];
        Ok(Cut::Incomplete)
    }

    fn next_from_stash<'s>(&'s mut self, input: &mut &[u8]) -> Result<Cut<'s>, DecodeError> {
        if !self.fill_stash(HEADER_BYTES, input) {
            return Ok(Cut::Incomplete);
        }
        let Some(header) = Header::peek(&self.stash) else {
            return Ok(Cut::Incomplete);
        };
        header.check(self.position, self.message_bytes_max, self.control_bytes_max)?;
        let stride = header.stride();
        if stride > self.large_bytes && header.kind() == Some(FrameKind::Message) {
            let at = self.position;
            self.position += self.stash.len() as u64;
            self.stash_is_lent = true;
            return Ok(Cut::Large { head: &self.stash, stride, at });
        }
        if !self.fill_stash(stride, input) {
            return Ok(Cut::Incomplete);
        }
        let at = self.position;
        self.position += stride as u64;
        self.stash_is_lent = true;
        Ok(Frame::new(&self.stash, at).map_or(Cut::Incomplete, Cut::Frame))
    }

    /// Moves bytes from `input` until the stash holds `wanted`; whether it does.
    fn fill_stash(&mut self, wanted: usize, input: &mut &[u8]) -> bool {
        let missing = wanted.saturating_sub(self.stash.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.stash.extend_from_slice(taken);
        *input = rest;
        self.stash.len() >= wanted
    }

    /// The frame lent last was not taken: its owner feeds its `stride` bytes again, before what
    /// follows it.
    pub fn give_back(&mut self, stride: usize) {
        self.position -= stride as u64;
    }

    /// Tells the cutter that `bytes` of the stream were taken by somebody else: the rest of a frame
    /// reported as [`Cut::Large`].
    pub fn skipped(&mut self, bytes: usize) {
        self.position += bytes as u64;
    }

    /// Bytes of a partial frame held back.
    pub fn stashed(&self) -> usize {
        if self.stash_is_lent { 0 } else { self.stash.len() }
    }

    /// The partial frame held back.
    pub fn held_back(&self) -> &[u8] {
        if self.stash_is_lent { &[] } else { &self.stash }
    }

    /// What of `input` lies behind the frame whose beginning is held back, if there is one.
    pub fn behind_stash<'i>(&self, input: &'i [u8]) -> &'i [u8] {
        let held = self.stashed();
        if held == 0 {
            return input;
        }
        let mut head = [0; HEADER_BYTES];
        let (known, unknown) = head.split_at_mut(held.min(HEADER_BYTES));
        known.copy_from_slice(&self.stash[..known.len()]);
        let Some(rest) = input.get(..unknown.len()) else { return &[] };
        unknown.copy_from_slice(rest);
        let stride = Header::peek(&head).map_or(0, Header::stride);
        input.get(stride.saturating_sub(held)..).unwrap_or_default()
    }

    /// Memory that is kept for frames that do not come whole, in bytes.
    pub fn stash_capacity(&self) -> usize {
        self.stash.capacity()
    }

    /// Stream position of the next frame.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Gives memory of the stash back; for connections that fall idle.
    pub fn shrink(&mut self) {
        if self.stash_is_lent {
            self.stash.clear();
            self.stash_is_lent = false;
        }
        self.stash.shrink_to_fit();
    }
}
