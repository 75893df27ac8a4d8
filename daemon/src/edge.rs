//! The edge thread: a current-thread tokio runtime for what lives in that world, gRPC first of all.
//!
//! Shards hand it the connections that speak HTTP/2; it reaches them as applications do, through connections
//! of its own. It is never on the path of a native message. A panic while it serves a call ends that call's
//! connection, and nothing else.

use std::io;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nexusd_admin::proto::admin_service_server::AdminServiceServer;
use nexusd_admin::{Caller, FORWARDED, HttpMetrics};
use nexusd_core::PeerAddress;
use nexusd_core::io::edge::{Edge, EdgeConnection};
use nexusd_grpc::{Accepted, Refusals, Server};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tonic::service::RoutesBuilder;
use tonic::{Request, Status};
use tracing::warn;

use crate::admin::Admin;
use crate::beside::Beside;
use crate::error::{StartError, StopError};
use crate::panic_hook;

/// The thread's name, by which a panic of its tasks is told from one of a thread that matters more.
pub(crate) const NAME: &str = "edge";
/// Time that calls get to end once the shards have: subscribers take what was sent to them.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where a node is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Running,
    Draining,
    Ended,
}

/// The way of connections from the shards to the edge, where at most so many wait; those beyond are counted.
pub(crate) fn door(
    waiting_max: usize,
    refusals: Arc<Refusals>,
) -> (Edge, mpsc::Receiver<Accepted>) {
    let (sender, accepted) = mpsc::channel(waiting_max);
    let edge = Edge::new(move |EdgeConnection { socket, peer, read }| {
        let peer = match peer {
            PeerAddress::Tcp(address) => Some(address),
            PeerAddress::Unix => None,
        };
        // Where the edge has ended, or is that far behind, so does the connection.
        if sender.try_send(Accepted { socket, peer, read }).is_err() {
            refusals.count_connection();
        }
    });
    (edge, accepted)
}

/// The phases of a node that starts: how to tell the edge of them, and how it hears.
pub(crate) fn phases() -> (PhaseSender, watch::Receiver<Phase>) {
    let (sender, phase) = watch::channel(Phase::Running);
    (PhaseSender(Arc::new(sender)), phase)
}

/// What operators ask, and the HTTP ports that they ask at.
#[derive(Debug)]
pub(crate) struct OperatorPorts {
    pub(crate) admin: Arc<Admin>,
    /// For the JSON interface and the signs of life.
    pub(crate) health: Vec<TcpListener>,
    pub(crate) metrics: Vec<TcpListener>,
}

impl OperatorPorts {
    /// Serves them, as long as what this returns is kept.
    fn serve(self) -> JoinSet<()> {
        let Self { admin, health, metrics } = self;
        let config = admin.settings.config();
        let page = HttpMetrics {
            path: config.metrics_path,
            update_interval: config.metrics_update_interval,
        };
        let mut ports = JoinSet::new();
        for (sockets, router) in [
            (health, nexusd_admin::health_router(Arc::clone(&admin) as _)),
            (metrics, nexusd_admin::metrics_router(admin, &page)),
        ] {
            let sockets: io::Result<Vec<_>> =
                sockets.into_iter().map(tokio::net::TcpListener::from_std).collect();
            match sockets {
                Ok(sockets) => drop(ports.spawn(nexusd_admin::serve(sockets, router))),
                Err(error) => warn!("an HTTP port is not served: {error}"),
            }
        }
        ports
    }
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
    /// Starts it: the services of `beside` and those for operators, for the connections that are `accepted`, so
    /// many at a time, and those to the ports. It serves when this returns.
    pub(crate) fn start(
        beside: Beside,
        ports: OperatorPorts,
        (accepted, grpc_room): (mpsc::Receiver<Accepted>, usize),
        (sender, phase): (PhaseSender, watch::Receiver<Phase>),
    ) -> Result<Self, StartError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::system("what the edge thread waits with"))?;
        let operators = AdminServiceServer::with_interceptor(
            nexusd_admin::Service::new(Arc::clone(&ports.admin) as _),
            note_caller,
        );
        let add = |routes: &mut RoutesBuilder| _ = routes.add_service(operators);
        let descriptions = [nexusd_admin::proto::DESCRIPTION];
        let refusals = Arc::clone(&ports.admin.refusals);
        let server = Server::new(Arc::new(beside), grpc_room, refusals, &descriptions, add);
        let server = runtime.block_on(server);
        let server = server.map_err(|error| StartError::Grpc { reason: error.to_string() })?;
        let thread = thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || {
                let served =
                    AssertUnwindSafe(|| runtime.block_on(serve(server, ports, accepted, phase)));
                if catch_unwind(served).is_err() {
                    // Its tasks' panics end there. This one was not a task's.
                    process::exit(i32::from(panic_hook::EXIT_CODE));
                }
            })
            .map_err(StartError::system("a thread"))?;
        Ok(Self { phase: sender, thread })
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

async fn serve(
    server: Server,
    ports: OperatorPorts,
    accepted: mpsc::Receiver<Accepted>,
    phase: watch::Receiver<Phase>,
) {
    let admin = Arc::clone(&ports.admin);
    tokio::spawn(async move { admin.reload_when_asked().await });
    let _http = ports.serve();
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
        () = served => {}
        () = in_time => warn!("gRPC calls that did not end by themselves were cut off"),
    }
}

/// Tells the admin service where a call comes from.
fn note_caller(mut call: Request<()>) -> Result<Request<()>, Status> {
    let is_forwarded = FORWARDED.into_iter().any(|name| call.metadata().contains_key(name));
    let caller = match call.extensions().get::<nexusd_grpc::Caller>().map(|caller| caller.peer) {
        // Whoever stands behind a proxy is somewhere else.
        _ if is_forwarded => Caller::default(),
        Some(Some(address)) => Caller::at(address),
        Some(None) => Caller::UNIX,
        None => Caller::default(),
    };
    call.extensions_mut().insert(caller);
    Ok(call)
}

/// Waits for a phase, or one behind it.
async fn reached(mut phase: watch::Receiver<Phase>, wanted: Phase) {
    let is_reached = |phase: &Phase| *phase == wanted || *phase == Phase::Ended;
    // Nobody who could tell: it has ended.
    let _ = phase.wait_for(is_reached).await;
}
