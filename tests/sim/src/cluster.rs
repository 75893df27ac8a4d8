//! The shards of a node as one: what the world tells goes to the shard it is for, and what shards
//! send each other arrives later, in an order of its own.
//!
//! A shard looks into its inbox only when it was rung for, or had not finished looking; so a lost
//! doorbell is a message that never comes. A shard that is finished is gone at once, its ends of the
//! inboxes with it, while others may still tell it something.
//!
//! A connection that a shard gives up moves later as well, as by a driver, and gets more of its stream
//! meanwhile. The world sees nothing of it: the connection keeps its id.

use std::cell::Cell;
use std::rc::Rc;

use nexusd_core::{
    CloseReason, Command, ConnectionId, Destination, Door, Event, Handover, Metrics, Now, Output,
    Report, Service, Shard, ShardConfig, ShardIndex, owner_of, wire,
};

use crate::dice::Dice;
use crate::watched::Watched;

/// What can be seen of the node from outside.
#[derive(Debug, Default)]
pub struct Gauges {
    /// What all shards count.
    pub metrics: Cell<Metrics>,
    /// Bytes of the fullest shard's log.
    pub fullest_log: Cell<u64>,
    /// Nothing is on its way between shards.
    pub is_quiet: Cell<bool>,
    /// Something may be kept that was sent, and with it what other shards lent.
    pub keeps_sent: Cell<bool>,
    /// A shard is finished and gone.
    pub has_ended_shard: Cell<bool>,
}

struct Member {
    /// `None` once it is finished.
    shard: Option<Watched>,
    metrics: Rc<Cell<Metrics>>,
    /// It was rung for, or has more to take.
    looks: bool,
    /// Its answer to the last Sample.
    sample: Option<Metrics>,
}

/// A connection that its shard has given up.
struct Move {
    connection: ConnectionId,
    from: usize,
    to: ShardIndex,
}

/// All shards of one node.
pub struct Cluster {
    members: Vec<Member>,
    seed: u64,
    /// The shard of each connection, by the connection's index.
    homes: Vec<usize>,
    /// Where the connection that was just accepted is to live.
    placed: usize,
    moving: Vec<Move>,
    /// Whose outputs come next.
    turn: usize,
    dice: Dice,
    gauges: Rc<Gauges>,
}

impl Cluster {
    /// A node of `shards` shards; `dice_seed` decides in which order they look at what they are sent.
    pub fn new(
        config: &ShardConfig,
        shards: usize,
        dice_seed: u64,
        gauges: Rc<Gauges>,
        is_thorough: bool,
    ) -> Self {
        let member = |wiring| {
            let metrics = Rc::new(Cell::new(Metrics::default()));
            let shard = Shard::wired(config.clone(), wiring);
            let shard = Some(Watched::new(shard, Rc::clone(&metrics), is_thorough));
            Member { shard, metrics, looks: false, sample: None }
        };
        gauges.is_quiet.set(true);
        Self {
            members: wire(shards).into_iter().map(member).collect(),
            seed: config.seed,
            homes: Vec::new(),
            placed: 0,
            moving: Vec::new(),
            turn: 0,
            dice: Dice::new(dice_seed),
            gauges,
        }
    }

    fn home(&mut self, id: ConnectionId) -> &mut Watched {
        let shard = self.members[self.homes[id.index as usize]].shard.as_mut();
        shard.expect("a shard with connections is not finished")
    }

    fn shards(&mut self) -> impl Iterator<Item = &mut Watched> {
        self.members.iter_mut().filter_map(|member| member.shard.as_mut())
    }

    fn tell_all(&mut self, now: Now, command: &Command) {
        for shard in self.shards() {
            shard.on_event(now, Event::Command(command.clone()));
        }
    }

    /// One of the shards that have something to take takes it, or one of the connections that move
    /// arrives.
    fn look(&mut self, now: Now) {
        let waiting: Vec<usize> =
            (0..self.members.len()).filter(|&at| self.members[at].is_to_look()).collect();
        let choices = waiting.len() + self.moving.len();
        if choices == 0 {
            return;
        }
        let choice = self.dice.below(choices);
        let Some(&at) = waiting.get(choice) else {
            let connection = self.moving[choice - waiting.len()].connection;
            return self.finish_move(connection, now);
        };
        let member = &mut self.members[at];
        let Some(shard) = &mut member.shard else { return };
        shard.on_event(now, Event::Inbox);
        member.looks = shard.has_mail();
    }

    /// Shards that have nothing left to do are gone.
    fn end_finished(&mut self) {
        if !self.moving.is_empty() {
            return;
        }
        for member in &mut self.members {
            if member.shard.as_ref().is_some_and(Watched::is_finished) {
                member.shard = None;
                self.gauges.has_ended_shard.set(true);
            }
        }
    }

    /// What the drivers of two shards do when a connection moves from one to the other.
    fn finish_move(&mut self, connection: ConnectionId, now: Now) {
        let Some(at) = self.moving.iter().position(|moving| moving.connection == connection) else {
            return;
        };
        let Move { from, to, .. } = self.moving.swap_remove(at);
        let Some(old) = &mut self.members[from].shard else { return };
        // It may have ended before it was known here that it moves.
        let Some(Handover { peer, bytes, .. }) = old.hand_over(connection) else { return };
        old.on_event(now, Event::Closed { connection, reason: CloseReason::Moved });
        self.homes[connection.index as usize] = to.index();
        let opened = Event::Opened { connection, peer, door: Door::Apps, is_moved: true };
        self.home(connection).on_event(now, opened);
        let piece = if self.dice.one_in(2) { bytes.len() } else { 1 + self.dice.below(500) };
        for bytes in bytes.chunks(piece) {
            self.home(connection).on_event(now, Event::Received { connection, bytes });
        }
    }

    fn observe(&self) {
        let (mut sum, mut fullest) = (Metrics::default(), 0);
        for member in &self.members {
            let metrics = member.metrics.get();
            sum += metrics;
            fullest = fullest.max(metrics.log_bytes);
        }
        self.gauges.metrics.set(sum);
        self.gauges.fullest_log.set(fullest);
    }

    /// The sum of all answers, once there are all.
    fn sampled(&mut self, at: usize, metrics: &Metrics) -> Option<Output> {
        self.members[at].sample = Some(*metrics);
        let mut sum = Metrics::default();
        for member in &self.members {
            sum += member.sample?;
        }
        self.members.iter_mut().for_each(|member| member.sample = None);
        Some(Output::Report(Report::Metrics(Box::new(sum))))
    }
}

impl Member {
    fn is_to_look(&self) -> bool {
        self.looks && self.has_mail()
    }

    fn has_mail(&self) -> bool {
        self.shard.as_ref().is_some_and(Watched::has_mail)
    }

    fn is_busy(&self) -> bool {
        self.has_mail() || self.shard.as_ref().is_some_and(Watched::has_stalled)
    }
}

impl Service for Cluster {
    fn on_event(&mut self, now: Now, event: Event<'_>) {
        match event {
            Event::Opened { connection, .. } => {
                let slot = connection.index as usize;
                if self.homes.len() <= slot {
                    self.homes.resize(slot + 1, 0);
                }
                self.homes[slot] = self.placed;
                self.home(connection).on_event(now, event);
            }
            Event::Received { connection, .. }
            | Event::Landed { connection, .. }
            | Event::Sent { connection, .. }
            | Event::Writable { connection } => self.home(connection).on_event(now, event),
            Event::Closed { connection, .. } => {
                // The end of a stream stands behind all of it.
                self.finish_move(connection, now);
                self.home(connection).on_event(now, event);
            }
            Event::Command(Command::Publish { ref topic, .. }) => {
                let owner = owner_of(topic, self.members.len(), self.seed).index();
                if let Some(shard) = &mut self.members[owner].shard {
                    shard.on_event(now, event);
                }
            }
            Event::Command(command) => self.tell_all(now, &command),
            Event::Inbox => self.look(now),
            Event::Tick => {
                for shard in self.shards() {
                    if shard.wake_at().is_some_and(|at| at <= now.mono_us) {
                        shard.on_event(now, Event::Tick);
                    }
                }
            }
        }
        self.observe();
    }

    fn poll_output(&mut self) -> Option<Output> {
        for _ in 0..self.members.len() {
            let at = self.turn;
            while let Some(output) = self.members[at].shard.as_mut().and_then(Watched::poll_output)
            {
                match output {
                    Output::Ring(shard) => self.members[shard.index()].looks = true,
                    Output::Report(Report::Metrics(metrics)) => {
                        if let Some(sum) = self.sampled(at, &metrics) {
                            return Some(sum);
                        }
                    }
                    // Only the first shard has listeners.
                    Output::StopAccepting if at > 0 => {}
                    Output::Move { connection, to } => {
                        let Destination::Shard(to) = to else {
                            unreachable!("nobody speaks HTTP/2 here")
                        };
                        assert!(to.index() != at && to.index() < self.members.len());
                        self.moving.push(Move { connection, from: at, to });
                    }
                    // It was let go before this shard was asked to end it.
                    Output::Close(connection) if self.homes[connection.index as usize] != at => {}
                    Output::Close(connection) => {
                        self.moving.retain(|moving| moving.connection != connection);
                        return Some(output);
                    }
                    output => return Some(output),
                }
            }
            self.turn = (at + 1) % self.members.len();
        }
        self.observe();
        self.end_finished();
        let is_quiet = self.moving.is_empty() && !self.members.iter().any(Member::is_busy);
        self.gauges.is_quiet.set(is_quiet);
        let is_whole = !self.gauges.has_ended_shard.get();
        let is_all_returned = !self.gauges.keeps_sent.get();
        if is_quiet && is_whole && is_all_returned && self.gauges.metrics.get().queued_messages == 0
        {
            self.shards().for_each(|shard| shard.assert_nothing_under_way());
        }
        None
    }

    fn gather(&mut self, connection: ConnectionId, take: &mut dyn FnMut(&[u8])) {
        self.home(connection).gather(connection, take);
    }

    fn landing_zone(&mut self, connection: ConnectionId) -> Option<&mut [u8]> {
        self.home(connection).landing_zone(connection)
    }

    fn has_mail(&self) -> bool {
        !self.moving.is_empty() || self.members.iter().any(Member::is_to_look)
    }

    fn place(&mut self) -> ShardIndex {
        let first = self.members[0].shard.as_mut();
        let shard = first.expect("nothing is accepted once a shard is finished").place();
        self.placed = shard.index();
        shard
    }

    fn wake_at(&self) -> Option<u64> {
        let shards = self.members.iter().filter_map(|member| member.shard.as_ref());
        shards.filter_map(Watched::wake_at).min()
    }

    fn is_finished(&self) -> bool {
        self.members.iter().all(|member| member.shard.is_none())
    }
}
