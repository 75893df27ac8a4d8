//! How a shard's connections are numbered: each driver does that for itself, so connections of two
//! shards may have the same id. The world outside has its own ids.

use std::collections::BTreeMap;

use nexusd_core::{ConnectionId, Event, Output};

/// The ids of one shard's connections, beside those of the world.
#[derive(Debug, Default)]
pub struct Numbering {
    inside: BTreeMap<ConnectionId, ConnectionId>,
    /// Of connections that ended as well: a shard may still have something to say of them.
    outside: BTreeMap<ConnectionId, ConnectionId>,
    generations: Vec<u32>,
    free: Vec<u32>,
}

impl Numbering {
    /// The shard's id of a connection that the world knows by `outside`.
    pub fn inside(&self, outside: ConnectionId) -> ConnectionId {
        self.inside[&outside]
    }

    /// The event as the shard is told it: connections that open are numbered.
    pub fn told<'a>(&mut self, mut event: Event<'a>) -> Event<'a> {
        match &mut event {
            Event::Opened { connection, .. } => *connection = self.open(*connection),
            Event::Closed { connection, .. } => {
                *connection = self.inside(*connection);
                self.free.push(connection.index);
            }
            Event::Received { connection, .. }
            | Event::Landed { connection, .. }
            | Event::Sent { connection, .. }
            | Event::Writable { connection } => *connection = self.inside(*connection),
            Event::Command(_) | Event::Inbox | Event::Tick => {}
        }
        event
    }

    /// What the shard asks for as the world is asked.
    pub fn asked(&self, mut output: Output) -> Output {
        match &mut output {
            Output::Send(connection)
            | Output::Close(connection)
            | Output::PauseReceive(connection)
            | Output::ResumeReceive(connection)
            | Output::ReceiveInPlace(connection)
            | Output::Move { connection, .. } => *connection = self.outside[connection],
            Output::Ring(_) | Output::StopAccepting | Output::Report(_) => {}
        }
        output
    }

    fn open(&mut self, outside: ConnectionId) -> ConnectionId {
        let index = self.free.pop().unwrap_or(self.generations.len() as u32);
        if index as usize == self.generations.len() {
            self.generations.push(0);
        }
        self.generations[index as usize] += 1;
        let inside = ConnectionId { index, generation: self.generations[index as usize] };
        self.inside.insert(outside, inside);
        self.outside.insert(inside, outside);
        inside
    }
}
