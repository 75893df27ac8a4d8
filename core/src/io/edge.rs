//! The way to the thread that speaks HTTP/2: connections for applications that open with it.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::shard::event::PeerAddress;

/// A connection that opened with HTTP/2's preface.
#[derive(Debug)]
pub struct EdgeConnection {
    /// Its socket, which does not block.
    pub socket: OwnedFd,
    /// Where it comes from.
    pub peer: PeerAddress,
    /// What was read of its stream, before anything that the socket still brings.
    pub read: Vec<u8>,
}

/// Takes such connections. It is called by the shards' threads, so it must not wait.
#[derive(Clone)]
pub struct Edge(Arc<dyn Fn(EdgeConnection) + Send + Sync>);

impl Edge {
    /// Hands them to `take`; what that drops ends.
    pub fn new(take: impl Fn(EdgeConnection) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    pub(super) fn take(&self, connection: EdgeConnection) {
        (self.0)(connection);
    }
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Edge").finish_non_exhaustive()
    }
}
