//! How far a subscription's stream has come: the count of messages that are whole on the wire, and
//! those of them that the client has not acknowledged.
//!
//! A subscription that asked for it keeps what was sent until its client says that it has had it, so
//! that a Resume goes on without a loss. Any other one only counts. What is kept here counts against
//! the queue's limits and is the first to go.
//!
//! Invariants: `messages` and `bytes` are the sums over the extents; every extent holds one reference
//! to its segment; the extents end with message number `sent`.

use std::collections::VecDeque;

use crate::log::{Extent, Log, SegmentId};
use crate::plant::{Plant, is_planted};

#[derive(Debug)]
pub(crate) struct CountedStream {
    keeps: bool,
    /// Messages sent since the subscription began.
    sent: u64,
    unacknowledged: VecDeque<Extent>,
    messages: u64,
    bytes: u64,
}

impl CountedStream {
    /// A stream that keeps what is not acknowledged, or only counts.
    pub(crate) fn new(keeps: bool) -> Self {
        Self { keeps, sent: 0, unacknowledged: VecDeque::new(), messages: 0, bytes: 0 }
    }

    /// Messages sent since the subscription began.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Messages that are kept.
    #[inline]
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// Bytes that are kept.
    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The extents that are kept.
    pub(crate) fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.unacknowledged.iter()
    }

    /// These messages are whole on the wire. `is_last`: they were the last of their extent in the queue,
    /// whose reference becomes the stream's.
    #[inline]
    pub(crate) fn note_sent(&mut self, sent: Extent, is_last: bool, log: &mut Log) {
        self.sent += u64::from(sent.messages);
        if self.keeps && sent.messages > 0 {
            self.keep(sent, is_last, log);
        } else if is_last {
            log.release(sent.segment);
        }
    }

    fn keep(&mut self, sent: Extent, is_last: bool, log: &mut Log) {
        self.messages += u64::from(sent.messages);
        self.bytes += u64::from(sent.len);
        let is_absorbed = self.unacknowledged.back_mut().is_some_and(|newest| newest.absorb(&sent));
        match (is_absorbed, is_last) {
            (true, true) => log.release(sent.segment),
            (false, false) => log.retain(sent.segment, 1),
            _ => {}
        }
        if !is_absorbed {
            self.unacknowledged.push_back(sent);
        }
    }

    /// The client has had so many messages since the subscription began. What cannot be is passed over.
    pub(crate) fn acknowledge(&mut self, received: u64, log: &mut Log) {
        if received <= self.sent {
            let had = self.messages.saturating_sub(self.sent - received);
            self.forget(had, 0, log);
        }
    }

    /// Gives up the oldest messages: at least so many, and so many bytes, as far as there are any.
    pub(crate) fn forget(&mut self, messages: u64, bytes: u64, log: &mut Log) {
        let (mut messages, mut bytes) = (messages, bytes);
        while messages > 0 || bytes > 0 {
            let Some(front) = self.unacknowledged.front_mut() else { return };
            let (mut gone, mut gone_bytes) = (front.messages, front.len);
            if u64::from(gone) > messages && u64::from(gone_bytes) > bytes {
                (gone, gone_bytes) = (0, 0);
                while u64::from(gone) < messages || u64::from(gone_bytes) < bytes {
                    let header = log.header(front.segment, front.start + gone_bytes);
                    gone_bytes += header.stride() as u32;
                    gone += 1;
                }
            }
            front.start += gone_bytes;
            front.len -= gone_bytes;
            front.messages -= gone;
            if front.messages == 0 {
                log.release(front.segment);
                self.unacknowledged.pop_front();
            }
            self.messages -= u64::from(gone);
            self.bytes -= u64::from(gone_bytes);
            messages = messages.saturating_sub(u64::from(gone));
            bytes = bytes.saturating_sub(u64::from(gone_bytes));
        }
    }

    /// Gives up all messages in a segment, and those that are older.
    pub(crate) fn forget_through(&mut self, segment: SegmentId, log: &mut Log) {
        let through = self.unacknowledged.iter().rposition(|extent| extent.segment == segment);
        for extent in self.unacknowledged.drain(..through.map_or(0, |at| at + 1)) {
            self.messages -= u64::from(extent.messages);
            self.bytes -= u64::from(extent.len);
            log.release(extent.segment);
        }
    }

    /// The client comes back and has had so many messages: the ones that it has not had and that are
    /// kept, with their references, and how many are not.
    pub(crate) fn resume(&mut self, received: u64, log: &mut Log) -> (VecDeque<Extent>, u64) {
        let received = received + u64::from(is_planted(Plant::ResumeOffByOne));
        self.acknowledge(received, log);
        let missing = self.sent.saturating_sub(received) - self.messages;
        (self.sent, self.messages, self.bytes) = (received, 0, 0);
        (std::mem::take(&mut self.unacknowledged), missing)
    }

    /// Gives up everything.
    pub(crate) fn clear(&mut self, log: &mut Log) {
        for extent in self.unacknowledged.drain(..) {
            log.release(extent.segment);
        }
        (self.messages, self.bytes) = (0, 0);
    }

    /// Checks what must hold between events. For tests and the simulator.
    pub(crate) fn assert_invariants(&self, log: &Log) {
        let (mut messages, mut bytes) = (0, 0);
        for extent in &self.unacknowledged {
            messages += u64::from(extent.messages);
            bytes += u64::from(extent.len);
            let (mut at, mut frames) = (extent.start, 0);
            while at < extent.end() {
                at += log.header(extent.segment, at).stride() as u32;
                frames += 1;
            }
            assert_eq!((at, frames), (extent.end(), extent.messages), "extents are whole frames");
        }
        assert_eq!((messages, bytes), (self.messages, self.bytes), "sums are the extents'");
        assert!(self.messages <= self.sent, "what is kept was sent");
        assert!(self.keeps || self.messages == 0, "only who asked for it is kept for");
    }
}
