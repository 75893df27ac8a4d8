//! The servers of one run: one, or the nodes of a mesh, and what each of them costs.
//!
//! Ends all that were started here when it is dropped. They are told to end before the first is
//! waited for, so that a hundred take hardly longer than one.

use std::ops::{Deref, DerefMut};

use serde::Serialize;

use crate::connection::Endpoint;
use crate::error::LoadError;
use crate::measurement::per_cpu_second;
use crate::server::Server;
use crate::server::account::{CpuTime, Memory};
use crate::workload::Transport;

/// The servers of a run, in the order of their numbers. There is at least one.
#[derive(Debug)]
pub(crate) struct Nodes(Vec<Server>);

impl Nodes {
    /// A server on its own.
    pub(crate) fn one(server: Server) -> Self {
        Self(vec![server])
    }

    /// Several.
    pub(crate) fn several(servers: Vec<Server>) -> Self {
        Self(servers)
    }

    /// Where each can be reached over a transport.
    pub(crate) fn endpoints(&self, transport: Transport) -> Result<Vec<Endpoint>, LoadError> {
        self.iter().map(|server| server.endpoint(transport)).collect()
    }
}

impl Deref for Nodes {
    type Target = [Server];

    fn deref(&self) -> &[Server] {
        &self.0
    }
}

impl DerefMut for Nodes {
    fn deref_mut(&mut self) -> &mut [Server] {
        &mut self.0
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Server::let_go);
    }
}

/// What one server cost in a run.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct NodeCost {
    /// The core it was pinned to, if to one alone.
    pub(crate) core: Option<usize>,
    /// CPU time within the measured interval.
    pub(crate) cpu: Option<CpuTime>,
    /// Memory at the end of it.
    pub(crate) memory: Option<Memory>,
}

/// What one server cost, as scripts read it.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct NodeRecord {
    pub(crate) server_core: Option<usize>,
    pub(crate) server_cpu_s: Option<f64>,
    pub(crate) server_user_s: Option<f64>,
    pub(crate) server_system_s: Option<f64>,
    /// All deliveries of the run per second of this server's CPU time.
    pub(crate) messages_per_cpu_s: Option<f64>,
    pub(crate) server_rss_kb: Option<u64>,
    pub(crate) server_rss_peak_kb: Option<u64>,
}

impl NodeRecord {
    /// The record of a server in a run with so many deliveries.
    pub(crate) fn new(cost: &NodeCost, deliveries: u64) -> Self {
        Self {
            server_core: cost.core,
            server_cpu_s: cost.cpu.map(CpuTime::seconds),
            server_user_s: cost.cpu.map(|cpu| cpu.user_ns as f64 / 1e9),
            server_system_s: cost.cpu.map(|cpu| cpu.system_ns as f64 / 1e9),
            messages_per_cpu_s: cost.cpu.and_then(|cpu| per_cpu_second(deliveries, cpu)),
            server_rss_kb: cost.memory.map(|memory| memory.resident_kb),
            server_rss_peak_kb: cost.memory.map(|memory| memory.peak_kb),
        }
    }
}

/// CPU time of all servers together; `None` if that of one of them is not known.
pub(crate) fn cpu_of_all(costs: &[NodeCost]) -> Option<CpuTime> {
    costs.iter().try_fold(CpuTime::default(), |sum, cost| {
        let cpu = cost.cpu?;
        Some(CpuTime {
            user_ns: sum.user_ns + cpu.user_ns,
            system_ns: sum.system_ns + cpu.system_ns,
        })
    })
}

/// Memory of all servers together; `None` if that of one of them is not known.
pub(crate) fn memory_of_all(costs: &[NodeCost]) -> Option<Memory> {
    costs.iter().try_fold(Memory { resident_kb: 0, peak_kb: 0 }, |sum, cost| {
        let memory = cost.memory?;
        Some(Memory {
            resident_kb: sum.resident_kb + memory.resident_kb,
            peak_kb: sum.peak_kb + memory.peak_kb,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_cost_is_known_only_if_it_is_of_each() {
        let cpu = Some(CpuTime { user_ns: 1_000_000_000, system_ns: 500_000_000 });
        let memory = Some(Memory { resident_kb: 10, peak_kb: 20 });
        let known = NodeCost { core: Some(0), cpu, memory };
        let both = [known, known];
        let sum = cpu_of_all(&both).expect("both are known");
        assert!((sum.seconds() - 3.0).abs() < 1e-9);
        assert_eq!(memory_of_all(&both), Some(Memory { resident_kb: 20, peak_kb: 40 }));
        let one_unknown = [known, NodeCost::default()];
        assert_eq!((cpu_of_all(&one_unknown), memory_of_all(&one_unknown)), (None, None));
    }

    #[test]
    fn each_is_stated_against_all_deliveries() {
        let cpu = Some(CpuTime { user_ns: 1_500_000_000, system_ns: 500_000_000 });
        let record = NodeRecord::new(&NodeCost { cpu, ..NodeCost::default() }, 1_000);
        assert_eq!(record.messages_per_cpu_s, Some(500.0));
        let unknown = NodeRecord::new(&NodeCost::default(), 1_000);
        assert_eq!(unknown.messages_per_cpu_s, None);
    }
}
