//! One run: a shard, its clients, the network between them, and virtual time.
//!
//! The world is the shard's [`nexusd_core::Driver`], so the loop that turns it is the daemon's own.
//! A run goes through phases: *working* (clients do things, faults happen), *settling* (faults stop,
//! everybody reads, and all that is owed must come), perhaps *silence* (nothing is published for a
//! while, one client freezes and must be given up, the others must not) and some more work behind
//! it, and *draining* (everything must end by the deadline).

mod coming_back;
mod network;
mod offences;
mod operations;

use std::rc::Rc;

use nexusd_core::limits::{
    CLOSE_LINGER_US, HELLO_TIMEOUT_US, PING_AFTER_US, PONG_TIMEOUT_US, WRITE_TIMEOUT_US,
};
use nexusd_core::{
    CloseReason, Command, ConnectionId, Event, MeshConfig, Metrics, Service, ShardConfig,
};
use nexusd_wire::control::ErrorCode;
use nexusd_wire::{FrameEncoder, NodeId};

use crate::clock::Clock;
use crate::cluster::Gauges;
use crate::conversation::{Conversation, Identity, Stage};
use crate::coverage::{Coverage, Mark};
use crate::dice::Dice;
use crate::oracle::Oracle;
use crate::scenario::{Pace, Scenario};
use crate::socket::Socket;
use crate::trace::{Trace, trace};
use crate::violation::{Violation, ensure};

/// Turns that settling may take before what is missing counts as stuck.
const SETTLING_TURNS_MAX: u32 = 20_000;
/// Room that every socket has while things settle.
const SETTLING_SOCKET_BYTES: usize = 64 << 10;
/// Turns without an event after which everything is taken to have come to rest.
const QUIET_TURNS: u32 = 3;
/// Turns that draining may take.
const DRAINING_TURNS_MAX: u32 = 20_000;
/// How long a silence lasts: idle topics are forgotten in it.
const SILENCE_US: u64 = 70_000_000;
/// Turns that a silence may take.
const SILENCE_TURNS_MAX: u32 = 100_000;
/// Of the operations of a run, how many come behind the silence: one part in …
const WORK_BEHIND_SILENCE: u64 = 8;
/// A run has at least one fault in so many operations.
const OPERATIONS_PER_FAULT: u64 = 200;
/// How long a drain may take.
const DRAIN_US: u64 = 1_000_000;
/// What is due by time happens no later than this behind it.
const TIMER_SLACK_US: u64 = 1_500_000;
/// A silent client is gone by then.
const GIVEN_UP_US: u64 = PING_AFTER_US + PONG_TIMEOUT_US + CLOSE_LINGER_US + TIMER_SLACK_US;

/// What a client is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Publisher,
    Subscriber,
    Mixed,
    Violator,
}

/// Somebody who connects.
#[derive(Debug)]
pub(crate) struct Client {
    role: Role,
    /// Its connection's slot.
    slot: Option<usize>,
    /// It reads nothing until then.
    stalled_until_us: u64,
    /// It neither reads nor writes any more.
    is_frozen: bool,
    /// It stops publishing when asked to.
    is_polite: bool,
    /// It was connected before.
    was_connected: bool,
    /// Streams it had on connections that are gone.
    parked: Vec<usize>,
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    client: usize,
    socket: Socket,
    conversation: Conversation,
}

/// What the run is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Working,
    Settling { turns: u32, quiet: u32 },
    Silence { victim: ConnectionId, since_us: u64, turns: u32 },
    Draining { turns: u32, deadline_us: u64 },
}

/// One run.
pub struct World<'c> {
    dice: Dice,
    clock: Clock,
    scenario: Scenario,
    identity: Identity,
    clients: Vec<Client>,
    slots: Vec<Option<Box<Connection>>>,
    generations: Vec<u32>,
    conversations: u32,
    oracle: Oracle,
    coverage: &'c mut Coverage,
    trace: Trace,
    encoder: FrameEncoder,
    gauges: Rc<Gauges>,
    /// What they said when they were read last.
    counted: Metrics,
    /// Messages of the daemon's own that may be on their way between shards.
    unsettled_own: Vec<u32>,
    phase: Phase,
    operations_left: u64,
    operations: u64,
    /// Faults so far, and how many there have to be.
    faults: u64,
    faults_due: u64,
    drain_after: u64,
    /// Events fed in this turn.
    events: u32,
    /// Turns in a row in which the shard had more to do.
    busy_turns: u32,
    /// The time that the shards were told last.
    told_us: u64,
    /// Ticks in a row behind which the next was due at once.
    idle_ticks: u32,
    has_stopped_accepting: bool,
    operations_behind_silence: u64,
    failure: Option<Violation>,
}

impl<'c> World<'c> {
    /// A world and the configuration of the shard in it.
    pub fn new(
        seed: u64,
        shards: usize,
        operations: u64,
        coverage: &'c mut Coverage,
        trace: Trace,
        gauges: Rc<Gauges>,
    ) -> (Self, ShardConfig) {
        let mut dice = Dice::new(seed);
        let scenario = Scenario::new(&mut dice, shards);
        let node = (u128::from(dice.bits()) << 64) | u128::from(dice.bits());
        let config = ShardConfig {
            node: NodeId(node),
            cluster: "simulated".to_owned(),
            software: "nexusd-sim".to_owned(),
            seed: dice.bits(),
            mesh: MeshConfig::default(),
            limits: scenario.limits.clone(),
        };
        let identity = Identity {
            node: config.node,
            cluster: config.cluster.clone(),
            software: config.software.clone(),
            limits: config.limits.clone(),
        };
        let mut clients = Vec::new();
        let roles = [
            (Role::Publisher, scenario.publishers),
            (Role::Subscriber, scenario.subscribers),
            (Role::Mixed, scenario.mixed),
            (Role::Violator, scenario.violators),
        ];
        for (role, count) in roles {
            for _ in 0..count {
                clients.push(Client {
                    role,
                    slot: None,
                    stalled_until_us: 0,
                    is_frozen: false,
                    is_polite: !dice.one_in(3),
                    was_connected: false,
                    parked: Vec::new(),
                });
            }
        }
        let oracle = Oracle::new(&scenario.topics, &scenario.limits, scenario.shards);
        let (drain_after, operations) = if scenario.drains_midway {
            (operations, operations + operations / 2)
        } else {
            (u64::MAX, operations)
        };
        let behind_silence =
            if scenario.pauses_in_silence { operations / WORK_BEHIND_SILENCE } else { 0 };
        let mut world = Self {
            dice,
            clock: Clock::default(),
            scenario,
            identity,
            clients,
            slots: Vec::new(),
            generations: Vec::new(),
            conversations: 0,
            oracle,
            coverage,
            trace,
            encoder: FrameEncoder::new(),
            gauges,
            counted: Metrics::default(),
            unsettled_own: Vec::new(),
            phase: Phase::Working,
            operations_left: operations - behind_silence,
            operations: 0,
            faults: 0,
            faults_due: operations / OPERATIONS_PER_FAULT,
            drain_after,
            events: 0,
            busy_turns: 0,
            told_us: 0,
            idle_ticks: 0,
            has_stopped_accepting: false,
            operations_behind_silence: behind_silence,
            failure: None,
        };
        trace!(world.trace, "{:?}", world.scenario);
        (world, config)
    }

    /// Shards of the node.
    pub fn shards(&self) -> usize {
        self.scenario.shards
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Faults so far.
    pub fn faults(&self) -> u64 {
        self.faults
    }

    /// What happened.
    pub fn into_trace(self) -> Trace {
        self.trace
    }

    /// What must hold once the shard says it is finished.
    pub fn check_finished(&mut self) -> Result<(), Violation> {
        if let Some(violation) = self.failure.take() {
            return Err(violation);
        }
        ensure!(
            matches!(self.phase, Phase::Draining { .. }),
            "the shard finished before it was drained"
        );
        ensure!(self.has_stopped_accepting, "the shard finished without closing its listeners");
        ensure!(self.slots.iter().all(Option::is_none), "the shard finished with open connections");
        // What ends by time may have ended in the last moment.
        self.oracle.begin_turn(self.clock.now().mono_us);
        self.oracle.check_metrics(&self.gauges.metrics.get())
    }

    /// One turn: time passes, things happen, the shard is told of them.
    fn turn(&mut self, service: &mut impl Service) -> Result<(), Violation> {
        self.events = 0;
        self.read_gauges()?;
        if !matches!(self.phase, Phase::Working) {
            for _ in 0..self.scenario.shards {
                self.look(service)?;
            }
        }
        match self.phase {
            Phase::Working => self.turn_working(service)?,
            Phase::Settling { turns, quiet } => self.turn_settling(service, turns, quiet)?,
            Phase::Silence { victim, since_us, turns } => {
                self.turn_silence(service, victim, since_us, turns)?;
            }
            Phase::Draining { turns, deadline_us } => {
                self.turn_draining(service, turns, deadline_us)?;
            }
        }
        self.tick_if_due(service)
    }

    fn turn_working(&mut self, service: &mut impl Service) -> Result<(), Violation> {
        if self.operations_left == 0 {
            return self.begin_settling(service);
        }
        if self.operations >= self.drain_after {
            self.coverage.mark(Mark::DrainMidway);
            return self.begin_draining(service);
        }
        self.pass_time(service);
        if !self.dice.one_in(4) {
            self.operations_left -= 1;
            self.operations += 1;
            self.operate(service)?;
        }
        for _ in 0..self.dice.below(4) {
            if let Some(slot) = self.any_slot() {
                self.visit(slot, service)?;
            }
        }
        let looks_max = if self.scenario.looks_rarely { 1 } else { 2 * self.scenario.shards - 1 };
        for _ in 0..self.dice.below(looks_max + 1) {
            self.look(service)?;
        }
        Ok(())
    }

    fn pass_time(&mut self, service: &impl Service) {
        let us = match (self.scenario.pace, self.dice.below(64)) {
            (_, 0..=15) => 0,
            (Pace::Uneven, 16..=20) | (Pace::Sleepy, 16..=22) => self.dice.between(100, 20_000),
            (Pace::Sleepy, 23) => self.dice.between(100_000, 20_000_000),
            (Pace::Sleepy, 24) => {
                // Straight to the next deadline, now and then beyond it.
                if let Some(wake_at) = service.wake_at() {
                    let late =
                        if self.dice.one_in(2) { self.dice.magnitude(30_000_000) } else { 0 };
                    if late > 0 {
                        self.coverage.mark(Mark::LateWake);
                    }
                    self.clock.advance_to(
                        wake_at.saturating_add(late).min(self.clock.now().mono_us + 90_000_000),
                    );
                }
                0
            }
            _ => self.dice.between(1, 60),
        };
        self.clock.advance(us);
    }

    /// Tells the shard the time if it asked to be told by now.
    fn tick_if_due(&mut self, service: &mut impl Service) -> Result<(), Violation> {
        let now = self.clock.now();
        if service.wake_at().is_none_or(|wake_at| wake_at > now.mono_us) {
            self.idle_ticks = 0;
            return Ok(());
        }
        self.doubt_what_may_time_out();
        self.oracle.set_now(now.mono_us);
        service.on_event(now, Event::Tick);
        self.coverage.mark(Mark::EventTick);
        self.told_us = now.mono_us;
        self.read_gauges()?;
        let is_due_again = service.wake_at().is_some_and(|wake_at| wake_at <= now.mono_us);
        self.idle_ticks = if is_due_again { self.idle_ticks + 1 } else { 0 };
        ensure!(self.idle_ticks < 200, "Tick does not move the time that the next one is due at");
        Ok(())
    }

    /// What the shard may do to a connection at this time, for a timeout, it may have done.
    fn doubt_what_may_time_out(&mut self) {
        let now_us = self.clock.now().mono_us;
        for connection in self.slots.iter_mut().flatten() {
            let (socket, conversation) = (&connection.socket, &mut connection.conversation);
            let passed = |since: u64, time: u64| now_us >= since + time;
            let may_time_out = (!conversation.hello_was_fed()
                && passed(socket.opened_at_us, HELLO_TIMEOUT_US))
                || passed(socket.fed_at_us, PING_AFTER_US + PONG_TIMEOUT_US)
                || socket.blocked_since_us.is_some_and(|since| passed(since, WRITE_TIMEOUT_US));
            if may_time_out {
                conversation.doubt(false, &mut self.oracle);
            }
        }
    }

    fn begin_settling(&mut self, service: &mut impl Service) -> Result<(), Violation> {
        trace!(self.trace, "settling");
        self.phase = Phase::Settling { turns: 0, quiet: 0 };
        for connection in self.slots.iter_mut().flatten() {
            let capacity = &mut connection.socket.capacity;
            *capacity = (*capacity).max(SETTLING_SOCKET_BYTES);
        }
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            client.stalled_until_us = 0;
            let frozen = std::mem::take(&mut client.is_frozen);
            if let (true, Some(slot)) = (frozen, client.slot) {
                self.close(slot, CloseReason::Failed(104), service)?;
            }
        }
        self.end_abandoned(service)?;
        if self.oracle.parks() {
            self.come_back(service)?;
        }
        Ok(())
    }

    fn turn_settling(
        &mut self,
        service: &mut impl Service,
        turns: u32,
        quiet: u32,
    ) -> Result<(), Violation> {
        self.clock.advance(20);
        if self.oracle.parks() {
            self.resume_all();
        }
        for slot in 0..self.slots.len() {
            self.visit_willingly(slot, service)?;
        }
        let quiet = if self.events == 0 { quiet + 1 } else { 0 };
        self.phase = Phase::Settling { turns: turns + 1, quiet };
        ensure!(turns < SETTLING_TURNS_MAX, "no rest after {turns} turns in which everybody reads");
        if quiet < QUIET_TURNS {
            return Ok(());
        }
        if self.end_abandoned(service)? {
            return Ok(());
        }
        self.check_rest()?;
        match self.victim() {
            Some(victim) if self.operations_behind_silence > 0 => {
                trace!(self.trace, "silence of {victim:?}");
                let since_us = self.clock.now().mono_us;
                self.phase = Phase::Silence { victim, since_us, turns: 0 };
                self.flood_victim(victim);
                self.give_up_topics();
                Ok(())
            }
            None if self.operations_behind_silence > 0 => {
                self.operations_left = std::mem::take(&mut self.operations_behind_silence);
                self.phase = Phase::Working;
                Ok(())
            }
            _ => self.begin_draining(service),
        }
    }

    /// Everybody has read everything: whatever is still missing never comes.
    fn check_rest(&mut self) -> Result<(), Violation> {
        let metrics = self.gauges.metrics.get();
        for connection in self.slots.iter().flatten() {
            let (socket, conversation) = (&connection.socket, &connection.conversation);
            ensure!(
                !conversation.is_abandoned,
                "connection {} stands though its subscriptions were taken over",
                conversation.number
            );
            if conversation.is_doubtful || !conversation.hello_was_fed() {
                continue;
            }
            let name = conversation.number;
            ensure!(
                conversation.stage == Stage::Going && conversation.fatal_error.is_none(),
                "connection {name} is still open though it is {:?}",
                conversation.stage
            );
            ensure!(socket.receiving, "connection {name} is not read and never will be");
            ensure!(conversation.is_written_out(), "connection {name} is not read");
            conversation.check_nothing_owed()?;
        }
        self.oracle.check_complete()?;
        self.oracle.check_metrics(&metrics)?;
        if !self.oracle.has_parked() {
            let Metrics { queued_messages, queued_bytes, .. } = metrics;
            ensure!(queued_messages == 0, "{queued_messages} messages stay queued");
            ensure!(queued_bytes == 0, "{queued_bytes} bytes stay queued");
        }
        self.check_connections()
    }

    fn check_connections(&self) -> Result<(), Violation> {
        let open = self.slots.iter().flatten().count() as u64;
        let counted = self.gauges.metrics.get().connections;
        ensure!(counted == open, "{counted} connections counted; {open} are open");
        Ok(())
    }

    /// Who will be silent: somebody with a small `block` queue, if there is one.
    fn victim(&self) -> Option<ConnectionId> {
        let welcome = || self.slots.iter().flatten().filter(|c| c.conversation.is_welcome);
        let blocks = |connection: &Connection| {
            let streams = &connection.conversation.known_streams;
            streams.iter().any(|&stream| self.oracle.stream(stream).is_small_block_queue())
        };
        let victim = welcome().find(|connection| blocks(connection)).or_else(|| welcome().next());
        victim.map(|connection| connection.socket.id)
    }

    /// Nothing is published; one client says nothing at all any more, all others live on.
    fn turn_silence(
        &mut self,
        service: &mut impl Service,
        victim: ConnectionId,
        since_us: u64,
        turns: u32,
    ) -> Result<(), Violation> {
        let now_us = self.clock.now().mono_us;
        let index = victim.index as usize;
        let is_there =
            self.slots[index].as_ref().is_some_and(|connection| connection.socket.id == victim);
        ensure!(
            !is_there || now_us - since_us <= GIVEN_UP_US,
            "a client silent for {} s was not given up",
            (now_us - since_us) / 1_000_000
        );
        ensure!(turns < SILENCE_TURNS_MAX, "a silence that does not end");
        for connection in self.slots.iter().flatten() {
            let conversation = &connection.conversation;
            ensure!(
                connection.socket.id == victim
                    || conversation.is_abandoned
                    || conversation.fatal_error != Some(ErrorCode::Timeout)
                    || !conversation.is_welcome,
                "connection {} showed life and was given up",
                conversation.number
            );
            ensure!(
                !conversation.is_held_back
                    || now_us - since_us <= self.scenario.limits.block_timeout_us + TIMER_SLACK_US,
                "connection {} is held back for longer than a queue may block",
                conversation.number
            );
        }
        if !is_there && now_us - since_us >= SILENCE_US {
            self.coverage.mark(Mark::SilentClosed);
            self.phase = Phase::Working;
            self.operations_left = std::mem::take(&mut self.operations_behind_silence);
            return Ok(());
        }
        self.phase = Phase::Silence { victim, since_us, turns: turns + 1 };
        for slot in 0..self.slots.len() {
            if slot == index && is_there {
                self.visit_frozen(slot, service)?;
            } else {
                self.visit_willingly(slot, service)?;
            }
        }
        if self.events > 0 {
            return Ok(());
        }
        let due = service.wake_at().unwrap_or(u64::MAX).min(now_us + 5_000_000);
        self.clock.advance_to(due);
        // Some say something now and then, the others only answer pings.
        for slot in (0..self.slots.len()).filter(|slot| slot % 2 == 0 && *slot != index) {
            self.show_life(slot);
        }
        Ok(())
    }

    fn begin_draining(&mut self, service: &mut impl Service) -> Result<(), Violation> {
        let now_us = self.clock.now().mono_us;
        let deadline_us = now_us + DRAIN_US;
        trace!(self.trace, "draining");
        self.phase = Phase::Draining { turns: 0, deadline_us };
        for connection in self.slots.iter_mut().flatten() {
            let conversation = &mut connection.conversation;
            if conversation.stage == Stage::Going && conversation.must_be_refused.is_none() {
                conversation.ending(Stage::Draining, &mut self.oracle);
            } else if conversation.is_unsettled() {
                // What ends it was fed, but perhaps the shard will not look at that any more.
                conversation.doubt(true, &mut self.oracle);
            }
        }
        self.command(Command::Drain { deadline_us }, service)
    }

    fn turn_draining(
        &mut self,
        service: &mut impl Service,
        turns: u32,
        deadline_us: u64,
    ) -> Result<(), Violation> {
        ensure!(turns < DRAINING_TURNS_MAX, "draining does not end");
        ensure!(
            self.clock.now().mono_us <= deadline_us + TIMER_SLACK_US,
            "draining goes on {} ms behind its deadline",
            (self.clock.now().mono_us - deadline_us) / 1_000
        );
        self.phase = Phase::Draining { turns: turns + 1, deadline_us };
        if turns == 0 && self.dice.one_in(4) {
            self.connect_too_late(service)?;
        }
        if turns == 1 && self.dice.one_in(4) {
            // A second drain can only shorten the first.
            let other_us = deadline_us + DRAIN_US / 2 - self.dice.between(0, DRAIN_US);
            self.coverage.mark(Mark::SecondDrain);
            self.phase =
                Phase::Draining { turns: turns + 1, deadline_us: deadline_us.min(other_us) };
            self.command(Command::Drain { deadline_us: other_us }, service)?;
        }
        for slot in 0..self.slots.len() {
            if self.dice.one_in(8) {
                self.visit(slot, service)?;
            } else {
                self.visit_willingly(slot, service)?;
            }
        }
        match service.wake_at() {
            Some(wake_at) if self.events == 0 => self.clock.advance_to(wake_at.min(deadline_us)),
            _ => self.clock.advance(50),
        }
        Ok(())
    }

    /// Whether the drain's deadline has not come yet.
    fn is_draining_in_time(&self) -> bool {
        matches!(self.phase, Phase::Draining { deadline_us, .. } if self.clock.now().mono_us < deadline_us)
    }

    fn is_working(&self) -> bool {
        matches!(self.phase, Phase::Working)
    }

    fn any_slot(&mut self) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let slot = self.dice.below(self.slots.len());
        self.slots[slot].is_some().then_some(slot)
    }

    /// A connection that was accepted just before the listeners closed.
    fn connect_too_late(&mut self, service: &mut impl Service) -> Result<(), Violation> {
        match self.clients.iter().position(|client| client.slot.is_none()) {
            Some(client) if !self.gauges.has_ended_shard.get() => self.connect(client, service),
            _ => Ok(()),
        }
    }

    /// A client connects.
    fn connect(&mut self, client: usize, service: &mut impl Service) -> Result<(), Violation> {
        let vacant: Vec<usize> =
            (0..self.slots.len()).filter(|&slot| self.slots[slot].is_none()).collect();
        let slot = if vacant.is_empty() {
            self.slots.push(None);
            self.generations.push(0);
            self.slots.len() - 1
        } else {
            self.dice.pick(&vacant)
        };
        self.generations[slot] += 1;
        let id = ConnectionId { index: slot as u32, generation: self.generations[slot] };
        let now_us = self.clock.now().mono_us;
        let mut conversation =
            Conversation::new(self.conversations, self.scenario.limits.payload_bytes);
        self.conversations += 1;
        let open = self.slots.iter().flatten().count();
        if matches!(self.phase, Phase::Draining { .. }) {
            conversation.must_be_refused = Some(ErrorCode::Draining);
        } else if open >= self.scenario.limits.connections {
            self.coverage.mark(Mark::RefusedConnection);
            conversation.must_be_refused = Some(ErrorCode::LimitReached);
        }
        trace!(
            self.trace,
            "{now_us}: client {client} connects as {} ({id:?})", conversation.number
        );
        if std::mem::replace(&mut self.clients[client].was_connected, true) {
            self.coverage.mark(Mark::Reconnect);
        }
        self.clients[client].slot = Some(slot);
        self.clients[client].is_frozen = false;
        self.clients[client].stalled_until_us = 0;
        conversation.home = service.place().index();
        let socket = Socket::new(id, self.scenario.socket_bytes, now_us);
        self.slots[slot] = Some(Box::new(Connection { client, socket, conversation }));
        self.open(id, service)
    }
}
