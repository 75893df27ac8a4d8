//! Connections that move: a client that comes back goes on at the shard that keeps its subscriptions, and
//! one that speaks HTTP/2 at the edge.
//!
//! HTTP/2 is told by the first four bytes (`other_protocols.rs`). The Hello of a client that comes back names one of its
//! subscriptions, and with it the shard that keeps it (`Routing::home_of`). If that is another one, nothing is
//! answered here: the stream from its first byte on, Hello included, is kept until the driver takes it, and
//! dealt with there as if the connection had been accepted there. What is kept is one Hello and what the driver
//! had received by then, for it receives no more at once.
//!
//! A connection moves at most once: at its new shard the same Hello names that one. It is counted where
//! it is, from the moment the driver lets it go; until then a drain closes it like one without Hello.

use super::event::{ConnectionId, Door, PeerAddress};
use super::output::{Destination, Output};
use super::{Shard, open_connection};
use crate::plant::{Plant, is_planted};
use crate::session::SessionState;

/// What goes with a connection from one shard to another, or to the edge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Handover {
    /// Where the connection comes from.
    pub peer: PeerAddress,
    /// Which way it came in.
    pub door: Door,
    /// All bytes of its stream so far.
    pub bytes: Vec<u8>,
}

impl Shard {
    /// Keeps the whole stream, which begins with `first`, for where it goes.
    pub(super) fn begin_move(&mut self, id: ConnectionId, first: &[u8], to: Destination) {
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        debug_assert!(connection.inbound.backlog.is_empty(), "it is the first of the stream");
        connection.session.state = SessionState::Moving;
        connection.session.moves_to = Some(to);
        connection.inbound.is_paused = true;
        connection.inbound.backlog.extend_from_slice(first);
        self.outputs.push_back(Output::Move { connection: id, to });
    }

    /// Hands over what was kept of a connection that moves.
    pub(super) fn give_up(&mut self, id: ConnectionId) -> Option<Handover> {
        let connection = open_connection(&mut self.connections, id)?;
        let SessionState::Moving = connection.session.state else {
            return None;
        };
        let mut bytes = std::mem::take(&mut connection.inbound.backlog);
        if is_planted(Plant::MoveLosesBytes)
            && let Some(hello) = nexusd_wire::Header::peek(&bytes)
        {
            bytes.truncate(hello.stride());
        }
        Some(Handover { peer: connection.peer, door: connection.session.door, bytes })
    }
}
