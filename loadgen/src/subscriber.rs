//! The subscribers of a run: one thread that reads all their connections and checks every message.
//!
//! A single connection is read with blocking reads; several are watched with one epoll, however many
//! there are. All share one large buffer. A message costs cutting its frame, comparing its counter,
//! and, where latency is asked for, a histogram entry; the clock is read once per read.
//!
//! Where connections are to break (`comebacks.rs`), this thread breaks them and connects again. It does
//! not wait for the server's answer, which is read like anything else.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use crate::clock;
use crate::comebacks::{BreakPlan, Breaks, ComebackReport};
use crate::connection::{Connection, Received};
use crate::delivery_check::DeliveryCheck;
use crate::error::LoadError;
use crate::lane::{Lane, RunState};
use crate::latency::Latencies;
use crate::sequence_check::Faults;
use crate::stamp::Stamp;
use crate::target::{Framing, FramingTotals, SubscriberEnd};

/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;
/// Ready connections taken from the kernel at a time.
const EVENTS_PER_ROUND: usize = 256;
/// How long a round waits for something to happen before it looks whether the run has ended.
const ROUND: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// Time without a message behind the last publish after which what has not come is lost.
const QUIET_NS: u64 = 10_000_000_000;

/// Which messages' latencies are recorded.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    /// Intended times inside the measured interval.
    pub(crate) interval_ns: Range<u64>,
    /// Every message whose topic and counter together have none of these bits.
    pub(crate) sampling_mask: u64,
}

/// What the subscribers saw.
#[derive(Debug, Default)]
pub(crate) struct SubscribersReport {
    /// From the intended time to the read.
    pub(crate) latencies: Latencies,
    /// From the hand-over to the publisher's socket to the read.
    pub(crate) send_latencies: Latencies,
    /// All subscribers' faults together.
    pub(crate) faults: Faults,
    /// Messages received in all, warm-up included.
    pub(crate) received: u64,
    /// What was told about losses, and acknowledgements of counted subscriptions.
    pub(crate) totals: FramingTotals,
    /// What coming back took, if connections were to break.
    pub(crate) comebacks: Option<ComebackReport>,
}

/// All subscribers of a run.
pub(crate) struct Subscribers<F, C> {
    ends: Vec<Subscriber<F>>,
    check: C,
    lanes: Vec<Arc<Lane>>,
    state: Arc<RunState>,
    payload_bytes: usize,
    recording: Recording,
    /// If connections are to break.
    breaks: Option<BreakPlan>,
    /// Of several connections.
    watch: Option<OwnedFd>,
    received: u64,
    /// Payloads of a wrong length.
    foreign: u64,
    report: SubscribersReport,
}

struct Subscriber<F> {
    connection: Connection,
    framing: F,
    /// If the connection is to break.
    breaks: Option<Breaks>,
}

impl<F: Framing, C: DeliveryCheck> Subscribers<F, C> {
    /// Subscribers behind their handshakes, in the order of their lanes.
    pub(crate) fn new(
        ends: Vec<SubscriberEnd<F>>,
        check: C,
        lanes: Vec<Arc<Lane>>,
        state: Arc<RunState>,
        payload_bytes: usize,
        recording: Recording,
        breaks: Option<BreakPlan>,
    ) -> Self {
        let count = ends.len();
        let ends = ends
            .into_iter()
            .enumerate()
            .map(|(index, end)| Subscriber {
                connection: end.connection,
                framing: end.framing,
                breaks: breaks.as_ref().map(|plan| plan.breaks_of(index, count)),
            })
            .collect();
        let comebacks = breaks.as_ref().map(|_| ComebackReport::default());
        Self {
            ends,
            check,
            lanes,
            state,
            payload_bytes,
            recording,
            breaks,
            watch: None,
            received: 0,
            foreign: 0,
            report: SubscribersReport { comebacks, ..SubscribersReport::default() },
        }
    }

    /// Reads until every message has come, or nothing comes any more.
    pub(crate) fn run(mut self) -> Result<SubscribersReport, LoadError> {
        clock::wake_on_time();
        let mut buffer = vec![0; READ_BYTES];
        let read = if self.ends.len() == 1 {
            self.read_one(&mut buffer)
        } else {
            self.read_many(&mut buffer)
        };
        if let Err(error) = read {
            self.state.give_up();
            return Err(error);
        }
        Ok(self.into_report())
    }

    fn read_one(&mut self, buffer: &mut [u8]) -> Result<(), LoadError> {
        let mut quiet_since_ns = None;
        while !self.has_ended(quiet_since_ns) {
            let before = self.received;
            let received = self.ends[0].connection.receive_waiting(buffer);
            self.on_received(0, received, buffer)?;
            self.note_quiet(before, &mut quiet_since_ns);
            self.tell_progress(0);
        }
        Ok(())
    }

    fn read_many(&mut self, buffer: &mut [u8]) -> Result<(), LoadError> {
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(cannot_watch)?;
        for (index, end) in self.ends.iter().enumerate() {
            add_to(&watch, index, &end.connection)?;
        }
        self.watch = Some(watch);
        let mut events = Vec::with_capacity(EVENTS_PER_ROUND);
        let mut quiet_since_ns = None;
        while !self.has_ended(quiet_since_ns) {
            events.clear();
            if let Some(watch) = &self.watch {
                match epoll::wait(watch, spare_capacity(&mut events), Some(&ROUND)) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(lost(error.into())),
                }
            }
            let before = self.received;
            for event in &events {
                let index = event.data.u64() as usize;
                let received = self.ends[index].connection.receive_now(buffer);
                self.on_received(index, received, buffer)?;
            }
            self.note_quiet(before, &mut quiet_since_ns);
            for lane in 0..self.lanes.len() {
                self.tell_progress(lane);
            }
        }
        Ok(())
    }

    /// What comes without a message, such as a server's sign of life, does not end a silence.
    #[inline]
    fn note_quiet(&self, received_before: u64, quiet_since_ns: &mut Option<u64>) {
        if self.received > received_before {
            *quiet_since_ns = None;
        } else {
            quiet_since_ns.get_or_insert_with(clock::now_ns);
        }
    }

    /// Checks what one connection received.
    #[inline]
    fn on_received(
        &mut self,
        index: usize,
        received: io::Result<Received>,
        buffer: &[u8],
    ) -> Result<(), LoadError> {
        let bytes = match received.map_err(lost)? {
            Received::Bytes(bytes) => bytes,
            Received::Nothing => return Ok(()),
            // A server may close behind the last message.
            Received::End if self.has_everything() => return Ok(()),
            Received::End => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
        };
        let now_ns = clock::now_ns();
        let due = self.ends[index].breaks.as_ref().filter(|breaks| breaks.is_due(now_ns));
        let loses_read = due.map(Breaks::loses_read);
        if loses_read == Some(true) {
            return self.come_back(index);
        }
        let received_before = self.received;
        let Self { ends, check, recording, report, payload_bytes, received, foreign, .. } = self;
        let end = &mut ends[index];
        let mut on_payload = |payload: &[u8]| {
            let stamp = Stamp::read(payload).filter(|_| payload.len() == *payload_bytes);
            let Some(stamp) = stamp else {
                *foreign += 1;
                return;
            };
            *received += 1;
            check.on_stamp(index, &stamp);
            if (u64::from(stamp.topic) + stamp.counter) & recording.sampling_mask == 0
                && recording.interval_ns.contains(&stamp.intended_ns)
            {
                let latency_ns = now_ns.saturating_sub(stamp.intended_ns);
                report.latencies.record(latency_ns);
                if let Some(sent_ns) = stamp.sent_ns {
                    report.send_latencies.record(now_ns.saturating_sub(sent_ns));
                }
            }
        };
        end.framing
            .on_bytes(&buffer[..bytes], &mut on_payload)
            .map_err(|source| LoadError::Conversation { role: "subscriber", source })?;
        check.on_read_end(index);
        if *received > received_before
            && let Some(breaks) = &mut end.breaks
            && let Some(latency_ns) = breaks.on_messages(now_ns)
            && let Some(comebacks) = &mut report.comebacks
        {
            comebacks.latencies.record(latency_ns);
        }
        if loses_read == Some(false) {
            return self.come_back(index);
        }
        let reply = end.framing.take_reply();
        if !reply.is_empty() {
            end.connection.send_all(&reply, || self.state.is_given_up()).map_err(lost)?;
        }
        Ok(())
    }

    /// Breaks a connection, with all that is on its way, and connects again.
    #[cold]
    fn come_back(&mut self, index: usize) -> Result<(), LoadError> {
        let Self { ends, breaks: Some(plan), report, watch, state, .. } = self else {
            return Ok(());
        };
        let end = &mut ends[index];
        if let Some(breaks) = &mut end.breaks {
            breaks.on_break(clock::now_ns());
        }
        // The old one is gone before anything is said on the new one.
        end.connection = Connection::open(&plan.endpoints[index]).map_err(lost)?;
        if let Some(comebacks) = &mut report.comebacks {
            comebacks.breaks += 1;
        }
        if let Some(watch) = watch {
            add_to(watch, index, &end.connection)?;
        }
        let opening = end.framing.come_back();
        end.connection.send_all(&opening, || state.is_given_up()).map_err(lost)
    }

    /// Lets the publisher of a lane and the measuring thread know how far things have come.
    #[inline]
    fn tell_progress(&self, lane: usize) {
        self.lanes[lane].window.on_delivered(self.check.delivered(lane));
        self.state.on_received(self.received);
    }

    fn has_ended(&self, quiet_since_ns: Option<u64>) -> bool {
        if self.state.is_given_up() {
            return true;
        }
        let nothing_comes = || {
            quiet_since_ns.is_some_and(|since| {
                clock::now_ns() - since > QUIET_NS
                    && self.lanes.iter().all(|lane| lane.total().is_some())
            })
        };
        self.has_everything() || nothing_comes()
    }

    /// Whether every subscriber has come as far as its publisher, which has ended.
    fn has_everything(&self) -> bool {
        self.lanes.iter().enumerate().all(|(number, lane)| {
            lane.total().is_some_and(|total| self.check.delivered(number) >= total)
        })
    }

    fn into_report(self) -> SubscribersReport {
        let mut report = self.report;
        report.received = self.received;
        report.faults = self.check.faults(&self.lanes);
        report.faults.foreign += self.foreign;
        for end in &self.ends {
            report.totals.add(&end.framing.totals());
        }
        report
    }
}

/// Watches the connection of one of several subscribers.
fn add_to(watch: &OwnedFd, index: usize, connection: &Connection) -> Result<(), LoadError> {
    let data = epoll::EventData::new_u64(index as u64);
    epoll::add(watch, connection, data, epoll::EventFlags::IN).map_err(cannot_watch)
}

fn cannot_watch(error: rustix::io::Errno) -> LoadError {
    LoadError::System {
        what: "cannot watch the subscribers' connections with epoll",
        source: error.into(),
    }
}

fn lost(source: io::Error) -> LoadError {
    LoadError::Connection { role: "subscriber", source }
}
