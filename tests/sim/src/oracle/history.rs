//! What a subscription was sent, kept as far back as its client may come back for it.
//!
//! A client that comes back says how many messages it has had. The subscription is then where it was
//! behind that message: what was sent since is taken back, from the newest to the oldest, and is
//! what the daemon has to send again or to tell as lost.

use std::collections::VecDeque;

use super::stream::Cursor;

/// A message or a gap that was put on the wire, and how things stood before it.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Message {
        topic: usize,
        stride: u64,
        before: Before,
        /// Messages before it that had been told as lost without their topic, or were expired.
        passed: u64,
        is_retained: bool,
    },
    Gap {
        /// Topics, and how the stream stood in them before.
        places: Vec<(usize, Cursor)>,
        /// Bytes of what was lost, as far as they are known.
        bytes: u64,
        missed: u64,
        passed: u64,
        unattributed: u64,
        left_before: u64,
        is_of_link: bool,
        /// It tells messages that were in the queue, or would have been.
        is_dropped: bool,
    },
}

/// What was told behind a message, and is taken back.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct TakenBack {
    pub(super) messages: u64,
    /// Messages told as lost with a connection, and as dropped.
    pub(super) link_lost: u64,
    pub(super) missed: u64,
}

/// How a stream stood before a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    pub(super) cursor: Cursor,
    /// Messages told as lost without their topic, and not found out yet.
    pub(super) left: u64,
    /// Who published the message, and the newest publication had of that publisher in its topic.
    pub(super) publisher: u32,
    pub(super) newest: Option<u32>,
}

/// What was told, in order.
#[derive(Clone, Default, Debug)]
pub(super) struct History {
    told: VecDeque<Told>,
    /// Messages before those in `told`.
    forgotten: u64,
    /// All messages, those in `told` included.
    sent: u64,
    /// Bytes of the messages in `told`.
    bytes: u64,
}

impl History {
    /// Messages sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Messages that are kept, and their bytes.
    pub(super) fn kept(&self) -> (u64, u64) {
        (self.sent - self.forgotten, self.bytes)
    }

    pub(super) fn push(&mut self, told: Told) {
        if let Told::Message { stride, .. } = told {
            self.sent += 1;
            self.bytes += stride;
        }
        self.told.push_back(told);
    }

    /// Nobody will come back for the first `count` messages again.
    pub(super) fn forget(&mut self, count: u64) {
        while self.forgotten < count {
            match self.told.pop_front() {
                Some(Told::Message { stride, .. }) => {
                    self.forgotten += 1;
                    self.bytes -= stride;
                }
                Some(Told::Gap { .. }) => {}
                None => return,
            }
        }
    }

    /// Takes the newest back, if it is behind the first `count` messages: a gap that stands right
    /// behind them may not have been read.
    pub(super) fn take_back(&mut self, count: u64) -> Option<Told> {
        match self.told.back()? {
            Told::Message { .. } if self.sent <= count => return None,
            Told::Message { stride, .. } => {
                self.sent -= 1;
                self.bytes -= stride;
            }
            Told::Gap { .. } => {}
        }
        self.told.pop_back()
    }
}
