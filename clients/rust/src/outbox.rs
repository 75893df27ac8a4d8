//! What was published and is not sent yet: encoded frames in the order of publishing, within bounds.
//!
//! Callers encode into the outbox; the connection takes all of it at once, sends it, and reports
//! whole frames as settled. When a connection breaks, what it had not sent whole comes back to the
//! front. So a message is in the outbox, in the connection's hands, or sent; and never twice sent
//! by this client. Invariant: messages and bytes in the outbox and in the connection's hands stay
//! within the limits, except for one message alone that is larger than them.

use std::sync::Arc;

use nexusd_wire::{
    FrameEncoder, FrameKind, HEADER_BYTES, Header, MessageFlags, MetadataBuilder, Sequence,
    TopicId, aligned,
};

use crate::awaited::{AckResult, Awaited, Waiter};
use crate::error::Error;
use crate::limits;
use crate::publication::Publication;
use crate::topic_table::{TopicTable, Unbindable, check_publishable};

/// Why a publication was not taken.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no room now, but there is a connection that makes some.
    Wait,
    /// It will not be taken.
    Error(Error),
}

/// A topic by its name, and the id it had last time.
pub(crate) struct KnownTopic<'a> {
    pub(crate) name: &'a Arc<str>,
    pub(crate) last_id: TopicId,
}

#[derive(Debug)]
pub(crate) struct OutboxLimits {
    pub(crate) bytes: usize,
    pub(crate) messages: usize,
}

pub(crate) struct Outbox {
    limits: OutboxLimits,
    /// Frames not yet taken by the connection.
    queue: Vec<u8>,
    queue_messages: usize,
    /// Taken by the connection and not settled.
    taken_bytes: usize,
    taken_messages: usize,
    /// Bytes ever put into the queue: the stream position behind it.
    position: u64,
    next_sequence: u64,
    awaited: Awaited,
    topics: TopicTable,
    encoder: FrameEncoder,
    metadata: MetadataBuilder,
    is_connected: bool,
    payload_max: usize,
    metadata_max: usize,
    closed: Option<Error>,
}

impl Outbox {
    pub(crate) fn new(limits: OutboxLimits) -> Self {
        Self {
            limits,
            queue: Vec::new(),
            queue_messages: 0,
            taken_bytes: 0,
            taken_messages: 0,
            position: 0,
            next_sequence: 1,
            awaited: Awaited::default(),
            topics: TopicTable::new(limits::TOPICS_BOUND_MAX),
            encoder: FrameEncoder::new(),
            metadata: MetadataBuilder::default(),
            is_connected: false,
            payload_max: limits::PAYLOAD_BYTES_MAX,
            metadata_max: limits::METADATA_BYTES_MAX,
            closed: None,
        }
    }

    /// Takes a publication in, with the one who waits for its acknowledgement, if anybody does.
    /// `waiter` is left in place if it is refused. Tells the topic's id, and whether the connection
    /// has to be woken.
    pub(crate) fn offer(
        &mut self,
        publication: &Publication<'_>,
        known: Option<KnownTopic<'_>>,
        waiter: &mut Option<Waiter>,
    ) -> Result<(TopicId, bool), Refusal> {
        if let Some(why) = &self.closed {
            return Err(Refusal::Error(why.clone()));
        }
        let name = publication.topic;
        let bound = match &known {
            Some(known) if self.topics.stands_for(known.last_id, known.name) => Some(known.last_id),
            _ => self.topics.id_of(name),
        };
        if bound.is_none() {
            check_publishable(name).map_err(|why| Refusal::Error(unpublishable(name, why)))?;
        }
        let payload = publication.payload;
        if payload.len() > self.payload_max {
            return Err(Refusal::Error(too_large("a payload", payload.len(), self.payload_max)));
        }
        let metadata = publication.metadata(&mut self.metadata);
        let metadata_len = metadata.len();
        if metadata_len > self.metadata_max {
            return Err(Refusal::Error(too_large("metadata", metadata_len, self.metadata_max)));
        }
        let frame_bytes = HEADER_BYTES + aligned(metadata_len) + aligned(payload.len());
        if !has_room(
            &self.limits,
            self.queue.len() + self.taken_bytes,
            self.queue_messages + self.taken_messages,
            frame_bytes,
        ) || (waiter.is_some() && self.awaited.len() >= limits::ACKS_AWAITED_MAX)
        {
            return Err(if self.is_connected {
                Refusal::Wait
            } else {
                Refusal::Error(Error::OutboxFull)
            });
        }

        let was_empty = self.queue.is_empty();
        let before = self.queue.len();
        let topic = bound.unwrap_or_else(|| {
            let name = known.map_or_else(|| name.into(), |known| Arc::clone(known.name));
            self.topics.bind(name, self.position, &mut self.encoder, &mut self.queue)
        });
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let mut flags = MessageFlags::default();
        if let Some(waiter) = waiter.take() {
            self.awaited.push(sequence, waiter);
            flags = flags.with(MessageFlags::ACK);
        }
        if publication.is_retained {
            flags = flags.with(MessageFlags::RETAIN);
        }
        let header = Header::new(FrameKind::Message, 0, 0)
            .with_topic(topic)
            .with_sequence(Sequence(sequence))
            .with_flags(flags)
            .with_ttl_ms(publication.ttl_ms);
        FrameEncoder::message(&mut self.queue, &header, metadata, payload);
        self.queue_messages += 1;
        self.position += (self.queue.len() - before) as u64;
        Ok((topic, was_empty))
    }

    /// Queues a Ping behind everything published so far; its Pong resolves `waiter`. Tells whether
    /// the connection has to be woken.
    pub(crate) fn offer_flush(&mut self, waiter: Waiter) -> Result<bool, Error> {
        if let Some(why) = &self.closed {
            return Err(why.clone());
        }
        if self.awaited.len() >= limits::ACKS_AWAITED_MAX {
            return Err(Error::OutboxFull);
        }
        let was_empty = self.queue.is_empty();
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.awaited.push(sequence, waiter);
        FrameEncoder::ping_or_pong(&mut self.queue, FrameKind::Ping, sequence);
        self.position += HEADER_BYTES as u64;
        Ok(was_empty)
    }

    /// The table's own allocation of a topic name, or a new one.
    pub(crate) fn intern(&self, name: &str) -> Result<Arc<str>, Error> {
        if self.topics.id_of(name).is_none() {
            check_publishable(name).map_err(|why| unpublishable(name, why))?;
        }
        Ok(self.topics.intern(name))
    }

    /// Hands all frames to the connection, in exchange for an empty buffer. Tells whether there
    /// were any.
    pub(crate) fn take(&mut self, batch: &mut Vec<u8>) -> bool {
        if self.queue.is_empty() {
            return false;
        }
        batch.clear();
        std::mem::swap(batch, &mut self.queue);
        self.taken_bytes += batch.len();
        self.taken_messages += self.queue_messages;
        self.queue_messages = 0;
        true
    }

    /// The connection has sent whole frames. Tells whether those who wait for room should try.
    pub(crate) fn settle(&mut self, bytes: usize, messages: usize) -> bool {
        self.taken_bytes -= bytes;
        self.taken_messages -= messages;
        self.topics.sent(self.unsent_from());
        self.has_much_room()
    }

    /// Enough room that waking who waits for it is worth it: at least half, so that they are not
    /// woken for each message.
    fn has_much_room(&self) -> bool {
        (self.queue.len() + self.taken_bytes) <= self.limits.bytes / 2
            && (self.queue_messages + self.taken_messages) <= self.limits.messages / 2
            && self.awaited.len() <= limits::ACKS_AWAITED_MAX / 2
    }

    /// Stream position of the first byte that is not settled.
    fn unsent_from(&self) -> u64 {
        self.position - (self.queue.len() + self.taken_bytes) as u64
    }

    /// Messages not yet sent.
    pub(crate) fn messages(&self) -> usize {
        self.queue_messages + self.taken_messages
    }

    /// An acknowledgement or a Pong has come. Tells whether those who wait for room should try.
    pub(crate) fn answer(&mut self, sequence: u64, result: AckResult) -> bool {
        self.awaited.resolve(sequence, result);
        self.has_much_room()
    }

    /// A connection was welcomed. Appends to `prelude` the binds it must begin with. Queued messages
    /// beyond the daemon's limits would end the connection: they are taken out; the errors of those
    /// for which nobody waits are returned.
    pub(crate) fn on_connected(
        &mut self,
        payload_max: usize,
        metadata_max: usize,
        prelude: &mut Vec<u8>,
    ) -> Vec<Error> {
        debug_assert_eq!(self.taken_bytes, 0);
        self.payload_max = payload_max;
        self.metadata_max = metadata_max;
        self.is_connected = true;
        let refused = self.take_out_too_large();
        self.topics.restart(&mut self.encoder, prelude);
        refused
    }

    fn take_out_too_large(&mut self) -> Vec<Error> {
        let (payload_max, metadata_max) = (self.payload_max, self.metadata_max);
        let fits = |header: &Header| {
            header.kind() != Some(FrameKind::Message)
                || (header.payload_len() <= payload_max && header.metadata_len() <= metadata_max)
        };
        if frames(&self.queue).all(|(header, _)| fits(header)) {
            return Vec::new();
        }
        let queue = std::mem::take(&mut self.queue);
        let mut at = self.position - queue.len() as u64;
        let mut refused = Vec::new();
        let mut kept = Vec::with_capacity(queue.len());
        for (header, bytes) in frames(&queue) {
            if fits(header) {
                kept.extend_from_slice(bytes);
                at += bytes.len() as u64;
                continue;
            }
            let error = too_large("a payload", header.payload_len(), self.payload_max);
            if header.flags().contains(MessageFlags::ACK) {
                self.awaited.resolve(header.sequence().0, Err(error));
            } else {
                refused.push(error);
            }
            self.queue_messages -= 1;
            self.topics.cut_out(at, bytes.len() as u64);
            self.position -= bytes.len() as u64;
        }
        self.queue = kept;
        refused
    }

    /// The connection has ended. `unsent` is what it had taken and not sent whole. Who waits for an
    /// answer to what was sent hears that there will be none; `last_accepted` is what the daemon's
    /// Goodbye said, if it said one.
    pub(crate) fn on_disconnected(&mut self, unsent: &[u8], last_accepted: Option<u64>) {
        debug_assert_eq!(unsent.len(), self.taken_bytes);
        if !unsent.is_empty() {
            let mut queue = Vec::with_capacity(unsent.len() + self.queue.len());
            queue.extend_from_slice(unsent);
            queue.extend_from_slice(&self.queue);
            self.queue = queue;
        }
        self.queue_messages += self.taken_messages;
        self.taken_bytes = 0;
        self.taken_messages = 0;
        self.is_connected = false;
        let first_unsent = frames(&self.queue)
            .map(|(header, _)| header.sequence().0)
            .find(|sequence| *sequence != 0)
            .unwrap_or(self.next_sequence);
        self.awaited.give_up_below(first_unsent, |sequence| match last_accepted {
            Some(last) if sequence > last => Error::Draining,
            _ => Error::OutcomeUnknown,
        });
    }

    /// Takes nothing in any more, for this reason. What is in it can still be sent.
    pub(crate) fn close(&mut self, why: Error) {
        self.closed.get_or_insert(why);
    }

    /// Drops everything: nothing will be sent or answered any more.
    pub(crate) fn abandon(&mut self, why: &Error) {
        self.close(why.clone());
        self.is_connected = false;
        self.queue = Vec::new();
        self.queue_messages = 0;
        self.awaited.give_up_below(u64::MAX, |_| why.clone());
    }

    /// Gives memory back that a burst has left behind.
    pub(crate) fn shrink(&mut self) {
        if self.queue.is_empty() {
            self.queue.shrink_to(limits::IDLE_BUFFER_BYTES);
        }
    }
}

fn has_room(limits: &OutboxLimits, bytes: usize, messages: usize, more: usize) -> bool {
    messages == 0 || (messages < limits.messages && bytes + more <= limits.bytes)
}

fn unpublishable(name: &str, why: Unbindable) -> Error {
    match why {
        Unbindable::Name(rule) => Error::invalid_topic(name, rule),
        Unbindable::System => {
            Error::Rejected { reason: format!("`{name}`: the daemon alone publishes to $SYS") }
        }
    }
}

fn too_large(what: &str, bytes: usize, limit: usize) -> Error {
    Error::TooLarge { reason: format!("{what} of {bytes} bytes; the daemon accepts {limit}") }
}

/// The frames of a buffer that this client encoded itself, with their bytes.
pub(crate) fn frames(bytes: &[u8]) -> impl Iterator<Item = (&Header, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = Header::peek(rest)?;
        let (frame, behind) = rest.split_at_checked(header.stride())?;
        rest = behind;
        Some((header, frame))
    })
}

#[cfg(test)]
mod tests;
