//! The edge thread: a current-thread tokio runtime for what lives in that world, gRPC first of all.
//!
//! Shards hand it the connections that speak HTTP/2; it reaches them as applications do, through connections
//! of its own. It is never on the path of a native message. A panic while it serves a call ends that call's
//! connection, and nothing else.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nexusd_core::PeerAddress;
use nexusd_core::io::edge::{Edge, EdgeConnection};
use nexusd_core::io::mailbox::CommandSender;
use nexusd_grpc::proto::PeerInfo;
use nexusd_grpc::{Accepted, Server};
use nexusd_wire::NodeId;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tonic::Status;
use tracing::{debug, warn};

use crate::error::{StartError, StopError};
use crate::panic_hook;

/// The thread's name, by which a panic of its tasks is told from one of a thread that matters more.
pub(crate) const NAME: &str = "edge";
/// Time that calls get to end once the shards have.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Where a node is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Running,
    Draining,
    Ended,
}

/// What the edge thread is made from.
#[derive(Debug)]
pub(crate) struct EdgeConfig {
    pub(crate) node: NodeId,
    /// Longest payload, bytes.
    pub(crate) max_payload: usize,
    /// How long a subscription without a connection is kept.
    pub(crate) parked_ttl: Duration,
    /// The ways to all shards.
    pub(crate) shards: Vec<CommandSender>,
    /// Connections that speak HTTP/2.
    pub(crate) accepted: mpsc::UnboundedReceiver<Accepted>,
}

/// The way of connections from the shards to the edge: as many as the node has connections at most.
pub(crate) fn door() -> (Edge, mpsc::UnboundedReceiver<Accepted>) {
    let (sender, accepted) = mpsc::unbounded_channel();
    let edge = Edge::new(move |EdgeConnection { socket, peer, read }| {
        let peer = match peer {
            PeerAddress::Tcp(address) => Some(address),
            PeerAddress::Unix => None,
        };
        // Where the edge has ended, so does the connection.
        let _ = sender.send(Accepted { socket, peer, read });
    });
    (edge, accepted)
}

/// The thread.
#[derive(Debug)]
pub(crate) struct EdgeThread {
    phase: PhaseSender,
    thread: JoinHandle<()>,
}

/// Tells the edge that the node drains.
#[derive(Clone, Debug)]
pub(crate) struct PhaseSender(Arc<watch::Sender<Phase>>);

impl PhaseSender {
    /// From now on those who ask are told that the node takes no calls.
    pub(crate) fn drain(&self) {
        self.0.send_if_modified(|phase| {
            let is_new = *phase == Phase::Running;
            if is_new {
                *phase = Phase::Draining;
            }
            is_new
        });
    }
}

impl EdgeThread {
    /// Starts it. It serves when this returns.
    pub(crate) fn start(config: EdgeConfig) -> Result<Self, StartError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::system("what the edge thread waits with"))?;
        let (sender, phase) = watch::channel(Phase::Running);
        let thread = thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || run(&runtime, config, phase))
            .map_err(StartError::system("a thread"))?;
        Ok(Self { phase: PhaseSender(Arc::new(sender)), thread })
    }

    /// How to tell it that the node drains.
    pub(crate) fn phase(&self) -> PhaseSender {
        self.phase.clone()
    }

    /// Ends it, once the shards have ended.
    pub(crate) fn stop(self) -> Result<(), StopError> {
        self.phase.0.send_replace(Phase::Ended);
        self.thread.join().map_err(|panic| StopError::Panicked {
            thread: NAME.to_owned(),
            reason: panic_hook::reason(&*panic),
        })
    }
}

fn run(runtime: &Runtime, config: EdgeConfig, phase: watch::Receiver<Phase>) {
    runtime.block_on(async {
        let EdgeConfig { node, max_payload, parked_ttl, shards, accepted } = config;
        let next_shard = AtomicUsize::new(0);
        let beside = Arc::new(Beside { node, max_payload, parked_ttl, shards, next_shard });
        let server = match Server::new(beside, &[], |_| {}).await {
            Ok(server) => server,
            Err(error) => return warn!("there is no gRPC: {error}"),
        };
        let health = server.health();
        tokio::spawn(async_drain(phase.clone(), health));
        let ended = reached(phase.clone(), Phase::Ended);
        let served = server.serve(accepted, reached(phase, Phase::Ended));
        let in_time = async {
            ended.await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            served = served => if let Err(error) = served {
                warn!("gRPC ends: {error}");
            },
            () = in_time => debug!("calls were cut off at the end"),
        }
    });
}

/// Tells those who ask about the node when it drains.
async fn async_drain(phase: watch::Receiver<Phase>, health: nexusd_grpc::Health) {
    reached(phase, Phase::Draining).await;
    health.drain().await;
}

/// Waits for a phase, or one behind it.
async fn reached(mut phase: watch::Receiver<Phase>, wanted: Phase) {
    let is_reached = |phase: &Phase| *phase == wanted || *phase == Phase::Ended;
    // Nobody who could tell: it has ended.
    let _ = phase.wait_for(is_reached).await;
}

/// The rest of the daemon, as the edge sees it.
#[derive(Debug)]
struct Beside {
    node: NodeId,
    max_payload: usize,
    parked_ttl: Duration,
    shards: Vec<CommandSender>,
    /// Connections are spread over the shards in turn.
    next_shard: AtomicUsize,
}

#[tonic::async_trait]
impl nexusd_grpc::Daemon for Beside {
    fn node(&self) -> NodeId {
        self.node
    }

    fn max_payload(&self) -> usize {
        self.max_payload
    }

    fn parked_ttl(&self) -> Duration {
        self.parked_ttl
    }

    fn connect(&self, peer: Option<SocketAddr>) -> io::Result<UnixStream> {
        let next = self.next_shard.fetch_add(1, Ordering::Relaxed);
        let shard = &self.shards[next % self.shards.len()];
        shard.connect(peer.map_or(PeerAddress::Unix, PeerAddress::Tcp))
    }

    async fn topics(&self) -> Result<Vec<(String, u64)>, Status> {
        Err(Status::unimplemented("this daemon does not list its topics yet"))
    }

    async fn peers(&self, _with_state: bool) -> Result<Vec<PeerInfo>, Status> {
        Err(Status::unimplemented("this daemon does not list its peers yet"))
    }
}
