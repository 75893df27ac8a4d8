//! The loops of a node's shards, as one of them sees them: it rings them, and gives them connections
//! that it accepted for them.

use std::os::fd::OwnedFd;

use super::mailbox::CommandSender;
use crate::shard::event::PeerAddress;
use crate::shard::routing::ShardIndex;

/// The ways to the loops of all shards.
#[derive(Default)]
pub(super) struct Neighbours {
    own: ShardIndex,
    /// By index; none if there is but one shard.
    mailboxes: Vec<CommandSender>,
}

impl Neighbours {
    /// What the loop of shard `own` knows of all, itself included, in order.
    pub(super) fn of(own: ShardIndex, mailboxes: Vec<CommandSender>) -> Self {
        Self { own, mailboxes }
    }

    /// Wakes the loop of a shard if it sleeps: there is something in the shard's inbox.
    pub(super) fn ring(&self, shard: ShardIndex) {
        if let Some(mailbox) = self.mailboxes.get(shard.index()) {
            mailbox.ring();
        }
    }

    /// Gives a connection to the loop of the shard it is to live on. Hands it back if that is the
    /// caller's own.
    pub(super) fn hand_over(
        &self,
        shard: ShardIndex,
        socket: OwnedFd,
        peer: PeerAddress,
    ) -> Option<OwnedFd> {
        match self.mailboxes.get(shard.index()) {
            Some(mailbox) if shard != self.own => {
                mailbox.hand_over(socket, peer);
                None
            }
            _ => Some(socket),
        }
    }
}
