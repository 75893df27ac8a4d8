//! The driver's table of connections: a slot for each, found by index without hashing.
//!
//! A slot holds the socket and what is in flight on it. It is given to a new connection only after
//! everything in flight has ended, with the next generation. It costs 40 bytes; an idle connection
//! has nothing else in the driver.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::shard::event::{CloseReason, ConnectionId};
use crate::shard::output::Destination;

/// What receives on a connection. At most one receive is in flight at any time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Receive {
    /// Nothing is in flight.
    Idle,
    /// The multishot receive into the shared buffers. On epoll: the socket is watched.
    Shared,
    /// A single receive into the service's landing zone.
    InPlace,
    /// Nothing is in flight for want of buffers; the connection stands in line.
    Starved,
}

/// How far the end of a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Phase {
    /// In use.
    Open,
    /// The end was decided. Nothing new begins; a send in flight is awaited.
    Closing,
    /// We send no more and were told of no more, but still read, so that the kernel does not answer
    /// unread bytes with a reset that would destroy our last frames on the peer's side.
    Lingering,
    /// Everything in flight is cancelled or awaited; then the socket closes.
    Ending,
}

/// One connection, or a free slot.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Option<OwnedFd>,
    generation: u32,
    /// Bytes of the send in flight.
    pub(super) gathered: u32,
    /// Bytes read and thrown away while lingering.
    pub(super) discarded: u32,
    /// Why it ends; meaningful once it is closing, or its peer is gone.
    pub(super) reason: CloseReason,
    pub(super) receive: Receive,
    pub(super) phase: Phase,
    /// The receive in flight has been cancelled; its last completion is still to come.
    pub(super) receive_cancelled: bool,
    /// The service wants no more bytes for now.
    pub(super) paused: bool,
    /// The service wants the rest of a large frame in its own memory.
    pub(super) in_place: bool,
    /// Bytes came since the multishot receive was armed.
    pub(super) fed: bool,
    /// A send is in flight. On epoll: its end is still to be told.
    pub(super) sending: bool,
    /// The poll for room in the send buffer is in flight. On epoll: the socket is watched for that.
    pub(super) polling_writable: bool,
    /// A send found that the peer is gone, which is the reason from then on. What it had said before
    /// is still read.
    pub(super) is_gone: bool,
    /// The receive came to the end of the stream, or failed, for that reason. Told once the service
    /// has taken what came before.
    pub(super) ended: bool,
    /// It stands in the line of those that are to be read (epoll).
    pub(super) in_line: bool,
    /// The service was told of the end.
    pub(super) told_closed: bool,
    /// The shard it goes to as soon as nothing is in flight (io_uring).
    pub(super) moves_to: Option<Destination>,
}

impl Connection {
    fn new(socket: OwnedFd, generation: u32) -> Self {
        Self {
            socket: Some(socket),
            generation,
            gathered: 0,
            discarded: 0,
            reason: CloseReason::Asked,
            receive: Receive::Idle,
            phase: Phase::Open,
            receive_cancelled: false,
            paused: false,
            in_place: false,
            fed: false,
            sending: false,
            polling_writable: false,
            is_gone: false,
            ended: false,
            in_line: false,
            told_closed: false,
            moves_to: None,
        }
    }

    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether it is over but for what the service has not taken yet.
    pub(super) fn is_leaving(&self) -> bool {
        self.is_open() && self.paused && (self.ended || self.is_gone)
    }

    /// Whether the kernel still works on the connection.
    #[inline]
    pub(super) fn is_in_flight(&self) -> bool {
        self.sending
            || self.polling_writable
            || matches!(self.receive, Receive::Shared | Receive::InPlace)
    }

    /// The socket's number for submissions. A free slot has none, which the kernel refuses.
    #[inline]
    pub(super) fn descriptor(&self) -> RawFd {
        self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// The socket, unless the slot is free.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }
}

/// All connections of a driver.
#[derive(Default)]
pub(super) struct ConnectionTable {
    slots: Vec<Connection>,
    free: Vec<u32>,
}

impl ConnectionTable {
    /// How many connections there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes in a new connection.
    pub(super) fn insert(&mut self, socket: OwnedFd) -> ConnectionId {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            let generation = slot.generation;
            *slot = Connection::new(socket, generation);
            ConnectionId { index, generation }
        } else {
            let index = self.slots.len() as u32;
            self.slots.push(Connection::new(socket, 0));
            ConnectionId { index, generation: 0 }
        }
    }

    /// The connection of this id, if it still has its slot.
    #[inline]
    pub(super) fn find(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slots
            .get_mut(id.index as usize)
            .filter(|slot| slot.generation == id.generation && slot.socket.is_some())
    }

    /// Closes the socket and frees the slot for the next generation.
    pub(super) fn remove(&mut self, id: ConnectionId) {
        drop(self.release(id));
    }

    /// Frees the slot for the next generation. Its socket goes on elsewhere.
    pub(super) fn release(&mut self, id: ConnectionId) -> Option<OwnedFd> {
        let connection = self.find(id)?;
        debug_assert!(!connection.is_in_flight());
        let socket = connection.socket.take();
        connection.generation = connection.generation.wrapping_add(1);
        self.free.push(id.index);
        socket
    }

    /// All sockets, for the driver's end.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.slots.iter().filter_map(Connection::socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_slot_is_reused_with_the_next_generation_and_the_old_id_finds_nothing() {
        let mut table = ConnectionTable::default();
        let (one, two) = UnixStream::pair().expect("sockets");
        let old = table.insert(one.into());
        assert!(table.find(old).is_some());
        table.remove(old);
        table.remove(old);
        assert_eq!(table.len(), 0);
        assert!(table.find(old).is_none());
        let new = table.insert(two.into());
        assert_eq!(new.index, old.index);
        assert_ne!(new.generation, old.generation);
        assert!(table.find(old).is_none());
        assert!(table.find(new).is_some());
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_connection_that_is_released_stays_open_and_leaves_its_slot() {
        let mut table = ConnectionTable::default();
        let (one, mut other) = UnixStream::pair().expect("sockets");
        let id = table.insert(one.into());
        let released = table.release(id).expect("its socket");
        assert!(table.find(id).is_none() && table.release(id).is_none());
        assert_eq!(table.len(), 0);
        UnixStream::from(released).write_all(b"x").expect("an open socket");
        other.read_exact(&mut [0]).expect("a byte");
    }

    #[test]
    fn an_idle_connection_costs_40_bytes() {
        assert!(size_of::<Connection>() <= 40);
    }
}
