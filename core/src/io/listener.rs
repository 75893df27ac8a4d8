//! The sockets that wait for connections: TCP over IPv4 and IPv6, and unix sockets.
//!
//! One listener per address and no `SO_REUSEPORT`, so a second daemon on the same address fails
//! instead of taking half of the connections. A listener only binds and listens; the driver accepts
//! from it. Dropping it frees the address.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::retransmission;
use crate::shard::event::Door;

/// Connections the kernel holds until they are accepted; it may allow fewer
/// (`net.core.somaxconn`).
const BACKLOG: i32 = 4_096;

/// A socket that waits for connections.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    address: ListenAddress,
    /// Other nodes connect here, not applications.
    is_for_links: bool,
    /// The file to remove in the end.
    path: Option<PathBuf>,
}

impl Listener {
    /// Listens on a TCP address; port 0 takes a free one. An IPv6 address takes IPv6 alone, so the
    /// same port can be had for IPv4 beside it.
    pub fn tcp(address: SocketAddr) -> Result<Self, ListenError> {
        let wanted = ListenAddress::Tcp(address);
        let socket =
            bind_tcp(address).map_err(|source| ListenError::from_io(wanted.clone(), source))?;
        let local = socket.local_addr().ok().and_then(|local| local.as_socket());
        Ok(Self {
            socket: socket.into(),
            address: local.map_or(wanted, ListenAddress::Tcp),
            is_for_links: false,
            path: None,
        })
    }

    /// Listens on a unix socket. A socket file that a dead process left behind is replaced; one that
    /// somebody still listens on is an error.
    pub fn unix(address: UnixAddress) -> Result<Self, ListenError> {
        let shown = ListenAddress::Unix(address.to_string());
        let bound = match &address {
            UnixAddress::Abstract(name) => UnixSocketAddr::from_abstract_name(name)
                .and_then(|name| UnixListener::bind_addr(&name)),
            UnixAddress::Path(path) => bind_path(path),
        };
        let socket = bound.map_err(|source| ListenError::from_io(shown.clone(), source))?;
        Ok(Self {
            socket: socket.into(),
            address: shown,
            is_for_links: false,
            path: match address {
                UnixAddress::Abstract(_) => None,
                UnixAddress::Path(path) => Some(path),
            },
        })
    }

    /// Where it listens, with the port the kernel chose.
    pub fn local_address(&self) -> ListenAddress {
        self.address.clone()
    }

    /// The same for other nodes instead of applications.
    #[must_use]
    pub fn for_links(mut self) -> Self {
        self.is_for_links = true;
        // Those that it accepts inherit it. Where the kernel cannot, links live through less.
        retransmission::bound(self.socket.as_fd());
        self
    }

    /// Which way a connection comes in that it accepts.
    pub(super) fn door(&self) -> Door {
        if self.is_for_links { Door::Mesh } else { Door::Apps }
    }

    pub(super) fn is_unix(&self) -> bool {
        matches!(self.address, ListenAddress::Unix(_))
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // A file that is gone already, or a folder that became read-only, is no reason to fail.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of the last run that still wait out their time must not block the port.
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit this on Linux, which saves a system call for each of them.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn bind_path(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

/// Whether the file is a socket nobody listens on. Whatever else it is, it is not ours to remove.
fn is_stale(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    // Without waiting: somebody who listens may be slow to accept.
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && connect().is_err_and(refused)
}

/// The address of a unix socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UnixAddress {
    /// A name in the abstract namespace, without the leading NUL. Nothing of it outlives the
    /// socket.
    Abstract(String),
    /// A file, removed when the listener is dropped.
    Path(PathBuf),
}

impl fmt::Display for UnixAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abstract(name) => write!(f, "@{name}"),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Where a listener listens, as shown to users.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListenAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket: its path, or `@` and its abstract name.
    Unix(String),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(name) => f.write_str(name),
        }
    }
}

/// Why a listener could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another socket has the address. Stop its owner, or choose another address.
    #[error(
        "cannot listen on {address}: the address is already in use; stop the program that uses it \
         or choose another one"
    )]
    InUse {
        /// The address asked for.
        address: ListenAddress,
    },
    /// This user may not listen there. Choose a port from 1024 up, or a folder that can be written.
    #[error(
        "cannot listen on {address}: permission denied; choose a port from 1024 up, or a path this \
         user may write to"
    )]
    Forbidden {
        /// The address asked for.
        address: ListenAddress,
    },
    /// No interface of this host has the address.
    #[error("cannot listen on {address}: this host has no such address")]
    NotHere {
        /// The address asked for.
        address: ListenAddress,
    },
    /// Anything else the kernel objects to.
    #[error("cannot listen on {address}: {source}")]
    Failed {
        /// The address asked for.
        address: ListenAddress,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ListenError {
    fn from_io(address: ListenAddress, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::PermissionDenied => Self::Forbidden { address },
            io::ErrorKind::AddrNotAvailable => Self::NotHere { address },
            _ => Self::Failed { address, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn unique(name: &str) -> String {
        format!("nexusd-test/{}/{name}", std::process::id())
    }

    #[test]
    fn a_port_in_use_is_one_clear_sentence() {
        let first = Listener::tcp("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let ListenAddress::Tcp(address) = first.local_address() else {
            panic!("a TCP address");
        };
        assert_ne!(address.port(), 0);
        let error = Listener::tcp(address).expect_err("the port is taken");
        assert!(matches!(error, ListenError::InUse { .. }), "{error:?}");
        assert!(error.to_string().starts_with(&format!("cannot listen on {address}: ")), "{error}");
    }

    #[test]
    fn an_address_of_another_host_is_refused() {
        let error =
            Listener::tcp("192.0.2.1:0".parse().expect("an address")).expect_err("not our address");
        assert!(matches!(error, ListenError::NotHere { .. }), "{error:?}");
    }

    #[test]
    fn ipv4_and_ipv6_share_a_port() {
        let four = Listener::tcp("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let ListenAddress::Tcp(address) = four.local_address() else {
            panic!("a TCP address");
        };
        let six = SocketAddr::new("::".parse().expect("an address"), address.port());
        let six = Listener::tcp(six).expect("the same port over IPv6");
        assert_eq!(six.local_address().to_string(), format!("[::]:{}", address.port()));
    }

    #[test]
    fn accepted_sockets_do_not_wait_to_fill_segments() {
        let listener = Listener::tcp("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let ListenAddress::Tcp(address) = listener.local_address() else {
            panic!("a TCP address");
        };
        let _client = TcpStream::connect(address).expect("a connection");
        let socket = listener.socket.try_clone().expect("a descriptor");
        let (accepted, _) = TcpListener::from(socket).accept().expect("a connection");
        assert!(accepted.nodelay().expect("the option"));
    }

    #[test]
    fn an_abstract_name_is_printed_with_an_at_sign_and_free_after_drop() {
        let address = UnixAddress::Abstract(unique("abstract"));
        let listener = Listener::unix(address.clone()).expect("the name");
        assert_eq!(listener.local_address().to_string(), format!("@{}", unique("abstract")));
        assert!(matches!(Listener::unix(address.clone()), Err(ListenError::InUse { .. })));
        drop(listener);
        Listener::unix(address).expect("the name again");
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let path = std::env::temp_dir().join(format!("nexusd-test-{}.sock", std::process::id()));
        // A listener that dies without removing its file.
        drop(UnixListener::bind(&path).expect("a socket file"));
        let address = UnixAddress::Path(path.clone());
        let listener = Listener::unix(address.clone()).expect("the stale file replaced");
        assert!(matches!(Listener::unix(address), Err(ListenError::InUse { .. })));
        drop(listener);
        assert!(!path.exists());
    }
}
