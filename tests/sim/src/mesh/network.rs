//! What is between nodes, and virtual time: connections whose segments are late, stuck or lost with them,
//! datagrams, and what happens when.
//!
//! A netsplit loses datagrams and holds segments up: once it is healed they are sent again, after a while.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use nexusd_core::limits::LINGER_US;
use nexusd_discovery::SeedId;
use nexusd_wire::NodeId;

use super::scenario::Weather;
use super::wire::{Party, Segment, Wire, WireId};
use crate::dice::Dice;

/// The longest time until what was held up is sent again, once nothing holds it up.
pub const RESENT_US: u64 = 800_000;

/// Something that happens at its time.
#[derive(Debug)]
pub enum Happening {
    /// A node starts on a host.
    Start {
        /// The host.
        host: usize,
    },
    /// A thread of a node looks what there is to do.
    Turn {
        /// Its host.
        host: usize,
        /// Counts the host's nodes.
        start: u32,
        /// The shard, or one more for the mesh thread.
        thread: usize,
    },
    /// Segments of a stream arrive.
    Arrive {
        /// The connection.
        wire: WireId,
        /// The end that they come from.
        from: usize,
    },
    /// A reader's acknowledgement arrives: the writer has room.
    Acked {
        /// The connection.
        wire: WireId,
        /// The end that wrote.
        writer: usize,
        /// How much was read.
        bytes: usize,
    },
    /// A datagram arrives.
    Datagram {
        /// The sender's host.
        from: usize,
        /// The receiver's.
        to: usize,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// The first packet of a dial arrives, or is sent again.
    Syn {
        /// Who dials.
        host: usize,
        /// Counts the host's nodes.
        start: u32,
        /// The number of the dial.
        dial: u64,
        /// Where to.
        address: SocketAddr,
        /// Who should be there.
        peer: Option<NodeId>,
        /// When it is given up.
        until_us: u64,
    },
    /// A dial has come to something, or not.
    Dialled {
        /// Who dialled.
        host: usize,
        /// Counts the host's nodes.
        start: u32,
        /// The number of the dial.
        dial: u64,
        /// Who should be there.
        peer: Option<NodeId>,
        /// The connection; or whether it was refused.
        result: Result<WireId, bool>,
    },
    /// A name is looked up.
    Resolved {
        /// Who asked.
        host: usize,
        /// Counts the host's nodes.
        start: u32,
        /// Whose name it is.
        seed: SeedId,
        /// The name.
        name: String,
    },
    /// A client goes on to read.
    ClientReads {
        /// Its host.
        host: usize,
        /// Counts the host's nodes.
        start: u32,
        /// Which.
        client: usize,
    },
    /// A client whose connection broke comes back.
    ComeBack {
        /// Its host.
        host: usize,
        /// Counts the host's nodes.
        start: u32,
        /// Which.
        client: usize,
    },
    /// Somebody does something.
    Operation,
    /// Something goes wrong.
    Fault,
    /// A netsplit is healed.
    Heal {
        /// From these hosts to those.
        pairs: Vec<(usize, usize)>,
    },
    /// A graceful stop begins.
    Drain {
        /// Of this host's node.
        host: usize,
        /// Counts the host's nodes.
        start: u32,
    },
}

/// The network.
#[derive(Debug)]
pub struct Network {
    /// Virtual time.
    pub now_us: u64,
    /// Decides about everything in it.
    pub dice: Dice,
    /// How it is.
    pub weather: Weather,
    /// From one host to another nothing gets through.
    pub blocked: BTreeSet<(usize, usize)>,
    /// All connections.
    pub wires: BTreeMap<WireId, Wire>,
    happenings: BTreeMap<(u64, u64), Happening>,
    last: u64,
}

impl Network {
    /// One without anybody.
    pub fn new(weather: Weather, seed: u64) -> Self {
        Self {
            now_us: 0,
            dice: Dice::new(seed),
            weather,
            blocked: BTreeSet::new(),
            wires: BTreeMap::new(),
            happenings: BTreeMap::new(),
            last: 0,
        }
    }

    /// Has something happen.
    pub fn later(&mut self, after_us: u64, happening: Happening) {
        self.last += 1;
        self.happenings.insert((self.now_us + after_us, self.last), happening);
    }

    /// What happens next, if it does so until `until_us`; time goes on to it.
    pub fn next(&mut self, until_us: u64) -> Option<Happening> {
        let entry = self.happenings.first_entry()?;
        let (at_us, _) = *entry.key();
        if at_us > until_us {
            return None;
        }
        self.now_us = self.now_us.max(at_us);
        Some(entry.remove())
    }

    /// Time of one packet between two hosts.
    pub fn latency_us(&mut self, from: usize, to: usize) -> u64 {
        if from == to {
            return self.dice.between(5, 60);
        }
        self.weather.latency_us + self.dice.between(0, self.weather.jitter_us)
    }

    /// Whether a packet from one host to another is held up, or lost.
    pub fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked.contains(&(from, to))
    }

    /// Joins two parties; how the bytes of each stream fit is decided here.
    pub fn join(&mut self, ends: [Party; 2], capacity: usize) -> WireId {
        self.last += 1;
        let wire = WireId(self.last);
        self.wires.insert(wire, Wire::new(ends, capacity));
        wire
    }

    /// An end writes: how much of it is taken.
    pub fn write(&mut self, id: WireId, end: usize, bytes: &[u8]) -> usize {
        let Some(wire) = self.wires.get_mut(&id) else { return bytes.len() };
        let taken = bytes.len().min(wire.room(end));
        if taken == 0 {
            return 0;
        }
        let stream = &mut wire.streams[end];
        stream.held += taken;
        if matches!(wire.ends[1 - end], Party::Client { .. }) {
            stream.times.note(taken, self.now_us);
        }
        self.send(id, end, Segment::Bytes(bytes[..taken].to_vec()));
        taken
    }

    /// An end closes: what it wrote still arrives, and it takes what comes for [`LINGER_US`]; then it answers
    /// with a reset.
    pub fn close(&mut self, id: WireId, end: usize) {
        let now_us = self.now_us;
        let Some(wire) = self.wires.get_mut(&id) else { return };
        if wire.closed_at_us[end].replace(now_us).is_none() {
            self.send(id, end, Segment::End);
        }
        self.forget_if_closed(id);
    }

    /// An end is gone, and its host says so if it can.
    pub fn abort(&mut self, id: WireId, end: usize, is_silent: bool) {
        let now_us = self.now_us;
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.closed_at_us[end] = Some(now_us.saturating_sub(LINGER_US));
        if is_silent {
            wire.streams[end].under_way.clear();
        } else {
            self.send(id, end, Segment::Reset);
        }
        self.forget_if_closed(id);
    }

    /// Something between the two ends the connection: what is under way is lost.
    pub fn reset(&mut self, id: WireId) {
        for end in 0..2 {
            let Some(wire) = self.wires.get_mut(&id) else { return };
            wire.streams[end].under_way.clear();
            self.send(id, end, Segment::Reset);
        }
    }

    /// An end reads up to `most` bytes of what has arrived.
    pub fn read(&mut self, id: WireId, end: usize, most: usize) -> Vec<u8> {
        let Some(wire) = self.wires.get_mut(&id) else { return Vec::new() };
        let stream = &mut wire.streams[1 - end];
        let bytes: Vec<u8> = stream.arrived.drain(..most.min(stream.arrived.len())).collect();
        self.acknowledge(id, 1 - end, bytes.len());
        bytes
    }

    fn acknowledge(&mut self, id: WireId, writer: usize, bytes: usize) {
        let Some(wire) = self.wires.get(&id) else { return };
        let (reader, to) = (wire.ends[1 - writer].host(), wire.ends[writer].host());
        if bytes > 0 {
            let after_us = self.latency_us(reader, to);
            self.later(after_us, Happening::Acked { wire: id, writer, bytes });
        }
    }

    /// An acknowledgement arrives; who has room now.
    pub fn acked(&mut self, id: WireId, writer: usize, bytes: usize) -> Option<Party> {
        let wire = self.wires.get_mut(&id)?;
        let (reader, to) = (wire.ends[1 - writer].host(), wire.ends[writer].host());
        if self.blocked.contains(&(reader, to)) {
            wire.streams[writer].stuck += bytes;
            return None;
        }
        let held = &mut wire.streams[writer].held;
        *held = held.saturating_sub(bytes);
        Some(wire.ends[writer])
    }

    /// Segments arrive, unless they are held up; who has something to read.
    pub fn arrive(&mut self, id: WireId, from: usize) -> Option<Party> {
        let now_us = self.now_us;
        let wire = self.wires.get_mut(&id)?;
        let (sender, receiver) = (wire.ends[from].host(), wire.ends[1 - from].host());
        if self.blocked.contains(&(sender, receiver)) {
            return None;
        }
        let mut is_unwanted = false;
        let mut dropped = 0;
        let stream = &mut wire.streams[from];
        while let Some((at_us, _)) = stream.under_way.front()
            && *at_us <= now_us
            && let Some((_, segment)) = stream.under_way.pop_front()
        {
            let closed_at_us = wire.closed_at_us[1 - from];
            match segment {
                Segment::Bytes(bytes) if closed_at_us.is_some() => {
                    dropped += bytes.len();
                    is_unwanted |= closed_at_us.is_some_and(|at_us| at_us + LINGER_US <= now_us);
                }
                Segment::Bytes(bytes) if !stream.is_reset && !stream.has_ended => {
                    stream.arrived.extend(bytes);
                }
                Segment::Bytes(_) => {}
                Segment::End => stream.has_ended = true,
                Segment::Reset => {
                    stream.is_reset = true;
                    if self.dice.one_in(2) {
                        stream.arrived.clear();
                    }
                }
            }
        }
        let party = wire.ends[1 - from];
        let is_gone = wire.closed_at_us[1 - from].is_some();
        if is_unwanted {
            self.send(id, 1 - from, Segment::Reset);
        }
        self.acknowledge(id, from, dropped);
        self.forget_if_closed(id);
        (!is_gone).then_some(party)
    }

    /// Nothing is held up between these hosts any more.
    pub fn heal(&mut self, pairs: &[(usize, usize)]) {
        for pair in pairs {
            self.blocked.remove(pair);
        }
        let ids: Vec<WireId> = self.wires.keys().copied().collect();
        for wire in ids {
            for from in 0..2 {
                let held = &mut self.wires.get_mut(&wire).expect("it is there");
                let pair = (held.ends[from].host(), held.ends[1 - from].host());
                if !pairs.contains(&pair) {
                    continue;
                }
                let stuck = std::mem::take(&mut held.streams[1 - from].stuck);
                let after_us = self.dice.between(0, RESENT_US);
                self.later(after_us, Happening::Arrive { wire, from });
                if stuck > 0 {
                    self.later(after_us, Happening::Acked { wire, writer: 1 - from, bytes: stuck });
                }
            }
        }
    }

    /// The connections that a party has.
    pub fn wires_of(&self, party: Party) -> Vec<(WireId, usize)> {
        let ends = |(id, wire): (&WireId, &Wire)| {
            let at = (0..2).filter(|&end| wire.ends[end] == party);
            at.map(|end| (*id, end)).collect::<Vec<_>>()
        };
        self.wires.iter().flat_map(ends).collect()
    }

    fn send(&mut self, id: WireId, end: usize, segment: Segment) {
        let Some(wire) = self.wires.get(&id) else { return };
        let (from, to) = (wire.ends[end].host(), wire.ends[1 - end].host());
        let late_us = match from != to && self.dice.permille(self.weather.segment_loss) {
            true => self.dice.between(200_000, 400_000),
            false => 0,
        };
        let at_us = self.now_us + self.latency_us(from, to) + late_us;
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let under_way = &mut wire.streams[end].under_way;
        let at_us = under_way.back().map_or(at_us, |(last_us, _)| at_us.max(*last_us));
        under_way.push_back((at_us, segment));
        self.later(at_us - self.now_us, Happening::Arrive { wire: id, from: end });
    }

    /// A connection of which nothing is left but what arrives in vain.
    fn forget_if_closed(&mut self, id: WireId) {
        if let Some(wire) = self.wires.get(&id)
            && wire.closed_at_us.iter().all(Option::is_some)
        {
            self.wires.remove(&id);
        }
    }
}
