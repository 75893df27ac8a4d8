//! PING, and what CONNECT says.

use std::time::{Duration, Instant};

use nexusd_admin::proto::PingRequest;
use serde::Serialize;

use crate::console::Console;
use crate::error::CliError;
use crate::format::{duration, printable};
use crate::remote::Remote;

/// A daemon's answer.
#[derive(Serialize, Debug)]
struct Pong {
    address: String,
    node_id: String,
    timestamp_ms: i64,
    latency_us: u64,
}

pub(crate) async fn run(remote: &Remote, console: Console) -> Result<(), CliError> {
    let pong = ask(remote).await?;
    console.show(&pong, || {
        let latency = duration(Duration::from_micros(pong.latency_us));
        let node = printable(&pong.node_id);
        format!("PONG from node {node} at {} after {latency}", pong.address)
    })
}

/// Greets a daemon that was just connected to.
pub(crate) async fn connected(remote: &Remote, console: Console) -> Result<(), CliError> {
    let pong = ask(remote).await?;
    console.show(&pong, || {
        format!("connected to node {} at {}", printable(&pong.node_id), pong.address)
    })
}

async fn ask(remote: &Remote) -> Result<Pong, CliError> {
    let asked = Instant::now();
    let answer = remote.ping(PingRequest {}).await?;
    Ok(Pong {
        address: remote.target().to_string(),
        node_id: answer.node_id,
        timestamp_ms: answer.timestamp_ms,
        latency_us: u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX),
    })
}
