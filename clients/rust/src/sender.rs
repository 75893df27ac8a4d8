//! Bytes on their way to the socket: frames of the outbox, and control frames that may pass them.
//!
//! Control frames go first, but never into the middle of a frame. While publishing is held back,
//! a frame that was begun is finished and nothing else of the outbox is sent. Invariant: `boundary`
//! is the start of the first frame of `batch` that was not sent whole.

use std::io;
use std::task::{Context, Poll, ready};

use nexusd_wire::{FrameKind, Header};

use crate::socket::Socket;

#[derive(Debug, Default)]
pub(crate) struct Sender {
    control: Vec<u8>,
    control_sent: usize,
    batch: Vec<u8>,
    sent: usize,
    boundary: usize,
}

/// Whole frames of the outbox that a write has completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Settled {
    pub(crate) bytes: usize,
    pub(crate) messages: usize,
}

impl Sender {
    /// Where control frames are appended.
    pub(crate) fn control(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// Bytes of control frames not yet sent.
    pub(crate) fn control_backlog(&self) -> usize {
        self.control.len() - self.control_sent
    }

    /// The empty batch, to be filled from the outbox; `None` while frames of it are not sent.
    pub(crate) fn empty_batch(&mut self) -> Option<&mut Vec<u8>> {
        if self.boundary < self.batch.len() {
            return None;
        }
        self.batch.clear();
        self.sent = 0;
        self.boundary = 0;
        Some(&mut self.batch)
    }

    /// Whether nothing waits here.
    pub(crate) fn is_empty(&self) -> bool {
        self.control_backlog() == 0 && self.boundary == self.batch.len()
    }

    /// What may be written next; whether it is control.
    fn next(&self, is_held: bool) -> (&[u8], bool) {
        let control = &self.control[self.control_sent..];
        if control.is_empty() && !is_held {
            return (&self.batch[self.sent..], false);
        }
        // A control frame that was begun is finished before anything else.
        if self.sent > self.boundary && self.control_sent == 0 {
            let end = self.boundary + stride_at(&self.batch, self.boundary);
            return (&self.batch[self.sent..end.min(self.batch.len())], false);
        }
        (control, true)
    }

    /// Whether there is something to write now.
    pub(crate) fn has_work(&self, is_held: bool) -> bool {
        !self.next(is_held).0.is_empty()
    }

    /// Writes once. Pending also when there is nothing to write.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
        is_held: bool,
    ) -> Poll<io::Result<Settled>> {
        let (bytes, is_control) = self.next(is_held);
        if bytes.is_empty() {
            return Poll::Pending;
        }
        let written = ready!(socket.poll_write(cx, bytes))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        if is_control {
            self.control_sent += written;
            if self.control_sent == self.control.len() {
                self.control.clear();
                self.control_sent = 0;
            }
            return Poll::Ready(Ok(Settled::default()));
        }
        self.sent += written;
        Poll::Ready(Ok(self.settle()))
    }

    /// Moves the boundary over all frames that are sent whole.
    fn settle(&mut self) -> Settled {
        let mut settled = Settled::default();
        while let Some(header) = Header::peek(&self.batch[self.boundary..]) {
            let stride = header.stride();
            if self.boundary + stride > self.sent {
                break;
            }
            settled.messages += usize::from(header.kind() == Some(FrameKind::Message));
            settled.bytes += stride;
            self.boundary += stride;
        }
        settled
    }

    /// Frames of the batch that were not sent whole.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.batch[self.boundary..]
    }

    /// Gives memory back that a burst has left behind.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() {
            self.control.shrink_to(crate::limits::IDLE_BUFFER_BYTES);
            self.batch.clear();
            self.sent = 0;
            self.boundary = 0;
            self.batch.shrink_to(crate::limits::IDLE_BUFFER_BYTES);
        }
    }
}

fn stride_at(batch: &[u8], at: usize) -> usize {
    Header::peek(&batch[at..]).map_or(batch.len() - at, Header::stride)
}

#[cfg(test)]
mod tests {
    use nexusd_wire::FrameEncoder;

    use super::*;

    /// A sender whose batch holds `messages` messages of 8 bytes payload.
    fn sender_with(messages: usize) -> Sender {
        let mut sender = Sender::default();
        let header = Header::new(FrameKind::Message, 0, 0);
        for _ in 0..messages {
            FrameEncoder::message(&mut sender.batch, &header, &[], b"payload!");
        }
        sender
    }

    #[test]
    fn control_frames_pass_at_the_next_boundary_and_not_before() {
        let mut sender = sender_with(3);
        sender.sent = 60;
        assert_eq!(sender.settle(), Settled { bytes: 56, messages: 1 });
        FrameEncoder::ping_or_pong(sender.control(), FrameKind::Pong, 7);
        assert_eq!(sender.next(false), (&sender.batch[60..112], false));
        sender.sent = 112;
        sender.settle();
        assert!(sender.next(false).1, "control comes first at a boundary");
        sender.control_sent = 48;
        assert_eq!(sender.next(false), (&sender.batch[112..], false));
    }

    #[test]
    fn held_back_a_begun_message_is_finished_and_no_other_sent() {
        let mut sender = sender_with(2);
        sender.sent = 50;
        assert_eq!(sender.next(true).0, &sender.batch[50..56]);
        sender.sent = 56;
        sender.settle();
        assert!(!sender.has_work(true));
        assert!(sender.has_work(false));
        assert_eq!(sender.unsent().len(), 56);
    }
}
