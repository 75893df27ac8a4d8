//! The frames a publisher writes: encoded once, patched in place for every write.
//!
//! A batch is one buffer that holds the same frame over and over. Before a write, topic, number,
//! intended time and send time are patched into as many of them as go out, a few stores a message;
//! nothing is encoded, allocated or copied again. Targets differ only in the frame they give, and in whether
//! something stands in front of every so many.

use std::num::NonZeroU64;
use std::ops::Range;

use crate::stamp::Stamp;
use crate::topic_table::TopicTable;
use crate::topic_walk::Step;

/// Bytes of one write at an unlimited rate, give or take a frame: enough that the cost of the
/// system call disappears among the messages, and little enough to stay in the second-level cache.
pub(crate) const WRITE_BYTES: usize = 128 << 10;

/// One encoded message of a target, and where in it the generator writes.
#[derive(Clone, Debug)]
pub(crate) struct FrameTemplate {
    /// The bytes of one message, up to where the next one starts.
    pub(crate) bytes: Vec<u8>,
    /// Where in them the payload stands.
    pub(crate) payload: Range<usize>,
    /// Where the frame itself carries the publisher's number (from 1, 8 bytes, little endian).
    pub(crate) sequence_at: Option<usize>,
    /// Where it carries the topic's number (4 bytes, little endian).
    pub(crate) topic_at: Option<usize>,
    /// Where it carries the topic's name, if that changes.
    pub(crate) name: Option<TopicName>,
    /// How it asks for an acknowledgement.
    pub(crate) ack: Option<AckFlag>,
    /// What stands in front of every so many messages.
    pub(crate) envelope: Option<Envelope>,
}

impl FrameTemplate {
    /// A frame that carries nothing of its message but the payload and, if there are several topics, the name.
    pub(crate) fn by_name(bytes: Vec<u8>, payload: Range<usize>, name: Option<TopicName>) -> Self {
        Self { bytes, payload, sequence_at: None, topic_at: None, name, ack: None, envelope: None }
    }
}

/// What stands in front of as many messages as have room together.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    /// Its bytes.
    pub(crate) head: Vec<u8>,
    /// Most bytes of it and its messages.
    pub(crate) bytes_max: usize,
    /// Which one the first of them is.
    pub(crate) first: u64,
    /// Writes into it which one it is, and the bytes of it and its messages.
    pub(crate) seal: fn(head: &mut [u8], number: u64, bytes: usize),
}

/// Where a frame carries the name of its topic.
#[derive(Clone, Debug)]
pub(crate) struct TopicName {
    /// Where it begins.
    pub(crate) at: usize,
    /// The names.
    pub(crate) table: TopicTable,
}

impl TopicName {
    /// Of a publisher with several topics.
    pub(crate) fn of_several(at: usize, table: &TopicTable) -> Option<Self> {
        (table.len() > 1).then(|| Self { at, table: table.clone() })
    }
}

/// How a frame asks for an acknowledgement: the byte at `at` is `wanted` or else 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AckFlag {
    /// Where the byte stands.
    pub(crate) at: usize,
    /// What it is if an acknowledgement is wanted.
    pub(crate) wanted: u8,
}

/// Frames ready to be patched and written.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The frames, each [`Self::enveloped`] of them behind the head of an envelope, if there is one.
    frames: Vec<u8>,
    template: FrameTemplate,
    capacity: u64,
    /// Messages of an envelope; all where there is none.
    enveloped: usize,
    /// Which one the next envelope is.
    envelopes: u64,
    ack_every: Option<NonZeroU64>,
    /// What the stamps say of topic 0.
    first_topic: u32,
}

impl Batch {
    /// A batch of `messages` frames, or of what fits [`WRITE_BYTES`] if that is `None`.
    pub(crate) fn new(template: FrameTemplate, messages: Option<u64>) -> Self {
        let stride = template.bytes.len().max(1);
        let mut fitting = (WRITE_BYTES / stride).max(1);
        let mut enveloped = fitting;
        let (mut head, mut first) = (&[][..], 0);
        if let Some(envelope) = &template.envelope {
            (head, first) = (&envelope.head, envelope.first);
            enveloped = (envelope.bytes_max.saturating_sub(head.len()) / stride).clamp(1, fitting);
            // None is begun for the few that are left over.
            fitting -= fitting % enveloped;
        }
        let capacity = messages.map_or(fitting, |messages| {
            usize::try_from(messages).unwrap_or(usize::MAX).clamp(1, fitting)
        });
        let enveloped = enveloped.min(capacity);
        let envelope = [head, &template.bytes.repeat(enveloped)].concat();
        Self {
            frames: envelope.repeat(capacity.div_ceil(enveloped)),
            template,
            capacity: capacity as u64,
            enveloped,
            envelopes: first,
            ack_every: None,
            first_topic: 0,
        }
    }

    /// Numbers topics in stamps from `first_topic` on, so that those of several publishers can be told
    /// apart; frames number them from 0 as before.
    #[must_use]
    pub(crate) fn stamped_from(self, first_topic: u32) -> Self {
        Self { first_topic, ..self }
    }

    /// Asks for an acknowledgement of one message of `every`, the first included.
    #[must_use]
    pub(crate) fn acknowledged(self, every: Option<NonZeroU64>) -> Self {
        Self { ack_every: every, ..self }
    }

    /// The most messages of one write.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Patches the next `count` messages (at most [`Self::capacity`]), the first of which has number
    /// `first`, and lends them for writing. `step` chooses the topic of each, in order.
    #[inline]
    pub(crate) fn prepare(
        &mut self,
        first: u64,
        count: u64,
        sent_ns: u64,
        mut intended_ns: impl FnMut(u64) -> u64,
        mut step: impl FnMut(u64) -> Step,
    ) -> &[u8] {
        let stride = self.template.bytes.len();
        let mut left = count.min(self.capacity) as usize;
        let FrameTemplate { sequence_at, topic_at, ref name, ack, .. } = self.template;
        let ack = self.ack_every.and_then(|every| ack.map(|flag| (every, flag)));
        let payload = self.template.payload.clone();
        let envelope = self.template.envelope.as_ref();
        let head_bytes = envelope.map_or(0, |envelope| envelope.head.len());
        let (mut bytes, mut first) = (0, first);
        for group in self.frames.chunks_mut(head_bytes + self.enveloped * stride) {
            let inside = left.min(self.enveloped);
            if inside == 0 {
                break;
            }
            let (head, frames) = group[..head_bytes + inside * stride].split_at_mut(head_bytes);
            if let Some(envelope) = envelope {
                (envelope.seal)(head, self.envelopes, head_bytes + frames.len());
                self.envelopes += 1;
            }
            bytes += head_bytes + frames.len();
            for (frame, n) in frames.chunks_exact_mut(stride).zip(first..) {
                let Step { topic, number } = step(n);
                if let Some(place) = sequence_at.and_then(|at| frame[at..].first_chunk_mut()) {
                    *place = (n + 1).to_le_bytes();
                }
                if let Some(place) = topic_at.and_then(|at| frame[at..].first_chunk_mut()) {
                    *place = topic.to_le_bytes();
                }
                if let Some(TopicName { at, table }) = name {
                    let name = table.name(topic);
                    frame[*at..][..name.len()].copy_from_slice(name);
                }
                if let Some((every, flag)) = ack {
                    frame[flag.at] = if n % every == 0 { flag.wanted } else { 0 };
                }
                let intended_ns = intended_ns(n);
                let topic = self.first_topic + topic;
                let stamp = Stamp { topic, counter: number, intended_ns, sent_ns: Some(sent_ns) };
                stamp.write(&mut frame[payload.clone()]);
            }
            left -= inside;
            first += inside as u64;
        }
        &self.frames[..bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(payload_bytes: usize) -> FrameTemplate {
        FrameTemplate {
            bytes: vec![0xEE; 16 + payload_bytes + 8],
            payload: 16..16 + payload_bytes,
            sequence_at: Some(0),
            topic_at: Some(8),
            name: None,
            ack: Some(AckFlag { at: 12, wanted: 0x10 }),
            envelope: None,
        }
    }

    fn step(n: u64) -> Step {
        Step { topic: 3, number: n / 2 }
    }

    #[test]
    fn frames_are_patched_in_place_and_nothing_else_changes() {
        let mut batch = Batch::new(template(32), Some(3));
        let bytes = batch.prepare(10, 2, 500, |n| n * 100, step).to_vec();
        assert_eq!(bytes.len(), 2 * 56);
        for (frame, n) in bytes.chunks_exact(56).zip(10..) {
            assert_eq!(frame[..8], u64::to_le_bytes(n + 1));
            assert_eq!(frame[8..12], u32::to_le_bytes(3));
            assert_eq!(frame[12..16], [0xEE; 4]);
            let expected =
                Stamp { topic: 3, counter: n / 2, intended_ns: n * 100, sent_ns: Some(500) };
            assert_eq!(Stamp::read(&frame[16..]), Some(expected));
            assert_eq!(frame[16 + 24..], [0xEE; 16]);
        }
    }

    #[test]
    fn stamps_of_several_publishers_are_told_apart_and_their_frames_are_alike() {
        let mut batch = Batch::new(template(16), Some(1)).stamped_from(7);
        let frame = batch.prepare(0, 1, 0, |_| 0, step);
        assert_eq!(frame[8..12], u32::to_le_bytes(3));
        assert_eq!(Stamp::read(&frame[16..]).map(|stamp| stamp.topic), Some(10));
    }

    #[test]
    fn one_message_of_every_few_asks_for_an_acknowledgement() {
        let mut batch = Batch::new(template(32), Some(7)).acknowledged(NonZeroU64::new(3));
        let bytes = batch.prepare(4, 7, 0, |_| 0, step);
        let flags: Vec<u8> = bytes.chunks_exact(56).map(|frame| frame[12]).collect();
        assert_eq!(flags, [0, 0, 0x10, 0, 0, 0x10, 0]);
    }

    #[test]
    fn a_send_time_never_overwrites_what_follows_a_short_payload() {
        let mut batch = Batch::new(template(16), Some(1));
        let frame = batch.prepare(0, 1, 500, |_| 0, step);
        assert_eq!(frame[16 + 16..], [0xEE; 8]);
    }

    #[test]
    fn a_write_holds_at_least_one_message_and_at_most_the_write_bound() {
        assert_eq!(Batch::new(template(WRITE_BYTES), None).capacity(), 1);
        let batch = Batch::new(template(104), None);
        assert_eq!(batch.capacity(), (WRITE_BYTES / 128) as u64);
        assert_eq!(Batch::new(template(104), Some(1)).capacity(), 1);
    }
    #[test]
    fn an_envelope_stands_in_front_of_every_so_many_messages() {
        let envelope = Envelope {
            head: vec![0xAA; 3],
            bytes_max: 3 + 2 * 40 + 39,
            first: 7,
            seal: |head, number, bytes| (head[1], head[2]) = (number as u8, bytes as u8),
        };
        let template = FrameTemplate { envelope: Some(envelope), ..template(16) };
        let mut batch = Batch::new(template.clone(), Some(5));
        for number in [7, 10] {
            let bytes = batch.prepare(0, 5, 0, |_| 0, step);
            let heads = [&bytes[..3], &bytes[83..86], &bytes[166..169]];
            assert_eq!(heads, [[0xAA, number, 83], [0xAA, number + 1, 83], [0xAA, number + 2, 43]]);
            assert_eq!(bytes.len(), 3 * 3 + 5 * 40);
            assert_eq!(bytes[169..177], u64::to_le_bytes(5));
        }
        assert_eq!(batch.prepare(0, 1, 0, |_| 0, step).len(), 43);
        assert_eq!(Batch::new(template, None).capacity() % 2, 0);
    }
}
