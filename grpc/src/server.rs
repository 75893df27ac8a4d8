//! The server that all calls come to: the sidecar service, whatever the daemon adds, health and reflection.

use std::pin::pin;
use std::sync::Arc;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tonic::service::{Routes, RoutesBuilder};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_reflection::pb as reflection;

use crate::admission::Admission;
use crate::calls::Calls;
use crate::connection::Accepted;
use crate::daemon::Daemon;
use crate::greeting::greet;
use crate::limits::{
    HEADER_BYTES_MAX, KEEPALIVE, PENDING_RESETS_MAX, REQUEST_BYTES_BESIDE_PAYLOAD, ROOM_MAX,
    STREAMS_PER_CONNECTION_MAX, UNTAKEN_BYTES_MAX, WINDOW_BYTES,
};
use crate::proto;
use crate::proto::sidecar_service_server::SidecarServiceServer;
use crate::refusals::Refusals;
use crate::service::Sidecar;
use crate::sources::Sources;

/// The services of a node.
#[derive(Debug)]
pub struct Server {
    routes: Routes,
    health: Health,
    sources: Arc<Sources>,
    ending: watch::Sender<bool>,
}

/// Tells those who ask how the node is.
#[derive(Clone, Debug)]
pub struct Health(HealthReporter);

impl Health {
    /// The node takes no more calls.
    pub async fn drain(&self) {
        for service in ["", "nexusd.sidecar.SidecarService"] {
            self.0.set_service_status(service, ServingStatus::NotServing).await;
        }
    }
}

impl Server {
    /// The services of `daemon`, for so many connections, and calls, at a time (at most [`ROOM_MAX`]); `refusals`
    /// counts those beyond. What `add` adds is served beside them; `descriptions` are for reflection.
    pub async fn new<D: Daemon>(
        daemon: Arc<D>,
        room: usize,
        refusals: Arc<Refusals>,
        descriptions: &[&'static [u8]],
        add: impl FnOnce(&mut RoutesBuilder),
    ) -> Result<Self, tonic_reflection::server::Error> {
        let message_bytes_max = daemon.max_payload() + REQUEST_BYTES_BESIDE_PAYLOAD;
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_service_status("", ServingStatus::Serving).await;
        reporter.set_service_status("nexusd.sidecar.SidecarService", ServingStatus::Serving).await;
        let described = || {
            let mut builder = tonic_reflection::server::Builder::configure()
                .include_reflection_service(false)
                .register_encoded_file_descriptor_set(reflection::v1::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(reflection::v1alpha::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(proto::DESCRIPTION)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
            for description in descriptions {
                builder = builder.register_encoded_file_descriptor_set(description);
            }
            builder
        };
        let (ending, is_ending) = watch::channel(false);
        let sidecar = SidecarServiceServer::new(Sidecar::new(daemon, is_ending))
            .max_decoding_message_size(message_bytes_max)
            .max_encoding_message_size(usize::MAX);
        let mut routes = RoutesBuilder::default();
        routes
            .add_service(sidecar)
            .add_service(health)
            .add_service(described().build_v1()?)
            // What most of today's clients still ask.
            .add_service(described().build_v1alpha()?);
        add(&mut routes);
        let health = Health(reporter);
        let sources = Sources::new(message_bytes_max, room.clamp(1, ROOM_MAX), refusals);
        Ok(Self { routes: routes.routes(), health, sources, ending })
    }

    /// How to tell those who ask about the node.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Serves the connections that come, until `end`, and lets the calls end that are under way.
    pub async fn serve(
        self,
        mut accepted: mpsc::Receiver<Accepted>,
        end: impl Future<Output = ()>,
    ) {
        let Self { routes, sources, ending, .. } = self;
        let mut connections = JoinSet::new();
        let mut end = pin!(end);
        loop {
            tokio::select! {
                Some(one) = accepted.recv() => {
                    let (routes, sources) = (routes.clone(), Arc::clone(&sources));
                    connections.spawn(serve_one(one, routes, sources, ending.subscribe()));
                }
                Some(_) = connections.join_next() => {}
                () = &mut end => break,
            }
        }
        ending.send_replace(true);
        while connections.join_next().await.is_some() {}
    }
}

/// Serves one connection.
async fn serve_one(
    accepted: Accepted,
    routes: Routes,
    sources: Arc<Sources>,
    mut ending: watch::Receiver<bool>,
) {
    let Some((connection, caller)) = greet(accepted, &sources).await else { return };
    let (stream_window, connection_window) = WINDOW_BYTES;
    let (silence, answer) = KEEPALIVE;
    let calls = Calls::default();
    let cut = Arc::clone(&calls.cut);
    let served = http2::Builder::new(calls)
        .timer(TokioTimer::new())
        .initial_stream_window_size(stream_window)
        .initial_connection_window_size(connection_window)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_send_buf_size(UNTAKEN_BYTES_MAX)
        .keep_alive_interval(silence)
        .keep_alive_timeout(answer)
        .serve_connection(TokioIo::new(connection), Admission::new(routes, caller));
    let mut served = pin!(served);
    tokio::select! {
        // Whoever breaks a rule was told so by HTTP/2.
        _ = &mut served => return,
        () = cut.notified() => return,
        _ = ending.wait_for(|ending| *ending) => served.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = served => {}
        () = cut.notified() => {}
    }
}
