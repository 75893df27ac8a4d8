//! One connection while it lives: when to read, when to write, and how to notice that it is dead.
//!
//! A single poll function serves both directions, so one wake-up reads what is there, hands it on,
//! and writes everything that waits. What frames mean is decided in `session.rs`. It does not read
//! while a subscription's inbox is full, so that the daemon's queue fills and its policy decides;
//! meanwhile it sends heartbeats, because the daemon's pings are not read either.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use nexusd_wire::{FrameEncoder, FrameKind, Header};
use tokio::time::{Instant, Sleep};

use crate::error::Error;
use crate::greeting::Greeted;
use crate::limits;
use crate::receiver::{Piece, Received, Receiver, keep};
use crate::session::Session;
use crate::socket::Socket;
use crate::task::Task;

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// As the application wished; whether everything was sent before.
    Closed(Result<(), Error>),
    /// Otherwise.
    Lost(Error),
}

/// Time to read why the daemon closed, after a write has failed.
const READ_AFTER_FAILED_WRITE: Duration = Duration::from_secs(1);

pub(crate) struct Connection<'a> {
    socket: Socket,
    receiver: Receiver,
    session: Session<'a>,
    timer: Pin<Box<Sleep>>,
    last_received: Instant,
    last_sent: Instant,
    /// When the unanswered ping was sent.
    pinged_at: Option<Instant>,
    /// Since when the socket takes nothing although there is something to write.
    write_blocked_since: Option<Instant>,
    /// Since when an inbox is full.
    is_stalled: bool,
    /// The daemon does not take bytes any more; when that was found, and how.
    write_failure: Option<(Instant, io::Error)>,
}

impl<'a> Connection<'a> {
    /// Begins with a connection that was just welcomed.
    pub(crate) fn open(task: &'a mut Task, greeted: Greeted) -> Self {
        let now = Instant::now();
        let ping_after = task.shared.options.ping_after;
        let Greeted { socket, receiver, daemon, rest } = greeted;
        let mut connection = Self {
            socket,
            receiver,
            session: Session::open(task, daemon),
            timer: Box::pin(tokio::time::sleep_until(now + ping_after)),
            last_received: now,
            last_sent: now,
            pinged_at: None,
            write_blocked_since: None,
            is_stalled: false,
            write_failure: None,
        };
        if let Err(error) = connection.on_chunk(&rest) {
            connection.session.fault = Some(error);
        }
        connection
    }

    /// Gives back what was not sent. Called once, after [`Self::poll`] was ready.
    pub(crate) fn leave(self) {
        self.session.leave();
    }

    /// Does all that can be done now. Ready when the connection has ended.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.session.task.shared.task.register(cx.waker());
        loop {
            self.session.on_commands();
            let mut progressed = false;
            if self.may_read() {
                match self.receiver.poll_read(cx, &mut self.socket) {
                    Poll::Ready(received) => {
                        progressed = true;
                        self.last_received = Instant::now();
                        self.pinged_at = None;
                        if let Err(ended) = self.on_received(received) {
                            return Poll::Ready(ended);
                        }
                    }
                    Poll::Pending => {}
                }
            }
            if let Some(error) = self.session.fault.take() {
                return Poll::Ready(Ended::Lost(error));
            }
            progressed |= self.poll_write(cx);
            match self.poll_time(cx) {
                Poll::Ready(Err(ended)) => return Poll::Ready(ended),
                Poll::Ready(Ok(())) => progressed = true,
                Poll::Pending => {}
            }
            if !progressed {
                return Poll::Pending;
            }
        }
    }

    fn may_read(&mut self) -> bool {
        let is_stalled = self.session.is_an_inbox_full();
        if self.is_stalled && !is_stalled {
            // The silence was our own.
            self.last_received = Instant::now();
            self.pinged_at = None;
        }
        self.is_stalled = is_stalled;
        !is_stalled && self.session.sender.control_backlog() < limits::CONTROL_BACKLOG_BYTES
    }

    fn on_received(&mut self, received: io::Result<Received>) -> Result<(), Ended> {
        let result = match received {
            Ok(Received::Chunk(chunk)) => self.on_chunk(&chunk),
            Ok(Received::Large(frame)) => {
                let result = self.session.on_large_message(&frame);
                self.session.hand_over();
                result
            }
            Ok(Received::Part) => Ok(()),
            Ok(Received::End) => {
                let end = io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the daemon closed the connection",
                );
                return Err(self.ended_by(end));
            }
            Err(error) => return Err(self.ended_by(error)),
        };
        result.map_err(Ended::Lost)
    }

    /// The daemon's side of the stream has ended.
    fn ended_by(&mut self, error: io::Error) -> Ended {
        if self.session.has_said_goodbye() {
            return Ended::Closed(Ok(()));
        }
        let error = match (&self.session.goodbye, self.write_failure.take()) {
            (Some(goodbye), _) => io::Error::new(
                io::ErrorKind::ConnectionAborted,
                format!("the daemon said goodbye: {}", goodbye.reason),
            ),
            (None, Some((_, failure))) => failure,
            (None, None) => error,
        };
        Ended::Lost(self.not_connected(error))
    }

    fn not_connected(&self, error: io::Error) -> Error {
        Error::not_connected(&self.session.task.shared.options.address, error)
    }

    fn on_chunk(&mut self, chunk: &Bytes) -> Result<(), Error> {
        let mut input: &[u8] = chunk;
        loop {
            match self.receiver.cut(&mut input)? {
                Piece::Frame(frame) => {
                    let keep = || keep(chunk, frame.bytes());
                    self.session.on_frame(&frame, keep)?;
                }
                Piece::Large(frame) => self.session.on_large_message(&frame)?,
                Piece::Nothing => break,
            }
        }
        self.session.hand_over();
        Ok(())
    }

    /// Writes what waits; whether anything was written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        if self.write_failure.is_some() {
            return false;
        }
        self.session.refill();
        let is_held = self.session.is_held();
        let written = self.session.sender.poll_write(cx, &mut self.socket, is_held);
        match written {
            Poll::Ready(Ok(settled)) => {
                self.last_sent = Instant::now();
                self.write_blocked_since = None;
                self.session.on_settled(settled);
                true
            }
            Poll::Ready(Err(error)) => {
                // The daemon may have said why before it closed.
                self.write_failure = Some((Instant::now(), error));
                true
            }
            Poll::Pending => {
                if !self.session.sender.has_work(is_held) {
                    self.write_blocked_since = None;
                } else if self.write_blocked_since.is_none() {
                    self.write_blocked_since = Some(Instant::now());
                }
                false
            }
        }
    }

    /// Ready when time has brought something: frames to write, or the end.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        let due = self.next_check();
        if due < self.timer.deadline() {
            self.timer.as_mut().reset(due);
        }
        ready!(self.timer.as_mut().poll(cx));
        let now = Instant::now();
        let result = self.on_time(now);
        // A check that found nothing due looks again no sooner than this.
        let soonest = now + Duration::from_millis(1);
        let due = self.next_check().max(soonest);
        self.timer.as_mut().reset(due);
        Poll::Ready(result)
    }

    /// How long a daemon that was pinged, or says goodbye, may be silent.
    fn pong_timeout(&self) -> Duration {
        let timeout = self.session.task.shared.options.pong_timeout;
        if self.session.is_paused { timeout.max(limits::WRITE_TIMEOUT) } else { timeout }
    }

    /// When silence becomes remarkable: after so long without a byte, or what was sent for it.
    fn silence_due(&self) -> Instant {
        let ping_after = self.session.task.shared.options.ping_after;
        if self.is_stalled {
            return self.last_sent + ping_after / 2;
        }
        match self.pinged_at {
            Some(pinged_at) => pinged_at + self.pong_timeout(),
            None if self.session.goodbye.is_some() => self.last_received + self.pong_timeout(),
            None => self.last_received + ping_after,
        }
    }

    /// When a socket that takes nothing is given up. A daemon that holds publishers back takes
    /// nothing on purpose.
    fn write_due(&self) -> Option<Instant> {
        if self.session.is_held() {
            return None;
        }
        Some(self.write_blocked_since? + limits::WRITE_TIMEOUT)
    }

    fn failure_due(&self) -> Option<Instant> {
        Some(self.write_failure.as_ref()?.0 + READ_AFTER_FAILED_WRITE)
    }

    fn closing_due(&self) -> Option<Instant> {
        let task = &self.session.task;
        Some(task.closing.as_ref()?.since + task.shared.options.close_timeout)
    }

    fn next_check(&self) -> Instant {
        [self.session.ack_due(), self.write_due(), self.failure_due(), self.closing_due()]
            .into_iter()
            .flatten()
            .fold(self.silence_due(), Instant::min)
    }

    /// Does what is due at `now`.
    fn on_time(&mut self, now: Instant) -> Result<(), Ended> {
        let is_due = |due: Option<Instant>| due.is_some_and(|due| now >= due);
        if is_due(self.session.ack_due()) {
            self.session.acknowledge();
        }
        if is_due(self.closing_due()) {
            let what = "closing the client";
            return Err(Ended::Closed(Err(Error::Timeout { what })));
        }
        if is_due(self.failure_due()) {
            let closed = io::ErrorKind::BrokenPipe.into();
            return Err(self.ended_by(closed));
        }
        if is_due(self.write_due()) {
            return Err(self.dead("the daemon takes no bytes"));
        }
        if now < self.silence_due() {
            return Ok(());
        }
        if self.is_stalled {
            let heartbeat =
                Header::new(FrameKind::Heartbeat, 0, 0).with_timestamp_us(wall_clock_us());
            FrameEncoder::bare(self.session.sender.control(), &heartbeat);
            self.last_sent = now;
        } else if self.pinged_at.is_some() || self.session.goodbye.is_some() {
            return Err(self.dead("the daemon is silent"));
        } else {
            FrameEncoder::ping_or_pong(self.session.sender.control(), FrameKind::Ping, 0);
            self.pinged_at = Some(now);
            self.session.shrink();
        }
        Ok(())
    }

    fn dead(&self, how: &'static str) -> Ended {
        let error = io::Error::new(io::ErrorKind::TimedOut, how);
        Ended::Lost(self.not_connected(error))
    }
}

fn wall_clock_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}
