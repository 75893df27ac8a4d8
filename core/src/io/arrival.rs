//! A connection on its way to the loop that will serve it: just accepted by another one, or given up
//! there after its first words.
//!
//! Whoever holds an arrival owns its socket: wherever one is dropped, the connection ends. What was read
//! of it belongs to its stream, before anything that its socket still brings; so does the end of the
//! stream, which a socket tells as often as it is asked.

use std::os::fd::OwnedFd;

use socket2::SockRef;

use super::driver::Service;
use crate::limits::RECEIVE_BUFFER_BYTES;
use crate::shard::event::{ConnectionId, Door, Event, Now, PeerAddress};
use crate::shard::handover::Handover;

/// One connection.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) socket: OwnedFd,
    /// Where it comes from, and what was read of it.
    pub(super) story: Story,
}

/// What a service is told of an arrival.
#[derive(Debug)]
pub(super) struct Story {
    peer: PeerAddress,
    door: Door,
    /// What another loop has read of it; `None` if it was just accepted.
    read: Option<Vec<u8>>,
}

impl Arrival {
    /// A connection of which nothing was read.
    pub(super) fn accepted(socket: OwnedFd, peer: PeerAddress, door: Door) -> Self {
        if matches!(peer, PeerAddress::Tcp(address) if address.ip().is_loopback()) {
            // Where the host's congestion control paces, as BBR does, every few packets cost a timer and
            // its interrupt, and inside a host nothing is congested. This one does not, every kernel
            // has it, and everybody may choose it; without it the connection works as well.
            let _ = SockRef::from(&socket).set_tcp_congestion(b"reno");
        }
        Self { socket, story: Story { peer, door, read: None } }
    }

    /// A connection that moves, and what was read of it.
    pub(super) fn moved(socket: OwnedFd, handover: Handover) -> Self {
        let Handover { peer, door, bytes } = handover;
        Self { socket, story: Story { peer, door, read: Some(bytes) } }
    }
}

impl Story {
    /// Tells `service` that the connection is open and what was read of it, in the usual pieces. Returns
    /// how many bytes that is.
    pub(super) fn tell(
        self,
        service: &mut impl Service,
        connection: ConnectionId,
        now: Now,
    ) -> usize {
        let Self { peer, door, read } = self;
        let is_moved = read.is_some();
        service.on_event(now, Event::Opened { connection, peer, door, is_moved });
        let read = read.unwrap_or_default();
        for bytes in read.chunks(RECEIVE_BUFFER_BYTES as usize) {
            service.on_event(now, Event::Received { connection, bytes });
        }
        read.len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::shard::output::Output;

    /// Keeps what it is told.
    #[derive(Default)]
    struct Listening {
        opened: Vec<bool>,
        received: Vec<Vec<u8>>,
    }

    impl Service for Listening {
        fn on_event(&mut self, _now: Now, event: Event<'_>) {
            match event {
                Event::Opened { is_moved, .. } => self.opened.push(is_moved),
                Event::Received { bytes, .. } => {
                    assert_eq!(self.opened.len(), 1, "opened before");
                    self.received.push(bytes.to_vec());
                }
                other => panic!("{other:?}"),
            }
        }

        fn poll_output(&mut self) -> Option<Output> {
            None
        }

        fn gather(&mut self, _connection: ConnectionId, _take: &mut dyn FnMut(&[u8])) {}

        fn landing_zone(&mut self, _connection: ConnectionId) -> Option<&mut [u8]> {
            None
        }

        fn wake_at(&self) -> Option<u64> {
            None
        }

        fn is_finished(&self) -> bool {
            false
        }
    }

    #[test]
    fn connections_from_this_host_are_not_paced() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let _client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (socket, peer) = listener.accept().expect("a connection");
        let arrival = Arrival::accepted(socket.into(), PeerAddress::Tcp(peer), Door::Apps);
        let congestion = SockRef::from(&arrival.socket).tcp_congestion().expect("the option");
        assert_eq!(congestion.split(|byte| *byte == 0).next(), Some(&b"reno"[..]));
    }

    fn handover(bytes: Vec<u8>) -> Handover {
        Handover { peer: PeerAddress::Unix, door: Door::Apps, bytes }
    }

    fn told(arrival: impl FnOnce(OwnedFd) -> Arrival) -> (usize, Listening) {
        let (socket, _peer) = UnixStream::pair().expect("sockets");
        let mut service = Listening::default();
        let connection = ConnectionId { index: 3, generation: 4 };
        let story = arrival(socket.into()).story;
        let bytes = story.tell(&mut service, connection, Now::default());
        (bytes, service)
    }

    #[test]
    fn of_an_accepted_connection_nothing_is_told_but_that_it_is_open() {
        let (bytes, service) =
            told(|socket| Arrival::accepted(socket, PeerAddress::Unix, Door::Apps));
        assert_eq!((bytes, service.opened, service.received.len()), (0, vec![false], 0));
    }

    #[test]
    fn what_was_read_of_a_connection_that_moved_is_told_whole_and_in_the_usual_pieces() {
        let read: Vec<u8> = (0..200_000u32).map(|at| at as u8).collect();
        let (bytes, service) = told(|socket| Arrival::moved(socket, handover(read.clone())));
        assert_eq!((bytes, service.opened), (200_000, vec![true]));
        assert_eq!(service.received.concat(), read);
        let longest = service.received.iter().map(Vec::len).max();
        assert_eq!(longest, Some(RECEIVE_BUFFER_BYTES as usize));
    }
}
