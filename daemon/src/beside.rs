//! The rest of the daemon, as the edge sees it.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nexusd_admin::Fault;
use nexusd_core::io::mailbox::CommandSender;
use nexusd_core::{Limits, PeerAddress};
use nexusd_grpc::Filters;
use nexusd_grpc::proto::PeerInfo;
use nexusd_wire::NodeId;
use tonic::Status;

use crate::admin::Admin;

/// What stands beside the edge.
#[derive(Debug)]
pub(crate) struct Beside {
    node: NodeId,
    /// Longest payload, bytes.
    max_payload: usize,
    /// Messages queued for a subscription unless it asks for another number.
    queue_messages: u32,
    /// How long a subscription without a connection is kept.
    parked_ttl: Duration,
    /// The ways to all shards.
    shards: Vec<CommandSender>,
    /// Connections are spread over the shards in turn.
    next_shard: AtomicUsize,
    /// What it tells of the node.
    admin: Arc<Admin>,
}

impl Beside {
    /// A node of these shards.
    pub(crate) fn new(
        node: NodeId,
        limits: &Limits,
        shards: Vec<CommandSender>,
        admin: Arc<Admin>,
    ) -> Self {
        Self {
            node,
            max_payload: limits.payload_bytes as usize,
            queue_messages: u32::try_from(limits.queue_messages).unwrap_or(u32::MAX),
            parked_ttl: Duration::from_micros(limits.parked_ttl_us),
            shards,
            next_shard: AtomicUsize::new(0),
            admin,
        }
    }
}

#[tonic::async_trait]
impl nexusd_grpc::Daemon for Beside {
    fn node(&self) -> NodeId {
        self.node
    }

    fn max_payload(&self) -> usize {
        self.max_payload
    }

    fn queue_messages(&self) -> u32 {
        self.queue_messages
    }

    fn parked_ttl(&self) -> Duration {
        self.parked_ttl
    }

    fn connect(&self, peer: Option<SocketAddr>) -> io::Result<UnixStream> {
        let next = self.next_shard.fetch_add(1, Ordering::Relaxed);
        let shard = &self.shards[next % self.shards.len()];
        shard.connect(peer.map_or(PeerAddress::Unix, PeerAddress::Tcp))
    }

    async fn filters(&self) -> Result<Filters, Status> {
        Ok(self.admin.filters().await.map_err(Fault::from)?)
    }

    async fn peers(&self, with_state: bool) -> Result<Vec<PeerInfo>, Status> {
        Ok(self.admin.peers_of_applications(with_state).await.map_err(Fault::from)?)
    }
}
