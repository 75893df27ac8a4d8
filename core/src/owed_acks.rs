//! The acknowledgements that a publisher is owed, in the order of its messages.
//!
//! What became of a message is told by its topic's owner and by every shard that handed it to
//! queues of its own; an entry is complete once all have spoken, and entries leave in order.

use std::collections::VecDeque;

use nexusd_wire::control::{PublishAckEntry, PublishStatus};

/// Acknowledged messages of a publisher that follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AckRange {
    /// The first one's place among all that were acknowledged to this publisher.
    pub(crate) first: u64,
    pub(crate) count: u32,
}

impl AckRange {
    pub(crate) fn one(number: u64) -> Self {
        Self { first: number, count: 1 }
    }

    /// Takes the first `count` away.
    pub(crate) fn split_off_front(&mut self, count: u32) -> Self {
        let front = Self { count: count.min(self.count), ..*self };
        *self =
            Self { first: self.first + u64::from(front.count), count: self.count - front.count };
        front
    }
}

/// What one shard tells of acknowledged messages that fared alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AckPart {
    pub(crate) acks: AckRange,
    /// Queues that each was handed to.
    pub(crate) delivered: u32,
    /// Queues that refused it.
    pub(crate) dropped: u32,
    /// Full queues that hold publishers back.
    pub(crate) blocked: u32,
    /// What only the owner knows.
    pub(crate) owner: Option<OwnersPart>,
}

/// What the owner of the messages' topic tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OwnersPart {
    /// Number of the first within the topic; 0 if the message was refused.
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

impl Owed {
    /// A shard has spoken of it, the owner under this number.
    fn tell(&mut self, part: &AckPart, sequence: u64) {
        let entry = &mut self.entry;
        entry.set_delivered(entry.delivered() + part.delivered);
        entry.set_dropped(entry.dropped() + part.dropped);
        entry.set_blocked(entry.blocked() + part.blocked);
        match part.owner {
            Some(owner) => {
                entry.set_sequence(sequence);
                entry.set_status(owner.status);
                self.balance -= owner.shards as i32;
                self.owner_spoke = true;
            }
            None => self.balance += 1,
        }
    }
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

    /// Promises an acknowledgement; its number is for [`AckPart::acks`].
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
        let acks = AckRange::one(number);
        self.tell(&AckPart { acks, delivered: 0, dropped: 0, blocked: 0, owner });
    }

    /// A shard has spoken.
    pub(crate) fn tell(&mut self, part: &AckPart) {
        let from = part.acks.first.wrapping_sub(self.first) as usize;
        let to = from.saturating_add(part.acks.count as usize);
        debug_assert!(to <= self.entries.len(), "nobody speaks twice");
        let told = self.entries.range_mut(from.min(self.entries.len())..to.min(self.entries.len()));
        for (owed, sequence) in told.zip(part.owner.map_or(0, |owner| owner.sequence)..) {
            owed.tell(part, sequence);
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
        AckPart { acks: AckRange::one(number), delivered: 2, dropped: 1, blocked: 0, owner }
    }

    #[test]
    fn messages_that_fared_alike_are_told_at_once() {
        let mut acks = OwedAcks::default();
        let first = acks.owe(70);
        (71..75).for_each(|sequence| assert!(acks.owe(sequence) > first));
        let mut all = AckRange { first, count: 5 };
        let owner = Some(OwnersPart { sequence: 9, shards: 1, status: PublishStatus::Accepted });
        let told = |acks, owner| AckPart { acks, delivered: 2, dropped: 0, blocked: 1, owner };
        acks.tell(&told(all, owner));
        let front = all.split_off_front(2);
        assert_eq!((front.first, front.count, all.first, all.count), (first, 2, first + 2, 3));
        acks.tell(&told(front, None));
        let entry = |acks: &mut OwedAcks| {
            let entry = acks.next_complete()?;
            Some((entry.publisher_sequence(), entry.sequence(), entry.delivered(), entry.blocked()))
        };
        assert_eq!(entry(&mut acks), Some((70, 9, 4, 2)));
        assert_eq!(entry(&mut acks), Some((71, 10, 4, 2)));
        assert_eq!(entry(&mut acks), None, "the other shard has not spoken of the rest");
        acks.tell(&told(all, None));
        assert_eq!(entry(&mut acks), Some((72, 11, 4, 2)));
        assert_eq!(
            (entry(&mut acks), entry(&mut acks)),
            (Some((73, 12, 4, 2)), Some((74, 13, 4, 2)))
        );
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
