//! What the shim needs of the daemon that it is a part of.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nexusd_wire::NodeId;
use tonic::Status;

use crate::proto::PeerInfo;

/// The daemon.
#[tonic::async_trait]
pub trait Daemon: Send + Sync + 'static {
    /// Its id.
    fn node(&self) -> NodeId;

    /// Longest payload that it takes, bytes.
    fn max_payload(&self) -> usize;

    /// How many messages it queues for a subscription that asks for no other number.
    fn queue_messages(&self) -> u32;

    /// How long it keeps a subscription without a connection.
    fn parked_ttl(&self) -> Duration;

    /// A connection to one of its shards, for an application at `peer` (`None`: the unix socket).
    fn connect(&self, peer: Option<SocketAddr>) -> io::Result<UnixStream>;

    /// The filters that are subscribed to.
    async fn filters(&self) -> Result<Filters, Status>;

    /// The other nodes; with hash and topics if `with_state`.
    async fn peers(&self, with_state: bool) -> Result<Vec<PeerInfo>, Status>;
}

/// Filters that are subscribed to.
#[derive(Clone, Default, Debug)]
pub struct Filters {
    /// How many subscriptions have each.
    pub subscriptions: HashMap<String, u64>,
    /// There are more.
    pub is_truncated: bool,
}
