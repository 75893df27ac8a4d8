//! The retained value of a topic, and what all of a shard's may take together.

use std::collections::BTreeSet;

use nexusd_wire::TopicId;

use crate::expiry::Expiry;
use crate::limits::RETAINED_BYTES;

/// A topic's retained value: the frame as it is delivered.
#[derive(Debug)]
pub(crate) struct Retained {
    pub(crate) frame: Box<[u8]>,
    pub(crate) expiry: Expiry,
}

/// All retained values of a shard, by what they take and when they end.
#[derive(Debug)]
pub(crate) struct RetainedValues {
    count: usize,
    bytes: usize,
    bytes_max: usize,
    expiring: BTreeSet<(Expiry, TopicId)>,
}

impl RetainedValues {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { count: 0, bytes: 0, bytes_max, expiring: BTreeSet::new() }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
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
            self.count -= 1;
            self.bytes -= charge(old.frame.len());
            self.expiring.remove(&(old.expiry, topic));
        }
        if let Some(new) = value {
            self.count += 1;
            self.bytes += charge(new.frame.len());
            if new.expiry != Expiry::NEVER {
                self.expiring.insert((new.expiry, topic));
            }
            *place = Some(Box::new(new));
        }
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
