//! Reads what the server says to a publisher that wants acknowledgements, and checks it.
//!
//! A thread of its own reads the publisher's connection, so that an acknowledgement is seen when it
//! comes and not when the publisher happens to look. Messages are numbered from 1 and one of every
//! few asks for an acknowledgement, so the number of each entry is known beforehand, and so is the
//! time its message was meant to be sent.
//! Must never write: the publisher alone writes to its connection. What has to be answered is left
//! with it, in [`Replies`].

use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use nexusd_wire::FrameKind;
use nexusd_wire::control::{PublishAck, PublishStatus};

use crate::clock;
use crate::connection::{Connection, Received};
use crate::error::LoadError;
use crate::lane::{Lane, RunState};
use crate::latency::Latencies;
use crate::schedule::Schedule;
use crate::target::{Framing, FramingError, TargetFraming};

/// Silence behind the last publish after which what has not come is not going to.
const QUIET_NS: u64 = 10_000_000_000;

/// Bytes that a publisher is to write for its reader.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replies(Arc<Mutex<Vec<u8>>>);

impl Replies {
    fn add(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    }

    /// Takes what is to be written. Empty most of the time.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What acknowledgements said.
#[derive(Clone, Debug, Default)]
pub(crate) struct AckReport {
    /// Entries of accepted messages, each in its turn.
    pub(crate) acked: u64,
    /// Entries that were not the next.
    pub(crate) out_of_order: u64,
    /// Entries of messages that were not accepted.
    pub(crate) refused: u64,
    /// Messages whose entry never came.
    pub(crate) missing: u64,
    /// On a schedule: from the intended time of a message to the read of its entry.
    pub(crate) latencies: Latencies,
}

/// Which acknowledgements' latencies are recorded.
#[derive(Clone, Debug)]
pub(crate) struct AckRecording {
    /// When each message is meant to be sent; `None` at an unlimited rate.
    pub(crate) schedule: Option<Schedule>,
    /// Intended times inside the measured interval.
    pub(crate) interval_ns: Range<u64>,
}

/// Reads one publisher's acknowledgements.
#[derive(Debug)]
pub(crate) struct AckReader {
    connection: Arc<Connection>,
    framing: TargetFraming,
    replies: Replies,
    lane: Arc<Lane>,
    state: Arc<RunState>,
    account: AckAccount,
}

impl AckReader {
    /// A reader of the connection of the publisher of `lane`, which wants an acknowledgement of one
    /// message of `every`.
    pub(crate) fn new(
        connection: Arc<Connection>,
        framing: TargetFraming,
        every: NonZeroU64,
        recording: AckRecording,
        lane: Arc<Lane>,
        state: Arc<RunState>,
    ) -> Self {
        let account = AckAccount { every: every.get(), recording, ..AckAccount::new() };
        Self { connection, framing, replies: Replies::default(), lane, state, account }
    }

    /// Where it leaves what the publisher is to write.
    pub(crate) fn replies(&self) -> Replies {
        self.replies.clone()
    }

    /// Reads until every message that asked is acknowledged, or nothing comes any more.
    pub(crate) fn run(mut self) -> Result<AckReport, LoadError> {
        clock::wake_on_time();
        if let Err(error) = self.read() {
            self.state.give_up();
            return Err(error);
        }
        Ok(self.account.into_report(self.lane.sent()))
    }

    fn read(&mut self) -> Result<(), LoadError> {
        let mut buffer = vec![0; 64 << 10];
        let mut quiet_since_ns = clock::now_ns();
        loop {
            let total = self.lane.total();
            let is_complete = total.is_some_and(|total| self.account.has_all(total));
            let is_quiet =
                total.is_some() && clock::now_ns().saturating_sub(quiet_since_ns) > QUIET_NS;
            if is_complete || is_quiet || self.state.is_given_up() {
                return Ok(());
            }
            let bytes = match self.connection.receive_waiting(&mut buffer).map_err(lost)? {
                Received::Bytes(bytes) => bytes,
                Received::Nothing => continue,
                Received::End => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
            };
            quiet_since_ns = clock::now_ns();
            let account = &mut self.account;
            self.framing
                .on_frames(&buffer[..bytes], &mut |frame| match frame.kind() {
                    FrameKind::PublishAck => {
                        let ack = frame
                            .body::<PublishAck<'_>>()
                            .map_err(|error| FramingError::Malformed(error.to_string()))?;
                        for entry in ack.entries() {
                            let status = entry.status();
                            account.on_entry(entry.publisher_sequence(), status, quiet_since_ns);
                        }
                        Ok(())
                    }
                    _ => Ok(()),
                })
                .map_err(|source| LoadError::Conversation { role: "publisher", source })?;
            let reply = self.framing.take_reply();
            if !reply.is_empty() {
                self.replies.add(&reply);
            }
        }
    }
}

/// Accounts for the entries of one publisher.
#[derive(Debug)]
struct AckAccount {
    every: u64,
    recording: AckRecording,
    /// The number that must come next.
    next: u64,
    report: AckReport,
}

impl AckAccount {
    fn new() -> Self {
        Self {
            every: 1,
            recording: AckRecording { schedule: None, interval_ns: 0..0 },
            next: 1,
            report: AckReport::default(),
        }
    }

    fn on_entry(&mut self, number: u64, status: PublishStatus, now_ns: u64) {
        if number != self.next {
            self.report.out_of_order += 1;
            // Goes on from there, so that one entry too few is one fault; what was passed over
            // counts as missing in the end.
            if number < self.next {
                return;
            }
        } else if status == PublishStatus::Accepted {
            self.report.acked += 1;
            self.record(number, now_ns);
        }
        if status != PublishStatus::Accepted {
            self.report.refused += 1;
        }
        self.next = number.saturating_add(self.every);
    }

    fn record(&mut self, number: u64, now_ns: u64) {
        let AckRecording { schedule, interval_ns } = &self.recording;
        let intended_ns = schedule.map(|schedule| schedule.intended_ns(number - 1));
        if let Some(intended_ns) = intended_ns.filter(|at| interval_ns.contains(at)) {
            self.report.latencies.record(now_ns.saturating_sub(intended_ns));
        }
    }

    fn has_all(&self, sent: u64) -> bool {
        self.next > sent
    }

    fn into_report(self, sent: u64) -> AckReport {
        let mut report = self.report;
        let answered = report.acked + report.out_of_order + report.refused;
        report.missing = sent.div_ceil(self.every).saturating_sub(answered);
        report
    }
}

impl AckReport {
    /// Adds another publisher's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.acked += other.acked;
        self.out_of_order += other.out_of_order;
        self.refused += other.refused;
        self.missing += other.missing;
        self.latencies.add(&other.latencies);
    }
}

fn lost(source: io::Error) -> LoadError {
    LoadError::Connection { role: "publisher", source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(every: u64, entries: &[(u64, PublishStatus)], sent: u64) -> AckReport {
        let schedule = Some(Schedule::new(0, 1_000_000_000));
        let recording = AckRecording { schedule, interval_ns: 0..1_000 };
        let mut account = AckAccount { every, recording, ..AckAccount::new() };
        for (number, status) in entries {
            account.on_entry(*number, *status, 500);
        }
        account.into_report(sent)
    }

    fn counts(report: &AckReport) -> [u64; 4] {
        [report.acked, report.out_of_order, report.refused, report.missing]
    }

    const YES: PublishStatus = PublishStatus::Accepted;

    #[test]
    fn every_entry_in_its_turn_is_no_fault() {
        let report = report(1, &[(1, YES), (2, YES), (3, YES)], 3);
        assert_eq!(counts(&report), [3, 0, 0, 0]);
        assert_eq!(report.latencies.count(), 3);
    }

    #[test]
    fn only_one_message_of_every_few_is_waited_for() {
        assert_eq!(counts(&report(10, &[(1, YES), (11, YES)], 20)), [2, 0, 0, 0]);
        assert_eq!(counts(&report(10, &[(1, YES), (11, YES)], 21)), [2, 0, 0, 1]);
    }

    #[test]
    fn an_entry_left_out_or_out_of_order_is_a_fault() {
        assert_eq!(counts(&report(1, &[(1, YES), (3, YES)], 3)), [1, 1, 0, 1]);
        assert_eq!(counts(&report(1, &[(2, YES), (1, YES), (3, YES)], 3)), [1, 2, 0, 0]);
        assert_eq!(counts(&report(1, &[(1, YES), (1, YES)], 1)), [1, 1, 0, 0]);
    }

    #[test]
    fn a_message_that_was_not_accepted_is_a_fault() {
        let report = report(1, &[(1, PublishStatus::LimitReached), (2, YES)], 2);
        assert_eq!(counts(&report), [1, 0, 1, 0]);
    }
}
