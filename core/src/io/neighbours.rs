//! The loops of a node's shards, as one of them sees them: it rings them, and gives them connections
//! that are theirs.

use super::arrival::Arrival;
use super::mailbox::CommandSender;
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

    /// Whether the loop of a shard is another one's and takes connections: it has not ended.
    pub(super) fn takes_connections(&self, shard: ShardIndex) -> bool {
        let mailbox = self.mailboxes.get(shard.index());
        shard != self.own && mailbox.is_some_and(|mailbox| !mailbox.is_gone())
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
