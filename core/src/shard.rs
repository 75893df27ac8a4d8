//! The shard: one thread's share of the node, as a state machine. The one big match stands here:
//! every event and every frame kind is a branch of it.
//!
//! Events come from a driver ([`Event`]), outputs go back to it ([`Output`]); time is a parameter.
//! The shard owns its connections (`connection.rs`, `session.rs`) and the plane that messages flow through
//! (`shard/plane.rs`, which names the files of their way). `shard/publishers.rs` answers publishers,
//! `crossing.rs` talks to other shards, `handover.rs` gives connections up to them, `other_protocols.rs`
//! tells who speaks another protocol, `closing.rs` takes queues off connections, `landing.rs` receives large messages, `flush.rs` plans
//! sends, `inspecting.rs` tells what there is, `buffers.rs` bounds what waits for connections, `memory.rs`
//! keeps the log in its budget, `parking.rs` keeps subscriptions whose clients are away, `timers.rs` does what
//! is due by time.
//! Invariant: all bounds of `limits.rs` hold after every event; [`Shard::assert_invariants`] checks.

mod admission;
pub(crate) mod answering;
pub(crate) mod asking;
mod backpressure;
mod buffers;
mod closing;
mod control;
mod counting;
mod crossing;
mod drain;
pub mod event;
mod expiring;
mod fan_out;
pub(crate) mod fetching;
mod flush;
pub(crate) mod gate;
mod greeting;
pub mod handover;
pub(crate) mod inbox;
mod inspecting;
mod landing;
mod latency;
mod link_frames;
mod links;
mod look_ahead;
pub(crate) mod losing;
mod memory;
mod neighbour;
#[cfg(feature = "protocol-next")]
mod next;
pub mod other_protocols;
pub mod output;
pub(crate) mod parcel;
pub(crate) mod parking;
mod passing_on;
mod plane;
mod publish;
mod publishers;
pub(crate) mod recovery;
mod relay;
pub(crate) mod replay;
mod replication;
pub(crate) mod retained;
pub mod routing;
mod timers;
mod violation;
pub mod wiring;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use asking::Question;
use buffers::Buffers;
use drain::Drain;
use event::{Command, ConnectionId, Door, Event, Now, PeerAddress};
use handover::Handover;
use neighbour::Neighbour;
use nexusd_wire::control::{ErrorCode, PublishAckEntry};
use nexusd_wire::{
    Cut, ErrorReport, Frame, FrameCutter, FrameEncoder, FrameKind, HEADER_BYTES, NodeId,
    SubscriptionId, aligned,
};
use output::{Output, Report};
use plane::Plane;
use publish::Refusal;
use routing::ShardIndex;
use violation::Violation;
use wiring::{Wiring, wire};

use crate::connection::{Connection, Landing};
use crate::io::driver::Service;
use crate::limits::{
    ACKS_OWED_MAX, CONTROL_BACKLOG_BYTES, CONTROL_BYTES_MAX, FLUSH_RETRY_US, LARGE_FRAME_BYTES,
    Limits, METADATA_BYTES_MAX, PAYLOAD_BYTES_MAX, SENDS_PER_FLUSH,
};
use crate::link::{EndedStream, FetchId, Links, MeshConfig};
use crate::metrics::Metrics;
use crate::plant::{Plant, is_planted};
use crate::session::SessionState;
use crate::subscriber_queue::QueueId;

/// What a shard is made from.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// This daemon's id, new at each start.
    pub node: NodeId,
    /// Name of the cluster, told to clients.
    pub cluster: String,
    /// Name and version of the software, told to clients.
    pub software: String,
    /// Source of everything random in the shard: hash keys and subscription ids. Secret, because
    /// whoever knows it can guess the ids of other clients' subscriptions.
    pub seed: u64,
    /// Its bounds.
    pub limits: Limits,
    /// What other nodes are told.
    pub mesh: MeshConfig,
}

/// One thread's share of the node.
pub struct Shard {
    config: ShardConfig,
    /// By the driver's index.
    connections: Vec<Option<Box<Connection>>>,
    open: usize,
    buffers: Buffers,
    plane: Plane,
    encoder: FrameEncoder,
    /// What the driver is asked for, but for sends, which come behind.
    outputs: VecDeque<Output>,
    /// Connections that have something to send, in turn.
    sends: VecDeque<ConnectionId>,
    /// Sends since other shards were last told something.
    sends_since_flush: usize,
    /// Numbers the subscriptions, as input to the keyed hash that makes their ids.
    next_subscription: u64,
    /// Time of the last event.
    now_us: u64,
    next_scan_us: Option<u64>,
    block_due_us: Option<u64>,
    drain: Option<Drain>,
    /// The links that this shard keeps, and when to look at them.
    links: Links,
    /// What is remembered of those that were given up.
    ended_streams: BTreeMap<NodeId, EndedStream>,
    links_due_us: Option<u64>,
    /// Counts connections that became links.
    links_begun: u64,
    /// Nodes that were given up with what was queued for them.
    given_up: BTreeSet<NodeId>,
    /// The stream to each peer that ended because nobody wanted anything, when all of it had come.
    finished_streams: BTreeMap<NodeId, SubscriptionId>,
    /// Peers that got what was accepted before they told what they want.
    had_early_messages: BTreeSet<NodeId>,
    /// What peers are asked for, on behalf of subscriptions that come back.
    questions: BTreeMap<FetchId, Question>,
    /// Numbers the challenges that other nodes are given.
    next_challenge: u64,
    /// Connections that have asked other shards for more than is on its way there, in turn.
    waiting_for_neighbours: Vec<ConnectionId>,
    /// Where to begin looking into the inboxes, so that none is always the last.
    next_inbox: usize,
    /// Messages accepted while another connection's bytes are dealt with, from connections that could go on.
    accepted_between: u64,
    /// Scratch, kept for its memory.
    scratch_acks: Vec<PublishAckEntry>,
    scratch_queues: Vec<QueueId>,
    scratch_frame: Vec<u8>,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard")
            .field("node", &self.config.node)
            .field("connections", &self.open)
            .field("metrics", &self.plane.metrics)
            .finish_non_exhaustive()
    }
}

impl Service for Shard {
    fn on_event(&mut self, now: Now, event: Event<'_>) {
        self.now_us = now.mono_us;
        (self.plane.now_us, self.plane.wall_us) = (now.mono_us, now.wall_us);
        if self.plane.born.is_none() {
            let age_us = now.wall_us.saturating_sub(self.config.mesh.start_us);
            self.plane.born = Some((now.mono_us, age_us));
        }
        match event {
            Event::Opened { connection, peer, door, is_moved } => {
                self.on_opened(connection, peer, door, is_moved, now);
            }
            Event::Received { connection, bytes } => self.on_received(connection, bytes, now),
            Event::Landed { connection, bytes } => self.on_landed(connection, bytes, now),
            Event::Sent { connection, bytes, blocked } => {
                self.on_sent(connection, bytes, blocked, now);
            }
            Event::Writable { connection } => self.on_writable(connection),
            Event::Closed { connection, reason } => self.on_closed(connection, reason),
            Event::Command(Command::Publish { topic, payload }) => {
                self.on_own_message(&topic, &payload, now);
            }
            Event::Command(Command::Link(command)) => self.on_link_command(command, now),
            Event::Command(Command::Sample) => {
                let metrics = Box::new(self.metrics());
                self.outputs.push_back(Output::Report(Report::Metrics(metrics)));
            }
            Event::Command(Command::Inspect { number, request }) => {
                self.on_request(number, *request, now);
            }
            Event::Command(Command::Drain { deadline_us }) => self.on_drain(deadline_us, now),
            Event::Inbox => self.on_inbox(now),
            Event::Tick => self.on_tick(now),
        }
        if self.plane.is_anyone_waiting() {
            self.publish_waiting(now);
        }
        if !self.waiting_for_neighbours.is_empty() && !self.plane.neighbours.are_clogged() {
            self.let_askers_on(now);
        }
        if self.plane.fetching.is_busy(now.mono_us) {
            self.advance_fetches();
        }
        if self.plane.unnamed_losses.due_us().is_some_and(|due| due <= now.mono_us) {
            self.plane.tell_unnamed_losses(now);
        }
        self.settle(now);
        while self.buffers.is_over() {
            self.end_greediest(now);
            self.settle(now);
        }
        if self.plane.is_over_gap_budget() {
            self.plane.shrink_gaps();
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        // Other shards do not wait until there is nothing left to send here.
        if self.sends_since_flush >= SENDS_PER_FLUSH {
            self.sends_since_flush = 0;
            if let Some(ring) = self.flush_parcels() {
                return Some(ring);
            }
        }
        while let Some(id) = self.sends.pop_front() {
            // The connection may have ended since the send was asked for.
            if let Some(connection) = self.connection(id)
                && !connection.close_asked
            {
                connection.outbound.scheduled = false;
                connection.outbound.in_flight = true;
                self.sends_since_flush += 1;
                return Some(Output::Send(id));
            }
        }
        self.flush_parcels()
    }

    fn gather(&mut self, id: ConnectionId, take: &mut dyn FnMut(&[u8])) {
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        flush::plan(&mut connection.outbound, &mut self.plane, &mut self.encoder);
        flush::lend(&connection.outbound, &self.plane, take);
    }

    fn landing_zone(&mut self, id: ConnectionId) -> Option<&mut [u8]> {
        let connection = open_connection(&mut self.connections, id)?;
        match connection.inbound.landing {
            Some(Landing::Segment { segment, filled, stride, .. })
                if connection.session.state == SessionState::Open =>
            {
                Some(&mut self.plane.log.landing_memory(segment)[filled..stride])
            }
            _ => None,
        }
    }

    fn wake_at(&self) -> Option<u64> {
        let drain_due_us = self.drain.as_ref().and_then(Drain::due_us);
        // A neighbour's ring is full, which nobody tells when it is no longer.
        let is_flushed = self.plane.neighbours.iter().all(Neighbour::is_flushed);
        let is_awaited = !self.waiting_for_neighbours.is_empty();
        let flush_due_us = (!is_flushed || is_awaited).then_some(self.now_us + FLUSH_RETRY_US);
        let expiry_due_us = self.plane.expiring.due_us();
        let due = [self.next_scan_us, self.block_due_us, drain_due_us, flush_due_us, expiry_due_us];
        let scans_due_us = (!self.plane.scans_due.is_empty()).then_some(self.now_us);
        let retained_due_us = self.plane.retained.due_us();
        let others = [self.parked_due_us(), scans_due_us, retained_due_us, self.links_due_us];
        let rare = [self.plane.fetching.due_us(), self.plane.unnamed_losses.due_us()];
        due.into_iter().chain(others).chain(rare).flatten().min()
    }

    fn is_finished(&self) -> bool {
        let is_drained = self.drain.as_ref().is_some_and(Drain::is_done);
        is_drained
            && self.open == 0
            && self.outputs.is_empty()
            && self.sends.is_empty()
            && self.plane.neighbours.iter().all(Neighbour::is_flushed)
    }

    fn has_mail(&self) -> bool {
        self.plane.neighbours.iter().any(Neighbour::has_mail)
    }

    fn place(&mut self) -> ShardIndex {
        let node = &self.plane.node;
        // One too many is refused here, with a reason.
        let is_full = node.connections() >= self.config.limits.connections;
        let shard = if is_full { self.plane.routing.own } else { node.least_loaded() };
        node.add_connection(shard);
        shard
    }

    fn hand_over(&mut self, connection: ConnectionId) -> Option<Handover> {
        self.give_up(connection)
    }
}

impl Shard {
    /// The only shard of a node, empty.
    pub fn new(config: ShardConfig) -> Self {
        let mut alone = wire(1);
        Self::wired(config, alone.remove(0))
    }

    /// One of several, empty. All shards of a node are made from the same configuration.
    pub fn wired(config: ShardConfig, wiring: Wiring) -> Self {
        Self {
            buffers: Buffers::new(&config.limits, wiring.shards),
            plane: Plane::new(
                config.limits.clone(),
                (config.node, config.mesh.is_on),
                config.seed,
                wiring,
            ),
            config,
            connections: Vec::new(),
            open: 0,
            encoder: FrameEncoder::new(),
            outputs: VecDeque::new(),
            sends: VecDeque::new(),
            sends_since_flush: 0,
            next_subscription: 0,
            now_us: 0,
            next_scan_us: None,
            block_due_us: None,
            drain: None,
            links: Links::new(),
            ended_streams: BTreeMap::new(),
            links_due_us: None,
            links_begun: 0,
            given_up: BTreeSet::new(),
            finished_streams: BTreeMap::new(),
            had_early_messages: BTreeSet::new(),
            questions: BTreeMap::new(),
            next_challenge: 0,
            waiting_for_neighbours: Vec::new(),
            next_inbox: 0,
            accepted_between: 0,
            scratch_acks: Vec::new(),
            scratch_queues: Vec::new(),
            scratch_frame: Vec::new(),
        }
    }

    /// What the shard has counted.
    pub fn metrics(&self) -> Metrics {
        Metrics {
            connections: self.open as u64,
            links: self.links.values().filter(|link| link.is_up).count() as u64,
            topics: self.plane.topics.len() as u64,
            log_bytes: self.plane.log.used_bytes() as u64,
            retained: self.plane.retained.count() as u64,
            retained_bytes: self.plane.retained.bytes() as u64,
            ..self.plane.metrics
        }
    }

    /// Whether messages of other shards' publishers wait here for memory. For the simulator, which
    /// knows by it when nothing is under way.
    pub fn has_stalled(&self) -> bool {
        self.plane.neighbours.iter().any(|neighbour| !neighbour.stalled.is_empty())
    }

    /// Checks that nothing is under way between this shard and others. For the simulator, when
    /// nothing is queued and all inboxes are empty.
    pub fn assert_nothing_under_way(&self) {
        self.plane.log.assert_nothing_under_way();
        self.plane.neighbours.iter().for_each(Neighbour::assert_nothing_under_way);
    }

    /// Lends the slices of the connection's running send once more, as `gather` did. For the
    /// simulator, which proves with it that they stay where and as they are.
    pub fn lend_again(&self, id: ConnectionId, take: &mut dyn FnMut(&[u8])) {
        let connection = self.connections.get(id.index as usize).and_then(Option::as_deref);
        if let Some(connection) = connection.filter(|connection| connection.id == id) {
            flush::lend(&connection.outbound, &self.plane, take);
        }
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        open_connection(&mut self.connections, id)
    }

    fn on_opened(
        &mut self,
        id: ConnectionId,
        peer: PeerAddress,
        door: Door,
        is_moved: bool,
        now: Now,
    ) {
        let slot = id.index as usize;
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
            self.plane.open_generations.resize(slot + 1, 0);
        }
        debug_assert!(self.connections[slot].is_none(), "a slot is reused only after Closed");
        // Other nodes may take longer messages than this one does; what is too long is lost here, not at odds
        // with the protocol.
        let payload_bytes_max = match door {
            Door::Mesh | Door::Dialled { .. } => PAYLOAD_BYTES_MAX,
            _ => self.config.limits.payload_bytes,
        };
        let message_bytes_max =
            HEADER_BYTES + aligned(METADATA_BYTES_MAX as usize) + payload_bytes_max as usize;
        let cutter =
            FrameCutter::new(message_bytes_max as u32, CONTROL_BYTES_MAX, LARGE_FRAME_BYTES);
        self.connections[slot] =
            Some(Box::new(Connection::new(id, peer, door, cutter, now.mono_us)));
        self.plane.open_generations[slot] = u64::from(id.generation) + 1;
        self.open += 1;
        self.scan_by(now.mono_us + crate::limits::HELLO_TIMEOUT_US);
        if matches!(door, Door::Dialled { .. } | Door::Edge) && !is_moved {
            // Nobody has accepted it, so nobody has counted it.
            self.plane.node.add_connection(self.plane.routing.own);
        }
        if let Door::Dialled { .. } = door {
            self.say_hello(id);
        }
        self.admit_connection(id, peer, door, is_moved, now);
    }

    fn on_received(&mut self, id: ConnectionId, bytes: &[u8], now: Now) {
        let Some(connection) = self.connection(id) else {
            return;
        };
        connection.session.last_received_us = now.mono_us;
        connection.session.pinged_at_us = None;
        match connection.session.state {
            SessionState::Closing | SessionState::Draining => {}
            _ if connection.inbound.is_paused && is_planted(Plant::BacklogLost) => {}
            _ if connection.inbound.is_paused => {
                connection.inbound.backlog.extend_from_slice(bytes);
                if let Some(connection) = open_connection(&mut self.connections, id) {
                    self.buffers.count(connection);
                }
            }
            SessionState::AwaitingHello => {
                if !self.speaks_otherwise(id, bytes, now) {
                    self.read(id, bytes, now);
                }
            }
            _ => self.read(id, bytes, now),
        }
    }

    /// Deals with received bytes, frame by frame, until they are used up or the connection is not
    /// to be read any further. Alone, so that its hot loop has all registers.
    #[inline(never)]
    fn read_bytes(&mut self, id: ConnectionId, bytes: &[u8], now: Now) {
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        let paced = admission::pace(connection, &self.config.limits, now);
        // Frames are lent by the cutter, so it stands beside the shard while they are dealt with.
        let mut cutter =
            std::mem::replace(&mut connection.inbound.cutter, FrameCutter::new(0, 0, 0));
        self.plane.look_ahead(&connection.session, &cutter, bytes);
        let turns = self.plane.turns;
        let result = match connection.session.link {
            None => self.read_frames::<false>(id, &mut cutter, bytes, now),
            Some(_) => self.read_frames::<true>(id, &mut cutter, bytes, now),
        };
        if let Some(connection) = open_connection(&mut self.connections, id) {
            connection.inbound.cutter = cutter;
            connection.session.turns = self.plane.turns - turns;
            connection.inbound.give_memory_back();
            if let Some(paced) = paced {
                paced.end(connection, &self.config.limits, now);
            }
        }
        self.end_of_bytes(id, now);
        if let Err(violation) = result {
            self.violate(id, &violation, now);
        }
    }

    fn read_frames<const IS_LINK: bool>(
        &mut self,
        id: ConnectionId,
        cutter: &mut FrameCutter,
        mut input: &[u8],
        now: Now,
    ) -> Result<(), Violation> {
        while let Some(connection) = open_connection(&mut self.connections, id) {
            match connection.session.state {
                SessionState::Closing => return Ok(()),
                SessionState::Moving => {
                    connection.inbound.backlog.extend_from_slice(input);
                    return Ok(());
                }
                _ => {}
            }
            // What is landing has its place. Were it to wait, bytes received in place would pass it.
            if connection.inbound.landing.is_some() {
                let taken = self.land(id, input);
                cutter.skipped(taken);
                input = &input[taken..];
                if !self.finish_landing(id, cutter.position(), now)? {
                    return Ok(());
                }
                continue;
            }
            if must_pause(connection) {
                connection.inbound.backlog.extend_from_slice(input);
                self.pause_receive(id);
                return Ok(());
            }
            if self.plane.neighbours.are_clogged() {
                self.wait_for_neighbours(id, input);
                return Ok(());
            }
            let Connection { session, inbound, .. } = connection;
            let is_open = session.state == SessionState::Open;
            let may_publish = is_open && !session.is_too_fast();
            // The hot loop of the daemon: messages, until something else turns up.
            let cut = loop {
                match cutter.next(&mut input)? {
                    Cut::Frame(frame) if may_publish && frame.kind() == FrameKind::Message => {
                        let published = match IS_LINK {
                            false => self.plane.publish(id, session, &frame, now),
                            true => self.plane.publish_from_link(id, session, &frame, now),
                        };
                        if let Err(refusal) = published {
                            if matches!(refusal, Refusal::NotNow) {
                                inbound.backlog.extend_from_slice(frame.bytes());
                            }
                            self.plane.flush_run(now);
                            break Err((*frame.header(), frame.at(), refusal));
                        }
                        if !IS_LINK && self.plane.wants_attention(session, frame.bytes().len()) {
                            break Ok(Cut::Incomplete);
                        }
                    }
                    Cut::Incomplete => {
                        self.plane.flush_run(now);
                        return Ok(());
                    }
                    cut => break Ok(cut),
                }
            };
            if !(matches!(cut, Ok(Cut::Frame(_))) && is_planted(Plant::RunNotFlushed)) {
                self.plane.flush_run(now);
            }
            match cut {
                Ok(Cut::Incomplete) => self.tell_publishers(now),
                Ok(Cut::Frame(frame)) if is_open && frame.kind() == FrameKind::Message => {
                    self.refuse(id, frame.header(), frame.at(), Refusal::TooFast)?;
                }
                Ok(Cut::Frame(frame)) => {
                    self.tell_publishers(now);
                    self.on_control_frame(id, &frame, now)
                        .map_err(|violation| violation.of(frame.kind()))?;
                }
                Ok(Cut::Large { at, .. }) if !is_open => {
                    let at = Some((at, FrameKind::Message));
                    return Err(Violation { at, ..Violation::protocol(BEFORE_HELLO) });
                }
                Ok(Cut::Large { head, stride, at }) => self.begin_landing(id, head, stride, at)?,
                Err((header, _, Refusal::NotNow)) => {
                    cutter.give_back(header.stride());
                    self.wait_for_room(id, &header, input);
                    return Ok(());
                }
                Err((header, at, refusal)) => self.refuse(id, &header, at, refusal)?,
            }
        }
        Ok(())
    }

    /// What each control frame does.
    fn on_control_frame(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
        now: Now,
    ) -> Result<(), Violation> {
        let Some(connection) = self.connection(id) else {
            return Ok(());
        };
        let state = connection.session.state;
        let is_greeted = state == SessionState::Open;
        if connection.session.link.is_some() {
            return self.on_link_frame(id, frame, now);
        }
        match frame.kind() {
            FrameKind::Welcome if state == SessionState::AwaitingWelcome => {
                self.on_welcome(id, frame, now)
            }
            FrameKind::Error | FrameKind::Goodbye
                if matches!(
                    state,
                    SessionState::AwaitingWelcome | SessionState::AwaitingLinkAck
                ) =>
            {
                self.on_turned_away(id, frame, now);
                Ok(())
            }
            FrameKind::LinkAck if state == SessionState::AwaitingLinkAck => {
                self.on_opening_ack(id, frame, now)
            }
            FrameKind::Hello if is_greeted => Err(Violation::by(frame, "Hello was said already")),
            FrameKind::Hello if state == SessionState::AwaitingHello => {
                self.on_hello(id, frame, now)
            }
            _ if !is_greeted => Err(Violation::by(frame, BEFORE_HELLO)),
            FrameKind::Ping => self.on_ping(id, frame),
            FrameKind::Pong | FrameKind::Heartbeat => Ok(()),
            FrameKind::Goodbye => self.on_goodbye(id, frame, now),
            FrameKind::TopicBind => self.on_topic_bind(id, frame, now),
            FrameKind::TopicUnbind => self.on_topic_unbind(id, frame),
            FrameKind::Subscribe => self.on_subscribe(id, frame),
            FrameKind::Unsubscribe => self.on_unsubscribe(id, frame),
            FrameKind::Error => Err(Violation::by(frame, "the client reported an error")),
            FrameKind::Resume => self.on_resume(id, frame),
            FrameKind::StreamAck => self.on_stream_ack(id, frame),
            FrameKind::Ack | FrameKind::Nack | FrameKind::Request | FrameKind::Reply => {
                self.on_unsupported(id, frame)
            }
            _ => Err(Violation::by(frame, "clients do not send this kind of frame")),
        }
    }

    /// Closes what dealing with one connection's bytes left open: the run, and acks owed.
    fn end_of_bytes(&mut self, id: ConnectionId, now: Now) {
        self.plane.flush_run(now);
        self.tell_publishers(now);
        self.send_acks(id);
        self.acknowledge_if_due(id);
        self.schedule(id);
    }

    fn on_sent(&mut self, id: ConnectionId, bytes: usize, blocked: bool, now: Now) {
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        connection.outbound.in_flight = false;
        if bytes > 0 {
            connection.session.last_sent_us = now.mono_us;
            self.plane.metrics.sends += 1;
            self.plane.metrics.bytes_out += bytes as u64;
        }
        if blocked {
            if bytes > 0 || connection.outbound.blocked_since_us.is_none() {
                connection.outbound.blocked_since_us = Some(now.mono_us);
            }
        } else {
            connection.outbound.blocked_since_us = None;
        }
        let mut touched = std::mem::take(&mut self.scratch_queues);
        let sent_before = self.plane.metrics.messages_out;
        flush::settle(&mut connection.outbound, &mut self.plane, bytes, &mut touched);
        let sent = self.plane.metrics.messages_out - sent_before;
        connection.session.messages_out += sent;
        if connection.session.link.is_some() {
            self.plane.metrics.forwarded += sent;
        }
        for &queue in &touched {
            self.look_after(id, queue);
        }
        self.scratch_queues = touched;
        if blocked {
            self.scan_by(now.mono_us + crate::limits::WRITE_TIMEOUT_US);
        }
        self.resume_if_possible(id, now);
        self.schedule(id);
        self.close_if_done(id);
    }

    fn on_writable(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else {
            return;
        };
        connection.outbound.blocked_since_us = None;
        self.schedule(id);
    }

    fn on_own_message(&mut self, topic: &str, payload: &[u8], now: Now) {
        if nexusd_wire::check_topic(topic).is_ok() && self.drain.is_none() {
            let mut frame = std::mem::take(&mut self.scratch_frame);
            self.plane.publish_own(topic, payload, &mut frame, now);
            self.scratch_frame = frame;
        }
    }

    /// Tells connections that their queues have something to send, and publishers what became of
    /// their messages and that they may go on; those may publish at once, so it goes round until
    /// nothing is left.
    fn settle(&mut self, now: Now) {
        for (filter, is_wanted) in self.plane.interest_changes.drain(..) {
            self.outputs.push_back(Output::Report(Report::Interest { filter, is_wanted }));
        }
        let change = self.plane.retained.take_change();
        if change != 0 {
            self.outputs.push_back(Output::Report(Report::Retained { change }));
        }
        loop {
            self.tell_publishers(now);
            if let Some(queue) = self.plane.condemned.pop() {
                self.disconnect_slow(queue, now);
                continue;
            }
            if let Some(queue) = self.plane.newly_ready.pop() {
                let id = self.plane.queues[queue.0 as usize].connection;
                if let Some(connection) = open_connection(&mut self.connections, id) {
                    connection.outbound.ready.push_back(queue);
                    self.schedule(id);
                }
            } else if let Some((publisher, queue)) = self.plane.released.pop() {
                self.release(publisher, queue, now);
            } else {
                break;
            }
        }
        if self.block_due_us.is_none()
            && let Some((since, _)) = self.plane.blocked.first()
        {
            self.block_due_us = Some(since + self.config.limits.block_timeout_us);
        }
    }

    /// Asks for a send if there is something to send and none is under way.
    fn schedule(&mut self, id: ConnectionId) {
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        self.buffers.count(connection);
        let outbound = &mut connection.outbound;
        if !outbound.in_flight
            && !outbound.scheduled
            && outbound.blocked_since_us.is_none()
            && !connection.close_asked
            && !outbound.has_nothing_to_send()
        {
            outbound.scheduled = true;
            self.sends.push_back(id);
        }
    }

    /// Checks what must hold between events. For tests and the simulator; walks everything.
    pub fn assert_invariants(&self) {
        self.plane.assert_invariants();
        self.plane.node.sources.assert_invariants();
        self.assert_links();
        self.assert_buffers();
        assert_eq!(self.config.limits, self.plane.limits, "both change together");
        let open = self.connections.iter().flatten().count();
        assert_eq!(open, self.open, "open connections are counted");
        for connection in self.connections.iter().flatten() {
            connection.assert_invariants();
            for id in &connection.outbound.ready {
                assert!(self.plane.queues[id.0 as usize].is_ready, "queues in turn know it");
            }
        }
    }
}

const BEFORE_HELLO: &str = "the first frame must be Hello";

fn fatal(code: ErrorCode, message: &str) -> ErrorReport<'_> {
    ErrorReport { code, message, fatal: true, request: 0, offset: 0, kind: 0 }
}

fn must_pause(connection: &Connection) -> bool {
    connection.session.is_held()
        || connection.session.is_waiting
        || connection.session.acks.len() > ACKS_OWED_MAX
        || connection.outbound.control_backlog() > CONTROL_BACKLOG_BYTES
}

fn open_connection(
    connections: &mut [Option<Box<Connection>>],
    id: ConnectionId,
) -> Option<&mut Connection> {
    connections
        .get_mut(id.index as usize)
        .and_then(Option::as_deref_mut)
        .filter(|connection| connection.id == id)
}
