//! Two shards with a connection each: what one's client says, the other's client hears.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex};

use nexusd_core::{Command, ConnectionId, Event, Now, Output, Service, ShardIndex};

/// One of the two.
pub struct Crossing {
    own: usize,
    /// Connections that were accepted here, for itself and the other in turn.
    placed: usize,
    /// Bytes on their way to each of the two.
    inboxes: [Arc<Mutex<Vec<u8>>>; 2],
    connection: Option<ConnectionId>,
    owed: Vec<u8>,
    lent: Vec<u8>,
    sending: bool,
    outputs: VecDeque<Output>,
    finished: bool,
}

impl Crossing {
    /// Both.
    pub fn pair() -> [Self; 2] {
        let inboxes = <[Arc<Mutex<Vec<u8>>>; 2]>::default();
        [0, 1].map(|own| Self {
            own,
            placed: 0,
            inboxes: inboxes.clone(),
            connection: None,
            owed: Vec::new(),
            lent: Vec::new(),
            sending: false,
            outputs: VecDeque::new(),
            finished: false,
        })
    }

    /// Whether the connection it was given is its first.
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    fn flush(&mut self) {
        if let Some(connection) = self.connection
            && !self.owed.is_empty()
            && !self.sending
        {
            self.sending = true;
            self.outputs.push_back(Output::Send(connection));
        }
    }
}

impl Service for Crossing {
    fn on_event(&mut self, _now: Now, event: Event<'_>) {
        match event {
            Event::Opened { connection, .. } => {
                assert!(self.connection.is_none(), "one connection each");
                self.connection = Some(connection);
                self.flush();
            }
            Event::Received { bytes, .. } => {
                let other = 1 - self.own;
                self.inboxes[other].lock().expect("no panic").extend_from_slice(bytes);
                self.outputs.push_back(Output::Ring(ShardIndex::new(other)));
            }
            Event::Inbox => {
                self.owed.append(&mut self.inboxes[self.own].lock().expect("no panic"));
                self.flush();
            }
            Event::Sent { bytes, blocked, .. } => {
                assert!(!blocked && bytes == self.lent.len(), "messages are short");
                self.sending = false;
                self.flush();
            }
            Event::Command(Command::Drain { .. }) => self.finished = true,
            Event::Command(_) | Event::Closed { .. } | Event::Tick => {}
            Event::Writable { .. } | Event::Landed { .. } => panic!("messages are short"),
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn gather(&mut self, _connection: ConnectionId, take: &mut dyn FnMut(&[u8])) {
        self.lent = mem::take(&mut self.owed);
        take(&self.lent);
    }

    fn landing_zone(&mut self, _connection: ConnectionId) -> Option<&mut [u8]> {
        None
    }

    fn has_mail(&self) -> bool {
        !self.inboxes[self.own].lock().expect("no panic").is_empty()
    }

    fn place(&mut self) -> ShardIndex {
        self.placed += 1;
        ShardIndex::new((self.placed - 1) % 2)
    }

    fn wake_at(&self) -> Option<u64> {
        None
    }

    fn is_finished(&self) -> bool {
        self.finished
    }
}
