//! `nexusd-loadgen`: measures NexusD and the systems it is measured against.
//!
//! `cli.rs` says what can be asked; `workload.rs` turns it into runs; `session.rs` does them one
//! after the other and `run.rs` each of them: it connects the clients (`clients.rs`), whose threads
//! publish (`publisher.rs`) and read and check (`subscriber.rs`), and takes two looks at what they
//! count. Publishers with many topics go over them as `topic_walk.rs` says, and `topic_tree.rs` knows
//! who must get which; `acks.rs` reads acknowledgements, and `comebacks.rs` says when connections break
//! that subscribers come back from. Idle clients live in processes of their own
//! (`idle.rs`). Nodes that find each other are started and waited for in `mesh.rs`. What differs between systems is in `target.rs`. Pump and relay, the limits the daemon is
//! stated against, are servers inside this program (`forwarder.rs`).

mod acks;
mod batch;
mod cli;
mod clients;
mod clock;
mod comebacks;
mod connection;
mod core_distance;
mod delivery_check;
mod demo;
mod error;
mod flood;
mod forwarder;
mod hiccup;
mod idle;
mod lane;
mod latency;
mod machine;
mod measurement;
mod mesh;
mod nodes;
mod pinning;
mod policy;
mod process;
mod publisher;
mod pump;
mod quantity;
mod relay;
mod report;
mod run;
mod schedule;
mod sequence_check;
mod server;
mod session;
mod stalled;
mod stamp;
mod subscriber;
mod table;
mod target;
mod topic_check;
mod topic_table;
mod topic_tree;
mod topic_walk;
mod window;
mod workload;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;
use crate::cli::request::Request;
use crate::error::LoadError;

fn main() -> ExitCode {
    match Cli::parse().request().and_then(carry_out) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Without a standard error there is nobody to tell.
            let _ = writeln!(io::stderr(), "nexusd-loadgen: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Whether all went well.
fn carry_out(request: Request) -> Result<bool, LoadError> {
    match request {
        Request::Serve { target, options } => server::serve::serve(target, &options).map(|()| true),
        Request::Dependent { parent, line } => {
            Err(server::dependent::become_program(parent, &line))
        }
        Request::IdleClients { target, endpoint, run_name, first, count } => {
            idle::clients::run(target, endpoint, &run_name, first, count).map(|()| true)
        }
        Request::Demo { server_core, load_core } => demo::run(server_core, load_core),
        Request::Measure(request) => session::measure(&request),
    }
}
