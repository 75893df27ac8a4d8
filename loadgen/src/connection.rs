//! One socket of the generator, TCP or unix, and where it leads.
//!
//! Sockets block, with a timeout after which the caller looks whether the run was given up. Nothing
//! here knows what the bytes mean.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_nodelay;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect,
    socket_with,
};

/// How long connecting and every step of a handshake may take.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a read or write blocks before the caller looks around.
const BLOCK_MAX: Duration = Duration::from_millis(200);

/// Where a server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Endpoint {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket: a path, or `@` and an abstract name.
    Unix(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(name) => f.write_str(name),
        }
    }
}

/// What a read without waiting found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Received {
    /// This many bytes.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The end: the server closed its side.
    End,
}

/// A connected socket.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
}

impl Connection {
    /// Connects.
    pub(crate) fn open(endpoint: &Endpoint) -> io::Result<Self> {
        let socket: OwnedFd = match endpoint {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, HANDSHAKE_TIMEOUT)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(BLOCK_MAX))?;
                stream.set_write_timeout(Some(BLOCK_MAX))?;
                stream.into()
            }
            Endpoint::Unix(name) => {
                let address = match name.strip_prefix('@') {
                    Some(name) => UnixSocketAddr::from_abstract_name(name)?,
                    None => UnixSocketAddr::from_pathname(name)?,
                };
                let stream = UnixStream::connect_addr(&address)?;
                stream.set_read_timeout(Some(BLOCK_MAX))?;
                stream.set_write_timeout(Some(BLOCK_MAX))?;
                stream.into()
            }
        };
        Ok(Self { socket })
    }

    /// Begins to connect, and never waits, then or later: the socket takes bytes once it is
    /// connected.
    ///
    /// # Errors
    /// `WouldBlock` if a unix socket's server has too many waiting already.
    pub(crate) fn begin(endpoint: &Endpoint) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let open = |family| socket_with(family, SocketType::STREAM, flags, None);
        let (socket, begun) = match endpoint {
            Endpoint::Tcp(address) => {
                let family =
                    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                let socket = open(family)?;
                set_tcp_nodelay(&socket, true)?;
                let begun = connect(&socket, address);
                (socket, begun)
            }
            Endpoint::Unix(name) => {
                let address = match name.strip_prefix('@') {
                    Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes())?,
                    None => SocketAddrUnix::new(name)?,
                };
                let socket = open(AddressFamily::UNIX)?;
                let begun = connect(&socket, &address);
                (socket, begun)
            }
        };
        match begun {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(Self { socket }),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what is there, waiting for it a little.
    #[inline]
    pub(crate) fn receive_waiting(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.receive(buffer, RecvFlags::empty())
    }

    /// Reads what is there, without waiting.
    #[inline]
    pub(crate) fn receive_now(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.receive(buffer, RecvFlags::DONTWAIT)
    }

    /// Waits until there is something to read, or the time is up.
    pub(crate) fn wait_until_readable(&self, ns: u64) -> io::Result<()> {
        let time =
            Timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 };
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&time)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    #[inline]
    fn receive(&self, buffer: &mut [u8], flags: RecvFlags) -> io::Result<Received> {
        match rustix::net::recv(&self.socket, buffer, flags) {
            Ok((0, _)) => Ok(Received::End),
            Ok((bytes, _)) => Ok(Received::Bytes(bytes)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Received::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes all of `bytes`, waiting for room. `give_up` is asked whenever the socket has taken
    /// nothing for a while.
    ///
    /// # Errors
    /// `TimedOut` if `give_up` says so.
    #[inline]
    pub(crate) fn send_all(
        &self,
        mut bytes: &[u8],
        mut give_up: impl FnMut() -> bool,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(taken) => bytes = bytes.get(taken..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if give_up() => return Err(io::ErrorKind::TimedOut.into()),
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A connection during its handshake: plain blocking reads and writes within
/// [`HANDSHAKE_TIMEOUT`] for each step.
#[derive(Debug)]
pub(crate) struct Handshake<'a> {
    connection: &'a Connection,
}

impl<'a> Handshake<'a> {
    /// Borrows a connection for its handshake.
    pub(crate) fn on(connection: &'a Connection) -> Self {
        Self { connection }
    }
}

impl Read for Handshake<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let tries = HANDSHAKE_TIMEOUT.as_millis() / BLOCK_MAX.as_millis();
        for _ in 0..tries {
            match self.connection.receive_waiting(buffer)? {
                Received::Bytes(bytes) => return Ok(bytes),
                Received::End => return Ok(0),
                Received::Nothing => {}
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl Write for Handshake<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut tries = HANDSHAKE_TIMEOUT.as_millis() / BLOCK_MAX.as_millis();
        self.connection.send_all(bytes, || {
            tries = tries.saturating_sub(1);
            tries == 0
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
