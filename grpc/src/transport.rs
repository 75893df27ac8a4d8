//! Connections as the daemon's shards hand them over: a socket, and what was read of it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use nexusd_client::Client;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::transport::server::Connected;

use crate::limits::{CONNECTIONS_MAX, GREETING_TIMEOUT};

/// Connections that said hello and wait to be served.
const GREETED: usize = 16;
/// What a client says at first: HTTP/2's preface, and the header of its settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
/// The kind of frame that has to follow.
const SETTINGS: u8 = 4;
/// What is said to one connection too many: no settings, and a farewell (GOAWAY, ENHANCE_YOUR_CALM).
const NO_ROOM: &[u8] =
    &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];

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

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection that is served.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    /// What was read before.
    read: Bytes,
    origin: Origin,
    _permit: OwnedSemaphorePermit,
}

/// Where a call comes from: what all calls of a connection share.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Its address; `None`: the unix socket.
    pub peer: Option<SocketAddr>,
    /// What it publishes with.
    pub(crate) publisher: Arc<OnceCell<Client>>,
}

impl Origin {
    /// Whether the call comes from this host.
    pub fn is_local(&self) -> bool {
        self.peer.is_none_or(|peer| peer.ip().to_canonical().is_loopback())
    }
}

/// Hears out connections as they come, each for itself, and passes those on that speak HTTP/2.
pub(crate) fn greet(
    mut accepted: mpsc::UnboundedReceiver<Accepted>,
) -> mpsc::Receiver<io::Result<Connection>> {
    let (greeted, connections) = mpsc::channel(GREETED);
    tokio::spawn(async move {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Some(one) = accepted.recv().await {
            let permit = Arc::clone(&permits).try_acquire_owned();
            let greeted = greeted.clone();
            tokio::spawn(async move {
                let Ok(mut socket) = Socket::from_fd(one.socket, one.peer.is_none()) else {
                    return;
                };
                let Ok(permit) = permit else {
                    // Whoever does not even take that is no worse off.
                    let _ = tokio::time::timeout(GREETING_TIMEOUT, socket.write_all(NO_ROOM)).await;
                    return;
                };
                let hello = hear_hello(&mut socket, one.read);
                let Ok(Some(read)) = tokio::time::timeout(GREETING_TIMEOUT, hello).await else {
                    return;
                };
                let origin = Origin { peer: one.peer, publisher: Arc::default() };
                let connection = Connection { socket, read: read.into(), origin, _permit: permit };
                // Nobody serves any more where nobody takes it.
                let _ = greeted.send(Ok(connection)).await;
            });
        }
    });
    connections
}

/// Waits for the preface and the beginning of the client's settings; all that was read by then.
async fn hear_hello(socket: &mut Socket, mut read: Vec<u8>) -> Option<Vec<u8>> {
    loop {
        let known = read.len().min(PREFACE.len());
        if read[..known] != PREFACE[..known] {
            return None;
        }
        if let Some(header) = read.get(PREFACE.len()..PREFACE.len() + FRAME_HEADER_BYTES) {
            return (header[3] == SETTINGS).then_some(read);
        }
        if socket.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}

impl Socket {
    fn from_fd(socket: OwnedFd, is_unix: bool) -> io::Result<Self> {
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

impl Connected for Connection {
    type ConnectInfo = Origin;

    fn connect_info(&self) -> Origin {
        self.origin.clone()
    }
}
