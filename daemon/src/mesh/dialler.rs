//! Connects to other nodes: some at a time, each with a deadline, without waiting for any.
//!
//! What comes of a dial is asked for by [`Dialler::poll_result`]. Connections are handed on as blocking
//! sockets, like those that a listener accepts.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use nexusd_wire::NodeId;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

/// Dials at a time; others wait for their turn.
const CONNECTING_MAX: usize = 32;
/// Dials that wait for their turn. Beyond that they fail at once.
const WAITING_MAX: usize = 4_096;
/// How long a host has to answer, in microseconds.
const TIMEOUT_US: u64 = 3_000_000;

/// A connection that is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Dial {
    /// Names it in its result.
    pub(super) dial: u64,
    pub(super) address: SocketAddr,
    /// Who should be there, if that is known.
    pub(super) peer: Option<NodeId>,
}

/// What came of a dial.
#[derive(Debug)]
pub(super) enum DialResult {
    Connected { dial: Dial, socket: TcpStream },
    Failed { dial: u64, is_refused: bool, reason: String },
}

/// All dials.
#[derive(Default, Debug)]
pub(super) struct Dialler {
    connecting: Vec<Connecting>,
    waiting: VecDeque<Dial>,
    results: VecDeque<DialResult>,
}

#[derive(Debug)]
struct Connecting {
    dial: Dial,
    socket: Socket,
    deadline_us: u64,
}

impl Dialler {
    /// Begins a dial, now or when others have ended.
    pub(super) fn dial(&mut self, now_us: u64, dial: Dial) {
        if self.connecting.len() < CONNECTING_MAX {
            self.begin(now_us, dial);
        } else if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(dial);
        } else {
            self.fail(&dial, false, "too many dials wait for their turn");
        }
    }

    fn begin(&mut self, now_us: u64, dial: Dial) {
        match connect(dial.address) {
            Ok(socket) => {
                let deadline_us = now_us.saturating_add(TIMEOUT_US);
                self.connecting.push(Connecting { dial, socket, deadline_us });
            }
            Err(error) => self.fail(&dial, is_refusal(&error), error),
        }
    }

    fn fail(&mut self, dial: &Dial, is_refused: bool, reason: impl Display) {
        let reason = reason.to_string();
        self.results.push_back(DialResult::Failed { dial: dial.dial, is_refused, reason });
    }

    /// What to wait for: each is writable when its dial has ended. The order holds until
    /// [`Self::go_on`].
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.connecting.iter().map(|connecting| connecting.socket.as_fd())
    }

    /// When [`Self::go_on`] is due, if nothing happens before.
    pub(super) fn wake_at(&self) -> Option<u64> {
        self.connecting.iter().map(|connecting| connecting.deadline_us).min()
    }

    /// Ends the dials whose `ready` is set, in the order of [`Self::descriptors`], and those whose time
    /// is up; begins others in their place.
    pub(super) fn go_on(&mut self, now_us: u64, ready: &[bool]) {
        let mut places = ready.iter();
        let is_over = |connecting: &mut Connecting| {
            let is_ready = places.next().copied().unwrap_or(false);
            is_ready || connecting.deadline_us <= now_us
        };
        let over: Vec<_> = self.connecting.extract_if(.., is_over).collect();
        for Connecting { dial, socket, deadline_us } in over {
            match finish(socket) {
                Ok(Some(socket)) => {
                    self.results.push_back(DialResult::Connected { dial, socket });
                }
                Ok(None) if deadline_us <= now_us => {
                    self.fail(
                        &dial,
                        false,
                        format_args!("no answer in {} s", TIMEOUT_US / 1_000_000),
                    );
                }
                Ok(None) => self.fail(&dial, false, "the connection broke at once"),
                Err(error) => self.fail(&dial, is_refusal(&error), error),
            }
        }
        while self.connecting.len() < CONNECTING_MAX
            && let Some(dial) = self.waiting.pop_front()
        {
            self.begin(now_us, dial);
        }
    }

    /// What came of the next dial that ended.
    pub(super) fn poll_result(&mut self) -> Option<DialResult> {
        self.results.pop_front()
    }
}

/// Begins to connect.
fn connect(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(socket),
    }
}

/// The connection, if there is one by now.
fn finish(socket: Socket) -> io::Result<Option<TcpStream>> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    let Ok(peer) = socket.peer_addr() else {
        return Ok(None);
    };
    // Where nobody listens on a port of its own host, the kernel may connect a socket to itself.
    if socket.local_addr()?.as_socket() == peer.as_socket() {
        return Err(Errno::CONNREFUSED.into());
    }
    socket.set_nonblocking(false)?;
    Ok(Some(socket.into()))
}

/// Whether the host is there and nobody listens.
fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    fn dial(number: u64, address: SocketAddr) -> Dial {
        Dial { dial: number, address, peer: None }
    }

    /// The next result, at a time that does not pass.
    fn result(dialler: &mut Dialler) -> DialResult {
        loop {
            if let Some(result) = dialler.poll_result() {
                return result;
            }
            let mut watched: Vec<_> = dialler
                .descriptors()
                .map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::OUT))
                .collect();
            let soon = rustix::time::Timespec { tv_sec: 20, tv_nsec: 0 };
            assert_ne!(poll(&mut watched, Some(&soon)).expect("a poll"), 0, "nothing came of it");
            let ready: Vec<_> =
                watched.iter().map(|watched| !watched.revents().is_empty()).collect();
            dialler.go_on(0, &ready);
        }
    }

    /// An address that accepts connections, as far as the kernel goes.
    fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        (listener, address)
    }

    /// An address that does not answer: its listener has no room for connections.
    fn silent() -> (Vec<TcpStream>, Socket, SocketAddr) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port");
        listener.listen(0).expect("it listens");
        let address = listener.local_addr().expect("bound").as_socket().expect("TCP");
        // The kernel takes one more than it was told.
        let filling = vec![TcpStream::connect(address).expect("room for one")];
        (filling, listener, address)
    }

    #[test]
    fn a_node_that_listens_is_connected_to() {
        let (_listener, address) = listening();
        let mut dialler = Dialler::default();
        dialler.dial(0, dial(7, address));
        let DialResult::Connected { dial, socket } = result(&mut dialler) else {
            panic!("a connection");
        };
        assert_eq!((dial.dial, socket.peer_addr().expect("connected")), (7, address));
        assert_eq!(dialler.wake_at(), None);
    }

    #[test]
    fn a_port_where_nobody_listens_is_a_refusal() {
        let (listener, address) = listening();
        drop(listener);
        let mut dialler = Dialler::default();
        dialler.dial(0, dial(7, address));
        let failed = result(&mut dialler);
        assert!(
            matches!(failed, DialResult::Failed { dial: 7, is_refused: true, .. }),
            "{failed:?}"
        );
    }

    #[test]
    fn a_host_that_does_not_answer_is_given_up_at_the_deadline() {
        let (_filling, _listener, address) = silent();
        let mut dialler = Dialler::default();
        dialler.dial(5, dial(7, address));
        assert_eq!(dialler.wake_at(), Some(5 + TIMEOUT_US));
        dialler.go_on(4 + TIMEOUT_US, &[false]);
        assert!(dialler.poll_result().is_none());
        dialler.go_on(5 + TIMEOUT_US, &[false]);
        let Some(DialResult::Failed { dial: 7, is_refused: false, reason }) = dialler.poll_result()
        else {
            panic!("a failure");
        };
        assert_eq!(reason, "no answer in 3 s");
    }

    #[test]
    fn no_more_than_some_are_dialled_at_a_time_and_all_come_to_an_end() {
        let (_filling, _listener, silent) = silent();
        let (_other, listening) = listening();
        let mut dialler = Dialler::default();
        for number in 0..CONNECTING_MAX as u64 {
            dialler.dial(0, dial(number, silent));
        }
        dialler.dial(1, dial(1_000, listening));
        assert_eq!(dialler.descriptors().count(), CONNECTING_MAX);
        dialler.go_on(TIMEOUT_US, &[]);
        let mut failures = 0;
        loop {
            match result(&mut dialler) {
                DialResult::Failed { .. } => failures += 1,
                DialResult::Connected { dial, .. } => {
                    assert_eq!(dial.dial, 1_000);
                    break;
                }
            }
        }
        assert_eq!(failures, CONNECTING_MAX);
    }

    #[test]
    fn a_host_that_cannot_be_reached_fails_at_once() {
        let mut dialler = Dialler::default();
        // A link-local address without its interface.
        dialler.dial(0, dial(7, "[fe80::1]:5671".parse().expect("an address")));
        let failed = dialler.poll_result();
        assert!(matches!(failed, Some(DialResult::Failed { is_refused: false, .. })), "{failed:?}");
    }
}
