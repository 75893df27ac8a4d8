//! The standing workloads, as traffic through [`BenchShards`].

use nexusd_core::{ConnectionId, Limits};
use nexusd_wire::{FrameEncoder, FrameKind, HEADER_BYTES, Header, MessageFlags, Sequence, TopicId};

use crate::bench_shard::BenchShards;

/// Bytes handed to the shard at a time: what one receive buffer holds.
const CHUNK_BYTES: usize = 64 << 10;
const PAYLOAD_BYTES: usize = 128;
const TOPICS_MAX: usize = 1 << 24;
/// What is published to a subscriber that holds its publisher back before it takes something: less than what a
/// publisher is read then.
const CHUNKS_HELD: u64 = 8;
const FILTERED_TOPICS: u32 = 1_000;
const FILTERING_SUBSCRIBERS: usize = 100;
const FRAME_BYTES: usize = HEADER_BYTES + PAYLOAD_BYTES;
/// Steps of Zipf's order before it repeats.
const DRAWS: u32 = 1 << 22;
/// A prime beyond any number of topics, by which popular topics are scattered among the others.
const SCATTER: u64 = 2_147_483_647;

/// A standing workload of 128-byte messages on one topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    /// One publisher, one subscriber.
    T1,
    /// The same, every message acknowledged.
    Acknowledged,
    /// One publisher, this many subscribers.
    FanOut(usize),
    /// One publisher, 16 subscribers, one of which takes nothing.
    Stalled,
    /// One publisher, one subscriber that takes nothing while its full queue holds the publisher back, and then all.
    Held,
    /// One publisher, one subscriber on another shard than it and the topic's owner.
    Lent,
    /// One publisher, one subscriber, on another shard; which owns the topic.
    PassedOn,
    /// One publisher whose messages come one by one, one subscriber.
    Sparse,
    /// One publisher over so many topics, one subscriber to all of them.
    Topics(u32, Order),
    /// One publisher over 1,000 topics at random; 100 subscribers, of which one names the topic and another
    /// has a filter with a wildcard for it.
    Filters,
}

/// In which order topics are published to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// One after the other.
    RoundRobin,
    /// Any after any.
    Random,
    /// The nth most popular with a probability of about 1/n of the first one's.
    Zipf,
}

/// A workload that is set up and warm.
pub struct Traffic {
    shards: BenchShards,
    publisher: ConnectionId,
    chunk: Vec<u8>,
    messages_per_chunk: u64,
    /// The subscriber that takes something only now and then.
    holder: Option<ConnectionId>,
    /// Of several topics, the next one is written into each message.
    walk: Option<Walk>,
}

/// The way through several topics.
struct Walk {
    order: Order,
    topics: u32,
    state: u32,
    /// Of Zipf's order, what is drawn beforehand.
    drawn: Vec<TopicId>,
}

impl Walk {
    fn new(topics: u32, order: Order) -> Self {
        let draws = if order == Order::Zipf { DRAWS } else { 0 };
        let mut state = 0;
        let drawn = (0..draws).map(|_| draw_zipf(&mut state, topics)).collect();
        Self { order, topics, state: 0, drawn }
    }

    fn next(&mut self) -> TopicId {
        self.state = match self.order {
            Order::RoundRobin | Order::Zipf => self.state.wrapping_add(1),
            Order::Random => next_random(self.state),
        };
        match self.order {
            Order::RoundRobin => TopicId(self.state % self.topics),
            Order::Random => {
                TopicId(((u64::from(self.state) * u64::from(self.topics)) >> 32) as u32)
            }
            Order::Zipf => self.drawn[(self.state % DRAWS) as usize],
        }
    }
}

/// Numerical Recipes' generator; the upper bits of what it gives are random.
fn next_random(state: u32) -> u32 {
    state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)
}

/// A topic whose rank is a power of the number of topics, the exponent any below 1.
fn draw_zipf(state: &mut u32, topics: u32) -> TopicId {
    *state = next_random(*state);
    let exponent = f64::from(*state) / f64::from(u32::MAX);
    let rank = f64::from(topics).powf(exponent) as u64 - 1;
    TopicId((rank * SCATTER % u64::from(topics)) as u32)
}

/// The name of a topic, or with a wildcard for its kind a filter that matches it alone.
fn filtered_topic(at: u32, kind: &str) -> String {
    format!("site/{}/{kind}/{}", at / 100, at % 100)
}

/// Of all topics, those that subscriber `number` names, and those it has filters with a wildcard for.
fn subscribe_to_some(shards: &mut BenchShards, subscriber: ConnectionId, number: usize) {
    let is_for = |at: u32| at as usize % FILTERING_SUBSCRIBERS == number;
    let named = (0..FILTERED_TOPICS).filter(|&at| is_for(at));
    let matched = (0..FILTERED_TOPICS).filter(|&at| is_for(at * 7 + 3));
    let filters: Vec<String> = named
        .map(|at| filtered_topic(at, "sensor"))
        .chain(matched.map(|at| filtered_topic(at, "+")))
        .collect();
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    shards.subscribe_to(subscriber, &filters);
}

impl Traffic {
    /// Sets up `workload` and runs it until queues and buffers have their steady size.
    pub fn new(workload: Workload) -> Self {
        let (count, owner) = match workload {
            Workload::Lent => (2, 1),
            Workload::PassedOn => (2, 0),
            _ => (1, 0),
        };
        let limits = Limits { topics: TOPICS_MAX, ..Limits::default() };
        let mut shards = BenchShards::with_limits(count, limits);
        let topic = match workload {
            Workload::Filters => filtered_topic(0, "sensor"),
            _ => shards.topic_of(owner),
        };
        let subscribers = match workload {
            Workload::FanOut(subscribers) => subscribers,
            Workload::Stalled => 16,
            Workload::Filters => FILTERING_SUBSCRIBERS,
            _ => 1,
        };
        let mut holder = None;
        for at in 0..subscribers {
            let subscriber = shards.connect();
            match workload {
                Workload::Held => {
                    shards.subscribe_blocking(subscriber, &topic, CHUNK_BYTES as u64 / 2);
                    shards.stall(subscriber);
                    holder = Some(subscriber);
                }
                Workload::Topics(..) => shards.subscribe(subscriber, "#"),
                Workload::Filters => subscribe_to_some(&mut shards, subscriber, at),
                _ => shards.subscribe(subscriber, &topic),
            }
            if workload == Workload::Stalled && at == 0 {
                shards.stall(subscriber);
            }
        }
        let publisher = shards.connect();
        shards.bind(publisher, 0, &topic);
        let (topics, order) = match workload {
            Workload::Topics(topics, order) => (topics, order),
            Workload::Filters => (FILTERED_TOPICS, Order::Random),
            _ => (1, Order::RoundRobin),
        };
        (1..topics).for_each(|at| shards.bind(publisher, at, &filtered_topic(at, "sensor")));
        let walk = (topics > 1).then(|| Walk::new(topics, order));
        let mut chunk = Vec::new();
        let mut messages_per_chunk = 0;
        let payload = [7; PAYLOAD_BYTES];
        let flags = match workload {
            Workload::Acknowledged => MessageFlags::ACK,
            _ => MessageFlags::default(),
        };
        loop {
            let header = Header::new(FrameKind::Message, 0, 0)
                .with_topic(TopicId(0))
                .with_flags(flags)
                .with_sequence(Sequence(messages_per_chunk + 1));
            let before = chunk.len();
            FrameEncoder::message(&mut chunk, &header, &[], &payload);
            if chunk.len() > CHUNK_BYTES || workload == Workload::Sparse && before > 0 {
                chunk.truncate(before);
                break;
            }
            messages_per_chunk += 1;
        }
        let mut traffic = Self { shards, publisher, chunk, messages_per_chunk, holder, walk };
        traffic.run(40_000);
        traffic
    }

    /// Publishes at least `messages`, in chunks; returns how many it were.
    pub fn run(&mut self, messages: u64) -> u64 {
        let mut published = 0;
        while published < messages {
            if let Some(walk) = &mut self.walk {
                for frame in self.chunk.chunks_exact_mut(FRAME_BYTES) {
                    if let Some(header) = Header::peek_mut(frame) {
                        *header = header.with_topic(walk.next());
                    }
                }
            }
            self.shards.receive(self.publisher, &self.chunk);
            published += self.messages_per_chunk;
            if let Some(holder) = self.holder
                && (published / self.messages_per_chunk).is_multiple_of(CHUNKS_HELD)
            {
                self.shards.let_take(holder);
            }
        }
        published
    }

    /// Bytes all subscribers took so far.
    pub fn sent_bytes(&self) -> u64 {
        self.shards.sent_bytes
    }
}
