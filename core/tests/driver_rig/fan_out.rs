//! Sends what its first connection sends to all others, out of one shared log.

use std::collections::{HashMap, VecDeque};

use nexusd_core::limits::{BYTES_PER_SEND, IOVECS_PER_SEND};
use nexusd_core::{Command, ConnectionId, Event, Metrics, Now, Output, Report, Service};

#[derive(Default)]
struct Cursor {
    /// Chunk of the log, and byte in it.
    chunk: usize,
    offset: usize,
    sending: bool,
    blocked: bool,
}

/// The log only grows, so what was lent stays in place.
#[derive(Default)]
pub struct FanOut {
    publisher: Option<ConnectionId>,
    log: Vec<Box<[u8]>>,
    subscribers: HashMap<ConnectionId, Cursor>,
    outputs: VecDeque<Output>,
    finished: bool,
}

impl FanOut {
    fn flush(&mut self, connection: ConnectionId) {
        let behind = self.log.len();
        if let Some(cursor) = self.subscribers.get_mut(&connection)
            && cursor.chunk < behind
            && !cursor.sending
            && !cursor.blocked
        {
            cursor.sending = true;
            self.outputs.push_back(Output::Send(connection));
        }
    }
}

impl Service for FanOut {
    fn on_event(&mut self, _now: Now, event: Event<'_>) {
        match event {
            Event::Opened { connection, .. } => {
                if self.publisher.is_none() {
                    self.publisher = Some(connection);
                } else {
                    self.subscribers.insert(connection, Cursor::default());
                }
            }
            Event::Received { bytes, .. } => {
                self.log.push(bytes.into());
                let all: Vec<_> = self.subscribers.keys().copied().collect();
                for connection in all {
                    self.flush(connection);
                }
            }
            Event::Sent { connection, mut bytes, blocked } => {
                let cursor = self.subscribers.get_mut(&connection).expect("a cursor");
                cursor.sending = false;
                cursor.blocked = blocked;
                while bytes > 0 {
                    let left = self.log[cursor.chunk].len() - cursor.offset;
                    if bytes < left {
                        cursor.offset += bytes;
                        break;
                    }
                    bytes -= left;
                    cursor.chunk += 1;
                    cursor.offset = 0;
                }
                self.flush(connection);
            }
            Event::Writable { connection } => {
                self.subscribers.get_mut(&connection).expect("a cursor").blocked = false;
                self.flush(connection);
            }
            Event::Closed { connection, .. } => {
                self.subscribers.remove(&connection);
            }
            Event::Command(Command::Sample) => {
                let metrics = Metrics {
                    connections: self.subscribers.len() as u64
                        + u64::from(self.publisher.is_some()),
                    ..Metrics::default()
                };
                self.outputs.push_back(Output::Report(Report::Metrics(Box::new(metrics))));
            }
            Event::Command(Command::Drain { .. }) => self.finished = true,
            Event::Command(
                Command::Publish { .. } | Command::Inspect { .. } | Command::Link(_),
            )
            | Event::Inbox
            | Event::Tick => {}
            Event::Landed { .. } => panic!("no landing zone was lent"),
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn gather(&mut self, connection: ConnectionId, take: &mut dyn FnMut(&[u8])) {
        let cursor = &self.subscribers[&connection];
        let mut offset = cursor.offset;
        let mut bytes = 0;
        for chunk in self.log[cursor.chunk..].iter().take(IOVECS_PER_SEND) {
            take(&chunk[offset..]);
            bytes += chunk.len() - offset;
            offset = 0;
            if bytes >= BYTES_PER_SEND {
                break;
            }
        }
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
