//! The stalled subscriber of workload B: it subscribes, does not read while the others are measured,
//! and then reads everything.
//!
//! It proves that its losses were told exactly: the daemon numbers the topic's messages from 1, and
//! every number must be either that of a message received or inside a Gap, in order, none twice and
//! none left out. Other systems say nothing of losses: there it counts what came, and sees whether it was
//! cut off.

use std::io;

use nexusd_wire::control::Gap;
use nexusd_wire::{Frame, FrameKind};
use serde::Serialize;

use crate::clock;
use crate::connection::{Connection, Received};
use crate::error::LoadError;
use crate::sequence_check::SequenceCheck;
use crate::stamp::Stamp;
use crate::target::{Framing, FramingError, SubscriberEnd, TargetFraming};

/// Silence after which what has not come is not going to.
const QUIET_NS: u64 = 10_000_000_000;
/// The same where messages may be missing that nobody tells of.
const QUIET_UNTOLD_NS: u64 = 2_000_000_000;

/// A subscriber that does not read yet.
#[derive(Debug)]
pub(crate) struct StalledSubscriber {
    connection: Connection,
    framing: TargetFraming,
}

/// What it found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct StalledReport {
    /// Messages published while it was subscribed.
    pub(crate) sent: u64,
    /// Messages it received in the end.
    pub(crate) received: u64,
    /// Messages that Gaps said it had lost.
    pub(crate) told_lost: u64,
    /// Gap frames.
    pub(crate) gaps: u64,
    /// Whether received and told add up to sent, each number exactly once and in order; `null` where the
    /// server tells nothing.
    pub(crate) exact: Option<bool>,
    /// Messages that it neither received nor was told of.
    pub(crate) untold_lost: u64,
    /// Whether the server has ended its connection.
    pub(crate) cut_off: bool,
    /// Messages that came twice, behind a later one, or that nobody sent, where none is told of.
    #[serde(skip)]
    pub(crate) misplaced: u64,
}

impl StalledSubscriber {
    /// A subscriber behind its handshake.
    pub(crate) fn new(end: SubscriberEnd<TargetFraming>) -> Self {
        Self { connection: end.connection, framing: end.framing }
    }

    /// Reads until `sent` messages are accounted for, or nothing comes any more.
    pub(crate) fn read_all(self, sent: u64) -> Result<StalledReport, LoadError> {
        match &self.framing {
            TargetFraming::Native(_) => self.read_told(sent),
            _ => self.read_untold(sent),
        }
    }

    fn read_told(mut self, sent: u64) -> Result<StalledReport, LoadError> {
        let mut buffer = vec![0; 256 << 10];
        let mut account = Account::default();
        let mut quiet_since_ns = clock::now_ns();
        while account.accounted() < sent && clock::now_ns() - quiet_since_ns < QUIET_NS {
            let bytes = match self.connection.receive_waiting(&mut buffer).map_err(lost)? {
                Received::Bytes(bytes) => bytes,
                Received::Nothing => continue,
                Received::End => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
            };
            quiet_since_ns = clock::now_ns();
            self.framing
                .on_frames(&buffer[..bytes], &mut |frame| account.on_frame(frame))
                .map_err(|source| LoadError::Conversation { role: "stalled subscriber", source })?;
            let reply = self.framing.take_reply();
            self.connection.send_all(&reply, || false).map_err(lost)?;
        }
        Ok(account.report(sent))
    }

    fn read_untold(mut self, sent: u64) -> Result<StalledReport, LoadError> {
        let mut buffer = vec![0; 64 << 10];
        let mut untold = Untold::default();
        let mut garbled = None;
        let mut quiet_since_ns = clock::now_ns();
        while untold.received < sent && clock::now_ns() - quiet_since_ns < QUIET_UNTOLD_NS {
            let bytes = match self.connection.receive_waiting(&mut buffer) {
                Ok(Received::Bytes(bytes)) => bytes,
                Ok(Received::Nothing) => continue,
                Ok(Received::End) => {
                    untold.cut_off = true;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    untold.cut_off = true;
                    break;
                }
                Err(error) => return Err(lost(error)),
            };
            quiet_since_ns = clock::now_ns();
            if garbled.is_some() {
                continue;
            }
            let before = untold.clone();
            match self.framing.on_bytes(&buffer[..bytes], &mut |payload| untold.on_payload(payload))
            {
                Ok(()) => {}
                Err(FramingError::Refused(_) | FramingError::Goodbye) => {
                    untold.cut_off = true;
                    break;
                }
                // Zenoh leaves what it was writing half done when it cuts a subscriber off. The end must follow.
                Err(source @ FramingError::Malformed(_)) => {
                    untold = before;
                    garbled = Some(source);
                }
            }
            // Whether it can still be said shows at the next read.
            drop(self.connection.send_all(&self.framing.take_reply(), || true));
        }
        match garbled {
            Some(source) if !untold.cut_off => {
                Err(LoadError::Conversation { role: "stalled subscriber", source })
            }
            _ => Ok(untold.report(sent)),
        }
    }
}

/// What came where nothing is told of losses.
#[derive(Clone, Debug, Default)]
struct Untold {
    received: u64,
    check: SequenceCheck,
    foreign: u64,
    cut_off: bool,
}

impl Untold {
    fn on_payload(&mut self, payload: &[u8]) {
        self.received += 1;
        match Stamp::read(payload) {
            Some(stamp) => self.check.on_counter(stamp.counter),
            None => self.foreign += 1,
        }
    }

    fn report(&self, sent: u64) -> StalledReport {
        let faults = self.check.faults(sent);
        StalledReport {
            sent,
            received: self.received,
            untold_lost: faults.lost,
            cut_off: self.cut_off,
            misplaced: faults.duplicated + faults.reordered + faults.foreign + self.foreign,
            ..StalledReport::default()
        }
    }
}

/// Accounts for the numbers of one topic.
#[derive(Debug)]
struct Account {
    /// The next number that must be received or told.
    next: u64,
    received: u64,
    told_lost: u64,
    gaps: u64,
    in_order: bool,
}

impl Default for Account {
    fn default() -> Self {
        Self { next: 1, received: 0, told_lost: 0, gaps: 0, in_order: true }
    }
}

impl Account {
    fn accounted(&self) -> u64 {
        self.received + self.told_lost
    }

    fn on_frame(&mut self, frame: &Frame<'_>) -> Result<(), FramingError> {
        if frame.kind() == FrameKind::Message {
            self.received += 1;
            let number = frame.header().origin_sequence().0;
            self.on_numbers(number, number);
            return Ok(());
        }
        let gap =
            frame.body::<Gap<'_>>().map_err(|error| FramingError::Malformed(error.to_string()))?;
        self.gaps += 1;
        self.told_lost += gap.missed();
        let mut named = 0;
        for entry in gap.entries().into_iter().flatten() {
            named += (entry.last() + 1).saturating_sub(entry.first());
            self.on_numbers(entry.first(), entry.last());
        }
        // One topic: the entries must name every message missed.
        self.in_order &= named == gap.missed() && gap.rest() == 0;
        Ok(())
    }

    fn on_numbers(&mut self, first: u64, last: u64) {
        self.in_order &= first == self.next && last >= first;
        self.next = last.saturating_add(1);
    }

    fn report(&self, sent: u64) -> StalledReport {
        StalledReport {
            sent,
            received: self.received,
            told_lost: self.told_lost,
            gaps: self.gaps,
            exact: Some(self.in_order && self.accounted() == sent && self.next == sent + 1),
            untold_lost: sent.saturating_sub(self.accounted()),
            cut_off: false,
            misplaced: 0,
        }
    }
}

fn lost(source: io::Error) -> LoadError {
    LoadError::Connection { role: "stalled subscriber", source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::native::NativeFraming;
    use nexusd_wire::control::GapReason;
    use nexusd_wire::{FrameEncoder, GapReport, Header, Sequence, SubscriptionId, TopicId};

    fn message(out: &mut Vec<u8>, number: u64) {
        let header = Header::new(FrameKind::Message, 0, 0)
            .with_sequence(Sequence(number))
            .with_origin_sequence(Sequence(number));
        FrameEncoder::message(out, &header, &[], &[0; 16]);
    }

    fn gap(out: &mut Vec<u8>, missed: u64, first: u64, last: u64) {
        FrameEncoder::new().gap(
            out,
            &GapReport {
                subscription: SubscriptionId(1),
                reason: GapReason::SlowConsumer,
                missed,
                entries: &[(TopicId(3), Sequence(first), Sequence(last))],
                rest: 0,
            },
        );
    }

    fn account(bytes: &[u8], sent: u64) -> StalledReport {
        let mut account = Account::default();
        TargetFraming::Native(NativeFraming::new())
            .on_frames(bytes, &mut |frame| account.on_frame(frame))
            .expect("valid frames");
        account.report(sent)
    }

    #[test]
    fn messages_and_gaps_that_cover_everything_are_exact() {
        let mut bytes = Vec::new();
        message(&mut bytes, 1);
        gap(&mut bytes, 3, 2, 4);
        message(&mut bytes, 5);
        let report = account(&bytes, 5);
        assert_eq!(report.exact, Some(true));
        assert_eq!((report.received, report.told_lost, report.gaps), (2, 3, 1));
    }

    #[test]
    fn a_loss_nobody_told_is_not_exact() {
        let mut bytes = Vec::new();
        message(&mut bytes, 1);
        message(&mut bytes, 3);
        assert_eq!(account(&bytes, 3).exact, Some(false));
    }

    #[test]
    fn a_gap_that_names_a_message_received_is_not_exact() {
        let mut bytes = Vec::new();
        message(&mut bytes, 1);
        gap(&mut bytes, 2, 1, 2);
        assert_eq!(account(&bytes, 3).exact, Some(false));
    }

    #[test]
    fn a_gap_whose_count_is_not_that_of_its_entries_is_not_exact() {
        let mut bytes = Vec::new();
        message(&mut bytes, 1);
        gap(&mut bytes, 3, 2, 3);
        assert_eq!(account(&bytes, 4).exact, Some(false));
    }

    #[test]
    fn where_nothing_is_told_what_is_missing_is_counted_and_what_comes_again_is_misplaced() {
        let mut untold = Untold { cut_off: true, ..Untold::default() };
        for counter in [0, 1, 4, 4] {
            let mut payload = [0; 16];
            let stamp = Stamp { topic: 0, counter, intended_ns: 0, sent_ns: None };
            stamp.write(&mut payload);
            untold.on_payload(&payload);
        }
        let report = untold.report(7);
        assert_eq!((report.received, report.untold_lost, report.misplaced), (4, 4, 1));
        assert_eq!((report.exact, report.cut_off), (None, true));
    }

    #[test]
    fn a_missing_tail_is_not_exact() {
        let mut bytes = Vec::new();
        message(&mut bytes, 1);
        assert_eq!(account(&bytes, 2).exact, Some(false));
    }
}
