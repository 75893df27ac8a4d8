//! A run of whole frames in one segment: what queues hold of the log.
//!
//! Extents grow by what directly follows them, and are split where a topic or a number of messages ends.
//! An extent by itself keeps nothing alive: whoever holds it holds a reference to its segment.

use std::collections::BTreeSet;

use nexusd_wire::control::DeliveryMode;
use nexusd_wire::{Header, Sequence, TopicId};

use super::{Log, SegmentId};
use crate::expiry::Expiry;
use crate::link::Origin;

/// A run of whole frames in one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extent {
    pub(crate) segment: SegmentId,
    pub(crate) start: u32,
    pub(crate) len: u32,
    pub(crate) messages: u32,
    /// The topic of all of them: they are then numbered one by one. `None` if there are several, or
    /// numbers may be missing between.
    pub(crate) topic: Option<TopicId>,
    /// Why they are delivered.
    pub(crate) mode: DeliveryMode,
    /// When they end, all at once.
    pub(crate) expiry: Expiry,
}

impl Extent {
    pub(crate) fn end(&self) -> u32 {
        self.start + self.len
    }

    /// Lengthens the extent by one that follows it directly, and is like it in all that messages of an
    /// extent have in common; whether it does and is.
    #[inline]
    pub(crate) fn absorb(&mut self, next: &Self) -> bool {
        let follows = self.segment == next.segment && self.end() == next.start;
        // Between what is replayed there may have been messages that expired.
        let is_live = self.mode == DeliveryMode::Live && next.mode == DeliveryMode::Live;
        if !follows || !is_live || self.expiry != next.expiry {
            return false;
        }
        self.len += next.len;
        self.messages += next.messages;
        self.topic = self.topic.filter(|topic| Some(*topic) == next.topic);
        true
    }

    /// Takes all of it, and leaves none behind it.
    pub(crate) fn take(&mut self) -> Self {
        let all = *self;
        (self.start, self.len, self.messages) = (all.end(), 0, 0);
        all
    }

    /// What is joined to it lies right behind it, but may not have the next numbers.
    pub(crate) fn expect_hole(&mut self) {
        self.topic = None;
    }
}

impl Log {
    /// Splits the messages of one topic off the front of an extent; `None` once it is used up.
    pub(crate) fn split_off_topic(&self, extent: &mut Extent) -> Option<(TopicId, Extent)> {
        if extent.len == 0 {
            return None;
        }
        let topic = self.header(extent.segment, extent.start).topic();
        let mut part = Extent { len: 0, messages: 0, topic: Some(topic), ..*extent };
        while part.len < extent.len {
            let header = self.header(extent.segment, part.end());
            if header.topic() != topic {
                break;
            }
            part.len += header.stride() as u32;
            part.messages += 1;
        }
        extent.start = part.end();
        extent.len -= part.len;
        extent.messages -= part.messages;
        Some((topic, part))
    }

    /// Adds to `parts` what `is_wanted` of an extent's messages, as extents of those that lie side by side.
    pub(crate) fn split_where(
        &self,
        extent: &Extent,
        parts: &mut Vec<Extent>,
        mut is_wanted: impl FnMut(&Header) -> bool,
    ) {
        let nothing = Extent { len: 0, messages: 0, ..*extent };
        let mut part = nothing;
        let mut at = extent.start;
        while at < extent.end() {
            let header = self.header(extent.segment, at);
            let stride = header.stride() as u32;
            if is_wanted(header) {
                (part.len, part.messages) = (part.len + stride, part.messages + 1);
            } else {
                parts.extend((part.len > 0).then_some(part));
                part = Extent { start: at + stride, ..nothing };
            }
            at += stride;
        }
        parts.extend((part.len > 0).then_some(part));
    }

    /// Notes the other nodes that the messages of an extent come from.
    pub(crate) fn note_origins(&self, extent: &Extent, origins: &mut BTreeSet<Origin>) {
        let mut at = extent.start;
        while at < extent.end() {
            let header = self.header(extent.segment, at);
            if header.origin() != 0 {
                origins.insert(Origin(header.origin()));
            }
            at += header.stride() as u32;
        }
    }

    /// Splits at most so many messages off the front of an extent.
    pub(crate) fn split_off_front(&self, extent: &mut Extent, messages: u64) -> Extent {
        let mut front = Extent { len: 0, messages: 0, ..*extent };
        while u64::from(front.messages) < messages && front.messages < extent.messages {
            front.len += self.header(extent.segment, front.end()).stride() as u32;
            front.messages += 1;
        }
        extent.start = front.end();
        extent.len -= front.len;
        extent.messages -= front.messages;
        front
    }

    /// The number of an extent's last message.
    pub(crate) fn last_sequence(&self, extent: &Extent) -> Sequence {
        self.last_header(extent).sequence()
    }

    /// The header of an extent's last message.
    pub(crate) fn last_header(&self, extent: &Extent) -> &Header {
        let mut last = self.header(extent.segment, extent.start);
        let mut at = extent.start + last.stride() as u32;
        // Numbers may be missing between.
        while at < extent.end() {
            last = self.header(extent.segment, at);
            at += last.stride() as u32;
        }
        last
    }
}
