//! What runs without arguments: a node inside this process, its throughput and its latency, and what
//! to try next. Takes less than 20 seconds and touches nothing but loopback.

use std::io::{self, Write};
use std::time::Duration;

use nexusd::Node;

use crate::error::LoadError;
use crate::machine::Machine;
use crate::nodes::Nodes;
use crate::pinning;
use crate::quantity::Rate;
use crate::report::{Conditions, Cores};
use crate::run::RunOptions;
use crate::server::account::own_threads;
use crate::server::serve::{node_addresses, node_config};
use crate::server::{Server, ServerOptions};
use crate::session::Runs;
use crate::table;
use crate::target::Target;
use crate::workload::{Overrides, Workload};

const DURATION: Duration = Duration::from_secs(3);
const WARMUP: Duration = Duration::from_millis(700);
const LATENCY_RATES: [u64; 2] = [10_000, 100_000];

const NEXT: &str = "
Try next:
  nexusd-loadgen --workload T1                   the daemon in a process of its own, 5 s
  nexusd-loadgen --workload T1 --target relay    the limit it is measured against
  nexusd-loadgen --workload F16                  fan-out to 16 subscribers
  nexusd-loadgen --workload L                    latency at 10 k, 100 k and 1 M messages/s
  nexusd-loadgen --help                          all workloads, and how they are measured
";

/// Runs the demonstration and says whether every run was valid.
pub(crate) fn run(server_core: usize, load_core: usize) -> Result<bool, LoadError> {
    let allowed = pinning::allowed_cores();
    let server_core = Some(server_core).filter(|core| allowed.contains(core));
    let load_core = choose_load_core(&allowed, server_core, load_core);

    // The node's threads are those that appear while it starts.
    let before = own_threads();
    let node = Node::start(node_config(&ServerOptions {
        cores: server_core.into_iter().collect(),
        ..ServerOptions::default()
    })?)
    .map_err(|error| LoadError::Spawn {
        target: Target::Nexusd.name(),
        cause: error.to_string(),
    })?;
    let of_node = own_threads().into_iter().filter(|thread| !before.contains(thread)).collect();
    let mut nodes = Nodes::one(Server::embedded(node_addresses(&node), of_node, server_core));
    pinning::pin_to(&[load_core])?;

    say(&format!(
        "A node inside this process, on core {}; the load on core {load_core}; 128-byte messages.\n",
        server_core.map_or_else(|| "any".to_owned(), |core| core.to_string())
    ))?;
    let mut runs = Runs {
        options: RunOptions {
            target: Target::Nexusd,
            warmup: WARMUP,
            duration: DURATION,
            watched_cores: server_core.into_iter().chain([load_core]).collect(),
            ends: server_core
                .filter(|server| *server != load_core)
                .map(|server| [server, load_core]),
        },
        conditions: Conditions {
            cores: Cores::new(server_core.into_iter().collect(), vec![load_core]),
            shards: None,
            machine: Machine::look(allowed.len()),
        },
        count: 0,
    };
    let mut records = Vec::new();
    for (workload, rate) in std::iter::once((Workload::T1, Rate::Max))
        .chain(LATENCY_RATES.map(|rate| (Workload::L, Rate::PerSecond(rate))))
    {
        let overrides = Overrides { rate: Some(rate), ..Overrides::default() };
        for case in workload.cases(&overrides) {
            records.push(runs.run(workload, &case, &mut nodes)?.0);
        }
    }
    node.drain();
    node.wait().map_err(|error| LoadError::Spawn {
        target: Target::Nexusd.name(),
        cause: error.to_string(),
    })?;
    say(&format!("\n{}{NEXT}", table::render(&records)))?;
    Ok(records.iter().all(|record| record.valid))
}

/// The core asked for; else another than the server's; else whatever there is.
fn choose_load_core(allowed: &[usize], server_core: Option<usize>, wanted: usize) -> usize {
    let another = || allowed.iter().copied().find(|core| Some(*core) != server_core);
    Some(wanted)
        .filter(|core| allowed.contains(core))
        .or_else(another)
        .or_else(|| allowed.first().copied())
        .unwrap_or(0)
}

fn say(text: &str) -> Result<(), LoadError> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|source| LoadError::System { what: "cannot print", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_runs_beside_the_server_where_there_are_two_cores() {
        assert_eq!(choose_load_core(&[0, 1], Some(0), 1), 1);
        assert_eq!(choose_load_core(&[0, 2], Some(0), 1), 2);
        assert_eq!(choose_load_core(&[3], Some(0), 1), 3);
        assert_eq!(choose_load_core(&[0], Some(0), 1), 0);
    }
}
