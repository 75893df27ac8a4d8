//! Sends back what it receives, in slices, and stops reading while it owes much.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use nexusd_core::{
    CloseReason, Command, ConnectionId, Event, Now, Output, PeerAddress, Report, Service,
};

use super::Gauge;

/// What tests may watch while the loop runs.
#[derive(Default)]
pub struct EchoGauges {
    pub opened: Gauge,
    pub closed: Gauge,
    pub received: Gauge,
    pub blocked: Gauge,
    pub writable: Gauge,
    pub pauses: Gauge,
    pub ticks: Gauge,
}

#[derive(Default)]
struct Session {
    owed: Vec<u8>,
    lent: Vec<u8>,
    lent_from: usize,
    sending: bool,
    blocked: bool,
    paused: bool,
    /// Everything owed is sent, then the connection closes.
    last: bool,
}

pub struct Echo {
    pub gauges: Arc<EchoGauges>,
    pub peers: Vec<PeerAddress>,
    pub reasons: Vec<CloseReason>,
    /// Bytes owed at which a connection is no longer read.
    pub pause_at: usize,
    /// Length of the slices lent.
    pub slice: usize,
    /// New connections are not read until the next `Sample`.
    pub start_paused: bool,
    /// Answers the first bytes with a farewell, and closes.
    pub farewell: Option<&'static [u8]>,
    /// Stops accepting at the first `Sample`.
    pub stop_on_sample: bool,
    /// Ticks at this interval, in microseconds.
    pub tick_us: Option<u64>,
    next_tick: Option<u64>,
    sessions: HashMap<ConnectionId, Session>,
    outputs: VecDeque<Output>,
    finished: bool,
}

impl Default for Echo {
    fn default() -> Self {
        Self {
            gauges: Arc::default(),
            peers: Vec::new(),
            reasons: Vec::new(),
            pause_at: 1 << 20,
            slice: 5_000,
            start_paused: false,
            farewell: None,
            stop_on_sample: false,
            tick_us: None,
            next_tick: None,
            sessions: HashMap::new(),
            outputs: VecDeque::new(),
            finished: false,
        }
    }
}

impl Echo {
    /// An echo with some of its settings changed.
    pub fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut echo = Self::default();
        change(&mut echo);
        echo
    }

    fn flush(&mut self, connection: ConnectionId) {
        let session = self.sessions.get_mut(&connection).expect("a session");
        let owes = !session.owed.is_empty() || session.lent_from < session.lent.len();
        if owes && !session.sending && !session.blocked {
            session.sending = true;
            self.outputs.push_back(Output::Send(connection));
        }
        if !owes && !session.sending && session.last {
            session.last = false;
            self.outputs.push_back(Output::Close(connection));
        }
        let owed = session.owed.len();
        if !session.paused && owed >= self.pause_at {
            session.paused = true;
            self.gauges.pauses.add(1);
            self.outputs.push_back(Output::PauseReceive(connection));
        } else if session.paused && !self.start_paused && owed < self.pause_at / 2 {
            session.paused = false;
            self.outputs.push_back(Output::ResumeReceive(connection));
        }
    }
}

impl Service for Echo {
    fn on_event(&mut self, now: Now, event: Event<'_>) {
        if self.next_tick.is_none() {
            self.next_tick = self.tick_us.map(|us| now.mono_us + us);
        }
        match event {
            Event::Opened { connection, peer, .. } => {
                let fresh = self.sessions.insert(connection, Session::default());
                assert!(fresh.is_none(), "opened twice");
                self.peers.push(peer);
                self.gauges.opened.add(1);
                if self.start_paused {
                    self.sessions.get_mut(&connection).expect("a session").paused = true;
                    self.outputs.push_back(Output::PauseReceive(connection));
                }
            }
            Event::Received { connection, bytes } => {
                assert!(!bytes.is_empty());
                self.gauges.received.add(bytes.len());
                let session = self.sessions.get_mut(&connection).expect("a session");
                if let Some(farewell) = self.farewell {
                    if !session.last && session.lent.is_empty() {
                        session.owed.extend_from_slice(farewell);
                        session.last = true;
                    }
                } else {
                    session.owed.extend_from_slice(bytes);
                }
                self.flush(connection);
            }
            Event::Landed { .. } => panic!("no landing zone was lent"),
            Event::Sent { connection, bytes, blocked } => {
                let session = self.sessions.get_mut(&connection).expect("a session");
                assert!(session.sending, "sent without a send");
                session.sending = false;
                session.blocked = blocked;
                session.lent_from += bytes;
                if blocked {
                    self.gauges.blocked.add(1);
                }
                self.flush(connection);
            }
            Event::Writable { connection } => {
                let session = self.sessions.get_mut(&connection).expect("a session");
                assert!(session.blocked, "writable without being blocked");
                session.blocked = false;
                self.gauges.writable.add(1);
                self.flush(connection);
            }
            Event::Closed { connection, reason } => {
                let gone = self.sessions.remove(&connection);
                assert!(gone.is_some(), "closed twice");
                self.reasons.push(reason);
                self.gauges.closed.add(1);
            }
            Event::Command(Command::Sample) => {
                self.outputs.push_back(Output::Report(Report::Metrics(Box::default())));
                if self.stop_on_sample {
                    self.outputs.push_back(Output::StopAccepting);
                }
                self.start_paused = false;
                let all: Vec<_> = self.sessions.keys().copied().collect();
                for connection in all {
                    self.flush(connection);
                }
            }
            Event::Command(Command::Drain { .. }) => self.finished = true,
            Event::Command(
                Command::Publish { .. } | Command::Inspect { .. } | Command::Link(_),
            )
            | Event::Inbox => {}
            Event::Tick => {
                self.gauges.ticks.add(1);
                self.next_tick = self.tick_us.map(|us| now.mono_us + us);
            }
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn gather(&mut self, connection: ConnectionId, take: &mut dyn FnMut(&[u8])) {
        let slice = self.slice;
        let session = self.sessions.get_mut(&connection).expect("a session");
        if session.lent_from == session.lent.len() {
            session.lent.clear();
            session.lent_from = 0;
            std::mem::swap(&mut session.lent, &mut session.owed);
        }
        // Neighbours are lent one by one on purpose, in the order of their bytes.
        for slice in session.lent[session.lent_from..].chunks(slice).take(1_000) {
            take(slice);
        }
    }

    fn landing_zone(&mut self, _connection: ConnectionId) -> Option<&mut [u8]> {
        None
    }

    fn wake_at(&self) -> Option<u64> {
        self.tick_us.map(|_| self.next_tick.unwrap_or(0))
    }

    fn is_finished(&self) -> bool {
        self.finished
    }
}
