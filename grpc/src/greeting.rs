//! The first words of a connection: it is passed on once it has said what HTTP/2 says.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};

use crate::connection::{Accepted, Connection, Socket};
use crate::limits::{CONNECTIONS_MAX, GREETING_TIMEOUT};

/// Connections that were greeted and wait to be served.
pub(crate) const GREETED: usize = 16;
/// What a client says at first: HTTP/2's preface, and the header of its settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
/// The kind of frame that has to follow.
const SETTINGS: u8 = 4;
/// What is said to one connection too many: no settings, and a farewell (GOAWAY, ENHANCE_YOUR_CALM).
const NO_ROOM: &[u8] =
    &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];

/// Hears out connections as they come, each for itself, and passes those on that speak HTTP/2.
pub(crate) async fn greet(
    mut accepted: mpsc::Receiver<Accepted>,
    greeted: mpsc::Sender<io::Result<Connection>>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Some(one) = accepted.recv().await {
        let permit = Arc::clone(&permits).try_acquire_owned();
        let greeted = greeted.clone();
        tokio::spawn(async move {
            let Ok(mut socket) = Socket::from_fd(one.socket, one.peer.is_none()) else {
                return;
            };
            let Ok(permit) = permit else {
                // Whoever does not even take that is no worse off.
                let _ = tokio::time::timeout(GREETING_TIMEOUT, socket.write_all(NO_ROOM)).await;
                return;
            };
            let hello = hear_hello(&mut socket, one.read);
            let Ok(Some(read)) = tokio::time::timeout(GREETING_TIMEOUT, hello).await else {
                return;
            };
            let connection = Connection::new(socket, one.peer, read, permit);
            // Nobody serves any more where nobody takes it.
            let _ = greeted.send(Ok(connection)).await;
        });
    }
}

/// Waits for the preface and the beginning of the client's settings; all that was read by then.
async fn hear_hello(socket: &mut Socket, mut read: Vec<u8>) -> Option<Vec<u8>> {
    loop {
        let known = read.len().min(PREFACE.len());
        if read[..known] != PREFACE[..known] {
            return None;
        }
        if let Some(header) = read.get(PREFACE.len()..PREFACE.len() + FRAME_HEADER_BYTES) {
            return (header[3] == SETTINGS).then_some(read);
        }
        if socket.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}
