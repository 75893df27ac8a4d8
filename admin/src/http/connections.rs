//! The sockets of an HTTP port, and what bounds them: how many there are, of one source and of all, how large a
//! request is, and how long it may take. A connection lives for a minute, and until the answer that is under way
//! then has gone, so that nobody holds one by standing still.

use std::io::Write;
use std::net::SocketAddr;
use std::pin::pin;
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

use super::places::Places;
use crate::Caller;
use crate::limits::{
    ACCEPT_RETRY, HTTP_CONNECTION_TIMEOUT, HTTP_CONNECTIONS_MAX, HTTP_HEAD_BYTES_MAX,
    HTTP_HEAD_TIMEOUT, HTTP_HEADERS_MAX, HTTP_LAST_ANSWER_TIMEOUT,
};

/// What is said to a connection beyond its source's share.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
    Content-Length: 58\r\nConnection: close\r\n\r\n\
    {\"error\":\"this address has too many connections here now\"}";

/// Serves what connects to these, until it is dropped; the connections end with it.
pub async fn serve(listeners: Vec<TcpListener>, router: Router) {
    let room = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    let places = Arc::new(Places::default());
    let mut ports = JoinSet::new();
    for listener in listeners {
        ports.spawn(accept(listener, router.clone(), Arc::clone(&room), Arc::clone(&places)));
    }
    while ports.join_next().await.is_some() {}
}

async fn accept(listener: TcpListener, router: Router, room: Arc<Semaphore>, places: Arc<Places>) {
    let mut connections = JoinSet::new();
    loop {
        // One that ends makes room for the next.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, peer)) => match places.take(peer.ip()) {
                Some(place) => {
                    let router = router.clone();
                    connections.spawn(async move {
                        serve_one(socket, peer, router).await;
                        drop((place, permit));
                    });
                }
                None => refuse(socket),
            },
            Err(error) => {
                debug!("no connection to an HTTP port is accepted for now: {error}");
                sleep(ACCEPT_RETRY).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Says why, as far as that goes without waiting.
fn refuse(socket: TcpStream) {
    if let Ok(mut socket) = socket.into_std() {
        // Its buffer is empty; where the peer has gone, nobody misses it.
        let _ = socket.write(TOO_MANY);
    }
}

async fn serve_one(socket: TcpStream, peer: SocketAddr, router: Router) {
    let service = TowerToHyperService::new(router.layer(Extension(Caller::at(peer))));
    let mut served = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HTTP_HEAD_TIMEOUT)
            .max_headers(HTTP_HEADERS_MAX)
            .max_buf_size(HTTP_HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(socket), service)
    );
    // Whoever breaks a rule, or is too slow, is not told: it may not listen either.
    if timeout(HTTP_CONNECTION_TIMEOUT, served.as_mut()).await.is_err() {
        served.as_mut().graceful_shutdown();
        let _ = timeout(HTTP_LAST_ANSWER_TIMEOUT, served).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_whose_time_is_over_gets_the_answer_that_is_under_way() {
        let slow = async || {
            sleep(Duration::from_secs(9)).await;
            "done"
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut client = TcpStream::connect(address).await.expect("a listener");
        let (socket, peer) = listener.accept().await.expect("a client");
        let begun = Instant::now();
        let router = Router::new().route("/", get(slow));
        let served = tokio::spawn(serve_one(socket, peer, router));
        // The seventh is asked for after 54 s, and answered after 63.
        let requests = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(9);
        client.write_all(&requests).await.expect("it is read");
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.expect("a clean end");
        served.await.expect("no panic");
        assert_eq!(heard.matches("done").count(), 7, "{heard}");
        assert!((63..75).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    }

    #[test]
    fn what_is_refused_is_told_in_as_many_bytes_as_are_announced() {
        let text = std::str::from_utf8(TOO_MANY).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<super::super::Failure>(body).is_ok());
    }
}
