//! Nodes that find each other: how they are started, what is waited for before they are measured, and
//! what that took.
//!
//! `mesh/convergence.rs` watches all of them come up until each routes to each other one; that is
//! workload C, and what every other workload of several nodes begins with. `mesh/first_message.rs`
//! waits until the subscriptions of a run are known where its publishers are. Whether a message gets
//! through is known from messages alone: both publish acknowledged ones (`mesh/prober.rs`) until they
//! arrive, and believe nothing that a node says of itself. Other systems' servers are waited for in the same way;
//! they acknowledge nothing, so there a message is repeated until one arrives.

pub(crate) mod convergence;
pub(crate) mod first_message;
mod prober;
mod routes;

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use serde::Serialize;

use crate::clock;
use crate::error::LoadError;
use crate::server::{MeshOptions, Server, ServerOptions, StartingServer};
use crate::target::Target;

/// How long nodes may take from the first start until each routes to each other one.
pub(crate) const CONVERGENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// How nodes find each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Meeting {
    /// By multicast on the loopback interface.
    #[default]
    Multicast,
    /// Through the first of them, which is ready before the others are started.
    Seed,
    /// One after the other, and each is told the addresses of those before it.
    Addresses,
}

impl Meeting {
    /// The name in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Multicast => "multicast",
            Self::Seed => "seed",
            Self::Addresses => "addresses",
        }
    }
}

/// Nodes to start.
#[derive(Clone, Debug)]
pub(crate) struct MeshPlan {
    /// Whose.
    pub(crate) target: Target,
    /// How many.
    pub(crate) nodes: usize,
    /// How they find each other.
    pub(crate) meeting: Meeting,
    /// The name of their cluster: nobody else's.
    pub(crate) cluster: String,
    /// How each is started.
    pub(crate) options: ServerOptions,
    /// Whether each has one of the cores, in turn, or all have all of them.
    pub(crate) one_core_each: bool,
}

/// What became of the nodes of a mesh; all of it `null` for a server on its own.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub(crate) struct MeshFigures {
    /// How nodes find each other.
    pub(crate) discovery: Option<&'static str>,
    /// From the first start to the moment each node routes to each other one.
    pub(crate) converged_s: Option<f64>,
    /// From the moment the last of them was ready to that moment.
    pub(crate) converged_after_ready_s: Option<f64>,
    /// Pairs of nodes, each direction for itself, over which a message has passed.
    pub(crate) routes: Option<usize>,
    /// Messages that it took to find out.
    pub(crate) probes: Option<u64>,
    /// From the Subscribe at one node to the first message from another.
    pub(crate) subscribe_to_first_ms: Option<f64>,
}

/// Nodes on their way.
#[derive(Debug)]
pub(super) struct Started {
    /// When the first was started, on the run's clock.
    pub(super) at_ns: u64,
    pub(super) nodes: Vec<StartedNode>,
}

#[derive(Debug)]
pub(super) enum StartedNode {
    Starting(StartingServer),
    /// One whose address others are told, since when.
    Ready(Server, u64),
}

impl MeshPlan {
    /// Starts all nodes, and waits for none but those that others are told the address of.
    pub(super) fn start(&self) -> Result<Started, LoadError> {
        let at_ns = clock::now_ns();
        let mut options = self.options.clone();
        options.mesh.cluster = Some(self.cluster.clone());
        let mut nodes = Vec::with_capacity(self.nodes);
        let named = match self.meeting {
            Meeting::Multicast => {
                options.mesh.mcast_port = Some(free_port()?);
                0
            }
            Meeting::Seed => 1,
            Meeting::Addresses => self.nodes,
        };
        for node in 0..self.nodes {
            let starting = StartingServer::start(self.target, &self.options_of(node, &options))?;
            if node < named {
                let server = starting.ready(CONVERGENCE_TIMEOUT)?;
                options.mesh.peers.extend(server.addresses.mesh);
                nodes.push(StartedNode::Ready(server, clock::now_ns()));
            } else {
                nodes.push(StartedNode::Starting(starting));
            }
        }
        Ok(Started { at_ns, nodes })
    }

    fn options_of(&self, node: usize, options: &ServerOptions) -> ServerOptions {
        let mut options = options.clone();
        if self.one_core_each && !options.cores.is_empty() {
            options.cores = vec![options.cores[node % options.cores.len()]];
        }
        options
    }
}

impl StartedNode {
    /// Waits until it is ready. Says since when it is, on the run's clock.
    pub(super) fn ready(self) -> Result<(Server, u64), LoadError> {
        match self {
            Self::Starting(starting) => {
                let server = starting.ready(CONVERGENCE_TIMEOUT)?;
                Ok((server, clock::now_ns()))
            }
            Self::Ready(server, ready_ns) => Ok((server, ready_ns)),
        }
    }
}

/// Nodes of so many that many idle ones of them fit a host.
pub(crate) fn sparing(options: &ServerOptions) -> ServerOptions {
    let mesh = MeshOptions { small: true, ..options.mesh.clone() };
    ServerOptions { shards: Some(options.shards.unwrap_or(1)), mesh, ..options.clone() }
}

/// A port for beacons that nobody uses now. The name of the cluster tells those apart who take the
/// same one.
fn free_port() -> Result<u16, LoadError> {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.local_addr())
        .map(|address| address.port())
        .map_err(|source| LoadError::System { what: "no port for beacons is free", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_take_turns_with_the_cores() {
        let options = ServerOptions { cores: vec![4, 6], ..ServerOptions::default() };
        let plan = |one_core_each| MeshPlan {
            target: Target::Nexusd,
            nodes: 3,
            meeting: Meeting::Seed,
            cluster: "c".to_owned(),
            options: options.clone(),
            one_core_each,
        };
        let cores = |plan: &MeshPlan| -> Vec<Vec<usize>> {
            (0..3).map(|node| plan.options_of(node, &plan.options).cores).collect()
        };
        assert_eq!(cores(&plan(true)), [[4], [6], [4]]);
        assert_eq!(cores(&plan(false)), [[4, 6], [4, 6], [4, 6]]);
    }

    #[test]
    fn many_nodes_have_one_shard_unless_told() {
        let options = sparing(&ServerOptions::default());
        assert_eq!((options.shards, options.mesh.small), (Some(1), true));
        let told = ServerOptions { shards: Some(2), ..ServerOptions::default() };
        assert_eq!(sparing(&told).shards, Some(2));
    }
}
