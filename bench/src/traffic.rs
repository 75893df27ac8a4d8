//! The standing workloads, as traffic through [`BenchShards`].

use nexusd_core::ConnectionId;
use nexusd_wire::{FrameEncoder, FrameKind, Header, Sequence, TopicId};

use crate::bench_shard::BenchShards;

/// Bytes handed to the shard at a time: what one receive buffer holds.
const CHUNK_BYTES: usize = 64 << 10;
const PAYLOAD_BYTES: usize = 128;

/// A standing workload of 128-byte messages on one topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    /// One publisher, one subscriber.
    T1,
    /// One publisher, this many subscribers.
    FanOut(usize),
    /// One publisher, 16 subscribers, one of which takes nothing.
    Stalled,
    /// One publisher, one subscriber on another shard than it and the topic's owner.
    Lent,
    /// One publisher, one subscriber, on another shard; which owns the topic.
    PassedOn,
}

/// A workload that is set up and warm.
pub struct Traffic {
    shards: BenchShards,
    publisher: ConnectionId,
    chunk: Vec<u8>,
    messages_per_chunk: u64,
}

impl Traffic {
    /// Sets up `workload` and runs it until queues and buffers have their steady size.
    pub fn new(workload: Workload) -> Self {
        let (count, owner) = match workload {
            Workload::Lent => (2, 1),
            Workload::PassedOn => (2, 0),
            _ => (1, 0),
        };
        let mut shards = BenchShards::new(count);
        let topic = shards.topic_of(owner);
        let subscribers = match workload {
            Workload::T1 | Workload::Lent | Workload::PassedOn => 1,
            Workload::FanOut(subscribers) => subscribers,
            Workload::Stalled => 16,
        };
        for at in 0..subscribers {
            let subscriber = shards.connect();
            shards.subscribe(subscriber, &topic);
            if workload == Workload::Stalled && at == 0 {
                shards.stall(subscriber);
            }
        }
        let publisher = shards.connect();
        shards.bind(publisher, 0, &topic);
        let mut chunk = Vec::new();
        let mut messages_per_chunk = 0;
        let payload = [7; PAYLOAD_BYTES];
        loop {
            let header = Header::new(FrameKind::Message, 0, 0)
                .with_topic(TopicId(0))
                .with_sequence(Sequence(messages_per_chunk + 1));
            let before = chunk.len();
            FrameEncoder::message(&mut chunk, &header, &[], &payload);
            if chunk.len() > CHUNK_BYTES {
                chunk.truncate(before);
                break;
            }
            messages_per_chunk += 1;
        }
        let mut traffic = Self { shards, publisher, chunk, messages_per_chunk };
        traffic.run(40_000);
        traffic
    }

    /// Publishes at least `messages`, in chunks; returns how many it were.
    pub fn run(&mut self, messages: u64) -> u64 {
        let mut published = 0;
        while published < messages {
            self.shards.receive(self.publisher, &self.chunk);
            published += self.messages_per_chunk;
        }
        published
    }

    /// Bytes all subscribers took so far.
    pub fn sent_bytes(&self) -> u64 {
        self.shards.sent_bytes
    }
}
