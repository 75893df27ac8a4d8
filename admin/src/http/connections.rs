//! The sockets of an HTTP port, and what bounds them: how many there are, how large a request is, and how long
//! it may take. A connection lives for a minute at most, so that nobody holds one by standing still.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::Peer;
use crate::limits::{
    ACCEPT_RETRY, HTTP_CONNECTION_TIMEOUT, HTTP_CONNECTIONS_MAX, HTTP_HEAD_BYTES_MAX,
    HTTP_HEAD_TIMEOUT, HTTP_HEADERS_MAX,
};

/// Serves what connects to these, until it is dropped; the connections end with it.
pub async fn serve(listeners: Vec<TcpListener>, router: Router) {
    let room = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    let mut ports = JoinSet::new();
    for listener in listeners {
        ports.spawn(accept(listener, router.clone(), Arc::clone(&room)));
    }
    while ports.join_next().await.is_some() {}
}

async fn accept(listener: TcpListener, router: Router, room: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    loop {
        // One that ends makes room for the next.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, peer)) => {
                let router = router.clone();
                connections.spawn(async move {
                    serve_one(socket, peer, router).await;
                    drop(place);
                });
            }
            Err(error) => {
                debug!("no connection to an HTTP port is accepted for now: {error}");
                sleep(ACCEPT_RETRY).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_one(socket: TcpStream, peer: SocketAddr, router: Router) {
    let service = TowerToHyperService::new(router.layer(Extension(Peer(peer))));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP_HEAD_TIMEOUT)
        .max_headers(HTTP_HEADERS_MAX)
        .max_buf_size(HTTP_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service);
    // Whoever breaks a rule, or is too slow, is not told: it may not listen either.
    let _ = timeout(HTTP_CONNECTION_TIMEOUT, served).await;
}
