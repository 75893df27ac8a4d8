//! The rest of the daemon, as the edge sees it.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nexusd_admin::Fault;
use nexusd_core::PeerAddress;
use nexusd_core::io::mailbox::CommandSender;
use nexusd_grpc::Filters;
use nexusd_grpc::proto::PeerInfo;
use nexusd_wire::NodeId;
use tonic::Status;

use crate::admin::Admin;
use crate::settings::Settings;

/// What stands beside the edge.
#[derive(Debug)]
pub(crate) struct Beside {
    node: NodeId,
    /// The ways to all shards.
    shards: Vec<CommandSender>,
    /// Connections are spread over the shards in turn.
    next_shard: AtomicUsize,
    settings: Arc<Settings>,
    /// What it tells of the node.
    admin: Arc<Admin>,
}

impl Beside {
    /// A node of these shards.
    pub(crate) fn new(node: NodeId, shards: Vec<CommandSender>, admin: Arc<Admin>) -> Self {
        let settings = Arc::clone(&admin.settings);
        Self { node, shards, next_shard: AtomicUsize::new(0), settings, admin }
    }
}

#[tonic::async_trait]
impl nexusd_grpc::Daemon for Beside {
    fn node(&self) -> NodeId {
        self.node
    }

    fn max_payload(&self) -> usize {
        self.settings.limits().payload_bytes as usize
    }

    fn queue_messages(&self) -> u32 {
        u32::try_from(self.settings.limits().queue_messages).unwrap_or(u32::MAX)
    }

    fn parked_ttl(&self) -> Duration {
        Duration::from_micros(self.settings.limits().parked_ttl_us)
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
