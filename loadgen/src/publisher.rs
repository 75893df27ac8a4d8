//! One publisher: a thread that writes prepared frames to its connection.
//!
//! At an unlimited rate it writes large batches as long as the window has room, and parks when it has
//! none. On a schedule it writes what is due, in batches if it owes more than one message, and sleeps
//! until the next is, for [`PAUSE_NS`] at the least where they are many.
//!
//! It never spins, and on a schedule it never runs on and on either: it shares its core with the
//! subscribers, and a thread that is always about to send leaves them to the scheduler's slices.

use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::acks::Replies;
use crate::batch::{Batch, FrameTemplate};
use crate::clock;
use crate::connection::{Connection, Received};
use crate::error::LoadError;
use crate::lane::{Lane, RunState};
use crate::schedule::Schedule;
use crate::target::Framing;
use crate::topic_walk::{Step, TopicWalk};

/// How often a publisher looks whether the server has said something.
const LISTEN_EVERY_NS: u64 = 1_000_000_000;

/// The least time the core is given away between two writes, on a schedule whose messages follow each
/// other faster than twice this time; slower ones leave time to sleep by themselves. It delays
/// messages by up to that time, for every target alike. At 100 k/s on a 2-core machine it adds 15 µs
/// to the median, takes the 99th percentile from 1.1 ms to 0.3–0.6 ms, and leaves 40 % of the core
/// free; with 10 µs and less the core is as good as full.
const PAUSE_NS: u64 = 20_000;

/// How long a publisher may take beyond the end of its schedule to send what it owes.
const OVERTIME_NS: u64 = 2_000_000_000;

/// How long a publisher waits for the server to take more before it looks whether the run has ended.
const CREDIT_WAIT_NS: u64 = 200_000_000;

/// What a publisher did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct PublisherReport {
    /// Messages handed to the socket.
    pub(crate) sent: u64,
    /// Messages of the schedule that were not, because it was hopelessly behind. Their latency is
    /// missing, so the run does not count.
    pub(crate) unsent: u64,
}

/// What tells a publisher when to send.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// The lane's window.
    Window,
    /// An open-loop schedule.
    Schedule(Schedule),
}

/// What a publisher does.
#[derive(Debug)]
pub(crate) struct PublisherPlan {
    /// The frame of a message.
    pub(crate) template: FrameTemplate,
    /// Most messages in one write; `None` is as many as fit.
    pub(crate) batch: Option<u64>,
    /// When it sends.
    pub(crate) pace: Pace,
    /// Where, if it has several topics.
    pub(crate) walk: Option<TopicWalk>,
    /// An acknowledgement is wanted of one message of this many.
    pub(crate) ack_every: Option<NonZeroU64>,
    /// What its stamps say of its first topic.
    pub(crate) first_topic: u32,
}

/// Who reads a publisher's connection.
#[derive(Debug)]
pub(crate) enum Ears<F> {
    /// The publisher, now and then.
    Own(F),
    /// A thread of its own, which leaves here what has to be written.
    Reader(Replies),
}

/// A publisher that is connected and may begin.
#[derive(Debug)]
pub(crate) struct Publisher<F> {
    connection: Arc<Connection>,
    ears: Ears<F>,
    batch: Batch,
    /// `None` is one topic.
    walk: Option<TopicWalk>,
    lane: Arc<Lane>,
    state: Arc<RunState>,
    pace: Pace,
    sent: u64,
}

impl<F: Framing> Publisher<F> {
    /// A publisher on a connection behind its handshake.
    pub(crate) fn new(
        connection: Arc<Connection>,
        ears: Ears<F>,
        plan: PublisherPlan,
        lane: Arc<Lane>,
        state: Arc<RunState>,
    ) -> Self {
        Self {
            connection,
            ears,
            batch: Batch::new(plan.template, plan.batch)
                .acknowledged(plan.ack_every)
                .stamped_from(plan.first_topic),
            walk: plan.walk,
            lane,
            state,
            pace: plan.pace,
            sent: 0,
        }
    }

    /// Publishes from `start_ns` to `end_ns`.
    pub(crate) fn run(mut self, start_ns: u64, end_ns: u64) -> Result<PublisherReport, LoadError> {
        clock::wake_on_time();
        clock::sleep_until(start_ns);
        let result = match self.pace {
            Pace::Window => self.run_windowed(end_ns).map(|()| 0),
            Pace::Schedule(schedule) => self.run_scheduled(schedule, end_ns),
        };
        let by_topic = self.walk.take().map_or_else(|| vec![self.sent], TopicWalk::into_sent);
        self.lane.on_ended(self.sent, by_topic);
        if result.is_err() {
            self.state.give_up();
        }
        result.map(|unsent| PublisherReport { sent: self.sent, unsent })
    }

    fn run_windowed(&mut self, end_ns: u64) -> Result<(), LoadError> {
        // Less than a whole write is not worth a system call, unless the window is that small.
        let wanted = self.batch.capacity().min(self.lane.window.half());
        let mut listen_ns = 0;
        loop {
            let now_ns = clock::now_ns();
            if now_ns >= end_ns || self.state.is_given_up() {
                return Ok(());
            }
            if now_ns >= listen_ns {
                listen_ns = now_ns + LISTEN_EVERY_NS;
                self.listen()?;
            }
            let room = self.lane.window.room(self.sent);
            if room < wanted {
                self.lane.window.wait_for_room(self.sent);
                continue;
            }
            let count = room.min(self.batch.capacity());
            self.write(count, now_ns, |_| now_ns)?;
        }
    }

    /// Returns how many messages of the schedule it did not send.
    fn run_scheduled(&mut self, schedule: Schedule, end_ns: u64) -> Result<u64, LoadError> {
        let is_dense = schedule.interval_ns() < 2 * PAUSE_NS;
        let pause_ns = if is_dense { PAUSE_NS } else { 0 };
        let mut listen_ns = 0;
        loop {
            let next_ns = schedule.intended_ns(self.sent);
            let mut now_ns = clock::now_ns();
            if next_ns >= end_ns || now_ns > end_ns + OVERTIME_NS || self.state.is_given_up() {
                return Ok(schedule.due(end_ns - 1).saturating_sub(self.sent));
            }
            // Who owes more than one write has no time to lose.
            if schedule.due(now_ns).saturating_sub(self.sent) <= self.batch.capacity() {
                if now_ns >= listen_ns {
                    listen_ns = now_ns + LISTEN_EVERY_NS;
                    self.listen()?;
                }
                clock::sleep_until(next_ns.max(now_ns + pause_ns));
                now_ns = clock::now_ns();
            }
            let due = schedule.due(now_ns.min(end_ns - 1));
            let count = (due - self.sent).min(self.batch.capacity());
            self.write(count, now_ns, |n| schedule.intended_ns(n))?;
        }
    }

    /// Writes the next `count` messages.
    #[inline]
    fn write(
        &mut self,
        count: u64,
        now_ns: u64,
        intended_ns: impl FnMut(u64) -> u64,
    ) -> Result<(), LoadError> {
        let Self { batch, walk, sent, .. } = self;
        let bytes = match walk {
            None => {
                batch.prepare(*sent, count, now_ns, intended_ns, |n| Step { topic: 0, number: n })
            }
            Some(walk) => batch.prepare(*sent, count, now_ns, intended_ns, |_| walk.step()),
        };
        if let Ears::Own(framing) = &mut self.ears {
            while framing.credit() < bytes.len() as u64 && !self.state.is_given_up() {
                wait_for_credit(&self.connection, framing, &self.state)?;
            }
            framing.on_written(bytes);
        }
        write(&self.connection, bytes, &self.state).or_else(|error| self.explain(error))?;
        self.sent += count;
        self.lane.on_sent(self.sent);
        Ok(())
    }

    /// Reads what the server has said meanwhile: an error ends the run.
    fn listen(&mut self) -> Result<(), LoadError> {
        let reply = match &mut self.ears {
            Ears::Own(framing) => {
                hear(&self.connection, framing)?;
                framing.take_reply()
            }
            Ears::Reader(replies) => replies.take(),
        };
        write(&self.connection, &reply, &self.state).map_err(lost)
    }

    /// A write failed: what the server said last is the better reason.
    #[cold]
    fn explain(&mut self, error: io::Error) -> Result<(), LoadError> {
        if self.state.is_given_up() {
            return Ok(());
        }
        match self.listen() {
            Err(said @ LoadError::Conversation { .. }) => Err(said),
            _ => Err(lost(error)),
        }
    }
}

/// Reads on until the server takes more.
#[cold]
fn wait_for_credit(
    connection: &Connection,
    framing: &mut impl Framing,
    state: &RunState,
) -> Result<(), LoadError> {
    connection.wait_until_readable(CREDIT_WAIT_NS).map_err(lost)?;
    hear(connection, framing)?;
    write(connection, &framing.take_reply(), state).map_err(lost)
}

/// Reads what is there, without waiting.
fn hear(connection: &Connection, framing: &mut impl Framing) -> Result<(), LoadError> {
    let mut buffer = [0; 4_096];
    loop {
        match connection.receive_now(&mut buffer) {
            Ok(Received::Bytes(bytes)) => framing
                .on_bytes(&buffer[..bytes], &mut |_| {})
                .map_err(|source| LoadError::Conversation { role: "publisher", source })?,
            Ok(Received::Nothing) => return Ok(()),
            Ok(Received::End) => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
            Err(source) => return Err(lost(source)),
        }
    }
}

#[inline]
fn write(connection: &Connection, bytes: &[u8], state: &RunState) -> io::Result<()> {
    connection.send_all(bytes, || state.is_given_up())
}

fn lost(source: io::Error) -> LoadError {
    LoadError::Connection { role: "publisher", source }
}
