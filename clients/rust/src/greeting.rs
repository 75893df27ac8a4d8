//! From an address to a connection that the daemon has welcomed.

use std::future::poll_fn;
use std::io;

use bytes::Bytes;
use nexusd_wire::control::{self, Role};
use nexusd_wire::{Frame, FrameEncoder, FrameKind, PROTOCOL_MAJOR, PROTOCOL_MINOR, SubscriptionId};

use crate::error::Error;
use crate::options::Options;
use crate::receiver::{Piece, Received, Receiver};
use crate::socket::{Place, Socket};
use crate::state::Daemon;

/// A connection that may be used.
pub(crate) struct Greeted {
    pub(crate) socket: Socket,
    pub(crate) receiver: Receiver,
    pub(crate) daemon: Daemon,
    /// What came behind Welcome in the same read.
    pub(crate) rest: Bytes,
}

/// Tries all places in order. `resume` is a subscription that will be resumed: it leads the
/// connection to where the daemon keeps it. If none welcomes the client, tells the error that makes trying again
/// pointless if there is one, else the last.
pub(crate) async fn greet(
    options: &Options,
    resume: Option<SubscriptionId>,
) -> Result<Greeted, Error> {
    let mut failure = None;
    for place in &options.places {
        let attempt = greet_at(place, options, resume);
        let error = match tokio::time::timeout(options.connect_timeout, attempt).await {
            Ok(Ok(greeted)) => return Ok(greeted),
            Ok(Err(error)) => error,
            Err(_) => Error::not_connected(&options.address, io::ErrorKind::TimedOut.into()),
        };
        if !failure.as_ref().is_some_and(Error::is_final) {
            failure = Some(error);
        }
    }
    Err(failure.unwrap_or(Error::Closed))
}

async fn greet_at(
    place: &Place,
    options: &Options,
    resume: Option<SubscriptionId>,
) -> Result<Greeted, Error> {
    let failed = |error| Error::not_connected(&options.address, error);
    let mut socket = Socket::connect(place).await.map_err(failed)?;
    let mut hello = Vec::new();
    FrameEncoder::new().hello_again(
        &mut hello,
        PROTOCOL_MINOR,
        Role::Client,
        &options.name,
        &options.software,
        resume,
    );
    let mut unsent = hello.as_slice();
    while !unsent.is_empty() {
        let written = poll_fn(|cx| socket.poll_write(cx, unsent)).await.map_err(failed)?;
        if written == 0 {
            return Err(failed(io::ErrorKind::WriteZero.into()));
        }
        unsent = &unsent[written..];
    }

    let mut receiver = Receiver::new();
    loop {
        let received = poll_fn(|cx| receiver.poll_read(cx, &mut socket)).await.map_err(failed)?;
        let chunk = match received {
            Received::Chunk(chunk) => chunk,
            Received::Part => continue,
            Received::Large(_) => return Err(unexpected(FrameKind::Message)),
            Received::End => {
                return Err(failed(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the daemon closed the connection without a welcome",
                )));
            }
        };
        if chunk.starts_with(b"HTTP/") {
            return Err(Error::http_port());
        }
        let mut input: &[u8] = &chunk;
        if let Piece::Frame(frame) = receiver.cut(&mut input)? {
            let daemon = daemon_of(&frame, place)?;
            let rest = match input {
                [] => Bytes::new(),
                input => chunk.slice_ref(input),
            };
            return Ok(Greeted { socket, receiver, daemon, rest });
        }
    }
}

/// The daemon's introduction, from the frame that must be its Welcome.
fn daemon_of(frame: &Frame<'_>, place: &Place) -> Result<Daemon, Error> {
    match frame.kind() {
        FrameKind::Welcome => {}
        FrameKind::Error => return Err(Error::reported(&frame.body::<control::Error<'_>>()?)),
        kind => return Err(unexpected(kind)),
    }
    let welcome = frame.body::<control::Welcome<'_>>()?;
    if welcome.major() != PROTOCOL_MAJOR || welcome.minor() > PROTOCOL_MINOR {
        return Err(Error::VersionMismatch {
            reason: format!(
                "the daemon speaks {}.{}, this client {PROTOCOL_MAJOR}.{PROTOCOL_MINOR}",
                welcome.major(),
                welcome.minor()
            ),
        });
    }
    Ok(Daemon {
        node: welcome.node().into(),
        software: welcome.software().unwrap_or_default().to_owned(),
        cluster: welcome.cluster().unwrap_or_default().to_owned(),
        max_payload: welcome.max_payload() as usize,
        max_metadata: welcome.max_metadata() as usize,
        place: place.to_string(),
    })
}

fn unexpected(kind: FrameKind) -> Error {
    Error::Protocol { reason: format!("the daemon answered Hello with {kind:?}") }
}
