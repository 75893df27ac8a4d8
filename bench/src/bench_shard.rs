//! The shards of a node with clients that are already greeted: the least that a benchmark needs
//! around them. What shards send each other arrives at once.
//!
//! Sends are settled at once, as if every socket took everything, except on connections that are
//! stalled. Nothing here allocates once traffic runs.

use nexusd_core::{
    ConnectionId, Door, Event, Limits, MeshConfig, Metrics, Now, Output, PeerAddress, Service,
    Shard, ShardConfig, owner_of, wire,
};
use nexusd_wire::control::{OverflowPolicy, Role};
use nexusd_wire::{FrameEncoder, NodeId, SubscribeRequest, TopicId};

const SEED: u64 = 7;

/// Shards and the state of their clients' sockets.
pub struct BenchShards {
    shards: Vec<Shard>,
    /// The shard of each connection.
    homes: Vec<usize>,
    encoder: FrameEncoder,
    now: Now,
    stalled: Vec<bool>,
    /// Bytes all sends took.
    pub sent_bytes: u64,
}

impl BenchShards {
    /// Empty shards with default limits. Connections are spread over them in turn.
    pub fn new(shards: usize) -> Self {
        Self::with_limits(shards, Limits::default())
    }

    /// The same with other limits.
    pub fn with_limits(shards: usize, limits: Limits) -> Self {
        let config = ShardConfig {
            node: NodeId(1),
            cluster: String::from("bench"),
            software: String::from("bench"),
            seed: SEED,
            mesh: MeshConfig::default(),
            limits,
        };
        let wired = |wiring| Shard::wired(config.clone(), wiring);
        Self {
            shards: wire(shards).into_iter().map(wired).collect(),
            homes: Vec::new(),
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
        let home = self.shards[0].place().index();
        self.homes.push(home);
        self.event(
            home,
            Event::Opened {
                connection,
                peer: PeerAddress::Unix,
                door: Door::Apps,
                is_moved: false,
            },
        );
        let mut bytes = Vec::new();
        self.encoder.hello(&mut bytes, 0, Role::Client, "bench", "bench");
        self.receive(connection, &bytes);
        connection
    }

    /// Subscribes a connection to one filter.
    pub fn subscribe(&mut self, connection: ConnectionId, filter: &str) {
        self.subscribe_to(connection, &[filter]);
    }

    /// The same for several filters of one subscription.
    pub fn subscribe_to(&mut self, connection: ConnectionId, filters: &[&str]) {
        self.ask(connection, &SubscribeRequest { filters, ..SubscribeRequest::default() });
    }

    /// Subscribes a connection to one filter; its queue holds publishers back beyond so many bytes.
    pub fn subscribe_blocking(&mut self, connection: ConnectionId, filter: &str, bytes: u64) {
        let policy = Some(OverflowPolicy::Block);
        let filters = &[filter];
        self.ask(
            connection,
            &SubscribeRequest {
                filters,
                policy,
                queue_bytes: Some(bytes),
                ..SubscribeRequest::default()
            },
        );
    }

    fn ask(&mut self, connection: ConnectionId, request: &SubscribeRequest<'_>) {
        let mut bytes = Vec::new();
        self.encoder.subscribe(&mut bytes, &SubscribeRequest { request: 1, ..*request });
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

    /// Lets a connection that is stalled take all that waits for it.
    pub fn let_take(&mut self, connection: ConnectionId) {
        self.stalled[connection.index as usize] = false;
        self.event(self.homes[connection.index as usize], Event::Writable { connection });
        self.stalled[connection.index as usize] = true;
    }

    /// Feeds received bytes and carries out everything the shard asks for.
    pub fn receive(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.event(self.homes[connection.index as usize], Event::Received { connection, bytes });
    }

    /// What all shards count.
    pub fn metrics(&self) -> Metrics {
        let mut sum = Metrics::default();
        self.shards.iter().for_each(|shard| sum += shard.metrics());
        sum
    }

    /// A name of a topic that the shard owns.
    pub fn topic_of(&self, shard: usize) -> String {
        let mut names = (0..).map(|number| format!("bench/{number}"));
        let owner = |name: &String| owner_of(name, self.shards.len(), SEED).index();
        names.find(|name| owner(name) == shard).unwrap_or_default()
    }

    fn event(&mut self, at: usize, event: Event<'_>) {
        self.shards[at].on_event(self.now, event);
        self.carry_out(at);
        while let Some(at) = self.shards.iter().position(|shard| shard.has_mail()) {
            self.shards[at].on_event(self.now, Event::Inbox);
            self.carry_out(at);
        }
    }

    fn carry_out(&mut self, at: usize) {
        let shard = &mut self.shards[at];
        while let Some(output) = shard.poll_output() {
            let Output::Send(connection) = output else {
                continue;
            };
            let mut gathered = 0;
            shard.gather(connection, &mut |slice| gathered += slice.len());
            let blocked = self.stalled[connection.index as usize];
            let bytes = if blocked { 0 } else { gathered };
            self.sent_bytes += bytes as u64;
            shard.on_event(self.now, Event::Sent { connection, bytes, blocked });
        }
    }
}
