//! Reads only when it is told to, whatever happens to its peers meanwhile.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use nexusd_core::{CloseReason, Command, ConnectionId, Event, Now, Output, Service};

use super::Gauge;

/// What tests may watch while the loop runs.
#[derive(Default)]
pub struct SluggishGauges {
    pub opened: Gauge,
    pub received: Gauge,
    pub closed: Gauge,
    /// Connections that were closed before it had asked for all they had said.
    pub closed_while_paused: Gauge,
}

#[derive(Default)]
pub struct Sluggish {
    pub gauges: Arc<SluggishGauges>,
    pub reasons: Vec<CloseReason>,
    /// Reads nothing of a new connection.
    pub starts_paused: bool,
    /// Pauses behind whatever it receives.
    pub pauses_again: bool,
    /// At each `Sample`: a byte to everybody, before anything else.
    pub sends: bool,
    /// At each `Sample`: reads on.
    pub resumes: bool,
    /// Of each connection, whether it is paused.
    connections: HashMap<ConnectionId, bool>,
    outputs: VecDeque<Output>,
    finished: bool,
}

impl Sluggish {
    /// One with some of its settings changed.
    pub fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut sluggish = Self::default();
        change(&mut sluggish);
        sluggish
    }

    fn pause(&mut self, connection: ConnectionId) {
        self.connections.insert(connection, true);
        self.outputs.push_back(Output::PauseReceive(connection));
    }
}

impl Service for Sluggish {
    fn on_event(&mut self, _now: Now, event: Event<'_>) {
        match event {
            Event::Opened { connection, .. } => {
                self.connections.insert(connection, false);
                self.gauges.opened.add(1);
                if self.starts_paused {
                    self.pause(connection);
                }
            }
            Event::Received { connection, bytes } => {
                self.gauges.received.add(bytes.len());
                if self.pauses_again {
                    self.pause(connection);
                }
            }
            Event::Closed { connection, reason } => {
                let is_paused = self.connections.remove(&connection).expect("closed once");
                self.gauges.closed_while_paused.add(is_paused.into());
                self.reasons.push(reason);
                self.gauges.closed.add(1);
            }
            Event::Command(Command::Sample) => {
                for (connection, is_paused) in &mut self.connections {
                    if self.sends {
                        self.outputs.push_back(Output::Send(*connection));
                    }
                    if self.resumes {
                        *is_paused = false;
                        self.outputs.push_back(Output::ResumeReceive(*connection));
                    }
                }
            }
            Event::Command(Command::Drain { .. }) => self.finished = true,
            Event::Command(
                Command::Publish { .. } | Command::Inspect { .. } | Command::Link(_),
            )
            | Event::Inbox
            | Event::Tick => {}
            Event::Sent { .. } | Event::Writable { .. } => {}
            Event::Landed { .. } => panic!("no landing zone was lent"),
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn gather(&mut self, _connection: ConnectionId, take: &mut dyn FnMut(&[u8])) {
        take(b".");
    }

    fn landing_zone(&mut self, _connection: ConnectionId) -> Option<&mut [u8]> {
        None
    }

    fn wake_at(&self) -> Option<u64> {
        None
    }

    fn is_finished(&self) -> bool {
        self.finished
    }
}
