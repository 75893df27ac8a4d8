//! A shard with clients that are already greeted: the least that a benchmark needs around it.
//!
//! Sends are settled at once, as if every socket took everything, except on connections that are
//! stalled. Nothing here allocates once traffic runs.

use nexusd_core::{
    ConnectionId, Event, Limits, Now, Output, PeerAddress, Service, Shard, ShardConfig,
};
use nexusd_wire::control::Role;
use nexusd_wire::{FrameEncoder, NodeId, SubscribeRequest, TopicId};

/// A shard and the state of its clients' sockets.
pub struct BenchShard {
    shard: Shard,
    encoder: FrameEncoder,
    now: Now,
    stalled: Vec<bool>,
    /// Bytes all sends took.
    pub sent_bytes: u64,
}

impl BenchShard {
    /// An empty shard with default limits.
    pub fn new() -> Self {
        let config = ShardConfig {
            node: NodeId(1),
            cluster: String::from("bench"),
            software: String::from("bench"),
            seed: 7,
            limits: Limits::default(),
        };
        Self {
            shard: Shard::new(config),
            encoder: FrameEncoder::new(),
            now: Now { mono_us: 1, wall_us: 1_700_000_000_000_000 },
            stalled: Vec::new(),
            sent_bytes: 0,
        }
    }

    /// Opens a connection and says Hello.
    pub fn connect(&mut self) -> ConnectionId {
        let connection = ConnectionId { index: self.stalled.len() as u32, generation: 0 };
        self.stalled.push(false);
        self.shard.place();
        self.event(Event::Opened { connection, peer: PeerAddress::Unix });
        let mut bytes = Vec::new();
        self.encoder.hello(&mut bytes, 0, Role::Client, "bench", "bench");
        self.receive(connection, &bytes);
        connection
    }

    /// Subscribes a connection to one filter.
    pub fn subscribe(&mut self, connection: ConnectionId, filter: &str) {
        let mut bytes = Vec::new();
        let request =
            SubscribeRequest { request: 1, filters: &[filter], ..SubscribeRequest::default() };
        self.encoder.subscribe(&mut bytes, &request);
        self.receive(connection, &bytes);
    }

    /// Binds a publisher's topic id.
    pub fn bind(&mut self, connection: ConnectionId, topic: u32, name: &str) {
        let mut bytes = Vec::new();
        self.encoder.topic_bind(&mut bytes, TopicId(topic), name);
        self.receive(connection, &bytes);
    }

    /// Lets a connection take nothing any more.
    pub fn stall(&mut self, connection: ConnectionId) {
        self.stalled[connection.index as usize] = true;
    }

    /// Feeds received bytes and carries out everything the shard asks for.
    pub fn receive(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.event(Event::Received { connection, bytes });
    }

    fn event(&mut self, event: Event<'_>) {
        self.shard.on_event(self.now, event);
        while let Some(output) = self.shard.poll_output() {
            let Output::Send(connection) = output else {
                continue;
            };
            let mut gathered = 0;
            self.shard.gather(connection, &mut |slice| gathered += slice.len());
            let blocked = self.stalled[connection.index as usize];
            let bytes = if blocked { 0 } else { gathered };
            self.sent_bytes += bytes as u64;
            self.shard.on_event(self.now, Event::Sent { connection, bytes, blocked });
        }
    }
}

impl Default for BenchShard {
    fn default() -> Self {
        Self::new()
    }
}
