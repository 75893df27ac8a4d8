//! What kind of run a seed makes: its bounds, topics, filters, clients and faults.
//!
//! Bounds are chosen small, so that what is rare in production happens all the time here: full
//! queues, recycled segments, refused topics, refused connections.

use nexusd_core::Limits;
use nexusd_wire::control::OverflowPolicy;

use crate::dice::Dice;

const TOPICS: [&str; 10] = [
    "a",
    "a/b",
    "a/b/c",
    "a//c",
    "/",
    "sensor/1",
    "sensor/1/temperature",
    "sensor/2/temperature",
    "$private/x",
    "größe/€",
];

const FILTERS: [&str; 16] = [
    "#",
    "+",
    "+/+",
    "a/#",
    "a/b/#",
    "a/+/c",
    "+/b",
    "/+",
    "sensor/#",
    "sensor/+/temperature",
    "+/+/temperature",
    "$private/#",
    "$SYS/#",
    "$SYS/node/load",
    "none/here",
    "größe/+",
];

/// The daemon's own topics.
const SYSTEM_TOPICS: [&str; 2] = ["$SYS/node/load", "$SYS/node/uptime"];

/// Subscriptions outlive their connections.
pub const PARKS: bool = true;
/// A connection goes to the shard that keeps what its Hello names.
pub const HANDS_OVER: bool = true;
/// Topics have retained values.
pub const RETAINS: bool = true;
/// Messages have a time to live.
pub const EXPIRES: bool = true;

/// How large payloads are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payloads {
    /// Up to a few hundred bytes.
    Small,
    /// Mostly small, up to some tens of KiB: segments are recycled.
    Mixed,
    /// Among them some that are received in place.
    Large,
}

/// How time passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// Microseconds between events.
    Busy,
    /// With pauses of milliseconds.
    Uneven,
    /// With pauses of seconds to minutes: every timeout has its chance.
    Sleepy,
}

/// The make-up of one run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Shards of the node.
    pub shards: usize,
    /// The node's bounds.
    pub limits: Limits,
    /// Every topic that is published to; the daemon's own come last.
    pub topics: Vec<String>,
    /// How many of them are the daemon's own.
    pub system_topics: usize,
    /// Filters to choose from.
    pub filters: Vec<String>,
    /// Clients that mostly publish.
    pub publishers: usize,
    /// Clients that mostly subscribe.
    pub subscribers: usize,
    /// Clients that do both.
    pub mixed: usize,
    /// Clients that break the protocol.
    pub violators: usize,
    /// Most messages in one burst.
    pub burst_max: usize,
    /// Publishers go to and fro between the first two topics.
    pub alternates: bool,
    /// How large payloads are.
    pub payloads: Payloads,
    /// How time passes.
    pub pace: Pace,
    /// Bytes a socket takes for a reader that does not read.
    pub socket_bytes: usize,
    /// Some subscriptions acknowledge what they have had.
    pub counts: bool,
    /// Some messages become retained values.
    pub retains: bool,
    /// Longest time to live of messages, in milliseconds; 0 if there is none.
    pub ttl_ms_max: u32,
    /// Of 1,000 client operations, how many are faults.
    pub fault_permille: u32,
    /// Shards take long to look at what others sent, so much is on its way between them.
    pub looks_rarely: bool,
    /// Draining starts in the middle of the traffic.
    pub drains_midway: bool,
    /// In the middle of the traffic there is a long silence, and one client is silent for good.
    pub pauses_in_silence: bool,
}

impl Scenario {
    /// Throws the dice for a run on a node of at most `shards_max` shards.
    pub fn new(dice: &mut Dice, shards_max: usize) -> Self {
        let shards = 1 + dice.below(shards_max);
        let payloads = match dice.below(10) {
            0..=4 => Payloads::Small,
            5..=7 => Payloads::Mixed,
            _ => Payloads::Large,
        };
        let pace = match dice.below(10) {
            0..=4 => Pace::Busy,
            5..=7 => Pace::Uneven,
            _ => Pace::Sleepy,
        };
        let wide = dice.one_in(8);
        let mut topics: Vec<String> = TOPICS.iter().map(|name| (*name).to_owned()).collect();
        let mut filters: Vec<String> = FILTERS.iter().map(|filter| (*filter).to_owned()).collect();
        filters.extend(topics.iter().cloned());
        if wide {
            topics.extend((0..90).map(|number| format!("wide/{number}")));
            filters.push("wide/+".to_owned());
            filters.push("wide/#".to_owned());
        }
        topics.extend(SYSTEM_TOPICS.iter().map(|name| (*name).to_owned()));
        let mut scenario = Self {
            shards,
            limits: limits(dice, payloads, shards),
            topics,
            system_topics: SYSTEM_TOPICS.len(),
            filters,
            publishers: 1 + dice.below(3),
            subscribers: if dice.one_in(40) { 90 } else { 1 + dice.below(4) },
            mixed: dice.below(3),
            violators: dice.below(3),
            burst_max: dice.pick(&[1, 4, 20]),
            alternates: false,
            payloads,
            pace,
            socket_bytes: match payloads {
                Payloads::Small => dice.pick(&[256, 4 << 10, 64 << 10]),
                Payloads::Mixed | Payloads::Large => dice.pick(&[8 << 10, 64 << 10, 256 << 10]),
            },
            counts: PARKS && !dice.one_in(3),
            retains: RETAINS && dice.one_in(3),
            ttl_ms_max: if EXPIRES && dice.one_in(4) {
                dice.pick(&[3, 40, 3_000, 60_000])
            } else {
                0
            },
            fault_permille: dice.pick(&[0, 15, 40, 120]),
            looks_rarely: dice.one_in(4),
            drains_midway: dice.one_in(10),
            pauses_in_silence: dice.one_in(6),
        };
        if dice.one_in(12) {
            // Every message of a topic is alone between two of another: queues of many extents.
            // Both topics have to be of one shard.
            scenario.alternates = true;
            scenario.shards = 1;
            scenario.payloads = Payloads::Small;
            scenario.burst_max = 20;
            scenario.filters.retain(|filter| *filter == scenario.topics[0]);
            scenario.limits.queue_messages = 0;
            scenario.limits.queue_bytes = 1 << 20;
        }
        if scenario.ttl_ms_max > 0 && dice.one_in(3) {
            scenario.limits.default_ttl_ms = 1 + dice.below(scenario.ttl_ms_max as usize) as u32;
        }
        if dice.one_in(16) {
            scenario.limits.connections = 2 + dice.below(3);
        }
        if dice.one_in(16) {
            scenario.limits.topics = 2 + dice.below(6);
        }
        scenario
    }

    /// Topics that clients publish to.
    pub fn client_topics(&self) -> usize {
        self.topics.len() - self.system_topics
    }

    /// Throws the dice for the length of a payload.
    pub fn payload_len(&self, dice: &mut Dice) -> usize {
        let limit = self.limits.payload_bytes as u64;
        let longest = match self.payloads {
            // So short that a send is full of slices before it is full of bytes.
            Payloads::Small if self.alternates => 8,
            Payloads::Small => 400,
            Payloads::Mixed if dice.one_in(8) => 48 << 10,
            Payloads::Mixed => 6 << 10,
            Payloads::Large if dice.one_in(12) => limit,
            Payloads::Large => 2 << 10,
        };
        if dice.one_in(20) { 0 } else { dice.magnitude(longest.min(limit)) as usize }
    }
}

fn limits(dice: &mut Dice, payloads: Payloads, shards: usize) -> Limits {
    Limits {
        memory_bytes: shards * dice.pick(&[1 << 20, 1 << 20, 3 << 19, 3 << 20, 16 << 20]),
        payload_bytes: match payloads {
            Payloads::Small => 1 << 10,
            Payloads::Mixed => 60 << 10,
            Payloads::Large => dice.pick(&[70 << 10, 200 << 10, 400 << 10]),
        },
        connections: 200,
        topics: 1_000,
        queue_messages: dice.pick(&[0, 1, 3, 10, 50, 400]),
        queue_bytes: dice.pick(&[1 << 10, 8 << 10, 64 << 10, 1 << 20]),
        policy: dice.pick(&[
            OverflowPolicy::DropOldest,
            OverflowPolicy::DropNewest,
            OverflowPolicy::Block,
            OverflowPolicy::Disconnect,
        ]),
        block_timeout_us: dice.pick(&[2_000, 100_000, 5_000_000]),
        parked_ttl_us: dice.pick(&[50_000, 3_000_000, 300_000_000]),
        reaper_interval_us: dice.pick(&[50_000, 1_000_000]),
        replay_bytes: dice.pick(&[50 << 20, 50 << 20, 2 << 20, 300 << 10, 0]),
        ..Limits::default()
    }
}
