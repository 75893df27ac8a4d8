//! What must hold, worked out independently of the shard: from what clients sent, how much of it
//! the shard was fed, and the rules.
//!
//! The oracle cannot see inside the shard, so it keeps two counts per topic: messages *fed* (the
//! shard had their last byte) and messages *settled* (the shard was reading that connection when
//! its turn ended, so it has dealt with them). What the shard accepted lies between the two, and is
//! exact as soon as nothing is held back. A subscription made in between must have got every message
//! behind the point where its Subscribe was settled and none from before it was fed.
//!
//! With several shards *settled* means that nothing is under way between them either.
//!
//! Messages name themselves (see `payload.rs`), so the numbers the daemon gives them become a map
//! that every subscriber and every ack has to agree with.

mod accounts;
mod coming_back;
mod delivery;
mod expiry;
mod history;
mod positions;
mod publication;
mod retained;
mod stream;

use std::collections::BTreeMap;

use nexusd_core::limits::{
    LARGE_FRAME_BYTES, METADATA_BYTES_MAX, SEGMENT_BYTES, SEGMENTS_RECALLED,
};
use nexusd_core::{Limits, Metrics};
use nexusd_wire::SubscriptionId;
use nexusd_wire::control::{self, OverflowPolicy};

pub use coming_back::{NOBODY, Resuming};
pub use positions::FAR_AHEAD;
pub use publication::{Fate, Publication};
pub use stream::{Stream, StreamState};

use positions::Start;

use crate::cluster::Gauges;
use crate::payload::MetadataShelf;
use crate::scenario::PARKS;
use crate::violation::{Violation, ensure};

/// The conversation of the daemon's own messages.
pub const DAEMON: u32 = u32::MAX;
/// No publication.
pub(crate) const NONE: u32 = u32::MAX;

/// What is known of one topic.
#[derive(Debug)]
struct TopicLedger {
    name: String,
    fed: u64,
    settled: u64,
    /// Publication of each number seen, by number; [`NONE`] where unknown.
    numbers: Vec<u32>,
    /// Highest of them of a message that is surely in all queues that want it.
    numbers_settled: u64,
    /// Streams that may want its messages.
    streams: Vec<usize>,
    /// Subscriptions that surely match, and that may.
    matching_low: u32,
    matching_high: u32,
    /// Subscriptions that ever matched.
    matching_ever: u32,
    /// Messages that set or clear its retained value, as the shard was fed them.
    retained: Vec<u32>,
    /// Messages with a time to live that the shard was fed, and when the first of them may end.
    mortal: Vec<u32>,
    expires_us: u64,
    /// When something was accepted last, and the number up to which it may have been forgotten since.
    busy_us: u64,
    forgotten: u64,
    /// When that may have happened.
    forgotten_at: u64,
}

/// Everything sent, everything owed.
#[derive(Debug)]
pub struct Oracle {
    publications: Vec<Publication>,
    /// Those that were doubted since everything was last settled.
    doubted: Vec<u32>,
    topics: Vec<TopicLedger>,
    streams: Vec<Stream>,
    by_subscription: BTreeMap<SubscriptionId, usize>,
    shelf: MetadataShelf,
    /// Counts what happened, to tell before from after.
    step: u64,
    /// Mono time of the turn.
    now_us: u64,
    turn: u64,
    memory_bytes: u64,
    block_timeout_us: u64,
    /// Messages of each topic that are held, if there is memory.
    replay_messages: u64,
    /// Memory that they may take.
    replay_bytes: u64,
    /// Shards of the node.
    shards: u64,
    /// Most that one shard's log ever took.
    peak_log_bytes: u64,
    /// Messages whole on some wire.
    delivered: u64,
    /// Messages told as lost.
    missed: u64,
    /// Messages told as lost with a connection.
    link_lost: u64,
    /// Refused publishes that the model knows of.
    refused: u64,
    /// Refused publishes that the shard counts.
    rejected: u64,
    /// The longest message frame.
    frame_bytes_max: u64,
    /// Subscriptions outlive their connections.
    parks: bool,
    /// Streams that are parked, among others.
    parked: Vec<usize>,
    parked_ttl_us: u64,
    /// Messages that were dropped may have been queued once more.
    has_recovered: bool,
    /// Messages delivered that were not queued for having been published.
    extra: u64,
    /// Messages that were sent and queued once more, and that may have been.
    requeued: u64,
    perhaps_requeued: u64,
    /// Messages dropped from all queues, as the shards count them.
    dropped: u64,
}

impl Oracle {
    /// An oracle for these topics and bounds.
    pub fn new(topics: &[String], limits: &Limits, shards: usize) -> Self {
        let ledger = |name: &String| TopicLedger {
            name: name.clone(),
            fed: 0,
            settled: 0,
            numbers: vec![NONE],
            numbers_settled: 0,
            streams: Vec::new(),
            matching_low: 0,
            matching_high: 0,
            matching_ever: 0,
            retained: Vec::new(),
            mortal: Vec::new(),
            expires_us: u64::MAX,
            busy_us: 0,
            forgotten: 0,
            forgotten_at: 0,
        };
        Self {
            publications: Vec::new(),
            doubted: Vec::new(),
            topics: topics.iter().map(ledger).collect(),
            streams: Vec::new(),
            by_subscription: BTreeMap::new(),
            shelf: MetadataShelf::default(),
            step: 0,
            now_us: 0,
            turn: 0,
            memory_bytes: limits.memory_bytes as u64,
            block_timeout_us: limits.block_timeout_us,
            replay_messages: limits.replay_messages,
            replay_bytes: limits.replay_bytes as u64,
            shards: shards as u64,
            peak_log_bytes: 0,
            delivered: 0,
            missed: 0,
            link_lost: 0,
            refused: 0,
            rejected: 0,
            frame_bytes_max: u64::from(limits.payload_bytes + METADATA_BYTES_MAX) + 64,
            parks: PARKS,
            parked: Vec::new(),
            parked_ttl_us: limits.parked_ttl_us,
            has_recovered: false,
            extra: 0,
            requeued: 0,
            perhaps_requeued: 0,
            dropped: 0,
        }
    }

    /// Whether subscriptions outlive their connections.
    pub fn parks(&self) -> bool {
        self.parks
    }

    /// Shards of the node.
    pub fn shards(&self) -> u64 {
        self.shards
    }

    /// The time of what is told next.
    pub fn set_now(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    /// A turn of the run begins.
    pub fn begin_turn(&mut self, now_us: u64) {
        self.turn += 1;
        self.now_us = now_us;
        self.expire_parked();
    }

    /// That time.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// The metadata tables that messages carry.
    pub fn shelf(&self) -> &MetadataShelf {
        &self.shelf
    }

    /// The index that the next stream will have.
    pub fn next_stream(&self) -> usize {
        self.streams.len()
    }

    /// A topic by its name.
    pub fn topic_named(&self, name: &str) -> Option<usize> {
        self.topics.iter().position(|topic| topic.name == name)
    }

    /// The index that the next publication will have.
    pub fn next_publication(&self) -> u32 {
        self.publications.len() as u32
    }

    /// A publication.
    pub fn publication(&self, index: u32) -> &Publication {
        &self.publications[index as usize]
    }

    /// A stream.
    pub fn stream(&self, index: usize) -> &Stream {
        &self.streams[index]
    }

    /// The stream of a subscription.
    pub fn stream_of(&self, subscription: SubscriptionId) -> Option<usize> {
        self.by_subscription.get(&subscription).copied()
    }

    /// A client wrote a message.
    pub fn write(&mut self, mut publication: Publication, previous: u32) -> u32 {
        let index = self.next_publication();
        publication.previous = previous;
        if let Some(previous) = self.publications.get_mut(previous as usize) {
            previous.next = index;
        }
        self.publications.push(publication);
        index
    }

    /// The shard was fed the last byte of a message.
    pub fn publish_fed(&mut self, index: u32) {
        self.step += 1;
        let publication = &mut self.publications[index as usize];
        publication.fed_at = self.step;
        if publication.fate == Fate::Refused {
            return;
        }
        publication.fate = Fate::Fed;
        publication.fed_us = self.now_us;
        let topic = publication.topic;
        self.note_idle(topic);
        let publication = &mut self.publications[index as usize];
        let topic = &mut self.topics[publication.topic];
        topic.fed += 1;
        if publication.is_retained() {
            topic.retained.push(index);
        }
        if publication.ttl_us > 0 {
            topic.mortal.push(index);
            topic.expires_us = topic.expires_us.min(publication.expires_us());
        }
        publication.matching = (topic.matching_low, topic.matching_high);
        publication.fed_turn = self.turn;
        let stride = publication.header.stride() as u64;
        let is_own = publication.conversation == DAEMON;
        let topic = publication.topic;
        for at in 0..self.topics[topic].streams.len() {
            let stream = self.topics[topic].streams[at];
            self.streams[stream].expect_message(stride, is_own, self.now_us, self.block_timeout_us);
        }
    }

    /// The shard has dealt with it.
    pub fn publish_settled(&mut self, index: u32) {
        self.step += 1;
        let publication = &mut self.publications[index as usize];
        if publication.fate == Fate::Refused && !publication.refusal_counted {
            publication.refusal_counted = true;
            self.refused += 1;
        }
        if publication.fate != Fate::Fed {
            return;
        }
        publication.fate = Fate::Settled;
        publication.settled_at = self.step;
        publication.settled_us = Some(self.now_us);
        let topic = publication.topic;
        self.note_idle(topic);
        let publication = &mut self.publications[index as usize];
        let topic = &mut self.topics[publication.topic];
        topic.settled += 1;
        topic.busy_us = topic.busy_us.max(publication.fed_us);
        let (low, high) = publication.matching;
        publication.matching = match self.turn - publication.fed_turn {
            0 | 1 => (low.min(topic.matching_low), high.max(topic.matching_high)),
            // It waited, and anything may have come and gone meanwhile.
            _ => (0, topic.matching_ever),
        };
    }

    /// Nothing is under way between shards.
    pub fn all_settled(&mut self) {
        for topic in &mut self.topics {
            topic.numbers_settled = topic.numbers.len() as u64 - 1;
        }
        self.doubted.clear();
    }

    /// The daemon gave a message of its own up, for want of memory.
    pub fn publish_given_up(&mut self, index: u32) {
        let publication = &mut self.publications[index as usize];
        publication.fate = Fate::Refused;
        self.topics[publication.topic].fed -= 1;
    }

    /// It cannot be known whether the shard accepted it: its connection ended meanwhile.
    pub fn publish_doubted(&mut self, index: u32) {
        let publication = &mut self.publications[index as usize];
        if publication.number != 0 {
            return;
        }
        match publication.fate {
            Fate::Settled => self.topics[publication.topic].settled -= 1,
            Fate::Fed => {}
            _ => return,
        }
        publication.fate = Fate::Doubtful;
        self.doubted.push(index);
    }

    /// The shard told that it refused a message that could have been accepted.
    pub fn publish_refused(&mut self, index: u32) -> Result<(), Violation> {
        let publication = &mut self.publications[index as usize];
        ensure!(publication.number == 0, "publication {index} was both accepted and refused");
        let was_settled = publication.fate == Fate::Settled;
        ensure!(publication.fate != Fate::Refused, "publication {index} was refused twice");
        let was_fed = publication.fate != Fate::Written;
        publication.fate = Fate::Refused;
        publication.refusal_counted = true;
        self.refused += 1;
        if !was_fed {
            return Ok(());
        }
        let topic = &mut self.topics[publication.topic];
        topic.fed -= 1;
        topic.settled -= u64::from(was_settled);
        let (fed_at, settled_at, of) =
            (publication.fed_at, publication.settled_at, publication.topic);
        for stream in &mut self.streams {
            stream.forget_publication(of, fed_at, was_settled.then_some(settled_at));
        }
        Ok(())
    }

    /// The shard refused a TopicBind.
    pub fn bind_refused(&mut self) {
        self.refused += 1;
    }

    /// The shard refused something that it counts like a publish.
    pub fn offence_refused(&mut self) {
        self.refused += 1;
    }

    /// All messages under a bind that was refused are refused with it.
    pub fn publishes_refused(&mut self, conversation: u32, bind: usize) -> Result<(), Violation> {
        for index in 0..self.publications.len() {
            let publication = &mut self.publications[index];
            if publication.conversation != conversation || publication.bind != bind {
                continue;
            }
            let is_settled = publication.fate == Fate::Settled;
            match publication.fate {
                Fate::Written => publication.fate = Fate::Refused,
                Fate::Refused => {}
                Fate::Fed | Fate::Settled | Fate::Doubtful => {
                    self.publish_refused(index as u32)?;
                    // What still waits is counted when it is dealt with, if ever.
                    self.publications[index].refusal_counted = is_settled;
                    self.refused -= u64::from(!is_settled);
                }
            }
        }
        Ok(())
    }

    /// A client wrote a Subscribe.
    pub fn subscribe(&mut self, mut stream: Stream) -> usize {
        stream.match_topics(self.topics.iter().map(|topic| topic.name.as_str()));
        stream.is_reordered = self.shards > 1;
        self.streams.push(stream);
        self.streams.len() - 1
    }

    /// The shard was fed a Subscribe.
    pub fn subscribe_fed(&mut self, index: usize) {
        self.step += 1;
        let stream = &mut self.streams[index];
        stream.state = StreamState::Fed;
        stream.subscribed_us = self.now_us;
        stream.retained_rounds = u64::from(stream.wants_retained);
        stream.fed_at = self.step;
        for (at, cursor) in stream.cursors.iter_mut().enumerate() {
            let topic = &mut self.topics[at];
            cursor.settled_before = topic.settled;
            cursor.numbers_before = match self.shards {
                1 => topic.numbers.len() as u64 - 1,
                // A message may have its number and still be on its way to the subscriber's shard.
                _ => topic.numbers_settled,
            };
            if cursor.matches {
                topic.streams.push(index);
                topic.matching_high += 1;
                topic.matching_ever += 1;
            }
        }
        stream.in_high = true;
        self.begin_at_positions(index);
        let stream = &mut self.streams[index];
        // What waits to be dealt with may yet be queued for it.
        let under_way = |at: usize, fate: Fate| match fate {
            Fate::Fed => true,
            // Its connection is gone, but with several shards it may still come.
            Fate::Doubtful => self.doubted.contains(&(at as u32)),
            _ => false,
        };
        for (at, publication) in self.publications.iter().enumerate() {
            if !under_way(at, publication.fate) {
                continue;
            }
            if !stream.cursors[publication.topic].matches {
                continue;
            }
            let stride = publication.header.stride() as u64;
            let is_own = publication.conversation == DAEMON;
            stream.expect_message(stride, is_own, self.now_us, self.block_timeout_us);
        }
    }

    /// The shard has dealt with it.
    pub fn subscribe_settled(&mut self, index: usize) {
        self.step += 1;
        let stream = &mut self.streams[index];
        if stream.state != StreamState::Fed {
            return;
        }
        stream.state = StreamState::Open;
        stream.settled_at = self.step;
        self.doubt_positions(index);
        let stream = &mut self.streams[index];
        for (at, cursor) in stream.cursors.iter_mut().enumerate() {
            let topic = &mut self.topics[at];
            cursor.fed_before = match cursor.start {
                Start::Behind(after) => topic.fed.min(after),
                _ => topic.fed,
            };
            if cursor.matches {
                topic.matching_low += 1;
            }
        }
        stream.in_low = true;
    }

    /// SubscriptionInfo is on the wire.
    pub fn subscribe_confirmed(
        &mut self,
        index: usize,
        info: &control::SubscriptionInfo<'_>,
    ) -> Result<(), Violation> {
        self.replay_announced(index, info)?;
        let id = SubscriptionId::from(info.subscription());
        let stream = &mut self.streams[index];
        ensure!(stream.subscription.is_none(), "a Subscribe was confirmed twice");
        ensure!(stream.state != StreamState::Asked, "a Subscribe was confirmed before it was fed");
        stream.subscription = Some(id);
        let known = self.by_subscription.insert(id, index);
        ensure!(known.is_none(), "subscription id {id} was given twice");
        Ok(())
    }

    /// From now on the shard may have ended the stream.
    pub fn stream_may_end(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        if std::mem::take(&mut stream.in_low) {
            for (topic, cursor) in self.topics.iter_mut().zip(&stream.cursors) {
                topic.matching_low -= u32::from(cursor.matches);
            }
        }
    }

    /// The stream is over for the shard.
    pub fn stream_ended(&mut self, index: usize) {
        self.stream_may_end(index);
        let stream = &mut self.streams[index];
        if std::mem::take(&mut stream.in_high) {
            let matching =
                self.topics.iter_mut().zip(&stream.cursors).filter(|(_, cursor)| cursor.matches);
            for (topic, _) in matching {
                topic.matching_high -= 1;
                topic.streams.retain(|other| *other != index);
            }
        }
        stream.state = StreamState::Ended;
    }

    /// The shard may have given up the stream's connection.
    pub fn stream_doubted(&mut self, index: usize) {
        self.stream_may_end(index);
        self.streams[index].is_doubtful = true;
    }

    /// Whether a stream of the conversation, of policy `disconnect`, can have ended its connection.
    pub fn may_be_disconnected(&mut self, conversation: &[usize]) -> bool {
        let (now_us, timeout_us) = (self.now_us, self.block_timeout_us);
        conversation.iter().any(|&stream| {
            let stream = &mut self.streams[stream];
            stream.policy == OverflowPolicy::Disconnect
                && stream.may_have_dropped(now_us, timeout_us)
        })
    }

    /// The client has read one more message of a stream.
    pub fn message_read(&mut self, index: usize) {
        self.streams[index].read_one();
    }

    /// The client asked for the end of a stream, and the shard was fed that.
    pub fn unsubscribe_fed(&mut self, index: usize) {
        self.stream_may_end(index);
        let stream = &mut self.streams[index];
        if stream.state != StreamState::Ended {
            stream.state = StreamState::Closing;
        }
    }

    /// Publishes that were refused, and nobody was told of it yet.
    fn unexplained_refusals(&self) -> u64 {
        self.rejected.saturating_sub(self.refused)
    }

    /// Whether the log can have been so full that another segment did not fit its budget, which is
    /// three quarters of the memory limit but for what is kept for evacuated messages and what
    /// losses take that are to be told.
    fn may_have_recycled(&self) -> bool {
        let mut wanted = self.frame_bytes_max.max(SEGMENT_BYTES as u64);
        if self.frame_bytes_max > LARGE_FRAME_BYTES as u64 {
            // Large frames that are received at the same time share a part of the memory.
            wanted += self.frame_bytes_max;
        }
        if self.shards > 1 {
            // Other shards are asked ahead of need.
            wanted += (SEGMENTS_RECALLED * SEGMENT_BYTES) as u64;
        }
        self.peak_log_bytes + wanted >= self.memory_bytes / self.shards / 2
    }

    /// Keeps the highest memory use seen, and checks it.
    pub fn on_gauges(&mut self, gauges: &Gauges) -> Result<(), Violation> {
        self.peak_log_bytes = self.peak_log_bytes.max(gauges.fullest_log.get());
        self.on_sample(&gauges.metrics.get())
    }

    /// Checks what the shards count.
    pub fn on_sample(&mut self, metrics: &Metrics) -> Result<(), Violation> {
        self.rejected = metrics.rejected;
        self.dropped = metrics.dropped_slow_consumer + metrics.dropped_memory;
        ensure!(
            metrics.rejected >= self.refused,
            "{} publishes were refused, but {} counted",
            self.refused,
            metrics.rejected
        );
        ensure!(
            metrics.log_bytes <= self.memory_bytes,
            "the log takes {} bytes of a limit of {}",
            metrics.log_bytes,
            self.memory_bytes
        );
        Ok(())
    }
}
