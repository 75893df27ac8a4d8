//! The acknowledgements that a publisher is owed, in the order of its messages.
//!
//! What became of a message is told by its topic's owner and by every shard that handed it to
//! queues of its own; an entry is complete once all have spoken, and entries leave in order.

use std::collections::VecDeque;

use nexusd_wire::control::{PublishAckEntry, PublishStatus};

/// What one shard tells of an acknowledged message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AckPart {
    /// The message's place among all that were acknowledged to this publisher.
    pub(crate) number: u64,
    /// Queues that it was handed to.
    pub(crate) delivered: u32,
    /// Queues that refused it.
    pub(crate) dropped: u32,
    /// Full queues that hold publishers back.
    pub(crate) blocked: u32,
    /// What only the owner knows.
    pub(crate) owner: Option<OwnersPart>,
}

/// What the owner of the message's topic tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OwnersPart {
    /// Number within the topic; 0 if the message was refused.
    pub(crate) sequence: u64,
    /// Further shards that will speak.
    pub(crate) shards: u32,
    pub(crate) status: PublishStatus,
}

#[derive(Debug)]
struct Owed {
    entry: PublishAckEntry,
    /// Shards that have spoken, less those that are known to; complete at 0, when the owner has.
    balance: i32,
    owner_spoke: bool,
}

/// All that one publisher is owed.
#[derive(Debug, Default)]
pub(crate) struct OwedAcks {
    entries: VecDeque<Owed>,
    /// Number of the first entry.
    first: u64,
}

impl OwedAcks {
    /// How many are owed.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The number of the acknowledgement that is promised next.
    #[inline]
    pub(crate) fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Promises an acknowledgement; its number is for [`AckPart::number`].
    pub(crate) fn owe(&mut self, publisher_sequence: u64) -> u64 {
        let entry = PublishAckEntry::new(publisher_sequence, 0, 0, 0, 0, PublishStatus::Accepted);
        let number = self.next();
        self.entries.push_back(Owed { entry, balance: 0, owner_spoke: false });
        number
    }

    /// A message that was refused at once.
    pub(crate) fn refuse(&mut self, publisher_sequence: u64, status: PublishStatus) {
        let number = self.owe(publisher_sequence);
        let owner = Some(OwnersPart { sequence: 0, shards: 0, status });
        self.tell(&AckPart { number, delivered: 0, dropped: 0, blocked: 0, owner });
    }

    /// A shard has spoken.
    pub(crate) fn tell(&mut self, part: &AckPart) {
        let at = part.number.wrapping_sub(self.first) as usize;
        let Some(owed) = self.entries.get_mut(at) else {
            debug_assert!(false, "nobody speaks twice");
            return;
        };
        let entry = &mut owed.entry;
        entry.set_delivered(entry.delivered() + part.delivered);
        entry.set_dropped(entry.dropped() + part.dropped);
        entry.set_blocked(entry.blocked() + part.blocked);
        match part.owner {
            Some(owner) => {
                entry.set_sequence(owner.sequence);
                entry.set_status(owner.status);
                owed.balance -= owner.shards as i32;
                owed.owner_spoke = true;
            }
            None => owed.balance += 1,
        }
    }

    /// Takes the next entry if it is complete.
    pub(crate) fn next_complete(&mut self) -> Option<PublishAckEntry> {
        let owed = self.entries.front().filter(|owed| owed.owner_spoke && owed.balance == 0)?;
        let entry = owed.entry;
        self.entries.pop_front();
        self.first += 1;
        if self.entries.is_empty() {
            self.entries.shrink_to(ENTRIES_KEPT);
        }
        Some(entry)
    }
}

/// Room for entries that stays when none is owed.
const ENTRIES_KEPT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u64, owner: Option<OwnersPart>) -> AckPart {
        AckPart { number, delivered: 2, dropped: 1, blocked: 0, owner }
    }

    #[test]
    fn entries_leave_in_order_once_every_shard_has_spoken() {
        let mut acks = OwedAcks::default();
        let (first, second) = (acks.owe(70), acks.owe(71));
        let accepted = |sequence, shards| {
            Some(OwnersPart { sequence, shards, status: PublishStatus::Accepted })
        };
        acks.tell(&part(second, accepted(9, 0)));
        // A shard may be faster than the owner.
        acks.tell(&part(first, None));
        assert!(acks.next_complete().is_none());
        acks.tell(&part(first, accepted(8, 2)));
        assert!(acks.next_complete().is_none());
        acks.tell(&part(first, None));
        let entry = acks.next_complete().expect("complete");
        let counts = (entry.delivered(), entry.dropped(), entry.sequence());
        assert_eq!((entry.publisher_sequence(), counts), (70, (6, 3, 8)));
        assert_eq!(acks.next_complete().map(|entry| entry.publisher_sequence()), Some(71));
        acks.refuse(72, PublishStatus::TooLarge);
        let refused = acks.next_complete().expect("complete");
        assert_eq!((refused.sequence(), refused.status()), (0, PublishStatus::TooLarge));
        assert_eq!(acks.len(), 0);
    }
}
