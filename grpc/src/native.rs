//! A connection to the daemon beside us, frame by frame.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;

use bytes::{BufMut, Bytes, BytesMut};
use nexusd_wire::control::{self, Role};
use nexusd_wire::{
    Cut, Frame, FrameCutter, FrameEncoder, FrameKind, NodeId, PROTOCOL_MINOR, SubscriptionId,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tonic::Status;

use crate::errors::{cut_off, reported, unreadable};
use crate::limits::{CONTROL_BYTES_MAX, LONG_BYTES, MESSAGE_BYTES_MAX, READ_BYTES};

pub(crate) struct Native {
    /// The daemon.
    node: NodeId,
    stream: UnixStream,
    cutter: FrameCutter,
    buffer: BytesMut,
    /// What was read and not yet looked at.
    unread: Bytes,
    /// A long message that has not come whole: its bytes so far, and how many it will have.
    long: Option<(BytesMut, usize)>,
    encoder: FrameEncoder,
    /// What waits to be written.
    unwritten: Vec<u8>,
}

impl Native {
    /// Says Hello and waits for the welcome. `resume` is a subscription that is gone on with: it leads the
    /// connection to where the daemon keeps it.
    pub(crate) async fn open(
        stream: StdUnixStream,
        name: &str,
        software: &str,
        resume: Option<SubscriptionId>,
    ) -> Result<Self, Status> {
        let mut native = Self {
            node: NodeId::default(),
            stream: UnixStream::from_std(stream).map_err(|error| cut_off(&error))?,
            cutter: FrameCutter::new(MESSAGE_BYTES_MAX, CONTROL_BYTES_MAX, LONG_BYTES),
            buffer: BytesMut::new(),
            unread: Bytes::new(),
            long: None,
            encoder: FrameEncoder::new(),
            unwritten: Vec::new(),
        };
        native.say(|encoder, out| {
            encoder.hello_again(out, PROTOCOL_MINOR, Role::Client, name, software, resume);
        });
        let welcome = native.hear().await?;
        let welcome = frame_of(&welcome)?;
        if welcome.kind() != FrameKind::Welcome {
            return Err(Status::internal("the daemon gave no welcome"));
        }
        let body = welcome.body::<control::Welcome<'_>>().map_err(|error| unreadable(&error))?;
        native.node = body.node().into();
        Ok(native)
    }

    /// The daemon's id.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Puts a frame behind what waits to be written.
    pub(crate) fn say(&mut self, write: impl FnOnce(&mut FrameEncoder, &mut Vec<u8>)) {
        write(&mut self.encoder, &mut self.unwritten);
    }

    /// Whether something waits to be written.
    pub(crate) fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Bytes of a long message that goes on with the next read. Who cannot hold it does not read.
    pub(crate) fn announced(&self) -> usize {
        self.long.as_ref().map_or(0, |(_, length)| *length)
    }

    /// Writes what the socket takes and, if more may be read, reads, once either can be done. Dropping the future
    /// loses nothing.
    pub(crate) async fn turn(&mut self, may_read: bool) -> Result<(), Status> {
        debug_assert!(self.unread.is_empty() || !may_read, "what was read is looked at first");
        let interest = match (may_read, self.has_unwritten()) {
            (true, false) => Interest::READABLE,
            (false, _) => Interest::WRITABLE,
            (true, true) => Interest::READABLE | Interest::WRITABLE,
        };
        let ready = self.stream.ready(interest).await.map_err(|error| cut_off(&error))?;
        if ready.is_writable() && self.has_unwritten() {
            match self.stream.try_write(&self.unwritten) {
                Ok(written) => drop(self.unwritten.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // It may have said why before it closed.
                Err(_) if may_read => self.unwritten.clear(),
                Err(error) => return Err(cut_off(&error)),
            }
        }
        if ready.is_readable() && may_read {
            match self.read() {
                Ok(0) => return Err(Status::unavailable("the daemon closed the connection")),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(cut_off(&error)),
            }
        }
        Ok(())
    }

    /// Reads once, of a long message no more than its rest.
    fn read(&mut self) -> io::Result<usize> {
        let Some((bytes, length)) = &mut self.long else {
            self.buffer.reserve(READ_BYTES);
            let count = self.stream.try_read_buf(&mut self.buffer)?;
            self.unread = self.buffer.split().freeze();
            return Ok(count);
        };
        let missing = *length - bytes.len();
        bytes.reserve(missing);
        let count = self.stream.try_read_buf(&mut bytes.limit(missing))?;
        self.cutter.skipped(count);
        Ok(count)
    }

    /// The next frame of what was read; `None`: more has to be read. It shares the memory it came in.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        if self.long.is_none()
            && let Some(frame) = self.cut()?
        {
            return Ok(Some(frame));
        }
        let whole = self.long.take_if(|(bytes, length)| bytes.len() == *length);
        Ok(whole.map(|(bytes, _)| bytes.freeze()))
    }

    fn cut(&mut self) -> Result<Option<Bytes>, Status> {
        let mut input: &[u8] = &self.unread;
        let cut = self.cutter.next(&mut input).map_err(|error| unreadable(&error))?;
        let frame = match cut {
            Cut::Frame(frame) if is_within(frame.bytes(), &self.unread) => {
                Some(self.unread.slice_ref(frame.bytes()))
            }
            Cut::Frame(frame) => Some(Bytes::copy_from_slice(frame.bytes())),
            Cut::Large { head, stride, .. } => {
                self.long = Some((BytesMut::from(head), stride));
                None
            }
            Cut::Incomplete => None,
        };
        self.unread = match input {
            [] => Bytes::new(),
            rest => self.unread.slice_ref(rest),
        };
        if let Some((bytes, length)) = &mut self.long {
            let here = self.unread.split_to(self.unread.len().min(*length - bytes.len()));
            bytes.extend_from_slice(&here);
            self.cutter.skipped(here.len());
        }
        Ok(frame)
    }

    /// The next frame, after writing what waits; an Error ends that.
    pub(crate) async fn hear(&mut self) -> Result<Bytes, Status> {
        loop {
            let Some(frame) = self.next()? else {
                self.turn(true).await?;
                continue;
            };
            let view = frame_of(&frame)?;
            if view.kind() == FrameKind::Error {
                let body = view.body::<control::Error<'_>>();
                return Err(reported(&body.map_err(|error| unreadable(&error))?));
            }
            return Ok(frame);
        }
    }
}

/// A view of a frame that was cut.
pub(crate) fn frame_of(bytes: &Bytes) -> Result<Frame<'_>, Status> {
    Frame::new(bytes, 0).ok_or_else(|| Status::internal("a frame without a header"))
}

/// Whether `part` lies in the memory of `whole`: it was not put together from several reads.
fn is_within(part: &[u8], whole: &[u8]) -> bool {
    whole.as_ptr_range().contains(&part.as_ptr())
}
