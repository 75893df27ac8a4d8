//! From an accepted message to the log.
//!
//! Messages that follow each other and that the same queues want form a *run*: each is numbered and copied
//! to the log by itself, and the run is handed to those queues as one extent (`fan_out.rs`), when a message
//! for others or the end of the received bytes closes it. So fan-out costs per run, not per message. Where it
//! goes on to another topic, a *part* of it ends, and the topic it leaves learns of that. Messages that are to be
//! acknowledged share a run with their like alone, for what became of them is told of all at once.
//!
//! Invariant: a run is open only while one connection's bytes are dealt with; it holds a reference
//! to its segment, so that nothing can rewrite it before the queues have theirs.

use nexusd_wire::control::DeliveryMode;
use nexusd_wire::{
    DecodeError, Frame, FrameEncoder, FrameKind, Header, MessageFlags, Sequence, TopicId,
};

use super::event::{ConnectionId, Now};
use super::parcel::BatchRun;
use super::plane::Plane;
use super::relay::{relayed_header, renumbered_header};
use super::routing::{PublisherId, Route};
use crate::expiry::Expiry;
use crate::history::{History, KeptRun};
use crate::limits::{ACKS_PER_FRAME, HEADERS_AHEAD, METADATA_BYTES_MAX};
use crate::link::{FetchId, Origin, Relay};
use crate::log::{Extent, Log, SegmentId, prefetch_header};
use crate::owed_acks::AckRange;
use crate::plant::{Plant, is_planted};
use crate::session::{Binding, Session};
use crate::topic::Topic;

/// No topic: slots are far fewer.
const NO_TOPIC: TopicId = TopicId(u32::MAX);

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
    /// Retained values take all the memory they may.
    TooManyRetained,
    /// Running sends and large messages on their way hold all of the log.
    NoMemory,
    /// Its source publishes faster than it may.
    TooFast,
    /// It cannot be taken now, but soon: the publisher waits for its turn.
    NotNow,
}

impl Refusal {
    /// Whether a message of a link that is refused so is lost: not if the peer is out of step, nor while the node
    /// stops, when nobody is there who would miss it.
    pub(super) fn is_loss_on_link(&self) -> bool {
        !matches!(self, Self::NotBound(_) | Self::TooFast)
    }
}

/// Messages of one publisher, numbered and in the log, not yet handed to queues.
#[derive(Debug)]
pub(super) struct Run {
    /// The topic of its last part. Those of the parts before are wanted by the same queues.
    pub(super) topic: TopicId,
    pub(super) extent: Extent,
    /// Number of the first message of its last part.
    pub(super) first: Sequence,
    /// Bytes and messages of the parts before.
    ended: (u32, u32),
    /// The topic once more, if further messages may be added without a closer look; else none.
    plain: TopicId,
    /// The same, if the next message to be acknowledged may be.
    acked: TopicId,
    /// Their time to live; 0 is none.
    ttl_ms: u32,
    /// Number of the run's newest message; its topic learns it when the part ends.
    pub(super) sequence: Sequence,
    /// `None`: the daemon itself, or another node.
    pub(super) publisher: Option<PublisherId>,
    /// The other node that they come from.
    pub(super) origin: Option<Origin>,
    /// They answer it, and are for its subscription alone.
    pub(super) fetch: FetchId,
    /// They become their topic's retained value, or clear it.
    is_retained: bool,
    /// So many of its last messages are acknowledged: all, or one.
    pub(super) acks: Option<AckRange>,
}

impl Run {
    /// Whether all other nodes get it: it changes a retained value, and was published here.
    pub(super) fn is_state(&self) -> bool {
        self.is_retained && self.origin.is_none()
    }

    /// Its last part ends: the topic learns what came, and it is kept for replay.
    #[inline(always)]
    pub(super) fn end_part(
        &self,
        topic: &mut Topic,
        history: &mut History,
        log: &mut Log,
        now: Now,
    ) {
        topic.used(now.mono_us);
        topic.sequence = self.sequence.0;
        if topic.first_own == 0 && self.origin.is_none() {
            topic.first_own = self.first.0;
        }
        let (bytes, messages) = self.ended;
        let part = KeptRun {
            topic: self.topic,
            first: self.first,
            start: self.extent.start + bytes,
            len: self.extent.len - bytes,
            messages: self.extent.messages - messages,
            expiry: self.extent.expiry,
            previous: topic.newest_run,
        };
        history.note(self.extent.segment, part, &mut topic.newest_run, log);
    }

    /// The next message that is to be acknowledged does not follow its own.
    pub(super) fn end_acks(&mut self) {
        self.acked = NO_TOPIC;
    }

    /// Whether a message that another node accepted may be added.
    pub(super) fn takes_relayed(&self, topic: TopicId, relay: Relay, expiry: Expiry) -> bool {
        self.topic == topic
            && self.origin == Some(relay.origin)
            && self.fetch == relay.fetch
            && self.extent.expiry == expiry
            && self.acks.is_none()
    }

    /// Its messages come from another node.
    pub(super) fn come_from(&mut self, relay: Relay, expiry: Expiry) {
        self.origin = Some(relay.origin);
        self.fetch = relay.fetch;
        self.extent.expiry = expiry;
        self.plain = NO_TOPIC;
    }
}

impl Plane {
    /// Accepts one message of a connection: numbers it, copies it to the log, adds it to the open
    /// run; or passes it on to the shard that owns its topic.
    #[inline(always)]
    pub(crate) fn publish(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        frame: &Frame<'_>,
        now: Now,
    ) -> Result<(), Refusal> {
        let header = frame.header();
        let Some(&Binding::Topic(topic)) = session.bindings.get(header.topic().0 as usize) else {
            return self.publish_elsewhere(id, session, frame);
        };
        self.check(header)?;
        if header.metadata_len() != 0 {
            frame.metadata().map_err(Refusal::Metadata)?;
        }
        let publisher = |plane: &Self| PublisherId { shard: plane.routing.own, connection: id };
        self.append(topic, |plane| Some(publisher(plane)), header, frame.bytes(), now)?;
        session.last_accepted = header.sequence().0;
        if header.flags().contains(MessageFlags::ACK) {
            let number = session.acks.owe(header.sequence().0);
            self.acknowledge(number, now);
        }
        Ok(())
    }

    /// The message that was added last is acknowledged under `number`. A run that begins with such a message goes on
    /// with more of them; any other ends here, for nothing is told of those before.
    #[inline(never)]
    fn acknowledge(&mut self, number: u64, now: Now) {
        let Some(run) = &mut self.run else { return };
        match &mut run.acks {
            Some(acks) => {
                acks.count += 1;
                self.has_news |= acks.count as usize >= ACKS_PER_FRAME;
            }
            None if run.plain != NO_TOPIC && run.extent.messages == 1 => {
                run.acks = Some(AckRange::one(number));
                (run.plain, run.acked) = (NO_TOPIC, run.topic);
            }
            None => self.end_acknowledged_run(number, now),
        }
    }

    /// After a message of `bytes`: whether something stands against reading on. Publishers are to be
    /// told something, a full queue holds this one back and its allowance is used up, or its source
    /// has published as much as it may.
    #[inline(always)]
    pub(crate) fn wants_attention(&self, session: &mut Session, bytes: usize) -> bool {
        if session.is_counted {
            session.held_allowance = session.held_allowance.saturating_sub(bytes);
            session.count_published();
            return session.is_held() || session.is_too_fast() || self.has_news;
        }
        self.has_news
    }

    /// Numbers a message of one of this shard's topics and copies it to the log. `publisher` is asked
    /// whose it is where a run begins.
    #[inline(always)]
    pub(crate) fn append(
        &mut self,
        topic: TopicId,
        publisher: impl Fn(&Self) -> Option<PublisherId>,
        header: &Header,
        frame: &[u8],
        now: Now,
    ) -> Result<(), Refusal> {
        let flags = u32::from(header.flags().0 & MessageFlags::RETAIN.0);
        if (flags | header.ttl_ms() | self.limits.default_ttl_ms) != 0 {
            return self.append_special(topic, publisher(self), header, frame, now);
        }
        let is_other = |run: &Run| run.plain != topic && !is_planted(Plant::RunAcrossTopics);
        if self.run.as_ref().is_none_or(is_other) && !self.turn_run(topic, header, now) {
            self.begin_run(topic, publisher(self), header.stride(), 0, now)?;
        }
        if self.extend_run(header, frame, now) {
            return Ok(());
        }
        // The tail is full.
        self.begin_run(topic, publisher(self), header.stride(), 0, now)?;
        if self.extend_run(header, frame, now) { Ok(()) } else { Err(Refusal::NoMemory) }
    }

    /// The same for a message that expires or becomes a retained value.
    #[inline(never)]
    fn append_special(
        &mut self,
        topic: TopicId,
        publisher: Option<PublisherId>,
        header: &Header,
        frame: &[u8],
        now: Now,
    ) -> Result<(), Refusal> {
        let ttl_ms = self.ttl_ms(header.ttl_ms());
        let header = header.with_ttl_ms(ttl_ms);
        let is_retained = header.flags().contains(MessageFlags::RETAIN);
        let mut stamp = now;
        if is_retained {
            self.check_retained(topic, &header)?;
            stamp = self.retained_stamp(topic, now);
        }
        let continues = |run: &Run| {
            run.topic == topic && run.ttl_ms == ttl_ms && run.is_retained == is_retained
        };
        if !self.run.as_ref().is_some_and(continues) {
            self.begin_run(topic, publisher, header.stride(), ttl_ms, now)?;
        }
        if !self.extend_run(&header, frame, stamp) {
            self.begin_run(topic, publisher, header.stride(), ttl_ms, now)?;
            if !self.extend_run(&header, frame, stamp) {
                return Err(Refusal::NoMemory);
            }
        }
        if let Some(run) = self.run.as_mut().filter(|_| is_retained) {
            run.is_retained = true;
            run.plain = NO_TOPIC;
            let (extent, len) = (run.extent, frame.len() as u32);
            self.set_retained(topic, (extent.segment, extent.end() - len, len), extent.expiry);
        }
        Ok(())
    }

    /// Numbers a message of the open run's topic and copies it to the log, if the tail has room.
    #[inline(always)]
    fn extend_run(&mut self, header: &Header, frame: &[u8], now: Now) -> bool {
        let Some(run) = &mut self.run else { return false };
        let is_reused = is_planted(Plant::SequenceReused) && run.sequence.0 % 8 == 7;
        let sequence = Sequence(run.sequence.0 + u64::from(!is_reused));
        let accepted = accepted_header(header, run.topic, sequence, now.wall_us);
        if !self.log.append(&accepted, frame) {
            return false;
        }
        run.sequence = sequence;
        run.extent.len += frame.len() as u32;
        run.extent.messages += 1;
        true
    }

    /// Where a message goes, and whether it may, before any byte of it is kept.
    pub(crate) fn admit(&self, session: &Session, header: &Header) -> Result<Route, Refusal> {
        let route = match session.binding(header.topic()) {
            Some(Binding::Topic(topic)) => Route::Own(topic),
            Some(Binding::Elsewhere(owner, handle)) => Route::Neighbour(owner, handle),
            Some(_) => return Err(Refusal::RefusedTopic),
            None => return Err(Refusal::NotBound(header.topic())),
        };
        self.check(header)?;
        Ok(route)
    }

    /// Checks what is the same for all topics.
    #[inline(always)]
    pub(super) fn check(&self, header: &Header) -> Result<(), Refusal> {
        if header.payload_len() > self.limits.payload_bytes as usize {
            return Err(Refusal::PayloadTooLarge(header.payload_len()));
        }
        if header.metadata_len() > METADATA_BYTES_MAX as usize {
            return Err(Refusal::MetadataTooLarge(header.metadata_len()));
        }
        Ok(())
    }

    /// Goes on with the open run on another topic, if the queues that want it are the same; whether it does. A run
    /// of acknowledged messages goes on with what is to be acknowledged, on its own topic.
    #[inline(never)]
    fn turn_run(&mut self, topic: TopicId, header: &Header, now: Now) -> bool {
        if self.run.as_ref().is_some_and(|run| run.acked == topic)
            && header.flags().contains(MessageFlags::ACK)
        {
            return true;
        }
        self.turns += 1;
        let Some(run) = &mut self.run else { return false };
        let is_plain = run.plain != NO_TOPIC && self.scans.is_empty();
        if !is_plain || self.log.room(header.stride()).is_none() {
            return false;
        }
        let Some((left, next)) = self.topics.alike(run.topic, topic, &self.index) else {
            return false;
        };
        run.end_part(left, &mut self.history, &mut self.log, now);
        run.ended = (run.extent.len, run.extent.messages);
        run.extent.topic = None;
        (run.topic, run.plain) = (topic, topic);
        (run.first, run.sequence) = (Sequence(next.sequence + 1), Sequence(next.sequence));
        true
    }

    #[inline(never)]
    pub(super) fn begin_run(
        &mut self,
        topic: TopicId,
        publisher: Option<PublisherId>,
        stride: usize,
        ttl_ms: u32,
        now: Now,
    ) -> Result<(), Refusal> {
        self.flush_run(now);
        if !self.scans.is_empty() {
            self.hand_over_ahead(topic);
        }
        if self.log.room(stride).is_none() && !self.renew_tail() {
            return Err(if self.recalls > 0 { Refusal::NotNow } else { Refusal::NoMemory });
        }
        let (segment, start) = self.log.room(stride).ok_or(Refusal::NoMemory)?;
        self.open_run(topic, publisher, (segment, start), ttl_ms, now);
        Ok(())
    }

    /// Opens an empty run at a place of the log.
    fn open_run(
        &mut self,
        topic: TopicId,
        publisher: Option<PublisherId>,
        (segment, start): (SegmentId, u32),
        ttl_ms: u32,
        now: Now,
    ) {
        self.log.retain(segment, 1);
        let sequence = Sequence(self.topics.topic(topic).sequence);
        let extent = Extent {
            segment,
            start,
            len: 0,
            messages: 0,
            topic: Some(topic),
            mode: DeliveryMode::Live,
            expiry: Expiry::of(ttl_ms, now),
        };
        let first = Sequence(sequence.0 + 1);
        let plain = if ttl_ms == 0 { topic } else { NO_TOPIC };
        self.run = Some(Run {
            topic,
            extent,
            first,
            ended: (0, 0),
            plain,
            acked: NO_TOPIC,
            ttl_ms,
            sequence,
            publisher,
            origin: None,
            fetch: FetchId::NONE,
            is_retained: false,
            acks: None,
        });
    }

    /// The time to live of a message that asks for so many milliseconds; 0 is none.
    fn ttl_ms(&self, asked_ttl_ms: u32) -> u32 {
        if asked_ttl_ms == 0 { self.limits.default_ttl_ms } else { asked_ttl_ms }
    }

    /// Takes a run of messages that are numbered already, behind the last frame of `segment`. Returns
    /// how many bytes they are.
    pub(crate) fn take_run(
        &mut self,
        segment: SegmentId,
        topic: TopicId,
        publisher: PublisherId,
        taken: &BatchRun,
        now: Now,
    ) -> u32 {
        let start = self.log.end(segment);
        debug_assert_eq!(
            Header::peek(self.log.beyond(segment, taken.bytes)).map(Header::topic),
            Some(topic),
            "a handle stands for one topic at a time"
        );
        let publisher = taken.relay.is_none().then_some(publisher);
        self.open_run(topic, publisher, (segment, start), 0, now);
        if let Some(run) = &mut self.run {
            run.origin = taken.relay.map(|relay| relay.origin);
            run.sequence = Sequence(run.sequence.0 + u64::from(taken.messages));
            (run.extent.len, run.extent.messages) = (taken.bytes, taken.messages);
        }
        if !is_planted(Plant::AdoptedNotClaimed) {
            self.log.lengthen(segment, taken.bytes);
        }
        taken.bytes
    }

    /// Numbers plain messages where they lie, as a run: those of the next `bytes` behind the last frame of
    /// `segment`, through the first that is to be acknowledged. Returns how many bytes it took, and
    /// whether the last message is to be acknowledged.
    pub(crate) fn extend_run_in_place(
        &mut self,
        segment: SegmentId,
        topic: TopicId,
        publisher: PublisherId,
        relay: Option<Relay>,
        bytes: u32,
        now: Now,
    ) -> (u32, bool) {
        let start = self.log.end(segment);
        let publisher = relay.is_none().then_some(publisher);
        self.open_run(topic, publisher, (segment, start), 0, now);
        let Some(run) = &mut self.run else { return (bytes, false) };
        run.origin = relay.map(|relay| relay.origin);
        let frames = self.log.beyond(segment, bytes);
        let (mut len, mut wants_ack) = (0, false);
        while !wants_ack
            && let Some(rest) = frames.get_mut(len..)
            && let Some(header) = Header::peek_mut(rest)
        {
            wants_ack = header.flags().contains(MessageFlags::ACK);
            run.sequence = Sequence(run.sequence.0 + 1);
            *header = match relay {
                None => accepted_header(header, topic, run.sequence, now.wall_us),
                Some(_) => renumbered_header(header, topic, run.sequence),
            };
            let stride = header.stride();
            len += stride;
            run.extent.messages += 1;
            prefetch_header(frames, len + HEADERS_AHEAD * stride);
        }
        run.extent.len = len as u32;
        if !is_planted(Plant::AdoptedNotClaimed) {
            self.log.lengthen(segment, len as u32);
        }
        (len as u32, wants_ack)
    }

    /// Accepts a large frame, which lies alone in a segment that was a landing until now.
    pub(crate) fn publish_landed(
        &mut self,
        segment: SegmentId,
        topic: TopicId,
        publisher: PublisherId,
        relay: Option<Relay>,
        ack: Option<u64>,
        now: Now,
    ) {
        debug_assert!(self.run.is_none(), "a landing ends the run before it");
        if !self.scans.is_empty() {
            self.hand_over_ahead(topic);
        }
        let stamp = self.retained_stamp(topic, now);
        let memory = self.log.landing_memory(segment);
        let stride = memory.len();
        let Some(header) = Header::peek(memory).copied() else {
            return;
        };
        let sequence = Sequence(self.topics.topic(topic).sequence + 1);
        let ttl_ms = match relay {
            None => self.ttl_ms(header.ttl_ms()),
            Some(_) => header.ttl_ms(),
        };
        let header = header.with_ttl_ms(ttl_ms);
        let mut is_retained = header.flags().contains(MessageFlags::RETAIN);
        let stamp = if is_retained { stamp } else { now };
        let accepted = match relay {
            None => accepted_header(&header, topic, sequence, stamp.wall_us),
            Some(relay) => {
                let header = relayed_header(&header, relay);
                is_retained = is_retained
                    && relay.fetch == FetchId::NONE
                    && self.may_become_retained(topic, &header);
                renumbered_header(&header, topic, sequence)
            }
        };
        let memory = self.log.landing_memory(segment);
        memory[..nexusd_wire::HEADER_BYTES].copy_from_slice(accepted.bytes());
        self.log.landed(segment);
        let from = relay.is_none().then_some(publisher);
        self.open_run(topic, from, (segment, 0), ttl_ms, now);
        if let Some(run) = &mut self.run {
            if let Some(relay) = relay {
                run.come_from(relay, relay.expiry(&accepted, now));
            }
            run.sequence = sequence;
            (run.extent.len, run.extent.messages) = (stride as u32, 1);
            let expiry = run.extent.expiry;
            run.is_retained = is_retained;
            if is_retained {
                self.set_retained(topic, (segment, 0, stride as u32), expiry);
            }
        }
        match ack {
            Some(number) => self.end_acknowledged_run(number, now),
            None => self.flush_run(now),
        }
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
        debug_assert_eq!(self.routing.owner_of(name), self.routing.own, "asked of the owner");
        let Some(topic) = self.topics.find_or_insert(name, self.limits.topics, now.mono_us) else {
            return;
        };
        let header = Header::new(FrameKind::Message, 0, payload.len());
        frame.clear();
        FrameEncoder::message(frame, &header, &[], payload);
        // Without memory it is given up.
        let _ = self.append(topic, |_| None, &header, frame, now);
        self.flush_run(now);
    }

    /// The open run ends with a message that is acknowledged under `number`, for nothing is told of those before.
    pub(crate) fn end_acknowledged_run(&mut self, number: u64, now: Now) {
        if let Some(run) = &mut self.run {
            run.acks = Some(AckRange::one(number));
        }
        self.flush_run(now);
    }
}

/// The header a message has from now on: numbered, stamped, free of what concerned its publisher.
#[inline(always)]
pub(crate) fn accepted_header(
    header: &Header,
    topic: TopicId,
    sequence: Sequence,
    wall_us: u64,
) -> Header {
    header
        .with_topic(topic)
        .with_origin(0)
        .with_sequence(sequence)
        .with_origin_sequence(sequence)
        .with_timestamp_us(wall_us)
        .with_flags(accepted_flags(header))
}

#[cfg(not(feature = "protocol-next"))]
#[inline(always)]
fn accepted_flags(header: &Header) -> MessageFlags {
    header.flags().without(MessageFlags::ACK)
}

#[cfg(feature = "protocol-next")]
use super::next::accepted_flags;
