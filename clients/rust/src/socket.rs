//! The stream to a daemon: TCP, or a unix socket where there are any.

use std::fmt;
use std::io;
#[cfg(unix)]
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::{Pin, pin};
#[cfg(unix)]
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BufMut;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use crate::address::{Address, UnixName};

#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Where a connection comes from.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// From dialling this address.
    At(Address),
    /// From the application.
    #[cfg(unix)]
    Given(Connector),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            #[cfg(unix)]
            Self::Given(_) => f.write_str("a connection that was given"),
        }
    }
}

/// What the application makes connections with.
#[cfg(unix)]
#[derive(Clone)]
pub(crate) struct Connector(Arc<dyn Fn() -> io::Result<StdUnixStream> + Send + Sync>);

#[cfg(unix)]
impl Connector {
    pub(crate) fn new(
        connect: impl Fn() -> io::Result<StdUnixStream> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(connect))
    }
}

#[cfg(unix)]
impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Socket {
    /// Connects to one place.
    pub(crate) async fn connect(place: &Place) -> io::Result<Self> {
        match place {
            Place::At(address) => Self::dial(address).await,
            #[cfg(unix)]
            Place::Given(connector) => {
                let stream = (connector.0)()?;
                stream.set_nonblocking(true)?;
                UnixStream::from_std(stream).map(Self::Unix)
            }
        }
    }

    async fn dial(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                // Batching is done here; the kernel must not wait for more.
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Address::Unix(name) => Self::connect_unix(name).await,
        }
    }

    #[cfg(unix)]
    async fn connect_unix(name: &UnixName) -> io::Result<Self> {
        let path = match name {
            UnixName::Path(path) => path.clone(),
            UnixName::Abstract(name) if cfg!(any(target_os = "linux", target_os = "android")) => {
                format!("\0{name}")
            }
            UnixName::Abstract(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "only Linux has abstract unix sockets; give a path",
                ));
            }
        };
        UnixStream::connect(path).await.map(Self::Unix)
    }

    #[cfg(not(unix))]
    async fn connect_unix(_: &UnixName) -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this system has no unix sockets; give HOST:PORT",
        ))
    }

    /// Reads what is there behind what `buffer` holds, as far as it has room.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut impl BufMut,
    ) -> Poll<io::Result<usize>> {
        // The future holds no state of its own: one poll of a new one is a poll of the socket.
        match self {
            Self::Tcp(stream) => pin!(stream.read_buf(buffer)).poll(cx),
            #[cfg(unix)]
            Self::Unix(stream) => pin!(stream.read_buf(buffer)).poll(cx),
        }
    }

    /// Writes what the socket takes of `bytes`.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
}
