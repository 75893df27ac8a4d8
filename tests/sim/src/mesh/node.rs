//! One node: its shards, its discovery, the sockets of both, and the threads that they run on.
//!
//! What the daemon's loops do is done here in turns. A thread has a turn when something is there for it, a
//! little later; one that is asleep has none, and all that comes meanwhile waits for it.

mod mesh_thread;
mod shard_thread;
mod sockets;

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use nexusd_core::{
    Command, LinkReport, MeshConfig, Metrics, Now, Shard, ShardConfig, ShardIndex, wire,
};
use nexusd_discovery::{Config, Discovery};
use nexusd_wire::{ClusterKey, NodeId};

pub use mesh_thread::MeshThread;
pub use sockets::Sockets;

use super::client::Client;
use super::network::{Happening, Network};
use super::scenario::Scenario;
use super::wire::{Party, WireId};
use crate::dice::Dice;
use crate::watched::Watched;

/// What other threads have for a shard.
#[derive(Debug)]
pub enum Mail {
    /// A command.
    Command(Command),
    /// A connection that this node dialled.
    Dialled {
        /// It.
        wire: WireId,
        /// The number of the dial.
        dial: u64,
        /// Who should be there.
        peer: Option<NodeId>,
    },
    /// A connection that was accepted, or that another shard gave up.
    Arrival(sockets::Arrival),
}

/// When a thread runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Thread {
    /// Its next turn.
    pub turn_at_us: Option<u64>,
    /// It has none before.
    pub asleep_until_us: u64,
}

/// One shard and what is for it.
pub struct ShardThread {
    /// `None` once it is finished.
    pub shard: Option<Watched>,
    /// What it counts.
    pub metrics: Rc<Cell<Metrics>>,
    /// It was rung for, or has not finished looking into its inbox.
    pub looks: bool,
    /// From other threads.
    pub mail: VecDeque<Mail>,
}

/// A node that runs.
pub struct Node {
    /// Its host.
    pub host: usize,
    /// Counts the host's nodes.
    pub start: u32,
    /// Its id.
    pub id: NodeId,
    /// When it started, by its clock.
    pub start_us: u64,
    /// Its clocks, ahead of virtual time.
    pub mono_ahead_us: u64,
    /// The same of the wall clock.
    pub wall_ahead_us: u64,
    /// Its threads: one for each shard, and that of the mesh.
    pub threads: Vec<Thread>,
    /// Its shards.
    pub shards: Vec<ShardThread>,
    /// Discovery and what is for it.
    pub mesh: MeshThread,
    /// It stood still for a while.
    pub has_frozen: bool,
    /// The connections of its shards.
    pub sockets: Sockets,
    /// Its clients.
    pub clients: Vec<Client>,
    /// Connections are accepted.
    pub is_listening: bool,
    /// It stops in good order, since then.
    pub drains_since_us: Option<u64>,
    dice: Dice,
    /// What links reported, for the oracle.
    pub reports: Vec<LinkReport>,
}

/// What a node is started with.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Its host.
    pub host: usize,
    /// Counts the host's nodes.
    pub start: u32,
    /// Its clocks, ahead of virtual time.
    pub mono_ahead_us: u64,
    /// The same of the wall clock.
    pub wall_ahead_us: u64,
    /// The start before it.
    pub last_start_us: u64,
    /// The host's address.
    pub address: SocketAddr,
}

impl Node {
    /// A node that starts now.
    pub fn new(from: Start, scenario: &Scenario, network: &Network, dice: &mut Dice) -> Self {
        let Start { host, start, mono_ahead_us, wall_ahead_us, last_start_us, address } = from;
        let id = NodeId(u128::from(dice.bits()) << 64 | u128::from(dice.bits()));
        let count = 1 + dice.below(scenario.shards_max);
        let start_us = (network.now_us + wall_ahead_us).max(last_start_us + 1);
        let key = scenario.key.map(|key| ClusterKey::new(key.as_bytes()));
        let mesh = MeshConfig {
            start_us,
            address: None,
            mesh_port: address.port(),
            app_port: 5672,
            key: key.clone(),
            is_on: true,
        };
        let mut limits = scenario.limits.clone();
        limits.memory_bytes *= count;
        if let Some(bytes) = scenario.first_host_payload_max.filter(|_| host == 0) {
            limits.payload_bytes = bytes;
        }
        let config = ShardConfig {
            node: id,
            cluster: "simulated".into(),
            software: "nexusd-sim".into(),
            seed: dice.bits(),
            mesh,
            limits,
        };
        let shard = |wiring| {
            let metrics = Rc::new(Cell::new(Metrics::default()));
            let shard = Shard::wired(config.clone(), wiring);
            let shard = Some(Watched::new(shard, Rc::clone(&metrics), false));
            ShardThread { shard, metrics, looks: false, mail: VecDeque::new() }
        };
        let name = |&host: &usize| format!("host-{host}:{}", address.port());
        let discovery = Discovery::new(Config {
            node: id,
            start_us,
            cluster: "simulated".into(),
            key,
            mesh_port: address.port(),
            is_multicast: scenario.is_multicast,
            seeds: scenario.seeds.iter().map(name).collect(),
            seed: dice.bits(),
            ..Config::default()
        });
        Self {
            host,
            start,
            id,
            start_us,
            mono_ahead_us,
            wall_ahead_us,
            threads: vec![Thread::default(); count + 1],
            shards: wire(count).into_iter().map(shard).collect(),
            mesh: MeshThread::new(discovery),
            has_frozen: false,
            sockets: Sockets::default(),
            clients: Vec::new(),
            is_listening: true,
            drains_since_us: None,
            dice: Dice::new(dice.bits()),
            reports: Vec::new(),
        }
    }

    /// How it is named at the ends of connections.
    pub fn party(&self) -> Party {
        Party::Node { host: self.host, start: self.start }
    }

    /// What its clocks say.
    pub fn now(&self, network: &Network) -> Now {
        Now {
            mono_us: network.now_us + self.mono_ahead_us,
            wall_us: network.now_us + self.wall_ahead_us,
        }
    }

    /// The number of its mesh thread.
    pub fn mesh_thread(&self) -> usize {
        self.shards.len()
    }

    /// A thread has a turn soon.
    pub fn kick(&mut self, thread: usize, network: &mut Network) {
        let after_us = self.dice.between(1, 40);
        self.turn_by(thread, network.now_us + after_us, network);
    }

    /// A thread has a turn at this time, if not before.
    pub fn turn_by(&mut self, thread: usize, at_us: u64, network: &mut Network) {
        let (host, start) = (self.host, self.start);
        let it = &mut self.threads[thread];
        let at_us = at_us.max(it.asleep_until_us).max(network.now_us);
        if it.turn_at_us.is_none_or(|known_us| known_us > at_us) {
            it.turn_at_us = Some(at_us);
            let turn = Happening::Turn { host, start, thread };
            network.later(at_us - network.now_us, turn);
        }
    }

    /// A thread does nothing until then.
    pub fn put_to_sleep(&mut self, thread: usize, until_us: u64, network: &mut Network) {
        let it = &mut self.threads[thread];
        it.asleep_until_us = it.asleep_until_us.max(until_us);
        it.turn_at_us = None;
        self.turn_by(thread, until_us, network);
    }

    /// A turn of a thread has come, unless it was put off; whether the node is over.
    pub fn turn(&mut self, thread: usize, network: &mut Network) {
        if self.threads[thread].turn_at_us != Some(network.now_us) {
            return;
        }
        self.threads[thread].turn_at_us = None;
        if thread == self.mesh_thread() {
            self.turn_of_mesh(network);
        } else {
            self.turn_of_shard(thread, network);
        }
    }

    /// Whether all shards are finished.
    pub fn is_finished(&self) -> bool {
        self.shards.iter().all(|shard| shard.shard.is_none())
    }

    /// It begins to stop.
    pub fn drain(&mut self, timeout_us: u64, network: &mut Network) {
        self.drains_since_us = Some(network.now_us);
        self.mesh.is_draining = true;
        self.kick(self.mesh_thread(), network);
        let deadline_us = self.now(network).mono_us + timeout_us;
        for shard in 0..self.shards.len() {
            let command = Command::Drain { deadline_us };
            self.shards[shard].mail.push_back(Mail::Command(command));
            self.kick(shard, network);
        }
    }

    /// Checks what must hold in all of it.
    pub fn assert_invariants(&self) {
        self.mesh.discovery.assert_invariants();
        for shard in self.shards.iter().filter_map(|shard| shard.shard.as_ref()) {
            shard.assert_invariants();
        }
    }

    /// What all its shards count.
    pub fn metrics(&self) -> Metrics {
        let mut sum = Metrics::default();
        self.shards.iter().for_each(|shard| sum += shard.metrics.get());
        sum
    }

    fn place(&mut self) -> ShardIndex {
        use nexusd_core::Service;
        let first = self.shards[0].shard.as_mut();
        first.expect("nothing is accepted once a shard is finished").place()
    }
}
