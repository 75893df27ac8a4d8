//! The connections of a node's shards, as their drivers keep them.

use std::collections::{BTreeMap, VecDeque};

use nexusd_core::{CloseReason, ConnectionId, Door, PeerAddress};

use crate::mesh::wire::WireId;

/// A connection on its way to the shard that it will live on.
#[derive(Debug)]
pub struct Arrival {
    /// It.
    pub id: ConnectionId,
    /// Where it comes from.
    pub peer: PeerAddress,
    /// Which way it came in.
    pub door: Door,
    /// Another shard gave it up.
    pub is_moved: bool,
    /// What that one was told of it.
    pub bytes: Vec<u8>,
}

/// One connection.
#[derive(Debug)]
pub struct Socket {
    /// Its name.
    pub id: ConnectionId,
    /// Its shard; `None`: on its way there.
    pub shard: Option<usize>,
    /// What it is an end of.
    pub wire: WireId,
    /// Which end.
    pub end: usize,
    /// The shard wants to be fed.
    pub is_receiving: bool,
    /// What the running send holds.
    pub in_flight: Option<Vec<u8>>,
    /// It waits for room.
    pub is_blocked: bool,
    /// The shard is done with it.
    pub closing: Option<CloseReason>,
    /// It goes to this shard.
    pub moves_to: Option<usize>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Sockets {
    slots: Vec<Option<Socket>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    by_end: BTreeMap<(WireId, usize), u32>,
    /// Connections that were made and not yet accepted.
    pub backlog: VecDeque<(WireId, usize, PeerAddress, Door)>,
}

impl Sockets {
    /// One more connection.
    pub fn open(&mut self, wire: WireId, end: usize, shard: Option<usize>) -> ConnectionId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.generations.push(0);
            self.slots.len() as u32 - 1
        });
        let generation = &mut self.generations[index as usize];
        *generation += 1;
        let id = ConnectionId { index, generation: *generation };
        self.slots[index as usize] = Some(Socket {
            id,
            shard,
            wire,
            end,
            is_receiving: true,
            in_flight: None,
            is_blocked: false,
            closing: None,
            moves_to: None,
        });
        self.by_end.insert((wire, end), index);
        id
    }

    /// A connection is gone.
    pub fn close(&mut self, id: ConnectionId) -> Option<Socket> {
        self.find(id)?;
        let socket = self.slots[id.index as usize].take()?;
        self.by_end.remove(&(socket.wire, socket.end));
        self.free.push(id.index);
        Some(socket)
    }

    /// One of them.
    pub fn find(&mut self, id: ConnectionId) -> Option<&mut Socket> {
        self.slots[id.index as usize].as_mut().filter(|socket| socket.id == id)
    }

    /// The one at this end of a connection.
    pub fn at(&mut self, wire: WireId, end: usize) -> Option<&mut Socket> {
        let index = *self.by_end.get(&(wire, end))?;
        self.slots[index as usize].as_mut()
    }

    /// Those of a shard.
    pub fn of_shard(&self, shard: usize) -> Vec<ConnectionId> {
        let sockets = self.slots.iter().flatten();
        sockets.filter(|socket| socket.shard == Some(shard)).map(|socket| socket.id).collect()
    }
}
