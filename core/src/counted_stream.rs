//! How far a subscription's stream has come: the count of messages that are whole on the wire, and
//! those of them that the client has not acknowledged.
//!
//! A subscription that asked for it keeps what was sent until its client says that it has had it, so
//! that a Resume goes on without a loss. Any other one only counts. What is kept here counts against
//! the queue's limits and is the first to go.
//!
//! Losses that were told stay too, at their place, until the client has had a message behind them: a
//! Gap may have been lost with its connection.
//!
//! Invariants: `messages` and `bytes` are the sums over the extents; every extent holds one reference
//! to its segment; the extents end with message number `sent`.

use std::collections::VecDeque;

use nexusd_wire::control::GapReason;

use crate::gap::Gap;
use crate::limits::GAPS_KEPT_MAX;
use crate::log::{Extent, Log, SegmentId, SegmentKind};
use crate::plant::{Plant, is_planted};

#[derive(Debug)]
pub(crate) struct CountedStream {
    keeps: bool,
    /// Messages sent since the subscription began.
    sent: u64,
    unacknowledged: VecDeque<Extent>,
    messages: u64,
    bytes: u64,
    /// Losses that were told, each behind so many messages of the subscription.
    gaps: VecDeque<(u64, Box<Gap>)>,
}

/// What a client has not had, in order.
#[derive(Debug)]
pub(crate) enum Missing {
    /// Messages, with one reference to their segment.
    Extent(Extent),
    /// A loss.
    Gap(Box<Gap>),
}

impl CountedStream {
    /// A stream that keeps what is not acknowledged, or only counts.
    pub(crate) fn new(keeps: bool) -> Self {
        Self {
            keeps,
            sent: 0,
            unacknowledged: VecDeque::new(),
            messages: 0,
            bytes: 0,
            gaps: VecDeque::new(),
        }
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
        // In a block lie beside each other what stood far apart, and numbers may be missing between.
        let is_block = log.kind(sent.segment) == SegmentKind::Block;
        let newest = self.unacknowledged.back_mut().filter(|_| !is_block);
        let is_absorbed = newest.is_some_and(|newest| {
            let is_absorbed = newest.absorb(&sent);
            if is_absorbed {
                // What stood between them may have expired.
                newest.expect_hole();
            }
            is_absorbed
        });
        match (is_absorbed, is_last) {
            (true, true) => log.release(sent.segment),
            (false, false) => log.retain(sent.segment, 1),
            _ => {}
        }
        if !is_absorbed {
            self.unacknowledged.push_back(sent);
        }
    }

    /// This loss is on the wire, in whole or in part. Of too many the two oldest are joined, and what
    /// stood before and between them is given up: behind it the older one would be out of its place.
    pub(crate) fn note_gap(&mut self, gap: Box<Gap>, log: &mut Log) {
        self.gaps.push_back((self.sent, gap));
        if self.gaps.len() > GAPS_KEPT_MAX {
            self.join_oldest_gaps(log);
        }
    }

    fn join_oldest_gaps(&mut self, log: &mut Log) {
        if let Some((_, oldest)) = self.gaps.pop_front()
            && let Some((behind, next)) = self.gaps.front_mut()
        {
            let reason = match next.reason() {
                // What was lost with a connection is among what was dropped, not the other way round.
                GapReason::LinkLost => oldest.reason(),
                reason => reason,
            };
            let mut both = Box::new(Gap::new(reason));
            both.absorb(&oldest);
            both.absorb(next);
            log.discharge_gap(&oldest);
            log.discharge_gap(next);
            log.charge_gap(&both);
            *next = both;
            let later = self.sent - *behind;
            self.forget(self.messages.saturating_sub(later), 0, log);
        }
    }

    /// Joins all losses that were told to one, which names nothing.
    pub(crate) fn join_gaps(&mut self, log: &mut Log) {
        while self.gaps.len() > 1 {
            self.join_oldest_gaps(log);
        }
        self.gaps.shrink_to_fit();
        for (_, gap) in &mut self.gaps {
            log.discharge_gap(gap);
            gap.forget_names();
            log.charge_gap(gap);
        }
    }

    /// The losses that were told and may have to be told again.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = &Gap> {
        self.gaps.iter().map(|(_, gap)| &**gap)
    }

    /// The client has had so many messages since the subscription began. What cannot be is passed over.
    pub(crate) fn acknowledge(&mut self, received: u64, log: &mut Log) {
        if received <= self.sent {
            while self.gaps.front().is_some_and(|(behind, _)| *behind < received) {
                if let Some((_, read)) = self.gaps.pop_front() {
                    log.discharge_gap(&read);
                }
            }
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

    /// The client comes back and has had so many messages: what it has not had and is kept, and how many
    /// messages are not.
    pub(crate) fn resume(&mut self, received: u64, log: &mut Log) -> (Vec<Missing>, u64) {
        let is_late = is_planted(Plant::ResumeOffByOne) && received < self.sent;
        self.acknowledge(received + u64::from(is_late), log);
        let mut at = self.sent - self.messages;
        let lost = at.saturating_sub(received);
        let mut missing = Vec::new();
        let mut gaps = std::mem::take(&mut self.gaps).into_iter().peekable();
        for mut extent in self.unacknowledged.drain(..) {
            while let Some((behind, gap)) =
                gaps.next_if(|(behind, _)| *behind < at + u64::from(extent.messages))
            {
                let before = log.split_off_front(&mut extent, behind.saturating_sub(at));
                if before.messages > 0 {
                    log.retain(before.segment, 1);
                    at += u64::from(before.messages);
                    missing.push(Missing::Extent(before));
                }
                missing.push(Missing::Gap(gap));
            }
            at += u64::from(extent.messages);
            missing.push(Missing::Extent(extent));
        }
        missing.extend(gaps.map(|(_, gap)| Missing::Gap(gap)));
        (self.sent, self.messages, self.bytes) = (received, 0, 0);
        (missing, lost)
    }

    /// Gives up everything.
    pub(crate) fn clear(&mut self, log: &mut Log) {
        for extent in self.unacknowledged.drain(..) {
            log.release(extent.segment);
        }
        (self.messages, self.bytes) = (0, 0);
        self.gaps.drain(..).for_each(|(_, gap)| log.discharge_gap(&gap));
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
