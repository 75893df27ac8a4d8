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

pub(crate) struct Receiver {
    buffer: BytesMut,
    cutter: FrameCutter,
    large: Option<LargeFrame>,
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
            Some(large) if large.missing == 0 => {
                self.cutter.skipped(large.bytes.len());
                Received::Large(large.bytes.freeze())
            }
            unfinished => {
                self.large = unfinished;
                Received::Part
            }
        }
    }

    /// Takes the next frame from the front of `input`, a part of the chunk that came last. `None`
    /// when all of it is used.
    pub(crate) fn cut<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Frame<'s>>, DecodeError> {
        match self.cutter.next(input)? {
            Cut::Frame(frame) => Ok(Some(frame)),
            Cut::Incomplete => Ok(None),
            Cut::Large { head, stride } => {
                let mut bytes = BytesMut::with_capacity(stride);
                bytes.extend_from_slice(head);
                let missing = stride - head.len();
                self.large = Some(LargeFrame { bytes, missing });
                Ok(None)
            }
        }
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
