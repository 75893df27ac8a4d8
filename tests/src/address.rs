//! Where a daemon listens, and sockets that are connected to it.

use std::fmt;
use std::io;
use std::net::{AddrParseError, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::str::FromStr;

use socket2::{Domain, Socket, Type};

/// One of the places where a daemon listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A unix socket: a path, or `@` and an abstract name.
    Unix(String),
}

impl Address {
    /// A blocking socket connected to it. `receive_buffer` bounds what the kernel takes in for a
    /// reader that does not read, in bytes; `None` leaves it to the kernel. Unix sockets have no
    /// such bound.
    pub fn connect(&self, receive_buffer: Option<usize>) -> io::Result<Socket> {
        match self {
            Self::Tcp(address) => {
                let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
                if let Some(bytes) = receive_buffer {
                    // It has to be set before the handshake, which tells the peer the window.
                    socket.set_recv_buffer_size(bytes)?;
                }
                socket.connect(&(*address).into())?;
                socket.set_tcp_nodelay(true)?;
                Ok(socket)
            }
            Self::Unix(name) => {
                let address = match name.strip_prefix('@') {
                    Some(name) => std::os::unix::net::SocketAddr::from_abstract_name(name)?,
                    None => std::os::unix::net::SocketAddr::from_pathname(name)?,
                };
                Ok(Socket::from(OwnedFd::from(UnixStream::connect_addr(&address)?)))
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(name) => f.write_str(name),
        }
    }
}

impl FromStr for Address {
    type Err = AddrParseError;

    /// Reads what [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with(['@', '/']) {
            Ok(Self::Unix(text.to_owned()))
        } else {
            text.parse().map(Self::Tcp)
        }
    }
}
