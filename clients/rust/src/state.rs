//! What the client says about its connection.

use std::fmt;

use nexusd_wire::NodeId;

use crate::error::Error;

/// Whether there is a connection, and what is done about it if not.
///
/// A client begins as `Disconnected`, and goes back and forth between `Connected`, `Disconnected`
/// (the connection just ended) and `Reconnecting` (an attempt is under way, or waits for its turn).
/// `Failed` is final, as is `Disconnected` without a cause after the client was closed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConnectionState {
    /// The daemon has welcomed this client.
    Connected(Daemon),
    /// There is no connection.
    Disconnected {
        /// What ended the last one; `None` before the first and after the client was closed.
        cause: Option<Error>,
    },
    /// The client tries to connect again.
    Reconnecting {
        /// How many attempts it makes since the connection was lost, this one included.
        attempt: u32,
        /// Why there is no connection.
        cause: Error,
    },
    /// The client has given up: trying again would change nothing.
    Failed {
        /// Why.
        cause: Error,
    },
}

impl ConnectionState {
    /// Whether messages are on their way now.
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected(_))
    }
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected(daemon) => {
                write!(f, "connected to node {} at {}", daemon.node, daemon.place)
            }
            Self::Disconnected { cause: None } => write!(f, "closed"),
            Self::Disconnected { cause: Some(cause) } => write!(f, "disconnected: {cause}"),
            Self::Reconnecting { attempt, cause } => {
                write!(f, "connecting again, attempt {attempt}: {cause}")
            }
            Self::Failed { cause } => write!(f, "gave up: {cause}"),
        }
    }
}

/// The daemon a client is connected to, as it introduced itself.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Daemon {
    /// Its id, new at each start.
    pub node: NodeId,
    /// Its name and version, for people.
    pub software: String,
    /// The cluster it belongs to.
    pub cluster: String,
    /// Longest payload it accepts, in bytes.
    pub max_payload: usize,
    /// Longest metadata (headers, content type, correlation id) it accepts, in bytes as encoded.
    pub max_metadata: usize,
    /// Where it was reached: `localhost:5672`, `unix:@nexusd/5672`.
    pub place: String,
}
