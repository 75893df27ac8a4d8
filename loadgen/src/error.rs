//! Why the generator cannot do what it was asked to. Each is one sentence that says what to do.

use std::io;
use std::path::PathBuf;

use crate::target::{FramingError, HandshakeError};

/// Everything that ends the program without a result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// Flags that do not fit together.
    #[error("{0}")]
    Usage(String),
    /// Nobody listens there.
    #[error("cannot reach {target} at {endpoint}: {source}; start it there, or use --spawn")]
    Unreachable {
        /// The target asked for.
        target: &'static str,
        /// Where.
        endpoint: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody listens, but does not take the connection as it should.
    #[error("cannot talk to {target} at {endpoint}: {cause}")]
    Handshake {
        /// The target asked for.
        target: &'static str,
        /// Where.
        endpoint: String,
        /// What went wrong.
        cause: HandshakeError,
    },
    /// A core this process may not run on.
    #[error("cannot run on core {core}: choose others with --server-core and --load-core")]
    NoSuchCore {
        /// The core's number.
        core: usize,
    },
    /// The server did not start.
    #[error("the {target} server did not start: {cause}")]
    Spawn {
        /// The target asked for.
        target: &'static str,
        /// Why.
        cause: String,
    },
    /// Nodes do not route to each other as they should.
    #[error("{0}")]
    Mesh(String),
    /// An idle client could not connect or did not stay connected.
    #[error("idle clients at {endpoint}: {cause}; does the server take that many connections?")]
    IdleClients {
        /// Where.
        endpoint: String,
        /// What went wrong.
        cause: String,
    },
    /// A connection broke while the load was running.
    #[error("the {role} lost its connection: {source}")]
    Connection {
        /// `publisher` or `subscriber`.
        role: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The server ended a conversation while the load was running.
    #[error("the {role} cannot go on: {source}")]
    Conversation {
        /// `publisher` or `subscriber`.
        role: &'static str,
        /// What the server said or did.
        source: FramingError,
    },
    /// The system refused something else.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A result could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl LoadError {
    /// The exit code: 2 for a command line that cannot work, 1 for everything that went wrong later.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::NoSuchCore { .. } => 2,
            _ => 1,
        }
    }
}
