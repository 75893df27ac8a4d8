//! One node of the mesh: its listeners and threads, from start to end.
//!
//! Start binds, then starts the shards, then the edge thread, the control thread and the mesh thread; whatever
//! fails takes the rest with it. At the end the shards flush and finish, then the other threads are stopped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use std::{fmt, io};

use nexusd_core::io::clock;
use nexusd_core::io::listener::Listener;
use nexusd_core::io::mailbox::mailbox;
use nexusd_core::{Metrics, Report, ShardConfig, wire};
use nexusd_grpc::Refusals;
use nexusd_wire::NodeId;
use tracing::{debug, warn};

use crate::admin::{Addresses, Admin, Reloader};
use crate::beside::Beside;
use crate::config::{Config, ConfigError};
use crate::control::{self, ControlConfig, ControlThread, Executor};
use crate::drainer::Drainer;
use crate::edge::{self, EdgeThread, OperatorPorts};
use crate::engine::Engine;
use crate::error::{StartError, StopError};
use crate::files::Files;
use crate::inspector::{Inspector, Questions};
use crate::listeners::Listeners;
use crate::logging::LevelHandle;
use crate::mesh::{
    MeshThread, MeshThreadConfig, Reports, Shards, SharedStatus, introduction, link_event,
};
use crate::samples::Samples;
use crate::settings::Settings;
use crate::shard_thread::{ShardThread, ShardThreadConfig};
use crate::statistics::Statistics;
use crate::{SOFTWARE, process};

/// Commands that wait for the shard. A handful per second come.
const MAILBOX_COMMANDS: usize = 1_024;

/// What operators may change of the process around a node; nothing, where the process is not the node's alone.
#[derive(Clone, Default)]
pub struct Process {
    /// What is logged.
    pub log: Option<LevelHandle>,
    /// Reads the settings that the process was started with again.
    pub reread: Option<Reread>,
}

/// Reads settings again.
pub type Reread = Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (log, can_reread) = (&self.log, self.reread.is_some());
        f.debug_struct("Process").field("log", log).field("can_reread", &can_reread).finish()
    }
}

/// A running node. Dropping it ends it, without flushing unless it drains already.
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    config: Config,
    tcp: Vec<SocketAddr>,
    unix: Option<String>,
    health: Vec<SocketAddr>,
    metrics: Vec<SocketAddr>,
    /// Where other nodes reach it.
    mesh_addresses: Vec<SocketAddr>,
    drainer: Drainer,
    /// How the shards talk to the kernel.
    engine: Engine,
    /// What the shards counted when they were last asked.
    samples: Arc<Samples>,
    /// All are there until the end.
    shards: Vec<ShardThread>,
    control: Option<ControlThread>,
    /// There is none in a node on its own.
    mesh: Option<MeshThread>,
    edge: Option<EdgeThread>,
    reloader: Reloader,
}

/// How a node ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stopped {
    /// Messages that were still queued for subscribers when their connections were closed.
    pub unflushed_messages: u64,
    /// Everything it counted.
    pub metrics: Metrics,
}

impl Node {
    /// Starts a node. When this returns it accepts connections.
    ///
    /// Raises the process's limit on open files as far as this user may.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::start_in(config, Process::default())
    }

    /// The same for a node that has the process to itself, so that operators may change that.
    pub fn start_in(config: Config, process: Process) -> Result<Self, StartError> {
        config.check()?;
        let started = Instant::now();
        let files = Files::share_out(&config)?;
        warn_of_memory(config.limits.memory_bytes as u64);
        let random = || process::random().map_err(StartError::system("random numbers"));
        let id = NodeId(random()?);
        let seed = random()? as u64;
        let listeners = Listeners::bind(&config)?;
        let mesh = listeners.mesh;
        let reports = mesh.as_ref().map(|_| Reports::new().map(Arc::new));
        let reports = reports.transpose().map_err(StartError::system("an eventfd"))?;
        let mesh_status = mesh.as_ref().map(|_| SharedStatus::default());
        let (count, asked) = (config.shard_count(), config.io);
        let mailboxes = (0..count).map(|_| mailbox(MAILBOX_COMMANDS));
        let mailboxes: io::Result<Vec<_>> = mailboxes.collect();
        let (senders, receivers): (Vec<_>, Vec<_>) =
            mailboxes.map_err(StartError::system("an eventfd"))?.into_iter().unzip();
        let drainer = Drainer::new(senders.clone(), config.drain_timeout, reports.clone());
        let to_control = control::samples();
        let samples = Arc::new(Samples::new(count, to_control.0.clone()));
        let (mesh_addresses, link_listeners, beacons) = match mesh {
            Some(mesh) => (mesh.addresses, mesh.links, mesh.beacons),
            None => Default::default(),
        };
        let introduction = introduction(&config, &mesh_addresses, &listeners.tcp);
        let (health, metrics) = (listeners.health, listeners.metrics);
        let questions = Arc::new(Questions::new(count));
        // What fails from here on ends the shards that run.
        let mut node = Self {
            id,
            tcp: listeners.tcp,
            unix: listeners.unix,
            health: health.addresses.clone(),
            metrics: metrics.addresses.clone(),
            mesh_addresses,
            config,
            drainer,
            engine: Engine::wanted(asked),
            samples,
            shards: Vec::new(),
            control: None,
            mesh: None,
            edge: None,
            reloader: Reloader::default(),
        };
        // The shards first: of a kernel that refuses io_uring to all they give the better account.
        let refusals = Arc::<Refusals>::default();
        let (edge, accepted) = edge::door(files.grpc_room, Arc::clone(&refusals));
        let mut listeners = listeners.all;
        listeners.extend(link_listeners.into_iter().map(Listener::for_links));
        for (index, (wiring, commands)) in wire(count).into_iter().zip(receivers).enumerate() {
            let shard = ShardThread::start(ShardThreadConfig {
                index,
                shard: ShardConfig {
                    node: id,
                    cluster: node.config.cluster.clone(),
                    software: SOFTWARE.to_owned(),
                    seed,
                    mesh: introduction.clone(),
                    limits: node.config.limits.clone(),
                },
                wiring,
                wanted: node.engine,
                spin_us: node.config.spin_us,
                pin: node.config.pin.map(|cpu| cpu + index),
                // The first shard accepts for all.
                listeners: std::mem::take(&mut listeners),
                commands,
                shards: senders.clone(),
                edge: edge.clone(),
                on_report: hear(&node.samples, &questions, index, reports.clone()),
            })?;
            node.shards.push(shard);
        }
        node.engine = Engine::decide(asked, node.shards.iter().map(ShardThread::granted))?;
        for shard in &node.shards {
            shard.serve_on(node.engine)?;
        }
        let mut admin = Admin {
            node: id,
            refusals,
            settings: Arc::new(Settings::new(node.config.clone())),
            reloading: tokio::sync::Mutex::default(),
            reloader: node.reloader.clone(),
            engine: node.engine,
            addresses: Addresses {
                apps: node.tcp.clone(),
                unix: node.unix.clone(),
                mesh: node.mesh_addresses.clone(),
            },
            started,
            start_us: introduction.start_us,
            inspector: Inspector::new(senders.clone(), questions, reports.clone()),
            drainer: node.drainer.clone(),
            process,
        };
        let (phase, phases) = edge::phases();
        node.drainer.reach_edge(phase.clone());
        admin.drainer.reach_edge(phase.clone());
        let admin = Arc::new(admin);
        let beside = Beside::new(id, senders.clone(), Arc::clone(&admin));
        let ports = OperatorPorts { admin, health: health.sockets, metrics: metrics.sockets };
        let edge = EdgeThread::start(beside, ports, (accepted, files.grpc_room), (phase, phases))?;
        node.edge = Some(edge);
        let statistics = Statistics::new(id, &node.config.cluster, started, mesh_status.clone());
        let owner = nexusd_core::owner_of(&statistics.topic(), count, seed);
        node.control = Some(ControlThread::start(ControlConfig {
            executor: Executor::beside(node.engine, asked),
            publisher: senders[owner.index()].clone(),
            statistics,
            shards: senders.clone(),
            draining: node.drainer.flag(),
            samples: to_control,
        })?);
        if let Some((reports, status)) = reports.zip(mesh_status) {
            let config = MeshThreadConfig {
                node: id,
                introduction,
                beacons,
                seed: random()? as u64,
                links: Shards(senders),
                reports,
                status,
            };
            node.mesh = Some(MeshThread::start(&node.config, config)?);
        }
        debug!(settings = ?node.config.settings().collect::<Vec<_>>(), "node {id} runs");
        Ok(node)
    }

    /// Where applications connect over TCP, in the order of [`Config::bind`].
    pub fn tcp_addresses(&self) -> &[SocketAddr] {
        &self.tcp
    }

    /// Where applications on this host connect: a path, or `@` and an abstract name.
    pub fn unix_name(&self) -> Option<&str> {
        self.unix.as_deref()
    }

    /// Where other nodes connect, in the order of [`Config::bind`]; empty for a node on its own.
    pub fn mesh_addresses(&self) -> &[SocketAddr] {
        &self.mesh_addresses
    }

    /// Where the JSON interface and the signs of life are, in the order of [`Config::bind`]; empty if they are
    /// off.
    pub fn health_addresses(&self) -> &[SocketAddr] {
        &self.health
    }

    /// Where metrics are, in the order of [`Config::bind`]; empty if they are off.
    pub fn metrics_addresses(&self) -> &[SocketAddr] {
        &self.metrics
    }

    /// The id of this node, new at each start.
    pub fn node_id(&self) -> NodeId {
        self.id
    }

    /// The line that tells people and scripts where the node is: `NexusD is ready`, and
    /// `name=value` separated by spaces.
    pub fn ready_line(&self) -> impl fmt::Display + '_ {
        fmt::from_fn(|f| {
            write!(
                f,
                "NexusD is ready tcp={} unix={} mesh={} health={} metrics={} node={} cluster={} version={} \
                 shards={} io={}",
                list(&self.tcp),
                self.unix_name().unwrap_or("none"),
                list(self.mesh_addresses()),
                list(&self.health),
                list(&self.metrics),
                self.id,
                self.config.cluster,
                env!("CARGO_PKG_VERSION"),
                self.shards.len(),
                self.engine,
            )
        })
    }

    /// What can end this node from another thread.
    pub fn drainer(&self) -> Drainer {
        self.drainer.clone()
    }

    /// What can have the configuration read again from another thread.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Begins to end the node, and returns at once; see [`Drainer::drain`].
    pub fn drain(&self) {
        self.drainer.drain();
    }

    /// Waits until the node has ended, which it does when drained.
    pub fn wait(mut self) -> Result<Stopped, StopError> {
        self.join()
    }

    fn join(&mut self) -> Result<Stopped, StopError> {
        let shards: Vec<_> = self.shards.drain(..).map(ShardThread::join).collect();
        let control = self.control.take().map(ControlThread::stop);
        let mesh = self.mesh.take().map(MeshThread::stop);
        let edge = self.edge.take().map(EdgeThread::stop);
        let mut metrics = Metrics::default();
        for shard in shards {
            metrics += shard?;
        }
        control.transpose()?;
        mesh.transpose()?;
        edge.transpose()?;
        let before = self.samples.sum();
        Ok(Stopped {
            unflushed_messages: metrics
                .dropped_disconnect
                .saturating_sub(before.dropped_disconnect),
            metrics,
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.shards.iter().any(|shard| !shard.is_finished()) {
            self.drainer.drain_until(clock::now().mono_us);
        }
        // Whoever wants to know how it ended waits for it.
        let _ = self.join();
    }
}

/// A limit beyond the memory that there is bounds nothing.
fn warn_of_memory(limit_bytes: u64) {
    let limit_kib = limit_bytes / 1_024;
    if let Some(kib) = process::memory_kib().filter(|kib| limit_kib > *kib) {
        warn!(
            "--memory-limit is {} MiB, and there are {} MiB of memory for this process: the kernel ends it before \
             the limit is reached",
            limit_kib / 1_024,
            kib / 1_024
        );
    }
}

/// Addresses as the ready line shows them.
fn list(addresses: &[SocketAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    if addresses.is_empty() { "none".to_owned() } else { addresses.join(",") }
}

/// What a shard's reports go to.
fn hear(
    samples: &Arc<Samples>,
    questions: &Arc<Questions>,
    shard: usize,
    mesh: Option<Arc<Reports>>,
) -> Box<dyn FnMut(Report) + Send> {
    let (samples, questions) = (Arc::clone(samples), Arc::clone(questions));
    Box::new(move |report| match (report, &mesh) {
        (Report::Answer(reply), _) => questions.on_reply(*reply),
        (Report::Metrics(metrics), _) => samples.on_answer(shard, &metrics),
        (Report::Interest { filter, is_wanted }, Some(mesh)) => mesh.on_interest(filter, is_wanted),
        (Report::Retained { change }, Some(mesh)) => mesh.on_retained(change),
        (Report::Link(report), Some(mesh)) => mesh.on_link(link_event(report)),
        // A node on its own tells nobody.
        (Report::Interest { .. } | Report::Retained { .. } | Report::Link(_), None) => {}
    })
}
