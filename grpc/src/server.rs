//! The server that all calls come to: the sidecar service, whatever the daemon adds, health and reflection.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tonic::service::{Routes, RoutesBuilder};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::admission::Admission;
use crate::connection::Accepted;
use crate::daemon::Daemon;
use crate::greeting::{GREETED, greet};
use crate::limits::{
    HEADER_BYTES_MAX, KEEPALIVE, PENDING_RESETS_MAX, REQUEST_BYTES_BESIDE_PAYLOAD, REQUEST_TIMEOUT,
    STREAMS_PER_CONNECTION_MAX, WINDOW_BYTES,
};
use crate::proto;
use crate::proto::sidecar_service_server::SidecarServiceServer;
use crate::service::Sidecar;

/// The services of a node.
#[derive(Debug)]
pub struct Server {
    routes: Routes,
    health: Health,
    message_bytes_max: usize,
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
    /// The services of `daemon`. What `add` adds is served beside them; `descriptions` are for reflection.
    pub async fn new<D: Daemon>(
        daemon: Arc<D>,
        descriptions: &[&'static [u8]],
        add: impl FnOnce(&mut RoutesBuilder),
    ) -> Result<Self, tonic_reflection::server::Error> {
        let message_bytes_max = daemon.max_payload() + REQUEST_BYTES_BESIDE_PAYLOAD;
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_service_status("", ServingStatus::Serving).await;
        reporter.set_service_status("nexusd.sidecar.SidecarService", ServingStatus::Serving).await;
        let described = || {
            let mut builder = tonic_reflection::server::Builder::configure()
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
        Ok(Self { routes: routes.routes(), health, message_bytes_max, ending })
    }

    /// How to tell those who ask about the node.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Serves the connections that come, until `end`, and lets the calls end that are under way.
    pub async fn serve(
        self,
        accepted: mpsc::Receiver<Accepted>,
        end: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        let (greeted, connections) = mpsc::channel(GREETED);
        let connections = tokio_stream::wrappers::ReceiverStream::new(connections);
        let Self { routes, message_bytes_max, ending, .. } = self;
        let end = async {
            end.await;
            ending.send_replace(true);
        };
        let (stream_window, connection_window) = WINDOW_BYTES;
        let (silence, answer) = KEEPALIVE;
        let served = tonic::transport::Server::builder()
            .timeout(REQUEST_TIMEOUT)
            .initial_stream_window_size(stream_window)
            .initial_connection_window_size(connection_window)
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
            .http2_keepalive_interval(Some(silence))
            .http2_keepalive_timeout(Some(answer))
            .layer(Admission::new(message_bytes_max))
            .add_routes(routes)
            .serve_with_incoming_shutdown(connections, end);
        let greeting = async {
            greet(accepted, greeted).await;
            // No more come.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            served = served => served,
            () = greeting => Ok(()),
        }
    }
}
