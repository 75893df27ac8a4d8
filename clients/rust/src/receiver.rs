//! Bytes from the socket, in pieces that whole frames can be lent from.
//!
//! Small frames are read into a shared chunk and lent from there without copying; one that straddles
//! two chunks is copied once. The rest of a large message is read straight into memory of its own.
//! Memory in use is bounded by one chunk, one partial frame, and what the application still holds.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use nexusd_wire::{Cut, DecodeError, Frame, FrameCutter};

use crate::limits;
use crate::socket::Socket;

/// What one read brought.
#[derive(Debug)]
pub(crate) enum Received {
    /// The next bytes of the stream, for [`Receiver::cut`].
    Chunk(Bytes),
    /// A whole large message frame with a checked header.
    Large(Bytes),
    /// Part of a large message, kept here.
    Part,
    /// The daemon has closed its side.
    End,
}

/// What was cut from a chunk.
#[derive(Debug)]
pub(crate) enum Piece<'a> {
    Frame(Frame<'a>),
    /// A whole large message frame with a checked header.
    Large(Bytes),
    /// The chunk is used up.
    Nothing,
}

pub(crate) struct Receiver {
    buffer: BytesMut,
    cutter: FrameCutter,
    large: Option<LargeFrame>,
    /// Bytes of the last large message that the cutter has not been told of.
    taken_beside: usize,
}

/// A large message that is being received.
struct LargeFrame {
    bytes: BytesMut,
    missing: usize,
}

impl Receiver {
    pub(crate) fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            cutter: FrameCutter::new(
                limits::MESSAGE_BYTES_MAX,
                limits::CONTROL_BYTES_MAX,
                limits::LARGE_FRAME_BYTES,
            ),
            large: None,
            taken_beside: 0,
        }
    }

    /// Reads once.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
    ) -> Poll<io::Result<Received>> {
        if let Some(large) = &mut self.large {
            let mut rest = (&mut large.bytes).limit(large.missing);
            let read = ready!(socket.poll_read(cx, &mut rest))?;
            large.missing -= read;
            return Poll::Ready(Ok(if read == 0 { Received::End } else { self.large_if_whole() }));
        }
        if self.buffer.capacity() < limits::READ_ROOM_BYTES_MIN {
            // Takes the same memory again if the application holds nothing of it any more.
            self.buffer.reserve(limits::READ_BYTES);
        }
        let read = ready!(socket.poll_read(cx, &mut self.buffer))?;
        Poll::Ready(Ok(match read {
            0 => Received::End,
            _ => Received::Chunk(self.buffer.split().freeze()),
        }))
    }

    fn large_if_whole(&mut self) -> Received {
        match self.large.take() {
            Some(large) if large.missing == 0 => Received::Large(large.bytes.freeze()),
            unfinished => {
                self.large = unfinished;
                Received::Part
            }
        }
    }

    /// Takes the next frame from the front of `input`, a part of the chunk that came last.
    #[inline]
    pub(crate) fn cut<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
    ) -> Result<Piece<'s>, DecodeError> {
        if self.taken_beside > 0 {
            self.cutter.skipped(std::mem::take(&mut self.taken_beside));
        }
        let (head, stride) = match self.cutter.next(input)? {
            Cut::Frame(frame) => return Ok(Piece::Frame(frame)),
            Cut::Incomplete => return Ok(Piece::Nothing),
            Cut::Large { head, stride, .. } => (head, stride),
        };
        let mut bytes = BytesMut::with_capacity(stride);
        bytes.extend_from_slice(head);
        // All of it is taken here or by the reads that follow.
        self.taken_beside = stride - bytes.len();
        // If the header itself was torn, more of the frame follows here.
        let (here, behind) = input.split_at((stride - bytes.len()).min(input.len()));
        bytes.extend_from_slice(here);
        *input = behind;
        let missing = stride - bytes.len();
        if missing == 0 {
            return Ok(Piece::Large(bytes.freeze()));
        }
        self.large = Some(LargeFrame { bytes, missing });
        Ok(Piece::Nothing)
    }
}

/// The bytes of a frame that was cut from `chunk` or put together beside it, to keep.
pub(crate) fn keep(chunk: &Bytes, frame: &[u8]) -> Bytes {
    if chunk.as_ptr_range().contains(&frame.as_ptr()) {
        chunk.slice_ref(frame)
    } else {
        Bytes::copy_from_slice(frame)
    }
}
