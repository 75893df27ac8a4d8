//! The shard: one thread's share of the node, as a state machine.

pub mod event;
pub mod output;

use event::{ConnectionId, Event, Now};
use nexusd_wire::NodeId;
use output::Output;

use crate::io::driver::Service;
use crate::limits::Limits;

/// What a shard is made from.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// This daemon's id, new at each start.
    pub node: NodeId,
    /// Name of the cluster, told to clients.
    pub cluster: String,
    /// Name and version of the software, told to clients.
    pub software: String,
    /// Source of everything random in the shard: hash seeds and subscription ids.
    pub seed: u64,
    /// Its bounds.
    pub limits: Limits,
}

/// One thread's share of the node.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
}

impl Shard {
    /// An empty shard.
    pub fn new(config: ShardConfig) -> Self {
        Self { config }
    }
}

impl Service for Shard {
    fn on_event(&mut self, _now: Now, _event: Event<'_>) {
        let _ = &self.config;
    }
    fn poll_output(&mut self) -> Option<Output> {
        None
    }
    fn gather(&mut self, _connection: ConnectionId, _take: &mut dyn FnMut(&[u8])) {}
    fn landing_zone(&mut self, _connection: ConnectionId) -> Option<&mut [u8]> {
        None
    }
    fn wake_at(&self) -> Option<u64> {
        None
    }
    fn is_finished(&self) -> bool {
        false
    }
}
