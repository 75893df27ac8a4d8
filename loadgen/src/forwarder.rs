//! The state machine that pump and relay share: connections, lanes, and what waits to be sent.
//!
//! A connection's first eight bytes say whether it publishes or subscribes, and to which lane; the
//! same bytes are its answer. Whatever a publisher sends goes to all subscribers of its lane, in the
//! way the [`Copying`] says: that is the only difference between pump and relay. It runs on the same
//! driver as the daemon's shard, so that nothing but the work per message differs.
//!
//! Nothing is dropped: a lane whose slowest subscriber has [`PAUSE_BYTES`] waiting pauses its
//! publishers. Invariant: at most one send per connection is in flight, and its bytes stay where
//! they are until it has ended.

mod outbox;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use nexusd_core::{Command, ConnectionId, Event, Metrics, Now, Output, Report, Service};
use nexusd_wire::DecodeError;

use self::outbox::Outbox;
use crate::target::lane_greeting::{GREETING_BYTES, Greeting, Role};

/// Bytes waiting for one subscriber at which its lane's publishers are paused.
const PAUSE_BYTES: usize = 512 << 10;
/// Bytes waiting for the slowest subscriber at which they go on.
const RESUME_BYTES: usize = 256 << 10;

/// How bytes get from a publisher's connection to the subscribers' outboxes.
pub(crate) trait Copying {
    /// What is kept per publisher between two receives.
    type Stream;

    /// The state at the start of a stream.
    fn stream() -> Self::Stream;

    /// Copies what was received to every subscriber.
    ///
    /// # Errors
    /// Bytes that this way of copying cannot make sense of; the publisher is closed.
    fn copy(
        stream: &mut Self::Stream,
        bytes: &[u8],
        subscribers: &mut Subscribers<'_>,
    ) -> Result<(), DecodeError>;
}

/// The subscribers of one lane, while bytes are copied to them.
pub(crate) struct Subscribers<'a> {
    lane: &'a [u32],
    outboxes: &'a mut [Outbox],
}

impl Subscribers<'_> {
    /// Copies `bytes` to each.
    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for index in self.lane {
            self.outboxes[*index as usize].push(bytes);
        }
    }
}

/// Pump or relay, as a service for a driver.
pub(crate) struct Forwarder<C: Copying> {
    /// By index of the connection, as are the outboxes.
    connections: Vec<Option<Connection<C::Stream>>>,
    outboxes: Vec<Outbox>,
    lanes: Vec<Lane>,
    outputs: VecDeque<Output>,
    metrics: Metrics,
    is_finished: bool,
}

struct Connection<S> {
    id: ConnectionId,
    state: State<S>,
}

enum State<S> {
    Greeting {
        bytes: [u8; GREETING_BYTES],
        len: usize,
    },
    Publisher {
        lane: usize,
        stream: S,
        is_paused: bool,
    },
    Subscriber {
        lane: usize,
        /// More than [`PAUSE_BYTES`] waited, and not less than [`RESUME_BYTES`] since.
        is_behind: bool,
    },
    /// Closed for what it sent; whatever else comes is not read.
    Refused,
}

/// Indexes of connections.
#[derive(Default)]
struct Lane {
    subscribers: Vec<u32>,
    publishers: Vec<u32>,
    /// Subscribers that are behind.
    behind: usize,
}

impl<C: Copying> Default for Forwarder<C> {
    fn default() -> Self {
        Self {
            connections: Vec::new(),
            outboxes: Vec::new(),
            lanes: Vec::new(),
            outputs: VecDeque::new(),
            metrics: Metrics::default(),
            is_finished: false,
        }
    }
}

impl<C: Copying> Service for Forwarder<C> {
    fn on_event(&mut self, _now: Now, event: Event<'_>) {
        match event {
            Event::Opened { connection, .. } => self.on_opened(connection),
            Event::Received { connection, bytes } => self.on_received(connection, bytes),
            Event::Sent { connection, bytes, blocked } => self.on_sent(connection, bytes, blocked),
            Event::Writable { connection } => {
                self.outboxes[connection.index as usize].on_writable();
                self.send_what_waits(connection.index);
            }
            Event::Closed { connection, .. } => self.on_closed(connection),
            Event::Command(Command::Drain { .. }) => self.is_finished = true,
            Event::Command(Command::Sample) => {
                self.outputs.push_back(Output::Report(Report::Metrics(Box::new(self.metrics))));
            }
            // Large frames are received like all others here, nothing is published, and no time
            // was asked for.
            Event::Command(
                Command::Publish { .. } | Command::Inspect { .. } | Command::Link(_),
            )
            | Event::Landed { .. }
            | Event::Inbox
            | Event::Tick => {}
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn gather(&mut self, connection: ConnectionId, take: &mut dyn FnMut(&[u8])) {
        let outbox = &mut self.outboxes[connection.index as usize];
        let bytes = outbox.next_send();
        if !bytes.is_empty() {
            take(bytes);
        }
    }

    fn landing_zone(&mut self, _connection: ConnectionId) -> Option<&mut [u8]> {
        None
    }

    fn wake_at(&self) -> Option<u64> {
        None
    }

    fn is_finished(&self) -> bool {
        self.is_finished
    }
}

impl<C: Copying> Forwarder<C> {
    fn on_opened(&mut self, id: ConnectionId) {
        let index = id.index as usize;
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, || None);
            self.outboxes.resize_with(index + 1, Outbox::default);
        }
        self.outboxes[index] = Outbox::default();
        self.connections[index] =
            Some(Connection { id, state: State::Greeting { bytes: [0; GREETING_BYTES], len: 0 } });
    }

    fn on_received(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(Some(connection)) = self.connections.get_mut(id.index as usize) else {
            return;
        };
        match &mut connection.state {
            State::Publisher { lane, stream, .. } => {
                let lane = *lane;
                let mut subscribers = Subscribers {
                    lane: &self.lanes[lane].subscribers,
                    outboxes: &mut self.outboxes,
                };
                if C::copy(stream, bytes, &mut subscribers).is_err() {
                    self.refuse(id);
                    return;
                }
                self.after_copy(lane);
            }
            State::Greeting { bytes: seen, len } => {
                let missing = GREETING_BYTES - *len;
                let (greeting, rest) = bytes.split_at(missing.min(bytes.len()));
                seen[*len..*len + greeting.len()].copy_from_slice(greeting);
                *len += greeting.len();
                if *len < GREETING_BYTES {
                    return;
                }
                match Greeting::decode(*seen) {
                    Some(greeting) => self.on_greeting(id, greeting),
                    None => self.refuse(id),
                }
                if !rest.is_empty() {
                    self.on_received(id, rest);
                }
            }
            // A subscriber has nothing more to say.
            State::Subscriber { .. } | State::Refused => {}
        }
    }

    fn on_greeting(&mut self, id: ConnectionId, greeting: Greeting) {
        let lane = greeting.lane as usize;
        if self.lanes.len() <= lane {
            self.lanes.resize_with(lane + 1, Lane::default);
        }
        let state = match greeting.role {
            Role::Publisher => {
                self.lanes[lane].publishers.push(id.index);
                State::Publisher { lane, stream: C::stream(), is_paused: false }
            }
            Role::Subscriber => {
                self.lanes[lane].subscribers.push(id.index);
                State::Subscriber { lane, is_behind: false }
            }
        };
        self.connections[id.index as usize] = Some(Connection { id, state });
        self.outboxes[id.index as usize].push(&greeting.encode());
        self.send_what_waits(id.index);
    }

    /// Begins sends to a lane's subscribers, and pauses its publishers if one is behind.
    fn after_copy(&mut self, lane: usize) {
        for at in 0..self.lanes[lane].subscribers.len() {
            let index = self.lanes[lane].subscribers[at];
            self.send_what_waits(index);
            self.judge(index);
        }
        if self.lanes[lane].behind > 0 {
            self.hold_publishers(lane, true);
        }
    }

    /// Asks for a send if something waits for this connection and none is under way.
    #[inline]
    fn send_what_waits(&mut self, index: u32) {
        let outbox = &mut self.outboxes[index as usize];
        if let (true, Some(connection)) = (outbox.wants_send(), &self.connections[index as usize]) {
            outbox.on_send_asked();
            self.outputs.push_back(Output::Send(connection.id));
        }
    }

    fn on_sent(&mut self, id: ConnectionId, bytes: usize, blocked: bool) {
        self.metrics.sends += 1;
        self.metrics.bytes_out += bytes as u64;
        self.outboxes[id.index as usize].on_sent(bytes, blocked);
        self.send_what_waits(id.index);
        self.judge(id.index);
    }

    /// Notices that a subscriber has fallen behind or caught up.
    #[inline]
    fn judge(&mut self, index: u32) {
        let waiting = self.outboxes[index as usize].waiting();
        let Some(Some(connection)) = self.connections.get_mut(index as usize) else {
            return;
        };
        let State::Subscriber { lane, is_behind } = &mut connection.state else {
            return;
        };
        let lane = *lane;
        if !*is_behind && waiting > PAUSE_BYTES {
            *is_behind = true;
            self.lanes[lane].behind += 1;
        } else if *is_behind && waiting <= RESUME_BYTES {
            *is_behind = false;
            self.caught_up(lane);
        }
    }

    /// One subscriber fewer of this lane is behind.
    fn caught_up(&mut self, lane: usize) {
        self.lanes[lane].behind -= 1;
        if self.lanes[lane].behind == 0 {
            self.hold_publishers(lane, false);
        }
    }

    /// Pauses a lane's publishers, or lets them go on.
    fn hold_publishers(&mut self, lane: usize, hold: bool) {
        for index in &self.lanes[lane].publishers {
            let Some(Some(connection)) = self.connections.get_mut(*index as usize) else {
                continue;
            };
            let State::Publisher { is_paused, .. } = &mut connection.state else {
                continue;
            };
            if *is_paused == hold {
                continue;
            }
            *is_paused = hold;
            self.outputs.push_back(if hold {
                Output::PauseReceive(connection.id)
            } else {
                Output::ResumeReceive(connection.id)
            });
        }
    }

    fn refuse(&mut self, id: ConnectionId) {
        self.leave_lane(id.index);
        if let Some(Some(connection)) = self.connections.get_mut(id.index as usize) {
            connection.state = State::Refused;
        }
        self.outputs.push_back(Output::Close(id));
    }

    fn on_closed(&mut self, id: ConnectionId) {
        self.leave_lane(id.index);
        self.connections[id.index as usize] = None;
        self.outboxes[id.index as usize] = Outbox::default();
    }

    fn leave_lane(&mut self, index: u32) {
        let Some(Some(connection)) = self.connections.get(index as usize) else {
            return;
        };
        match connection.state {
            State::Publisher { lane, .. } => {
                self.lanes[lane].publishers.retain(|other| *other != index);
            }
            State::Subscriber { lane, is_behind } => {
                self.lanes[lane].subscribers.retain(|other| *other != index);
                if is_behind {
                    self.caught_up(lane);
                }
            }
            State::Greeting { .. } | State::Refused => {}
        }
    }
}
