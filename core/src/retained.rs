//! The retained value of a topic, and what all of a shard's may take together.
//!
//! In a mesh a value that was cleared leaves its mark for an hour, so that a node which was away does not
//! bring it back; and all values and marks are summed up by buckets of topics, so that two nodes find out
//! what they do not have in common without naming it.

use std::collections::BTreeSet;
use std::hash::Hasher;

use nexusd_wire::{Header, NodeId, RETAINED_BUCKETS, TopicId};
use siphasher::sip::SipHasher24;

use crate::expiry::Expiry;
use crate::limits::{EARLY_MESSAGES_US, RETAINED_BYTES};

/// Stands behind a topic in what is hashed; no topic holds it.
const TOPIC_END: u8 = 0xff;

/// A sum of the values of each bucket.
pub(crate) type Digest = [u64; RETAINED_BUCKETS];

/// What values of a topic are compared by: the newest wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Stamp {
    pub(crate) timestamp_us: u64,
    /// The node that accepted it.
    pub(crate) origin: NodeId,
}

impl Stamp {
    /// What a value counts for in the sum of its bucket. The same on every node.
    fn sum(self, topic: &str) -> u64 {
        let mut hasher = SipHasher24::new();
        hasher.write(topic.as_bytes());
        hasher.write(&[TOPIC_END]);
        hasher.write(&self.timestamp_us.to_le_bytes());
        hasher.write(&self.origin.0.to_le_bytes());
        hasher.finish()
    }
}

/// The bucket of a topic. The same on every node.
pub(crate) fn bucket_of(topic: &str) -> usize {
    let mut hasher = SipHasher24::new();
    hasher.write(topic.as_bytes());
    hasher.finish() as usize % RETAINED_BUCKETS
}

/// Some of the buckets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Buckets(pub(crate) [u64; RETAINED_BUCKETS / 64]);

impl Buckets {
    /// Those in which two nodes differ; `None` if they do not.
    pub(crate) fn differing(one: &Digest, other: &Digest) -> Option<Self> {
        let mut buckets = Self::default();
        for (at, (one, other)) in one.iter().zip(other).enumerate() {
            buckets.0[at / 64] |= u64::from(one != other) << (at % 64);
        }
        (buckets != Self::default()).then_some(buckets)
    }

    pub(crate) fn contain(&self, topic: &str) -> bool {
        let at = bucket_of(topic);
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    pub(crate) fn add(&mut self, others: &Self) {
        self.0.iter_mut().zip(others.0).for_each(|(buckets, others)| *buckets |= others);
    }
}

/// A topic's retained value: the frame as it is delivered. Of one that was cleared, an empty one.
#[derive(Debug)]
pub(crate) struct Retained {
    pub(crate) frame: Box<[u8]>,
    pub(crate) expiry: Expiry,
    /// When it came here.
    pub(crate) since_us: u64,
}

impl Retained {
    /// Whether it was another node that accepted it, and that may still be about to hand it to its new peers
    /// itself: such a node has started just now.
    pub(crate) fn comes_itself(&self, now_us: u64) -> bool {
        let is_own = Header::peek(&self.frame).is_some_and(|header| header.origin() == 0);
        !is_own && now_us.saturating_sub(self.since_us) < EARLY_MESSAGES_US
    }

    /// Whether it only says that the value was cleared.
    pub(crate) fn is_cleared(&self) -> bool {
        Header::peek(&self.frame).is_none_or(|header| header.payload_len() == 0)
    }
}

/// All retained values of a shard, by what they take and when they end.
#[derive(Debug)]
pub(crate) struct RetainedValues {
    count: usize,
    /// Those that were cleared.
    cleared: usize,
    bytes: usize,
    /// In a mesh, the sums, and what all of them together have changed by since that was last asked.
    digest: Option<Box<Digest>>,
    change: u64,
    bytes_max: usize,
    expiring: BTreeSet<(Expiry, TopicId)>,
}

impl RetainedValues {
    pub(crate) fn new(bytes_max: usize, is_meshed: bool) -> Self {
        let digest = is_meshed.then(|| Box::new([0; RETAINED_BUCKETS]));
        Self {
            count: 0,
            cleared: 0,
            digest,
            change: 0,
            bytes: 0,
            bytes_max,
            expiring: BTreeSet::new(),
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Whether there is none, and none is remembered that was cleared.
    pub(crate) fn are_none(&self) -> bool {
        self.count + self.cleared == 0
    }

    /// Whether other nodes have the same values.
    pub(crate) fn are_shared(&self) -> bool {
        self.digest.is_some()
    }

    /// The sums; none without a mesh.
    pub(crate) fn digest(&self) -> Option<&Digest> {
        self.digest.as_deref()
    }

    /// A topic's value changes: changes the sum of its bucket.
    pub(crate) fn sum_up(&mut self, topic: &str, old: Option<Stamp>, new: Option<Stamp>) {
        if let Some(digest) = &mut self.digest {
            for stamp in old.into_iter().chain(new) {
                let sum = stamp.sum(topic);
                digest[bucket_of(topic)] ^= sum;
                self.change ^= sum;
            }
        }
    }

    /// What they take together.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a frame of so many bytes fits, in place of an earlier value.
    pub(crate) fn fits(&self, frame_bytes: usize, earlier: Option<&Retained>) -> bool {
        let freed = earlier.map_or(0, |value| charge(value.frame.len()));
        self.bytes - freed + charge(frame_bytes) <= self.bytes_max
    }

    /// A topic's value changes: counts the new one in and the old one out.
    pub(crate) fn replace(
        &mut self,
        topic: TopicId,
        place: &mut Option<Box<Retained>>,
        value: Option<Retained>,
    ) {
        if let Some(old) = place.take() {
            *self.counter(&old) -= 1;
            self.bytes -= charge(old.frame.len());
            self.expiring.remove(&(old.expiry, topic));
        }
        if let Some(new) = value {
            *self.counter(&new) += 1;
            self.bytes += charge(new.frame.len());
            if new.expiry != Expiry::NEVER {
                self.expiring.insert((new.expiry, topic));
            }
            *place = Some(Box::new(new));
        }
    }

    /// What all sums together have changed by since this was last asked.
    pub(crate) fn take_change(&mut self) -> u64 {
        std::mem::take(&mut self.change)
    }

    fn counter(&mut self, value: &Retained) -> &mut usize {
        if value.is_cleared() { &mut self.cleared } else { &mut self.count }
    }

    /// When the next value expires, microseconds by the monotonic clock.
    pub(crate) fn due_us(&self) -> Option<u64> {
        self.expiring.first()?.0.due_us()
    }

    /// A topic whose value has expired.
    pub(crate) fn expired(&self, now_us: u64) -> Option<TopicId> {
        let &(expiry, topic) = self.expiring.first()?;
        expiry.is_past(now_us).then_some(topic)
    }
}

/// What a value is counted with.
fn charge(frame_bytes: usize) -> usize {
    frame_bytes + RETAINED_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_and_sums_are_those_of_the_protocol() {
        // SipHash-2-4 with a key of zeroes, as `docs/PROTOCOL.md` shows it.
        let stamp = Stamp { timestamp_us: 1_767_323_045_678_901, origin: NodeId(7) };
        assert_eq!(bucket_of("plant/boiler/temperature"), 164);
        assert_eq!(stamp.sum("plant/boiler/temperature"), 0x505a_1555_738b_edc2);
    }

    #[test]
    fn buckets_that_differ_are_found_and_hold_their_topics() {
        let (mut one, other) = ([0; RETAINED_BUCKETS], [0; RETAINED_BUCKETS]);
        assert_eq!(Buckets::differing(&one, &other), None);
        one[bucket_of("a")] = 5;
        let buckets = Buckets::differing(&one, &other).expect("a difference");
        assert!(buckets.contain("a") && !buckets.contain("b"));
        let mut both = Buckets::default();
        both.add(&buckets);
        assert_eq!(both, buckets);
    }
}
