//! The first words of a connection: it is served once it has said what HTTP/2 says.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::connection::{Accepted, Caller, Connection, Socket};
use crate::limits::GREETING_TIMEOUT;
use crate::sources::Sources;

/// What a client says at first: HTTP/2's preface, and the header of its settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
/// The kind of frame that has to follow.
const SETTINGS: u8 = 4;
/// What is said to one connection too many: no settings, and a farewell (GOAWAY, ENHANCE_YOUR_CALM).
const NO_ROOM: &[u8] =
    &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];

/// Hears out a connection; `None`: there is no room for it, or it does not speak HTTP/2.
pub(crate) async fn greet(
    Accepted { socket, peer, read }: Accepted,
    sources: &Arc<Sources>,
) -> Option<(Connection, Caller)> {
    let mut socket = Socket::from_fd(socket, peer.is_none()).ok()?;
    let caller = Caller::of(&socket, peer, sources);
    let Ok(place) = caller.source.connections.try_take(1) else {
        caller.source.refusals().count_connection();
        // Whoever does not even take that is no worse off.
        let _ = timeout(GREETING_TIMEOUT, socket.write_all(NO_ROOM)).await;
        return None;
    };
    let read = timeout(GREETING_TIMEOUT, hear_hello(&mut socket, read)).await.ok()??;
    Some((Connection::new(socket, read, place), caller))
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
