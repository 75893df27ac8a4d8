//! What a node is told about itself and its cluster when it starts.

use std::net::IpAddr;

use nexusd_wire::{ClusterKey, NodeId};

use crate::limits::LINKS_MAX;

/// Settings of [`Discovery`](crate::Discovery).
#[derive(Clone, Debug)]
pub struct Config {
    /// This node, new at each start.
    pub node: NodeId,
    /// When it started, microseconds since 1970.
    pub start_us: u64,
    /// Its cluster (`--cluster`); nodes of others are ignored.
    pub cluster: String,
    /// What the cluster's nodes sign with (`--cluster-key`).
    pub key: Option<ClusterKey>,
    /// Where others reach it (`--advertise`); `None`: where its datagrams come from.
    pub mesh_address: Option<IpAddr>,
    /// Port for links, and for beacons that come by unicast.
    pub mesh_port: u16,
    /// Port for applications.
    pub app_port: u16,
    /// Whether beacons go by multicast (`--discovery multicast`).
    pub is_multicast: bool,
    /// Nodes to begin with, `HOST:PORT` as written (`--peers`).
    pub seeds: Vec<String>,
    /// How often they are tried.
    pub retry: Retry,
    /// Links at a time beyond which nobody is dialled.
    pub links_max: usize,
    /// What chance is made of.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: NodeId::default(),
            start_us: 0,
            cluster: "default".into(),
            key: None,
            mesh_address: None,
            mesh_port: 5671,
            app_port: 5672,
            is_multicast: true,
            seeds: Vec::new(),
            retry: Retry::default(),
            links_max: LINKS_MAX,
            seed: 0,
        }
    }
}

/// How long to wait for a node that is absent: ever longer, and never the same as everybody else.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Retry {
    /// Attempts after which an operator is told and the longest interval is kept
    /// (`--peer-retry-count`).
    pub count: u32,
    /// Before the second attempt, microseconds (`--peer-retry-interval`).
    pub interval_us: u64,
    /// At most, microseconds (`--peer-retry-max-interval`).
    pub interval_max_us: u64,
    /// How much longer each one is than the one before (`--peer-retry-backoff-factor`).
    pub factor: f64,
    /// The part of an interval by which it is made longer or shorter at random, 0 to 1
    /// (`--peer-retry-jitter`).
    pub jitter: f64,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            count: 10,
            interval_us: 2_000_000,
            interval_max_us: 60_000_000,
            factor: 2.0,
            jitter: 0.2,
        }
    }
}
