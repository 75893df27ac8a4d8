//! The edge thread: a current-thread tokio runtime for what lives in that world, gRPC first of all.
//!
//! Shards hand it the connections that speak HTTP/2; it reaches them as applications do, through connections
//! of its own. It is never on the path of a native message. A panic while it serves a call ends that call's
//! connection, and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nexusd_core::PeerAddress;
use nexusd_core::io::edge::{Edge, EdgeConnection};
use nexusd_grpc::{Accepted, Server};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use crate::beside::Beside;
use crate::error::{StartError, StopError};
use crate::panic_hook;

/// The thread's name, by which a panic of its tasks is told from one of a thread that matters more.
pub(crate) const NAME: &str = "edge";
/// Connections that wait for the edge.
const CONNECTIONS_WAITING: usize = 1_024;
/// Time that calls get to end once the shards have: subscribers take what was sent to them.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where a node is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Running,
    Draining,
    Ended,
}

/// The way of connections from the shards to the edge.
pub(crate) fn door() -> (Edge, mpsc::Receiver<Accepted>) {
    let (sender, accepted) = mpsc::channel(CONNECTIONS_WAITING);
    let edge = Edge::new(move |EdgeConnection { socket, peer, read }| {
        let peer = match peer {
            PeerAddress::Tcp(address) => Some(address),
            PeerAddress::Unix => None,
        };
        // Where the edge has ended, or is that far behind, so does the connection.
        let _ = sender.try_send(Accepted { socket, peer, read });
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
    /// Starts it: the services of `beside`, for the connections that are `accepted`. It serves when this returns.
    pub(crate) fn start(
        beside: Beside,
        accepted: mpsc::Receiver<Accepted>,
    ) -> Result<Self, StartError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::system("what the edge thread waits with"))?;
        let server = runtime.block_on(Server::new(Arc::new(beside), &[], |_| {}));
        let server = server.map_err(|error| StartError::Grpc { reason: error.to_string() })?;
        let (sender, phase) = watch::channel(Phase::Running);
        let thread = thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || {
                let served = AssertUnwindSafe(|| runtime.block_on(serve(server, accepted, phase)));
                if catch_unwind(served).is_err() {
                    // Its tasks' panics end there. This one was not a task's.
                    process::exit(i32::from(panic_hook::EXIT_CODE));
                }
            })
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

async fn serve(server: Server, accepted: mpsc::Receiver<Accepted>, phase: watch::Receiver<Phase>) {
    let (health, drains) = (server.health(), phase.clone());
    tokio::spawn(async move {
        reached(drains, Phase::Draining).await;
        health.drain().await;
    });
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
        () = in_time => warn!("gRPC calls that did not end by themselves were cut off"),
    }
}

/// Waits for a phase, or one behind it.
async fn reached(mut phase: watch::Receiver<Phase>, wanted: Phase) {
    let is_reached = |phase: &Phase| *phase == wanted || *phase == Phase::Ended;
    // Nobody who could tell: it has ended.
    let _ = phase.wait_for(is_reached).await;
}
