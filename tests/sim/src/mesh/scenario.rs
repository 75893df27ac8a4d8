//! What a seed decides before anything happens: how many nodes, how they are bounded, what the network is
//! like, and what may go wrong.

use nexusd_core::Limits;
use nexusd_wire::control::OverflowPolicy;

use crate::dice::Dice;

/// How packets travel.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// At least.
    pub latency_us: u64,
    /// Up to so much more.
    pub jitter_us: u64,
    /// Of 1,000 datagrams, which are lost.
    pub datagram_loss: u32,
    /// Of 1,000 datagrams, which come twice.
    pub datagram_doubles: u32,
    /// Of 1,000 datagrams, which come much later than others.
    pub datagram_delays: u32,
    /// Of 1,000 segments, which are late.
    pub segment_loss: u32,
    /// Bytes that a connection between nodes holds.
    pub wire_bytes: usize,
}

/// One kind of trouble.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// A connection between nodes is reset.
    Reset,
    /// Nothing gets through for a while, between two nodes or two parts; one way or both.
    Split,
    /// A node does nothing for a while.
    Freeze,
    /// A thread of a node does nothing for a short while.
    Starve,
    /// A node's process is killed.
    Crash,
    /// A node's host loses its power.
    PowerCut,
    /// A node stops in good order.
    Drain,
    /// The wall clock of a host is set.
    WallStep,
    /// A subscriber reads nothing for a while.
    Stall,
    /// The connection of a subscriber breaks, and it comes back.
    ComeBack,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Hosts, with a node each.
    pub nodes: usize,
    /// Most shards of a node.
    pub shards_max: usize,
    /// Bounds of all nodes.
    pub limits: Limits,
    /// What the network is like.
    pub weather: Weather,
    /// Nodes find each other by multicast, or else by the names of some.
    pub is_multicast: bool,
    /// Hosts whose names all nodes are given.
    pub seeds: Vec<usize>,
    /// They sign with this.
    pub key: Option<&'static str>,
    /// Topics that clients publish to.
    pub topics: Vec<&'static str>,
    /// Topics whose messages all become their retained values; none: there are no such.
    pub values: Vec<&'static str>,
    /// Filters that clients subscribe to.
    pub filters: Vec<&'static str>,
    /// Clients that publish, of each node, at most.
    pub publishers: usize,
    /// Clients that subscribe, of each node, at most.
    pub subscribers: usize,
    /// Messages published at once, at most.
    pub burst_max: u64,
    /// Longest payload.
    pub payload_max: u64,
    /// The first host takes no longer payloads than this, unlike the others.
    pub first_host_payload_max: Option<u32>,
    /// Most time between two operations.
    pub pace_us: u64,
    /// What may go wrong.
    pub troubles: Vec<Trouble>,
    /// Most time between two of those.
    pub trouble_pace_us: u64,
    /// The longest that anything is cut off.
    pub outage_us: u64,
    /// Most messages in a subscription's queue; 0: bytes are the bound.
    pub queue_messages: u32,
    /// What queues do that are full.
    pub policies: Vec<OverflowPolicy>,
    /// Each topic is published to at one node only.
    pub is_at_home: bool,
    /// Longest time to live of messages, in milliseconds; 0: they live for ever.
    pub ttl_ms_max: u32,
    /// Bytes that a connection between a client and its node holds.
    pub client_wire_bytes: usize,
}

const TOPICS: [&str; 6] = ["a", "b/c", "b/d", "e/f/g", "news/today", "h"];
const VALUES: [&str; 3] = ["state/door", "state/light", "state/of/all"];
const FILTERS: [&str; 10] =
    ["#", "a", "b/+", "b/#", "b/c", "e/+/g", "+/today", "news/#", "h", "none/of/these"];

impl Scenario {
    /// What a seed comes to.
    pub fn new(dice: &mut Dice, nodes: usize, shards: usize) -> Self {
        let outage_us = dice.pick(&[400_000, 2_500_000, 2_500_000, 12_000_000]);
        let troubles = match dice.below(8) {
            0 => vec![],
            1 => vec![Trouble::Reset],
            2 => vec![Trouble::Reset, Trouble::Starve, Trouble::WallStep],
            3 => vec![Trouble::Split],
            4 => vec![Trouble::Freeze, Trouble::Starve, Trouble::Reset],
            5 => vec![Trouble::Crash, Trouble::PowerCut, Trouble::Reset],
            6 => vec![Trouble::Drain, Trouble::Reset],
            _ => vec![
                Trouble::Reset,
                Trouble::Split,
                Trouble::Freeze,
                Trouble::Starve,
                Trouble::Crash,
                Trouble::PowerCut,
                Trouble::Drain,
                Trouble::WallStep,
            ],
        };
        let mut scenario = Self {
            nodes,
            shards_max: shards.clamp(1, 3),
            limits: Limits {
                memory_bytes: dice.pick(&[1 << 20, 6 << 20, 24 << 20]),
                connections: 500,
                topics: 1_000,
                ..Limits::default()
            },
            weather: Weather {
                latency_us: dice.pick(&[20, 200, 2_000, 40_000]),
                jitter_us: dice.pick(&[20, 500, 5_000]),
                datagram_loss: dice.pick(&[0, 0, 20, 200]),
                datagram_doubles: dice.pick(&[0, 50]),
                datagram_delays: dice.pick(&[0, 50]),
                segment_loss: dice.pick(&[0, 0, 5, 30]),
                wire_bytes: dice.pick(&[2 << 10, 16 << 10, 256 << 10]),
            },
            is_multicast: !dice.one_in(4),
            seeds: Vec::new(),
            key: dice.one_in(4).then_some("a secret of the cluster"),
            topics: TOPICS[..1 + dice.below(TOPICS.len())].to_vec(),
            values: Vec::new(),
            filters: FILTERS.to_vec(),
            publishers: 1 + dice.below(2),
            subscribers: 1 + dice.below(3),
            burst_max: dice.pick(&[1, 6, 40]),
            payload_max: dice.pick(&[16, 400, 3_000]),
            first_host_payload_max: None,
            pace_us: dice.pick(&[2_000, 40_000, 200_000]),
            troubles,
            trouble_pace_us: dice.pick(&[1_000_000, 4_000_000]),
            outage_us,
            queue_messages: 0,
            policies: vec![OverflowPolicy::DropOldest, OverflowPolicy::DropNewest],
            is_at_home: dice.one_in(3),
            ttl_ms_max: if dice.one_in(3) { dice.pick(&[60, 2_000, 20_000]) } else { 0 },
            client_wire_bytes: dice.pick(&[4 << 10, 256 << 10]),
        };
        if dice.one_in(2) {
            scenario.policies.push(OverflowPolicy::Block);
            scenario.limits.block_timeout_us = dice.pick(&[300_000, 2_000_000, 5_000_000]);
        }
        if dice.one_in(3) {
            scenario.policies.push(OverflowPolicy::Disconnect);
        }
        if dice.one_in(3) {
            scenario.troubles.push(Trouble::Stall);
            scenario.queue_messages = dice.pick(&[0, 8, 60]);
        }
        if dice.one_in(5) {
            scenario.limits.link_queue_bytes = dice.pick(&[4 << 10, 32 << 10, 256 << 10]);
        }
        if dice.one_in(4) {
            scenario.troubles.push(Trouble::ComeBack);
        }
        if dice.one_in(3) {
            scenario.values = VALUES[..1 + dice.below(VALUES.len())].to_vec();
            scenario.filters.extend(["state/#", "state/+"]);
            // A clock that is a minute ahead counts for nothing.
            scenario.troubles.retain(|trouble| *trouble != Trouble::WallStep);
        }
        if !scenario.is_multicast || dice.one_in(4) {
            scenario.seeds = vec![dice.below(nodes)];
            if dice.one_in(2) {
                scenario.seeds.push(dice.below(nodes));
            }
        }
        scenario
    }

    /// The longest that the beginning and the end of a message are apart when it comes over a link that
    /// nothing cuts off: each part of it waits until there is room for it.
    pub fn link_us(&self) -> u64 {
        let Weather { latency_us, jitter_us, segment_loss, wire_bytes, .. } = self.weather;
        let late_us = if segment_loss > 0 { 400_000 } else { 0 };
        let parts = 2 + (self.payload_max + 300) / wire_bytes as u64;
        50_000 + parts * (2 * (latency_us + jitter_us) + late_us)
    }

    /// The first host takes shorter payloads than others, if `dice` say so. What a subscription that moves
    /// between hosts is to get then is another question.
    pub fn differ(&mut self, dice: &mut Dice) {
        if dice.one_in(6) && !self.has(Trouble::ComeBack) {
            self.first_host_payload_max = Some(1 + self.payload_max as u32 / 3);
        }
    }

    /// The longest payload that every host takes.
    pub fn payload_max_of_all(&self) -> u64 {
        self.first_host_payload_max.map_or(self.payload_max, u64::from)
    }

    /// Whether this may go wrong.
    pub fn has(&self, trouble: Trouble) -> bool {
        self.troubles.contains(&trouble)
    }

    /// Whether logs hold all that is published.
    pub fn is_roomy(&self, operations: u64) -> bool {
        let messages = operations * self.burst_max.div_ceil(2);
        messages * (self.payload_max + 200) < self.limits.memory_bytes as u64 / 4
    }

    /// Whether everything has to arrive: nothing is cut off for so long that anybody is given up, and
    /// nothing ends.
    pub fn is_lossless(&self) -> bool {
        let lossy = [Trouble::Crash, Trouble::PowerCut, Trouble::Stall, Trouble::ComeBack];
        let is_long =
            self.outage_us >= 5_000_000 && (self.has(Trouble::Split) || self.has(Trouble::Freeze));
        let is_narrow = self.limits.link_queue_bytes < Limits::default().link_queue_bytes
            || self.first_host_payload_max.is_some();
        // A node that stops while its link is broken cannot say goodbye over it.
        let is_unheard = self.has(Trouble::Drain) && self.has(Trouble::Reset);
        !lossy.iter().any(|trouble| self.has(*trouble)) && !is_long && !is_narrow && !is_unheard
    }
}
