//! What runs of many nodes have exercised, counted.

use std::fmt::Write;
use std::ops::AddAssign;

use nexusd_wire::control::GapReason;

use crate::coverage::add_each;

macro_rules! marks {
    ($($variant:ident = $group:literal $name:literal,)*) => {
        /// One thing that can happen in a run.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Mark {
            $(#[doc = $name] $variant,)*
        }

        const MARKS: &[(&str, &str)] = &[$(($group, $name),)*];
    };
}

marks! {
    OwnMessage = "message" "delivered from the same node",
    LinkMessage = "message" "delivered from another node",
    OwnMortal = "message" "that lives for a while, from the same node",
    LinkMortal = "message" "that lives for a while, from another node",
    Acked = "message" "acknowledged",
    RefusedPublish = "message" "refused",
    LinkGap = "gap" "of a link, with numbers",
    UnknownGap = "gap" "of unknown size",
    BlockedFull = "gap" "of a queue that blocks",
    HeldBack = "full" "a publisher was held back",
    Disconnected = "full" "a client was disconnected as too slow",
    DisconnectedAway = "full" "and had not been there",
    Mortal = "run" "with messages that live for a while",
    Lossless = "run" "in which nothing may be lost",
    Multicast = "run" "with multicast",
    Seeds = "run" "with names of others",
    Key = "run" "with a cluster key",
    Up = "link" "up, dialled here",
    UpForPeer = "link" "up, dialled by the peer",
    Broken = "link" "broken",
    Idle = "link" "closed as idle",
    Ending = "link" "ended by its peer",
    Silent = "link" "silent for too long",
    Forgotten = "link" "forgotten",
    Dead = "link" "broken for too long",
    Suspected = "link" "suspected",
    Trusted = "link" "trusted again",
    Superseded = "link" "superseded by another one",
    Unexpected = "link" "to another node than expected",
    ClosedEarly = "link" "closed before it was one",
    OwnNode = "link" "to the node itself",
    TooLarge = "link" "brought more than its node takes",
    Stored = "sync" "stored what a peer wants",
    Misfit = "sync" "what a peer told did not fit",
    StateWanted = "sync" "a peer asked for the whole",
    Members = "sync" "a peer told of others",
    LeftGoodbye = "left" "said goodbye",
    LeftLost = "left" "lost",
    LeftSilent = "left" "silent",
    LeftRefused = "left" "refused",
    LeftRestarted = "left" "restarted",
    LeftUnheard = "left" "unheard",
    Reset = "fault" "a connection was reset",
    Split = "fault" "a netsplit between two parts",
    SplitOneWay = "fault" "a netsplit one way",
    Freeze = "fault" "a node froze",
    Starve = "fault" "a thread had no CPU",
    Crash = "fault" "a node crashed",
    PowerCut = "fault" "a host lost its power",
    Drain = "fault" "a node stopped in good order",
    Drained = "fault" "and was done in time",
    WallStep = "fault" "a wall clock was set",
    Stall = "fault" "a subscriber stalled",
    ClientBroken = "fault" "a subscriber lost its connection",
    ClientBack = "fault" "and came back",
    Resumed = "fault" "and went on with a subscription",
    Restart = "fault" "a node started again",
    LostDatagram = "fault" "a datagram was lost",
    Subscribe = "operation" "subscribe",
    TakeUp = "operation" "take up elsewhere where a subscription was",
    TakeUpOfEnded = "operation" "and its node had said that nothing follows",
    Unsubscribe = "operation" "unsubscribe",
    Publish = "operation" "publish",
    ValueSet = "operation" "set a retained value",
    ValueCleared = "operation" "clear a retained value",
    Rest = "operation" "nobody wants anything for a minute",
    Probe = "check" "a message to see who gets it",
    ValueHad = "check" "a value that a late subscription got",
    ValueHadNone = "check" "a value that was cleared everywhere",
    ProbeHad = "check" "one that has to come did",
}

/// Counts, over any number of runs.
#[derive(Clone, Debug)]
pub struct Coverage {
    marks: Vec<u64>,
    gaps: [u64; 4],
    seeds: u64,
    deliveries: u64,
    virtual_us: u64,
    nodes: u64,
    /// Of runs: how long after the last fault everything was known everywhere.
    slowest_us: u64,
    sum_us: u64,
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            marks: vec![0; MARKS.len()],
            gaps: [0; 4],
            seeds: 0,
            deliveries: 0,
            virtual_us: 0,
            nodes: 0,
            slowest_us: 0,
            sum_us: 0,
        }
    }
}

impl AddAssign for Coverage {
    fn add_assign(&mut self, other: Self) {
        // Taken apart completely, so that no count can be forgotten.
        let Self { marks, gaps, seeds, deliveries, virtual_us, nodes, slowest_us, sum_us } = other;
        add_each(&mut self.marks, &marks);
        add_each(&mut self.gaps, &gaps);
        self.seeds += seeds;
        self.deliveries += deliveries;
        self.virtual_us += virtual_us;
        self.nodes += nodes;
        self.slowest_us = self.slowest_us.max(slowest_us);
        self.sum_us += sum_us;
    }
}

impl Coverage {
    /// Counts something that happened.
    pub fn mark(&mut self, mark: Mark) {
        self.marks[mark as usize] += 1;
    }

    /// Counts a gap.
    pub fn gap(&mut self, reason: GapReason) {
        self.gaps[usize::from(reason.0) & 3] += 1;
    }

    /// Counts a finished run.
    pub fn run(&mut self, nodes: usize, virtual_us: u64, deliveries: u64) {
        self.seeds += 1;
        self.nodes += nodes as u64;
        self.virtual_us += virtual_us;
        self.deliveries += deliveries;
    }

    /// Counts the time until everything was known everywhere.
    pub fn converged(&mut self, us: u64) {
        self.slowest_us = self.slowest_us.max(us);
        self.sum_us += us;
    }

    /// The table, for people.
    pub fn table(&self) -> String {
        let seeds = self.seeds.max(1);
        let mut text = format!(
            "{} seeds, {} nodes, {} s of virtual time, {} messages delivered; after the last fault \
             all was known everywhere within {} ms on average, {} ms at most\n",
            self.seeds,
            self.nodes,
            self.virtual_us / 1_000_000,
            self.deliveries,
            self.sum_us / seeds / 1_000,
            self.slowest_us / 1_000,
        );
        let reasons = [
            GapReason::SlowConsumer,
            GapReason::ReplayWindow,
            GapReason::LinkLost,
            GapReason::Memory,
        ];
        let gaps = reasons.iter().map(|reason| {
            let name = reason.variant_name().unwrap_or("?");
            ("gap", name, self.gaps[usize::from(reason.0) & 3])
        });
        let marks =
            MARKS.iter().zip(&self.marks).map(|((group, name), count)| (*group, *name, *count));
        for (group, name, count) in gaps.chain(marks) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {group:<10} {name:<40} {count:>14}");
        }
        text
    }
}
