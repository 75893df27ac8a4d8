//! Nodes that run until they are stopped: `cargo xtask demo start`, `status`, `stop`.
//!
//! Which they are stands in `target/demo/nodes.json`, their logs beside it. A process is ours only as long
//! as its number is still that of the program we started: numbers are used again.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::{build, repository};

/// Nodes when no number is given, and at most.
const NODES: u16 = 3;
const NODES_MAX: u16 = 50;
/// The ports of the first node are the defaults; each further one's are this much higher.
const PORT_STEP: u16 = 10;
const APP_PORT: u16 = 5672;
const MESH_PORT: u16 = 5671;
const HEALTH_PORT: u16 = 8080;
const METRICS_PORT: u16 = 9090;
/// How long a node may take to be ready, and to end.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A node that was started.
struct Node {
    pid: u32,
    ready_line: String,
}

pub(super) fn start(mut parser: lexopt::Parser) -> Result<()> {
    let mut count = NODES;
    if let Some(argument) = parser.next()? {
        let lexopt::Arg::Value(value) = argument else { return Err(argument.unexpected().into()) };
        let number = value.to_str().and_then(|text| text.parse().ok());
        count = number.filter(|count| (1..=NODES_MAX).contains(count)).with_context(|| {
            format!("`{}` is no number of nodes from 1 to {NODES_MAX}", value.to_string_lossy())
        })?;
    }
    let running = running()?;
    if !running.is_empty() {
        bail!("{} nodes run already; `cargo xtask demo stop` ends them", running.len());
    }
    if let Some(port) = (0..count).flat_map(ports).find(|port| is_taken(*port)) {
        bail!(
            "port {port} is in use, and the nodes want it: stop the program that has it first; as root, \
             `ss -ltnp 'sport = :{port}'` names it"
        );
    }
    build::programs()?;
    fs::create_dir_all(folder()).context("cannot make target/demo")?;
    let mut nodes = Vec::new();
    for at in 0..count {
        match start_node(at) {
            Ok(node) => {
                println!("  {}", node.ready_line);
                nodes.push(node);
            }
            Err(error) => {
                stop_all(&nodes)?;
                return Err(error);
            }
        }
        remember(&nodes)?;
    }
    println!("They run until `cargo xtask demo stop`; their logs are in {}.", folder().display());
    Ok(())
}

pub(super) fn status(mut parser: lexopt::Parser) -> Result<()> {
    if let Some(argument) = parser.next()? {
        return Err(argument.unexpected().into());
    }
    let running = running()?;
    if running.is_empty() {
        println!("No node runs; `cargo xtask demo start` starts {NODES}.");
    }
    for node in running {
        println!("  process {}: {}", node.pid, node.ready_line);
    }
    Ok(())
}

pub(super) fn stop(mut parser: lexopt::Parser) -> Result<()> {
    if let Some(argument) = parser.next()? {
        return Err(argument.unexpected().into());
    }
    let running = running()?;
    stop_all(&running)?;
    remember(&[])?;
    match running.len() {
        0 => println!("No node ran."),
        count => println!("{count} nodes have stopped."),
    }
    Ok(())
}

fn folder() -> PathBuf {
    repository::target().join("demo")
}

fn list() -> PathBuf {
    folder().join("nodes.json")
}

/// Starts a node that stays when this program ends, and waits until it is ready.
fn start_node(at: u16) -> Result<Node> {
    let log = folder().join(format!("node-{at}.log"));
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let [app, mesh, health, metrics] = ports(at).map(|port| port.to_string());
    let mut child = Command::new(repository::release_binary("nexusd"))
        .args(["--bind", "127.0.0.1", "--interface", "lo", "--cluster", "demo"])
        .args(["--app-port", &app, "--mesh-port", &mesh])
        .args(["--health-port", &health, "--metrics-port", &metrics])
        .stdin(Stdio::null())
        .stderr(file.try_clone().context("cannot write a log from two sides")?)
        .stdout(file)
        .process_group(0)
        .spawn()
        .context("cannot start nexusd")?;
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        if let Some(ready_line) = ready_line(&log) {
            return Ok(Node { pid: child.id(), ready_line });
        }
        if let Some(status) = child.try_wait().context("cannot ask after the node")? {
            let said = fs::read_to_string(&log).unwrap_or_default();
            bail!("node {} ended ({status}): {}", at + 1, said.trim());
        }
        if Instant::now() > deadline {
            child.kill().context("cannot end the node")?;
            bail!(
                "node {} was not ready within {READY_TIMEOUT:?}; its log is {}",
                at + 1,
                log.display()
            );
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

/// For applications, the mesh, health and metrics of that node.
fn ports(at: u16) -> [u16; 4] {
    [APP_PORT, MESH_PORT, HEALTH_PORT, METRICS_PORT].map(|first| first + at * PORT_STEP)
}

/// Whether somebody listens there, be it on this address or on all.
fn is_taken(port: u16) -> bool {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

fn ready_line(log: &Path) -> Option<String> {
    let lines = BufReader::new(File::open(log).ok()?).lines().map_while(Result::ok);
    lines.into_iter().find(|line| line.starts_with("NexusD is ready"))
}

/// Those of the nodes started last that still run.
fn running() -> Result<Vec<Node>> {
    let Ok(text) = fs::read_to_string(list()) else { return Ok(Vec::new()) };
    let nodes: Value = serde_json::from_str(&text).context("target/demo/nodes.json is no JSON")?;
    let node = |value: &Value| {
        let pid = u32::try_from(value["pid"].as_u64()?).ok()?;
        let ready_line = value["ready_line"].as_str()?.to_owned();
        is_ours(pid).then_some(Node { pid, ready_line })
    };
    Ok(nodes.as_array().into_iter().flatten().filter_map(node).collect())
}

fn remember(nodes: &[Node]) -> Result<()> {
    let node = |node: &Node| json!({ "pid": node.pid, "ready_line": node.ready_line });
    let nodes: Vec<Value> = nodes.iter().map(node).collect();
    if nodes.is_empty() && !list().exists() {
        return Ok(());
    }
    fs::write(list(), format!("{:#}\n", Value::Array(nodes))).context("cannot write target/demo")
}

/// Whether the process is the daemon of this tree, even if that was built anew meanwhile.
fn is_ours(pid: u32) -> bool {
    let Ok(program) = fs::read_link(format!("/proc/{pid}/exe")) else { return false };
    let program = program.to_string_lossy();
    Path::new(program.strip_suffix(" (deleted)").unwrap_or(&program))
        == repository::release_binary("nexusd")
}

fn stop_all(nodes: &[Node]) -> Result<()> {
    for node in nodes {
        signal(node.pid)?;
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    while let Some(node) = nodes.iter().find(|node| is_ours(node.pid)) {
        if Instant::now() > deadline {
            bail!("process {} did not end within {STOP_TIMEOUT:?} of SIGTERM", node.pid);
        }
        thread::sleep(LOOK_INTERVAL);
    }
    Ok(())
}

fn signal(pid: u32) -> Result<()> {
    // The shell's own `kill`: a minimal Debian has no program of that name. One that has ended by itself
    // since is as good.
    Command::new("sh")
        .args(["-c", "kill -TERM \"$1\" 2> /dev/null", "sh", &pid.to_string()])
        .status()
        .context("cannot start sh")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_somebody_listens_on_is_taken() {
        for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
            let listener = TcpListener::bind((address, 0)).expect("a port");
            let port = listener.local_addr().expect("bound").port();
            assert!(is_taken(port), "{address}");
        }
    }
}
