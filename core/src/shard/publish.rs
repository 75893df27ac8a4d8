//! From an accepted message to the queues that want it.
//!
//! Messages that follow each other on one topic form a *run*: each is numbered and copied to the log
//! by itself, and the run is handed to the topic's queues as one extent, when another topic, an
//! acknowledged message or the end of the received bytes closes it. So fan-out costs per run, not
//! per message.
//!
//! Invariant: a run is open only while one connection's bytes are dealt with; it holds a reference
//! to its segment, so that nothing can rewrite it before the queues have theirs.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use nexusd_wire::control::{DeliveryMode, PublishStatus};
use nexusd_wire::{
    DecodeError, Frame, FrameEncoder, FrameKind, Header, MessageFlags, Sequence, SubscriptionId,
    TopicId,
};
use slab::Slab;

use super::backpressure::{self, Around, Overflow};
use super::event::{ConnectionId, Now};
use super::expiring::Expiring;
use super::neighbour::{Neighbour, Neighbours, Takes};
use super::parcel::{BatchRun, Item as ParcelItem, LentRun};
use super::retained::{Scan, ScanId};
use super::routing::{PublisherId, Route, Routing, ShardIndex, ShardMask};
use super::wiring::{NodeWide, Wiring};
use crate::audience::Audience;
use crate::expiry::Expiry;
use crate::foreign_topics::ForeignTopics;
use crate::history::History;
use crate::limits::{
    ACKS_OWED_MAX, ACKS_PER_FRAME, BATCHES_MAX, BATCHES_PER_NEIGHBOUR, CLIENT_BYTES_MIN,
    CLIENT_SHARE, HEADERS_AHEAD, Limits, METADATA_BYTES_MAX, RETAINED_SHARE,
};
use crate::log::{Extent, Log, SegmentId, SegmentKind, prefetch_header};
use crate::metrics::Metrics;
use crate::owed_acks::{AckPart, OwnersPart};
use crate::plant::{Plant, is_planted};
use crate::retained::RetainedValues;
use crate::session::{Binding, Session};
use crate::subscriber_queue::{Item, QueueId, SubscriberQueue};
use crate::subscription_index::SubscriptionIndex;
use crate::topic::Topics;

/// A plane's hall for a topic of `owner`. A macro, because a method would borrow the topics too.
macro_rules! hall {
    ($plane:expr, $owner:expr) => {
        Hall {
            owner: $owner,
            queues: &mut $plane.queues,
            newly_ready: &mut $plane.newly_ready,
            has_news: &mut $plane.has_news,
            open_generations: &$plane.open_generations,
            around: Around {
                log: &mut $plane.log,
                metrics: &mut $plane.metrics,
                blocked: &mut $plane.blocked,
                holds: &mut $plane.holds,
                condemned: &mut $plane.condemned,
                expiring: &mut $plane.expiring,
            },
        }
    };
}

/// Flags of messages that are not passed on without a closer look.
const ASKS_FOR_MORE: u8 = MessageFlags::ACK.0 | MessageFlags::RETAIN.0;

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

/// Messages of one topic and publisher, numbered and in the log, not yet handed to queues.
#[derive(Debug)]
struct Run {
    topic: TopicId,
    extent: Extent,
    /// Number of its first message.
    first: Sequence,
    /// The topic once more, if further messages may be added without a closer look; else none.
    plain: TopicId,
    /// Their time to live; 0 is none.
    ttl_ms: u32,
    /// Number of the run's newest message; the topic learns it when the run ends.
    sequence: Sequence,
    /// `None`: the daemon itself.
    publisher: Option<PublisherId>,
    /// The run's last message is acknowledged under this number.
    ack: Option<u64>,
}

/// Messages of one topic and publisher that follow each other into a batch for the topic's owner.
#[derive(Clone, Copy, Debug)]
struct Passing {
    /// The publisher's id for the topic.
    topic: TopicId,
    owner: ShardIndex,
    /// Where in the publisher's stream the next message stands that belongs to them.
    next_at: u64,
    /// Which messages do.
    takes: Takes,
}

/// What became of a run at this shard's queues.
#[derive(Clone, Copy, Default, Debug)]
struct Outcome {
    delivered: u32,
    dropped: u32,
    blocked: u32,
}

/// What messages flow through: everything of a shard but its connections.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) routing: Routing,
    pub(crate) node: Arc<NodeWide>,
    pub(crate) neighbours: Neighbours,
    pub(crate) log: Log,
    pub(crate) history: History,
    pub(crate) topics: Topics,
    pub(crate) foreign: ForeignTopics,
    pub(crate) index: SubscriptionIndex,
    pub(crate) queues: Slab<SubscriberQueue>,
    pub(crate) metrics: Metrics,
    pub(crate) limits: Limits,
    run: Option<Run>,
    passing: Option<Passing>,
    /// Queues that have something to send since their connections were last told.
    pub(crate) newly_ready: Vec<QueueId>,
    /// Publishers that a full queue began to hold back, with that queue.
    pub(crate) holds: Vec<(PublisherId, QueueId)>,
    /// Queues that overflowed and whose policy is to end their connection.
    pub(crate) condemned: Vec<QueueId>,
    /// Publishers that a queue no longer holds back, with that queue.
    pub(crate) released: Vec<(PublisherId, QueueId)>,
    /// What became of acknowledged messages.
    pub(crate) acks: Vec<(PublisherId, AckPart)>,
    /// There is so much of `holds` and `acks` that reading has to pause for it.
    pub(crate) has_news: bool,
    /// Full `block` queues and since when, the one that is due first in front.
    pub(crate) blocked: BTreeSet<(u64, QueueId)>,
    /// All subscriptions, by id.
    pub(crate) subscriptions: HashMap<SubscriptionId, QueueId>,
    /// Those that are parked, the one that expires first in front.
    pub(crate) parked: BTreeSet<(u64, QueueId)>,
    /// Retained values of this shard's topics.
    pub(crate) retained: RetainedValues,
    /// Searches for retained values that are not over, by subscription.
    pub(crate) scans: BTreeMap<SubscriptionId, Scan>,
    /// Those of which a queue of this shard has asked for the next portion.
    pub(crate) scans_due: Vec<ScanId>,
    /// Queues with messages that will expire.
    pub(crate) expiring: Expiring,
    /// Time of the event that is dealt with.
    pub(crate) now_us: u64,
    /// The same by the wall clock, microseconds since 1970.
    pub(crate) wall_us: u64,
    /// Segments that neighbours were asked to give back and have not answered for.
    pub(crate) recalls: usize,
    /// Publishers of this shard that wait for memory, in turn.
    pub(crate) waiting_for_memory: VecDeque<ConnectionId>,
    /// Memory of subscriptions, without the index, and of topic ids that clients bound.
    pub(crate) client_bytes: usize,
    /// Generation of the open connection at each index, plus one; 0 where there is none.
    pub(crate) open_generations: Vec<u64>,
}

impl Plane {
    pub(crate) fn new(limits: Limits, seed: u64, wiring: Wiring) -> Self {
        let Wiring { own, shards, node, ends } = wiring;
        let routing = Routing::new(own, shards, seed);
        let credit = batches_per_neighbour(shards);
        let retained = RetainedValues::new(limits.memory_bytes / RETAINED_SHARE / shards);
        let neighbours = ends.into_iter().map(|ends| Neighbour::new(ends, credit, seed)).collect();
        Self {
            routing,
            neighbours: Neighbours::new(own, neighbours),
            // A quarter is left for what queues and connections need beside the log.
            log: Log::new(limits.memory_bytes / 4 * 3 / shards),
            topics: Topics::new(routing, Arc::clone(&node), seed),
            history: History::new(limits.replay_messages, limits.replay_bytes / shards),
            node,
            foreign: ForeignTopics::new(routing),
            index: SubscriptionIndex::new(seed),
            queues: Slab::new(),
            metrics: Metrics::default(),
            limits,
            run: None,
            passing: None,
            newly_ready: Vec::new(),
            holds: Vec::new(),
            condemned: Vec::new(),
            released: Vec::new(),
            acks: Vec::new(),
            has_news: false,
            blocked: BTreeSet::new(),
            subscriptions: HashMap::new(),
            parked: BTreeSet::new(),
            retained,
            scans: BTreeMap::new(),
            scans_due: Vec::new(),
            expiring: Expiring::default(),
            now_us: 0,
            wall_us: 0,
            recalls: 0,
            waiting_for_memory: VecDeque::new(),
            client_bytes: 0,
            open_generations: Vec::new(),
        }
    }

    /// Whether clients may have the shard keep `bytes` more of subscriptions and topic ids.
    pub(crate) fn may_keep_for_clients(&self, bytes: usize) -> bool {
        let most = self.limits.memory_bytes / CLIENT_SHARE / self.routing.shards();
        self.client_bytes + self.index.bytes() + bytes <= most.max(CLIENT_BYTES_MIN)
    }

    /// The same, and makes room for it: parked subscriptions end for clients that are there, the one
    /// that expires first before others.
    pub(crate) fn make_room_for_clients(&mut self, bytes: usize) -> bool {
        while !self.may_keep_for_clients(bytes) {
            let Some(&(_, first)) = self.parked.first() else { return false };
            self.remove_queue(first);
        }
        true
    }

    /// The name of a topic, of whichever shard.
    pub(crate) fn topic_name(&self, topic: TopicId) -> &str {
        if self.routing.owner(topic) == self.routing.own {
            self.topics.name(topic)
        } else {
            self.foreign.name(topic)
        }
    }

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
            self.end_acknowledged_run(number, now);
        }
        Ok(())
    }

    /// Puts another message of the run that is passed on into its batch, if it is one and there is room
    /// and nothing else to be done about it.
    #[inline(always)]
    fn extend_passing(&mut self, frame: &Frame<'_>) -> bool {
        let Some(passing) = self.passing else { return false };
        let (header, bytes) = (frame.header(), frame.bytes());
        let asks_for_more = u32::from(header.flags().0 & ASKS_FOR_MORE)
            | header.ttl_ms()
            | header.metadata_len() as u32;
        if passing.topic != header.topic()
            || passing.next_at != frame.at()
            || asks_for_more != 0
            || passing.takes == Takes::Special
            || header.payload_len() > self.limits.payload_bytes as usize
            || !self.neighbours.of(passing.owner).extend_batch(bytes, self.wall_us)
        {
            return false;
        }
        self.passing = Some(Passing { next_at: passing.next_at + bytes.len() as u64, ..passing });
        true
    }

    /// The same for a message whose topic is not this shard's: it goes into the batch for the owner.
    #[inline(never)]
    fn publish_elsewhere(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        frame: &Frame<'_>,
    ) -> Result<(), Refusal> {
        let header = frame.header();
        if self.extend_passing(frame) {
            session.last_accepted = header.sequence().0;
            return Ok(());
        }
        self.pass_on(id, session, frame)
    }

    /// The same for a message that asks for more, or begins a run.
    #[inline(never)]
    fn pass_on(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        frame: &Frame<'_>,
    ) -> Result<(), Refusal> {
        let header = frame.header();
        let is_plain = u32::from(header.flags().0 & ASKS_FOR_MORE) | header.ttl_ms() == 0;
        // What does not directly follow in its publisher's stream begins a run of its own.
        let follows = |passing: &Passing| {
            passing.topic == header.topic()
                && passing.next_at == frame.at()
                && passing.takes.also(is_plain)
        };
        match self.passing.filter(follows) {
            Some(passing) => {
                self.check(header)?;
                if header.metadata_len() != 0 {
                    frame.metadata().map_err(Refusal::Metadata)?;
                }
                if !self.neighbours.of(passing.owner).extend_batch(frame.bytes(), self.wall_us) {
                    self.passing = None;
                    return self.pass_on(id, session, frame);
                }
                self.note_passed_on(passing, frame);
            }
            None => self.begin_passing(id, session, frame, is_plain)?,
        }
        session.last_accepted = header.sequence().0;
        if header.flags().contains(MessageFlags::ACK) {
            session.acks.owe(header.sequence().0);
            self.has_news |= session.acks.len() > ACKS_OWED_MAX;
        }
        Ok(())
    }

    /// Begins a run of messages that are passed on with this one.
    fn begin_passing(
        &mut self,
        id: ConnectionId,
        session: &Session,
        frame: &Frame<'_>,
        is_plain: bool,
    ) -> Result<(), Refusal> {
        let Route::Neighbour(owner, handle) = self.admit(session, frame.header())? else {
            debug_assert!(false, "topics of this shard do not come here");
            return Err(Refusal::RefusedTopic);
        };
        if frame.header().metadata_len() != 0 {
            frame.metadata().map_err(Refusal::Metadata)?;
        }
        let first_ack = session.acks.next();
        let run = BatchRun {
            connection: id,
            handle,
            bytes: 0,
            messages: 0,
            first_ack,
            offset: frame.at(),
            before: 0,
            expected: None,
        };
        let takes = self.neighbours.of(owner).begin_run(run, frame.bytes(), is_plain, self.wall_us);
        let takes = takes.ok_or(Refusal::NotNow)?;
        let passing = Passing { topic: frame.header().topic(), owner, next_at: 0, takes };
        self.note_passed_on(passing, frame);
        Ok(())
    }

    /// A message stands in its owner's batch.
    fn note_passed_on(&mut self, passing: Passing, frame: &Frame<'_>) {
        let header = frame.header();
        if header.ttl_ms() != 0 || header.flags().contains(MessageFlags::RETAIN) {
            self.neighbours.of(passing.owner).note_special();
        }
        let next_at = frame.at() + frame.bytes().len() as u64;
        self.passing = Some(Passing { next_at, ..passing });
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
        if self.run.as_ref().is_none_or(is_other) {
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
        let continues = |run: &Run| run.topic == topic && run.ttl_ms == ttl_ms;
        if !self.run.as_ref().is_some_and(continues) {
            self.begin_run(topic, publisher, header.stride(), ttl_ms, now)?;
        }
        if !self.extend_run(&header, frame, stamp) {
            self.begin_run(topic, publisher, header.stride(), ttl_ms, now)?;
            if !self.extend_run(&header, frame, stamp) {
                return Err(Refusal::NoMemory);
            }
        }
        if let Some(run) = self.run.as_ref().filter(|_| is_retained) {
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
    fn check(&self, header: &Header) -> Result<(), Refusal> {
        if header.payload_len() > self.limits.payload_bytes as usize {
            return Err(Refusal::PayloadTooLarge(header.payload_len()));
        }
        if header.metadata_len() > METADATA_BYTES_MAX as usize {
            return Err(Refusal::MetadataTooLarge(header.metadata_len()));
        }
        Ok(())
    }

    #[inline(never)]
    fn begin_run(
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
        self.run =
            Some(Run { topic, extent, first, plain, ttl_ms, sequence, publisher, ack: None });
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
        self.open_run(topic, Some(publisher), (segment, start), 0, now);
        if let Some(run) = &mut self.run {
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
        bytes: u32,
        now: Now,
    ) -> (u32, bool) {
        let start = self.log.end(segment);
        self.open_run(topic, Some(publisher), (segment, start), 0, now);
        let Some(run) = &mut self.run else { return (bytes, false) };
        let frames = self.log.beyond(segment, bytes);
        let (mut len, mut wants_ack) = (0, false);
        while !wants_ack
            && let Some(rest) = frames.get_mut(len..)
            && let Some(header) = Header::peek_mut(rest)
        {
            wants_ack = header.flags().contains(MessageFlags::ACK);
            run.sequence = Sequence(run.sequence.0 + 1);
            *header = accepted_header(header, topic, run.sequence, now.wall_us);
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
        let ttl_ms = self.ttl_ms(header.ttl_ms());
        let header = header.with_ttl_ms(ttl_ms);
        let is_retained = header.flags().contains(MessageFlags::RETAIN);
        let stamp = if is_retained { stamp } else { now };
        let accepted = accepted_header(&header, topic, sequence, stamp.wall_us);
        let memory = self.log.landing_memory(segment);
        memory[..nexusd_wire::HEADER_BYTES].copy_from_slice(accepted.bytes());
        self.log.landed(segment);
        self.open_run(topic, Some(publisher), (segment, 0), ttl_ms, now);
        if let Some(run) = &mut self.run {
            run.sequence = sequence;
            (run.extent.len, run.extent.messages) = (stride as u32, 1);
            let expiry = run.extent.expiry;
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

    /// The open run ends with a message that is acknowledged under `number`, for the counts of an
    /// acknowledgement are those of one message.
    pub(crate) fn end_acknowledged_run(&mut self, number: u64, now: Now) {
        if let Some(run) = &mut self.run {
            run.ack = Some(number);
        }
        self.flush_run(now);
    }

    /// Hands the open run, if there is one, to the queues that want it, and to other shards whose
    /// queues do.
    pub(crate) fn flush_run(&mut self, now: Now) {
        self.passing = None;
        let Some(run) = self.run.take() else { return };
        self.topics.refresh_audience(run.topic, &self.index, &self.queues);
        let topic = self.topics.topic(run.topic);
        topic.used_at_us = now.mono_us;
        topic.sequence = run.sequence.0;
        self.history.note(&run.extent, run.topic, run.first, &mut topic.newest_run, &mut self.log);
        let messages = u64::from(run.extent.messages);
        self.metrics.messages_in += messages;
        self.metrics.bytes_in += u64::from(run.extent.len);
        let wanted_by = topic.wanted_by;
        if topic.audience.matches.is_empty() && wanted_by.is_empty() {
            self.metrics.no_subscribers += messages;
        }
        let outcome = fan_out(
            &mut topic.audience,
            run.topic,
            &run.extent,
            run.publisher,
            &mut hall!(self, self.routing.own),
            now,
        );
        if !wanted_by.is_empty() {
            self.lend_run(&run, wanted_by);
        }
        if let (Some(number), Some(publisher)) = (run.ack, run.publisher) {
            let owner = OwnersPart {
                sequence: run.sequence.0,
                shards: wanted_by.len(),
                status: PublishStatus::Accepted,
            };
            self.tell_ack(publisher, number, outcome, Some(owner));
        }
        self.log.release(run.extent.segment);
        if self.log.is_over_budget() {
            self.shrink_to_budget();
        }
    }

    /// Tells other shards of a run that queues of theirs want.
    fn lend_run(&mut self, run: &Run, wanted_by: ShardMask) {
        let topic = self.topics.topic(run.topic);
        for shard in wanted_by {
            let neighbour = self.neighbours.of(shard);
            if !topic.named_to.contains(shard) {
                topic.named_to.insert(shard);
                let name = topic.name.clone();
                neighbour.tell(ParcelItem::Name { topic: run.topic, name });
            }
            neighbour.lend(run.extent, run.publisher, run.ack, &mut self.log);
        }
    }

    /// Hands messages that lie in another shard's log to the queues that want them.
    pub(crate) fn deliver_lent(&mut self, lender: ShardIndex, run: LentRun, now: Now) {
        let LentRun { mut extent, memory, publisher, ack } = run;
        extent.segment = self.log.borrow(lender, extent.segment, memory);
        let segment = extent.segment;
        let mut outcome = Outcome::default();
        match extent.topic {
            Some(topic) => outcome = self.deliver_foreign(topic, &extent, publisher, now),
            None => {
                while let Some((topic, part)) = self.log.split_off_topic(&mut extent) {
                    self.deliver_foreign(topic, &part, publisher, now);
                }
            }
        }
        if let (Some(number), Some(publisher)) = (ack, publisher) {
            self.tell_ack(publisher, number, outcome, None);
        }
        self.log.release(segment);
        if self.log.is_over_budget() {
            self.shrink_to_budget();
        }
    }

    fn deliver_foreign(
        &mut self,
        topic: TopicId,
        extent: &Extent,
        publisher: Option<PublisherId>,
        now: Now,
    ) -> Outcome {
        let Some(known) = self.foreign.refreshed(topic, &self.index, &self.queues) else {
            debug_assert!(false, "a topic is named before its first run");
            return Outcome::default();
        };
        fan_out(
            &mut known.audience,
            topic,
            extent,
            publisher,
            &mut hall!(self, self.routing.owner(topic)),
            now,
        )
    }

    fn tell_ack(
        &mut self,
        publisher: PublisherId,
        number: u64,
        outcome: Outcome,
        owner: Option<OwnersPart>,
    ) {
        let miscount = u32::from(is_planted(Plant::AckMiscounts));
        let Outcome { delivered, dropped, blocked } = outcome;
        let part = AckPart { number, delivered: delivered + miscount, dropped, blocked, owner };
        self.acks.push((publisher, part));
        self.has_news |= self.acks.len() >= ACKS_PER_FRAME;
    }

    /// A publisher's topic id no longer stands for its topic.
    pub(crate) fn release_binding(&mut self, binding: Binding) {
        match binding {
            Binding::Topic(topic) => self.topics.topic(topic).publishers -= 1,
            Binding::Elsewhere(owner, handle) => self.neighbours.of(owner).close_topic(handle),
            Binding::Refused | Binding::Free => {}
        }
    }
}

/// What a run of messages meets on its way to the queues: of the plane, all but the topics.
struct Hall<'a> {
    /// The shard that owns the topic.
    owner: ShardIndex,
    queues: &'a mut Slab<SubscriberQueue>,
    newly_ready: &'a mut Vec<QueueId>,
    has_news: &'a mut bool,
    open_generations: &'a [u64],
    around: Around<'a>,
}

/// Adds a run to every queue of this shard that wants it.
#[inline]
fn fan_out(
    audience: &mut Audience,
    topic: TopicId,
    extent: &Extent,
    publisher: Option<PublisherId>,
    hall: &mut Hall<'_>,
    now: Now,
) -> Outcome {
    let messages = u64::from(extent.messages);
    let (mut delivered, mut dropped, mut blocked) = (0, 0, 0);
    for at in 0..audience.matches.len() {
        let id = audience.matches[at].queue;
        let queue = &mut hall.queues[id.0 as usize];
        if queue.awaits.contains(hall.owner) && !is_planted(Plant::ConfirmedEarly) {
            continue;
        }
        delivered += 1;
        if !audience.matches[at].bound {
            audience.matches[at].bound = true;
            if !is_planted(Plant::LostBind) {
                queue.push_bind(topic);
            }
            audience.note_bound(queue.connection, |told| is_open(hall.open_generations, told));
        }
        queue.push(id, *extent, hall.around.log);
        hall.around.metrics.queued_messages += messages;
        hall.around.metrics.queued_bytes += u64::from(extent.len);
        if !queue.is_ready {
            queue.is_ready = true;
            hall.newly_ready.push(id);
        }
        if extent.expiry != Expiry::NEVER {
            hall.around.expiring.note(queue, id, extent.expiry);
        }
        if queue.is_over_limit() {
            match backpressure::overflow(queue, id, extent, publisher, &mut hall.around, now) {
                Overflow::OldestDropped => {}
                Overflow::NewestDropped => dropped += 1,
                Overflow::Held => {
                    *hall.has_news = true;
                    blocked += 1;
                }
            }
        }
    }
    Outcome { delivered: delivered - dropped, dropped, blocked }
}

/// Whether a connection id still belongs to an open connection.
pub(crate) fn is_open(open_generations: &[u64], id: ConnectionId) -> bool {
    open_generations.get(id.index as usize) == Some(&(u64::from(id.generation) + 1))
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
        .with_flags(header.flags().without(MessageFlags::ACK))
}

/// How many batches may be on their way to one other shard: a few of them, and few in all when there
/// are many shards.
fn batches_per_neighbour(shards: usize) -> usize {
    (BATCHES_MAX / shards).clamp(BATCHES_PER_NEIGHBOUR.0, BATCHES_PER_NEIGHBOUR.1)
}

impl Plane {
    /// Checks what must hold between events. For tests and the simulator.
    pub(crate) fn assert_invariants(&self) {
        assert!(self.run.is_none(), "runs end with the bytes they came in");
        assert!(self.newly_ready.is_empty() && self.released.is_empty(), "connections were told");
        assert!(self.holds.is_empty() && self.acks.is_empty(), "publishers were told");
        self.log.assert_invariants();
        self.history.assert_invariants(&self.log);
        let mut references = BTreeMap::new();
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
            for extent in queue.stream.extents() {
                *references.entry(extent.segment).or_insert(0) += 1;
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
