//! Connections as the daemon's shards hand them over: a socket, and what was read of it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::publishing::Publisher;
use crate::sources::{Source, SourceAddress, Sources, Taken};

/// What the daemon shows beside a client's name.
const SOFTWARE: &str = concat!("nexusd-grpc/", env!("CARGO_PKG_VERSION"));

/// Bytes of the name of an application's library that are shown.
const LIBRARY_BYTES_MAX: usize = 64;

/// A connection that opened with HTTP/2's preface.
#[derive(Debug)]
pub struct Accepted {
    /// Its socket.
    pub socket: OwnedFd,
    /// Where it comes from; `None`: the unix socket.
    pub peer: Option<SocketAddr>,
    /// What was read of it.
    pub read: Vec<u8>,
}

/// The stream below.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection that is served.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    /// What was read before.
    read: Bytes,
    /// One of the connections that there may be.
    _place: Taken,
}

/// Where a call comes from: what all calls of a connection share.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its address; `None`: the unix socket.
    pub peer: Option<SocketAddr>,
    /// What the application's library calls itself.
    pub(crate) agent: Option<HeaderValue>,
    /// What it publishes with.
    pub(crate) publisher: Arc<Publisher>,
    /// Whose share it has.
    pub(crate) source: Arc<Source>,
}

impl Caller {
    /// That of the calls of a connection.
    pub(crate) fn of(socket: &Socket, peer: Option<SocketAddr>, sources: &Arc<Sources>) -> Self {
        let source = sources.source(SourceAddress::of(peer, socket.process()));
        Self { peer, agent: None, publisher: Arc::default(), source }
    }

    /// What the daemon shows as its software: the shim, and the library by its first word, such as
    /// `grpc-python/1.76.0`.
    pub(crate) fn software(&self) -> String {
        let agent = self.agent.as_ref().and_then(|agent| agent.to_str().ok());
        match agent.and_then(|agent| agent.split_whitespace().next()) {
            Some(library) => {
                let shown = &library[..library.len().min(LIBRARY_BYTES_MAX)];
                format!("{SOFTWARE} ({shown})")
            }
            None => SOFTWARE.to_owned(),
        }
    }
}

impl Connection {
    /// One that was greeted, with all that was read of it.
    pub(crate) fn new(socket: Socket, read: Vec<u8>, place: Taken) -> Self {
        Self { socket, read: read.into(), _place: place }
    }
}

impl Socket {
    pub(crate) fn from_fd(socket: OwnedFd, is_unix: bool) -> io::Result<Self> {
        if is_unix {
            let socket = StdUnixStream::from(socket);
            socket.set_nonblocking(true)?;
            return UnixStream::from_std(socket).map(Self::Unix);
        }
        let socket = std::net::TcpStream::from(socket);
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        TcpStream::from_std(socket).map(Self::Tcp)
    }

    /// The process that connected, if it can be told.
    fn process(&self) -> Option<i32> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(stream) => stream.peer_cred().ok()?.pid(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read.is_empty() {
            return Pin::new(&mut this.socket).poll_read(cx, buffer);
        }
        let bytes = this.read.len().min(buffer.remaining());
        buffer.put_slice(&this.read[..bytes]);
        this.read.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
