//! The loops of a node's shards and the edge, as one of those loops sees them: it rings them, and gives
//! them connections that are theirs.

use std::os::fd::OwnedFd;

use super::arrival::Arrival;
use super::edge::{Edge, EdgeConnection};
use super::mailbox::CommandSender;
use crate::shard::handover::Handover;
use crate::shard::output::Destination;
use crate::shard::routing::ShardIndex;

/// The ways to the loops of all shards.
#[derive(Default)]
pub(super) struct Neighbours {
    own: ShardIndex,
    /// By index; none if there is but one shard.
    mailboxes: Vec<CommandSender>,
    edge: Option<Edge>,
}

impl Neighbours {
    /// What the loop of shard `own` knows of all, itself included, in order.
    pub(super) fn of(own: ShardIndex, mailboxes: Vec<CommandSender>) -> Self {
        Self { own, mailboxes, edge: None }
    }

    /// The edge takes connections as well.
    pub(super) fn add_edge(&mut self, edge: Edge) {
        self.edge = Some(edge);
    }

    /// Wakes the loop of a shard if it sleeps: there is something in the shard's inbox.
    pub(super) fn ring(&self, shard: ShardIndex) {
        if let Some(mailbox) = self.mailboxes.get(shard.index()) {
            mailbox.ring();
        }
    }

    /// Whether connections that this loop gives up are taken there: the loop of a shard that has not ended,
    /// or the edge, if there is one.
    pub(super) fn takes_connections(&self, to: Destination) -> bool {
        match to {
            Destination::Edge => self.edge.is_some(),
            Destination::Shard(shard) => {
                let mailbox = self.mailboxes.get(shard.index());
                shard != self.own && mailbox.is_some_and(|mailbox| !mailbox.is_gone())
            }
        }
    }

    /// Gives a connection away that this loop has given up.
    pub(super) fn give_away(&self, to: Destination, socket: OwnedFd, handover: Handover) {
        match to {
            Destination::Shard(shard) => {
                self.hand_over(shard, Arrival::moved(socket, handover));
            }
            Destination::Edge => {
                let Handover { peer, bytes: read, .. } = handover;
                if let Some(edge) = &self.edge {
                    edge.take(EdgeConnection { socket, peer, read });
                }
            }
        }
    }

    /// Gives a connection to the loop of the shard it is to live on. Hands it back if that is the
    /// caller's own.
    pub(super) fn hand_over(&self, shard: ShardIndex, arrival: Arrival) -> Option<Arrival> {
        match self.mailboxes.get(shard.index()) {
            Some(mailbox) if shard != self.own => {
                mailbox.hand_over(arrival);
                None
            }
            _ => Some(arrival),
        }
    }
}
