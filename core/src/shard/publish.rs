//! From an accepted message to the queues that want it.
//!
//! Messages that follow each other on one topic form a *run*: each is numbered and copied to the log
//! by itself, and the run is handed to the topic's queues as one extent, when another topic, an
//! acknowledged message or the end of the received bytes closes it. So fan-out costs per run, not
//! per message.
//!
//! Invariant: a run is open only while one connection's bytes are dealt with; it holds a reference
//! to its segment, so that nothing can rewrite it before the queues have theirs.

use std::collections::BTreeSet;

use nexusd_wire::control::{GapReason, OverflowPolicy, PublishAckEntry, PublishStatus};
use nexusd_wire::{
    DecodeError, Frame, FrameEncoder, FrameKind, Header, MessageFlags, Sequence, TopicId,
};
use slab::Slab;

use super::event::{ConnectionId, Now};
use crate::limits::{
    BLOCK_RESUME_EIGHTHS, BLOCKED_READ_BYTES, CLIENT_BYTES_MIN, CLIENT_SHARE, Limits,
    METADATA_BYTES_MAX,
};
use crate::log::{Extent, Log, SegmentId, SegmentKind};
use crate::metrics::Metrics;
use crate::overflow;
use crate::plant::{Plant, is_planted};
use crate::session::{Binding, Session};
use crate::subscriber_queue::{Item, QueueId, SubscriberQueue};
use crate::subscription_index::SubscriptionIndex;
use crate::topic::{Topics, note_bound};

/// Owed acks beyond this are sent before more messages are looked at, so that a PublishAck frame
/// stays far below the limit of control frames.
pub(super) const ACKS_PER_FRAME: usize = 1024;

/// Why a message was not accepted.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Its topic id was never bound: the publisher is out of step.
    NotBound(TopicId),
    /// The bind of its topic was refused before.
    RefusedTopic,
    /// The payload is beyond the limit.
    PayloadTooLarge(usize),
    /// The metadata is beyond the limit.
    MetadataTooLarge(usize),
    /// The metadata does not verify.
    Metadata(DecodeError),
    /// It asks for something this version does not do.
    Unsupported(&'static str),
    /// Running sends and large messages on their way hold all of the log.
    NoMemory,
}

/// A connection in its role as publisher.
pub(crate) struct Publisher<'a> {
    pub(crate) id: ConnectionId,
    pub(crate) session: &'a mut Session,
    /// Where control frames for it go.
    pub(crate) control: &'a mut Vec<u8>,
}

impl Publisher<'_> {
    /// After a message of `bytes`: whether something stands against reading on. Enough acks are
    /// owed to fill a frame, or a full queue holds the publisher back and its allowance is used up.
    #[inline]
    pub(crate) fn wants_attention(&mut self, bytes: usize) -> bool {
        if !self.session.held_by.is_empty() {
            self.session.held_allowance = self.session.held_allowance.saturating_sub(bytes);
        }
        self.session.is_held() || self.session.acks.len() >= ACKS_PER_FRAME
    }
}

/// Messages of one topic, numbered and in the log, not yet handed to queues.
#[derive(Debug)]
struct Run {
    topic: TopicId,
    extent: Extent,
    /// Number of the run's newest message; the topic learns it when the run ends.
    sequence: Sequence,
    /// The first of the session's owed acks that belongs to the run.
    first_ack: usize,
}

/// What messages flow through: everything of a shard but its connections.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) log: Log,
    pub(crate) topics: Topics,
    pub(crate) index: SubscriptionIndex,
    pub(crate) queues: Slab<SubscriberQueue>,
    pub(crate) metrics: Metrics,
    pub(crate) limits: Limits,
    run: Option<Run>,
    /// Queues that have something to send since their connections were last told.
    pub(crate) newly_ready: Vec<QueueId>,
    /// Publishers that a queue no longer holds back, with that queue.
    pub(crate) released: Vec<(ConnectionId, QueueId)>,
    /// Full `block` queues and since when, the one that is due first in front.
    pub(crate) blocked: BTreeSet<(u64, QueueId)>,
    /// Memory of subscriptions, without the index, and of topic ids that clients bound.
    pub(crate) client_bytes: usize,
    /// Generation of the open connection at each index, plus one; 0 where there is none.
    pub(crate) open_generations: Vec<u64>,
}

impl Plane {
    pub(crate) fn new(limits: Limits, seed: u64) -> Self {
        Self {
            // A quarter is left for what queues and connections need beside the log.
            log: Log::new(limits.memory_bytes / 4 * 3),
            topics: Topics::new(seed),
            index: SubscriptionIndex::new(seed),
            queues: Slab::new(),
            metrics: Metrics::default(),
            limits,
            run: None,
            newly_ready: Vec::new(),
            released: Vec::new(),
            blocked: BTreeSet::new(),
            client_bytes: 0,
            open_generations: Vec::new(),
        }
    }

    /// Whether clients may have the daemon keep `bytes` more of subscriptions and topic ids.
    pub(crate) fn may_keep_for_clients(&self, bytes: usize) -> bool {
        let most = (self.limits.memory_bytes / CLIENT_SHARE).max(CLIENT_BYTES_MIN);
        self.client_bytes + self.index.bytes() + bytes <= most
    }

    /// Accepts one message: numbers it, copies it to the log, adds it to the open run.
    #[inline]
    pub(crate) fn publish(
        &mut self,
        publisher: &mut Publisher<'_>,
        frame: &Frame<'_>,
        now: Now,
    ) -> Result<(), Refusal> {
        let header = frame.header();
        let topic = self.admit(publisher.session, header)?;
        if header.metadata_len() != 0 {
            frame.metadata().map_err(Refusal::Metadata)?;
        }
        let is_other = |run: &Run| run.topic != topic && !is_planted(Plant::RunAcrossTopics);
        if self.run.as_ref().is_none_or(is_other) {
            self.begin_run(publisher, topic, header.stride(), now)?;
        }
        let sequence = match self.extend_run(header, frame, now) {
            Some(sequence) => sequence,
            // The tail is full.
            None => {
                self.begin_run(publisher, topic, header.stride(), now)?;
                self.extend_run(header, frame, now).ok_or(Refusal::NoMemory)?
            }
        };
        publisher.session.last_accepted = header.sequence().0;
        if header.flags().contains(MessageFlags::ACK) {
            self.owe_ack(publisher, header.sequence(), sequence, now);
        }
        Ok(())
    }

    /// Numbers a message of the open run's topic and copies it to the log, if the tail has room.
    #[inline]
    fn extend_run(&mut self, header: &Header, frame: &Frame<'_>, now: Now) -> Option<Sequence> {
        let run = self.run.as_mut()?;
        let is_reused = is_planted(Plant::SequenceReused) && run.sequence.0 % 8 == 7;
        let sequence = Sequence(run.sequence.0 + u64::from(!is_reused));
        let accepted = accepted_header(header, run.topic, sequence, now);
        let stride = frame.bytes().len();
        if !self.log.append(&accepted, frame.bytes()) {
            return None;
        }
        run.sequence = sequence;
        run.extent.len += stride as u32;
        run.extent.messages += 1;
        Some(sequence)
    }

    /// Checks what can be refused before any byte of the message is kept.
    #[inline]
    pub(crate) fn admit(&self, session: &Session, header: &Header) -> Result<TopicId, Refusal> {
        let topic = match session.binding(header.topic()) {
            Some(Binding::Topic(topic)) => topic,
            Some(_) => return Err(Refusal::RefusedTopic),
            None => return Err(Refusal::NotBound(header.topic())),
        };
        if header.payload_len() > self.limits.payload_bytes as usize {
            return Err(Refusal::PayloadTooLarge(header.payload_len()));
        }
        if header.metadata_len() > METADATA_BYTES_MAX as usize {
            return Err(Refusal::MetadataTooLarge(header.metadata_len()));
        }
        if header.flags().contains(MessageFlags::RETAIN) {
            return Err(Refusal::Unsupported("retained values"));
        }
        Ok(topic)
    }

    fn begin_run(
        &mut self,
        publisher: &mut Publisher<'_>,
        topic: TopicId,
        stride: usize,
        now: Now,
    ) -> Result<(), Refusal> {
        self.flush_run(Some(publisher), now);
        if self.log.room(stride).is_none() && !self.renew_tail() {
            return Err(Refusal::NoMemory);
        }
        let (segment, start) = self.log.room(stride).ok_or(Refusal::NoMemory)?;
        let extent = Extent { segment, start, len: 0, messages: 0, topic: Some(topic) };
        self.open_run(topic, extent, publisher.session.acks.len());
        Ok(())
    }

    fn open_run(&mut self, topic: TopicId, extent: Extent, first_ack: usize) {
        self.log.retain(extent.segment, 1);
        let sequence = Sequence(self.topics.topic(topic).sequence);
        self.run = Some(Run { topic, extent, sequence, first_ack });
    }

    /// Accepts a large frame that has been received into a segment of its own.
    pub(crate) fn publish_landed(
        &mut self,
        publisher: &mut Publisher<'_>,
        segment: SegmentId,
        topic: TopicId,
        now: Now,
    ) -> Result<(), Refusal> {
        debug_assert!(self.run.is_none(), "a landing ends the run before it");
        let memory = self.log.landing_memory(segment);
        let stride = memory.len();
        let Some(header) = Header::peek(memory).copied() else {
            return Err(Refusal::NoMemory);
        };
        let metadata = &memory[nexusd_wire::HEADER_BYTES..][..header.metadata_len()];
        if !metadata.is_empty() {
            nexusd_wire::Metadata::decode(metadata).map_err(Refusal::Metadata)?;
        }
        let sequence = self.topics.number(topic);
        let accepted = accepted_header(&header, topic, sequence, now);
        memory[..nexusd_wire::HEADER_BYTES].copy_from_slice(accepted.bytes());
        self.log.landed(segment);
        let extent =
            Extent { segment, start: 0, len: stride as u32, messages: 1, topic: Some(topic) };
        self.open_run(topic, extent, publisher.session.acks.len());
        publisher.session.last_accepted = header.sequence().0;
        if header.flags().contains(MessageFlags::ACK) {
            self.owe_ack(publisher, header.sequence(), sequence, now);
        }
        self.flush_run(Some(publisher), now);
        Ok(())
    }

    /// Publishes a message of the daemon's own; nobody is held back for it, and without memory it
    /// is given up.
    pub(crate) fn publish_own(
        &mut self,
        name: &str,
        payload: &[u8],
        frame: &mut Vec<u8>,
        now: Now,
    ) {
        let Some(topic) = self.topics.find_or_insert(name, self.limits.topics, now.mono_us) else {
            return;
        };
        let header = Header::new(FrameKind::Message, 0, payload.len());
        let stride = header.stride();
        if self.log.room(stride).is_none() && !self.renew_tail() {
            return;
        }
        let Some((segment, start)) = self.log.room(stride) else {
            return;
        };
        // Numbered only now: a message that is given up must not leave a hole.
        let sequence = self.topics.number(topic);
        frame.clear();
        FrameEncoder::message(frame, &accepted_header(&header, topic, sequence, now), &[], payload);
        let Some(header) = Header::peek(frame).copied() else {
            return;
        };
        let extent = Extent { segment, start, len: stride as u32, messages: 1, topic: Some(topic) };
        self.open_run(topic, extent, 0);
        let fits = self.log.append(&header, frame);
        debug_assert!(fits, "there was room");
        self.flush_run(None, now);
    }

    fn owe_ack(
        &mut self,
        publisher: &mut Publisher<'_>,
        theirs: Sequence,
        ours: Sequence,
        now: Now,
    ) {
        let entry = PublishAckEntry::new(theirs.0, ours.0, 0, 0, 0, PublishStatus::Accepted);
        publisher.session.acks.push(entry);
        if is_planted(Plant::AckTwice) {
            publisher.session.acks.push(entry);
        }
        // The counts of the ack are those of this message alone.
        self.flush_run(Some(publisher), now);
    }

    /// Hands the open run, if there is one, to its topic's queues.
    pub(crate) fn flush_run(&mut self, mut publisher: Option<&mut Publisher<'_>>, now: Now) {
        let Some(run) = self.run.take() else { return };
        self.topics.refresh_matches(run.topic, &self.index, &self.queues);
        let Self { log, topics, queues, metrics, newly_ready, open_generations, .. } = self;
        let topic = topics.topic(run.topic);
        topic.used_at_us = now.mono_us;
        topic.sequence = run.sequence.0;
        let messages = u64::from(run.extent.messages);
        metrics.messages_in += messages;
        metrics.bytes_in += u64::from(run.extent.len);
        if topic.matches.is_empty() {
            metrics.no_subscribers += messages;
        }
        let mut blocked = 0;
        for at in 0..topic.matches.len() {
            let id = topic.matches[at].queue;
            let queue = &mut queues[id.0 as usize];
            if !topic.matches[at].bound {
                topic.matches[at].bound = true;
                if !is_planted(Plant::LostBind) {
                    queue.push_bind(run.topic);
                }
                note_bound(topic, queue.connection, |told| is_open(open_generations, told));
            }
            queue.push(id, run.extent, log);
            metrics.queued_messages += messages;
            metrics.queued_bytes += u64::from(run.extent.len);
            if !queue.is_ready {
                queue.is_ready = true;
                newly_ready.push(id);
            }
            if queue.is_over_limit() {
                let held =
                    hold_back(queue, id, publisher.as_deref_mut(), &mut self.blocked, metrics, now);
                blocked += u32::from(held);
                if !held {
                    cut(queue, log, metrics);
                }
            }
        }
        if let Some(publisher) = publisher {
            let miscount = u32::from(is_planted(Plant::AckMiscounts));
            let delivered = topic.matches.len() as u32 + miscount;
            for entry in publisher.session.acks.iter_mut().skip(run.first_ack) {
                entry.set_delivered(delivered);
                entry.set_blocked(blocked);
            }
        }
        log.release(run.extent.segment);
        if self.log.is_over_budget() {
            self.shrink_to_budget();
        }
    }

    /// Lets publishers go on if the queue has been drained to its low-water mark.
    pub(crate) fn release_if_drained(&mut self, id: QueueId) {
        let queue = &mut self.queues[id.0 as usize];
        if (queue.blocked_since_us.is_some() || queue.block_expired)
            && queue.is_within(BLOCK_RESUME_EIGHTHS)
        {
            queue.block_expired = false;
            self.unblock(id);
        }
    }

    /// The queue holds nobody back any more.
    pub(crate) fn unblock(&mut self, id: QueueId) {
        let queue = &mut self.queues[id.0 as usize];
        if let Some(since) = queue.blocked_since_us.take() {
            self.blocked.remove(&(since, id));
            self.released.extend(queue.waiting.drain(..).map(|publisher| (publisher, id)));
        }
    }

    /// Ends the blocking of queues that held publishers back for too long: they drop their oldest
    /// and go on doing so until they have been drained. Returns when the next one is due.
    pub(crate) fn expire_blocking(&mut self, now: Now) -> Option<u64> {
        while let Some(&(since, id)) = self.blocked.first() {
            let due = since + self.limits.block_timeout_us;
            if due > now.mono_us || is_planted(Plant::BlockNeverExpires) {
                return Some(due);
            }
            let queue = &mut self.queues[id.0 as usize];
            queue.block_expired = true;
            if queue.is_over_limit() {
                cut(queue, &mut self.log, &mut self.metrics);
            }
            self.unblock(id);
        }
        None
    }

    /// Takes a queue out: its filters, its place among the matches, its messages. A frame that is
    /// half on the wire keeps a dying queue alive until it is sent; returns whether the queue is
    /// gone already.
    pub(crate) fn remove_queue(&mut self, id: QueueId) -> bool {
        self.unblock(id);
        let queue = &mut self.queues[id.0 as usize];
        if !queue.is_dying {
            queue.is_dying = true;
            self.metrics.subscriptions -= 1;
            self.client_bytes -= queue.subscription_bytes();
            let removed =
                if is_planted(Plant::UnsubscribeKeepsMatch) { 0 } else { queue.filters.len() };
            for filter in &queue.filters[..removed] {
                self.index.remove(filter, id.0);
            }
        }
        if queue.in_flight {
            return false;
        }
        let before = (queue.messages, queue.bytes);
        self.metrics.dropped_disconnect += queue.truncate(&mut self.log);
        self.metrics.queued_messages -= before.0 - queue.messages;
        self.metrics.queued_bytes -= before.1 - queue.bytes;
        if queue.items.is_empty() {
            self.queues.remove(id.0 as usize);
            return true;
        }
        false
    }

    /// Deals with overflow that had to wait for a running send.
    pub(crate) fn cut_if_due(&mut self, id: QueueId) {
        let queue = &mut self.queues[id.0 as usize];
        if std::mem::take(&mut queue.overflow_due) && queue.is_over_limit() {
            cut(queue, &mut self.log, &mut self.metrics);
        }
    }
}

/// Whether a connection id still belongs to an open connection.
pub(crate) fn is_open(open_generations: &[u64], id: ConnectionId) -> bool {
    open_generations.get(id.index as usize) == Some(&(u64::from(id.generation) + 1))
}

/// The header a message has from now on: numbered, stamped, free of what concerned its publisher.
#[inline]
fn accepted_header(header: &Header, topic: TopicId, sequence: Sequence, now: Now) -> Header {
    header
        .with_topic(topic)
        .with_origin(0)
        .with_sequence(sequence)
        .with_origin_sequence(sequence)
        .with_timestamp_us(now.wall_us)
        .with_flags(header.flags().without(MessageFlags::ACK))
}

/// Cuts a queue that is beyond its bounds, or remembers to, if a running send reads from it.
fn cut(queue: &mut SubscriberQueue, log: &mut Log, metrics: &mut Metrics) {
    if queue.in_flight {
        queue.overflow_due = true;
        return;
    }
    let bytes = queue.bytes;
    let dropped = overflow::cut_to_limit(queue, log);
    metrics.count_dropped(GapReason::SlowConsumer, dropped);
    metrics.queued_messages -= dropped;
    metrics.queued_bytes -= bytes - queue.bytes;
}

/// Holds the publisher of a full `block` queue back; `false` if the queue has to drop instead.
fn hold_back(
    queue: &mut SubscriberQueue,
    id: QueueId,
    publisher: Option<&mut Publisher<'_>>,
    blocked: &mut BTreeSet<(u64, QueueId)>,
    metrics: &mut Metrics,
    now: Now,
) -> bool {
    if queue.limits.policy != OverflowPolicy::Block || queue.block_expired {
        return false;
    }
    if is_planted(Plant::BlockDropsEarly) {
        return false;
    }
    let Some(publisher) = publisher else {
        return false;
    };
    if queue.blocked_since_us.is_none() {
        queue.blocked_since_us = Some(now.mono_us);
        blocked.insert((now.mono_us, id));
    }
    let was_free = publisher.session.held_by.is_empty();
    if publisher.session.held_by.insert(id) {
        if was_free {
            publisher.session.held_allowance = BLOCKED_READ_BYTES;
            metrics.publisher_pauses += 1;
            FrameEncoder::bare(publisher.control, &Header::new(FrameKind::PublishPause, 0, 0));
        }
        queue.waiting.push(publisher.id);
    }
    true
}

impl Plane {
    /// A publisher's topic id no longer stands for its topic.
    pub(crate) fn release_binding(&mut self, binding: Binding) {
        if let Binding::Topic(topic) = binding {
            self.topics.topic(topic).publishers -= 1;
        }
    }

    /// Checks what must hold between events. For tests and the simulator.
    pub(crate) fn assert_invariants(&self) {
        assert!(self.run.is_none(), "runs end with the bytes they came in");
        assert!(self.newly_ready.is_empty() && self.released.is_empty(), "connections were told");
        self.log.assert_invariants();
        let mut references = std::collections::BTreeMap::new();
        let (mut messages, mut bytes) = (0, 0);
        for (_, queue) in &self.queues {
            queue.assert_invariants(&self.log);
            messages += queue.messages;
            bytes += queue.bytes;
            for item in &queue.items {
                if let Item::Extent(extent) = item {
                    *references.entry(extent.segment).or_insert(0) += 1;
                }
            }
            assert!(queue.is_ready || queue.is_empty(), "what waits has its turn");
        }
        assert_eq!(messages, self.metrics.queued_messages, "queued messages are counted");
        assert_eq!(bytes, self.metrics.queued_bytes, "queued bytes are counted");
        for (segment, held) in self.log.references() {
            if self.log.kind(segment) != SegmentKind::Landing {
                let counted = references.get(&segment).copied().unwrap_or(0);
                assert_eq!(held, counted, "references are the queues'");
            }
        }
    }
}
