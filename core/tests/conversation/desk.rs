//! A desk in front of a shard: opens connections, says frames, collects what is heard. Sends take
//! everything at once unless a connection is stalled.

use nexusd_core::inspection::{Answer, Reply, Request};
use nexusd_core::limits::CONTROL_BYTES_MAX;
use nexusd_core::{
    CloseReason, Command, ConnectionId, Destination, Door, Event, Handover, Limits, LinkCommand,
    LinkReport, MeshConfig, Metrics, Now, Output, PeerAddress, Report, Service, Shard, ShardConfig,
    wire,
};
use nexusd_wire::control::{self, GapMode, OverflowPolicy, Role};
use nexusd_wire::{
    Cut, FrameCutter, FrameEncoder, FrameKind, HEADER_BYTES, Header, MessageFlags, NodeId,
    Sequence, SubscribeRequest, SubscriptionId, TopicId,
};

pub(crate) use crate::heard::Heard;
use crate::heard::understand;

/// The wall clock at first.
pub const START_US: u64 = 1_700_000_000_000_000;

struct Seat {
    /// Where its connection lives.
    shard: usize,
    /// Its id there.
    connection: ConnectionId,
    received: Vec<u8>,
    stalled: bool,
    /// Bytes the socket takes before it stalls.
    takes: Option<usize>,
    /// Sends do not end by themselves: what the running one took.
    held: Option<Vec<u8>>,
    holds: bool,
    closed: bool,
    published: u64,
    /// How often its shard wanted to receive no more, and went on.
    pauses: usize,
    resumes: usize,
    /// What the last Error it heard said.
    complaint: String,
}

impl Seat {
    fn new(shard: usize, connection: ConnectionId, stalled: bool) -> Self {
        Self {
            shard,
            connection,
            received: Vec::new(),
            stalled,
            takes: None,
            held: None,
            holds: false,
            closed: false,
            published: 0,
            pauses: 0,
            resumes: 0,
            complaint: String::new(),
        }
    }
}

/// A connection as tests know it; shards number theirs each for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeatId(usize);

pub struct Desk {
    shards: Vec<Shard>,
    /// How many connections each of them has had.
    opened: Vec<u32>,
    encoder: FrameEncoder,
    seats: Vec<Seat>,
    /// Connections that a shard has given up, and where they go.
    moves: Vec<(SeatId, Destination)>,
    /// What was read of connections that went to the edge.
    edge: Vec<Vec<u8>>,
    /// They wait until they are told to move.
    holds_moves: bool,
    /// A shard that does not look into its inbox.
    absent: Option<usize>,
    reports: Vec<LinkReport>,
    /// What shards answered, not yet asked for.
    answers: Vec<Reply>,
    now: Now,
}

impl Desk {
    pub fn new() -> Self {
        Self::with_limits(Limits { memory_bytes: 8 << 20, ..Limits::default() })
    }

    pub fn with_limits(limits: Limits) -> Self {
        Self::with_shards(limits, 1)
    }

    /// A desk in front of several shards; connections are spread over them in turn.
    pub fn with_shards(limits: Limits, shards: usize) -> Self {
        Self::of_node(NodeId(1), MeshConfig::default(), limits, shards)
    }

    /// The same of a node of the mesh.
    pub fn of_node(node: NodeId, mesh: MeshConfig, limits: Limits, shards: usize) -> Self {
        let config = ShardConfig {
            node,
            cluster: "test".into(),
            software: "test".into(),
            seed: 7,
            mesh,
            limits,
        };
        let now = Now { mono_us: 1, wall_us: START_US };
        let wired = |wiring| Shard::wired(config.clone(), wiring);
        let shards: Vec<Shard> = wire(shards).into_iter().map(wired).collect();
        Self {
            opened: vec![0; shards.len()],
            shards,
            encoder: FrameEncoder::new(),
            seats: Vec::new(),
            moves: Vec::new(),
            edge: Vec::new(),
            holds_moves: false,
            absent: None,
            reports: Vec::new(),
            answers: Vec::new(),
            now,
        }
    }

    pub fn open(&mut self) -> SeatId {
        self.open_from(PeerAddress::Unix)
    }

    pub fn open_from(&mut self, peer: PeerAddress) -> SeatId {
        self.open_seat(peer, false)
    }

    /// Opens a connection whose socket takes nothing.
    pub fn open_stalled(&mut self) -> SeatId {
        self.open_seat(PeerAddress::Unix, true)
    }

    /// Opens a connection of, or to, another node, on the shard that keeps its link or any other one.
    pub fn open_link(&mut self, door: Door, shard: usize) -> SeatId {
        let peer = PeerAddress::Tcp(([127, 0, 0, 1], 40_000).into());
        if door == Door::Mesh {
            self.shards[0].place();
        }
        self.seat(shard, peer, door, false)
    }

    /// The bytes that a connection was sent since they were last asked for.
    pub fn take(&mut self, id: SeatId) -> Vec<u8> {
        std::mem::take(&mut self.seats[id.0].received)
    }

    /// What was reported of links since this was last asked.
    pub fn reports(&mut self) -> Vec<LinkReport> {
        std::mem::take(&mut self.reports)
    }

    /// What was read of the connections that went to the edge since this was last asked.
    pub fn edge(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.edge)
    }

    /// Asks a shard, as another thread of the daemon does.
    pub fn ask(&mut self, shard: usize, request: Request) -> Answer {
        let (number, request) = (77, Box::new(request));
        self.event(shard, Event::Command(Command::Inspect { number, request }));
        match &self.answers.split_off(0)[..] {
            [Reply { number: 77, answer }] => answer.clone(),
            other => panic!("not one answer but {other:?}"),
        }
    }

    /// The connection of a seat, as its shard knows it.
    pub fn connection(&self, id: SeatId) -> ConnectionId {
        self.seats[id.0].connection
    }

    pub fn command(&mut self, command: LinkCommand) {
        let home = nexusd_core::home_of_node(command.peer(), self.shards.len()).index();
        self.event(home, Event::Command(Command::Link(command)));
    }

    fn open_seat(&mut self, peer: PeerAddress, stalled: bool) -> SeatId {
        let shard = self.shards[0].place().index();
        self.seat(shard, peer, Door::Apps, stalled)
    }

    fn seat(&mut self, shard: usize, peer: PeerAddress, door: Door, stalled: bool) -> SeatId {
        let id = SeatId(self.seats.len());
        let connection = self.number(shard);
        self.seats.push(Seat::new(shard, connection, stalled));
        self.event(shard, Event::Opened { connection, peer, door, is_moved: false });
        id
    }

    /// The id of one more connection of a shard.
    fn number(&mut self, shard: usize) -> ConnectionId {
        let index = self.opened[shard];
        self.opened[shard] += 1;
        ConnectionId { index, generation: 5 }
    }

    pub fn greet(&mut self) -> SeatId {
        self.greet_from(PeerAddress::Unix)
    }

    pub fn greet_from(&mut self, peer: PeerAddress) -> SeatId {
        let id = self.open_from(peer);
        let mut bytes = Vec::new();
        self.encoder.hello(&mut bytes, 0, Role::Client, "tester", "test");
        self.say(id, &bytes);
        assert_eq!(self.heard(id), [Heard::Welcome]);
        id
    }

    pub fn bytes_of_hello(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encoder.hello(&mut bytes, 0, Role::Client, "tester", "test");
        bytes
    }

    /// The Hello of a client that comes back for a subscription.
    pub fn hello_again(&mut self, role: Role, resume: SubscriptionId) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encoder.hello_again(&mut bytes, 0, role, "tester", "test", Some(resume));
        bytes
    }

    /// The shard that a connection lives on.
    pub fn home(&self, id: SeatId) -> usize {
        self.seats[id.0].shard
    }

    /// Connections that a shard gives up stay there until they are let go.
    pub fn hold_moves(&mut self) {
        self.holds_moves = true;
    }

    /// Lets those go.
    pub fn let_move(&mut self) {
        self.holds_moves = false;
        self.come_to_rest();
    }

    /// A shard looks into its inbox no more until it is let.
    pub fn hold_inbox(&mut self, shard: usize) {
        self.absent = Some(shard);
    }

    /// Lets it.
    pub fn let_inbox(&mut self) {
        self.absent = None;
        self.come_to_rest();
    }

    pub fn subscribe(&mut self, id: SeatId, filters: &[&str]) -> SubscriptionId {
        self.subscribe_as(
            id,
            &SubscribeRequest { request: 1, filters, ..SubscribeRequest::default() },
        )
    }

    pub fn subscribe_with(
        &mut self,
        id: SeatId,
        filters: &[&str],
        policy: OverflowPolicy,
        queue_messages: u32,
    ) -> SubscriptionId {
        self.subscribe_as(
            id,
            &SubscribeRequest {
                request: 1,
                filters,
                policy: Some(policy),
                queue_messages: Some(queue_messages),
                ..SubscribeRequest::default()
            },
        )
    }

    pub fn subscribe_as(&mut self, id: SeatId, request: &SubscribeRequest<'_>) -> SubscriptionId {
        self.ask_to_subscribe(id, request);
        let heard = self.heard(id);
        match heard.as_slice() {
            [.., Heard::Subscribed { subscription }] => *subscription,
            other => panic!("no subscription but {other:?}"),
        }
    }

    pub fn ask_to_subscribe(&mut self, id: SeatId, request: &SubscribeRequest<'_>) {
        let bytes = self.bytes_of_subscribe(request);
        self.say(id, &bytes);
    }

    pub fn bytes_of_subscribe(&mut self, request: &SubscribeRequest<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encoder.subscribe(&mut bytes, request);
        bytes
    }

    pub fn unsubscribe(&mut self, id: SeatId, subscription: SubscriptionId) {
        let mut bytes = Vec::new();
        self.encoder.unsubscribe(&mut bytes, 2, subscription, false);
        self.say(id, &bytes);
    }

    pub fn pause(&mut self, id: SeatId, subscription: SubscriptionId) {
        let bytes = self.bytes_of_pause(subscription);
        self.say(id, &bytes);
    }

    pub fn bytes_of_pause(&mut self, subscription: SubscriptionId) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encoder.unsubscribe(&mut bytes, 3, subscription, true);
        bytes
    }

    /// A new connection on the shard that keeps the subscription.
    pub fn home_of(&mut self, subscription: SubscriptionId) -> SeatId {
        let home = (subscription.0 & 63) as usize;
        loop {
            let id = self.greet();
            if self.seats[id.0].shard == home {
                return id;
            }
        }
    }

    pub fn resume(&mut self, id: SeatId, subscription: SubscriptionId, received: u64) {
        self.resume_with(id, subscription, received, GapMode::None);
    }

    pub fn resume_with(
        &mut self,
        id: SeatId,
        subscription: SubscriptionId,
        received: u64,
        mode: GapMode,
    ) {
        let mut bytes = Vec::new();
        self.encoder.resume(&mut bytes, 4, subscription, received, mode);
        self.say(id, &bytes);
    }

    pub fn acknowledge(&mut self, id: SeatId, subscription: SubscriptionId, received: u64) {
        let mut bytes = Vec::new();
        self.encoder.stream_ack(&mut bytes, &[(subscription, received)]);
        self.say(id, &bytes);
    }

    pub fn bind(&mut self, id: SeatId, topic: u32, name: &str) {
        let bytes = self.bytes_of_bind(topic, name);
        self.say(id, &bytes);
    }

    pub fn bytes_of_bind(&mut self, topic: u32, name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encoder.topic_bind(&mut bytes, TopicId(topic), name);
        bytes
    }

    pub fn publish(&mut self, id: SeatId, topic: u32, payload: &[u8], flags: MessageFlags) {
        let bytes = self.message(id, topic, payload, flags);
        self.say(id, &bytes);
    }

    /// Publishes a message to each of these topics, in bytes that come together.
    pub fn publish_all(&mut self, id: SeatId, topics: &[u32]) {
        let messages =
            topics.iter().map(|&topic| self.message(id, topic, b"x", MessageFlags::default()));
        let bytes: Vec<Vec<u8>> = messages.collect();
        self.say(id, &bytes.concat());
    }

    /// Publishes a message with a time to live.
    pub fn publish_for(&mut self, id: SeatId, topic: u32, payload: &[u8], ttl_ms: u32) {
        let bytes = self.message(id, topic, payload, MessageFlags::default());
        let (header, body) = bytes.split_at(HEADER_BYTES);
        let header = Header::peek(header).expect("a header").with_ttl_ms(ttl_ms);
        self.say(id, &[header.bytes(), body].concat());
    }

    /// Publishes a retained message with a time to live.
    pub fn retain_for(&mut self, id: SeatId, topic: u32, payload: &[u8], ttl_ms: u32) {
        let bytes = self.message(id, topic, payload, MessageFlags::RETAIN);
        let (header, body) = bytes.split_at(HEADER_BYTES);
        let header = Header::peek(header).expect("a header").with_ttl_ms(ttl_ms);
        self.say(id, &[header.bytes(), body].concat());
    }

    /// Lets everything happen that is due now.
    pub fn rest(&mut self) {
        while let Some(at) = self
            .shards
            .iter()
            .position(|shard| shard.wake_at().is_some_and(|at| at <= self.now.mono_us))
        {
            self.event(at, Event::Tick);
        }
    }

    pub fn say_goodbye(&mut self, id: SeatId) {
        let mut bytes = Vec::new();
        self.encoder.goodbye(&mut bytes, "done", 0);
        self.say(id, &bytes);
    }

    /// Publishes, and leaves what the shard asks for then to be polled.
    pub fn feed_publish(&mut self, id: SeatId, topic: u32, payload: &[u8]) {
        let bytes = &self.message(id, topic, payload, MessageFlags::default());
        let &Seat { shard, connection, .. } = &self.seats[id.0];
        self.shards[shard].on_event(self.now, Event::Received { connection, bytes });
    }

    /// What the first shard asks for next.
    pub fn poll_first_shard(&mut self) -> Option<Output> {
        self.shards[0].poll_output()
    }

    /// The bytes of a message.
    pub fn message(
        &mut self,
        id: SeatId,
        topic: u32,
        payload: &[u8],
        flags: MessageFlags,
    ) -> Vec<u8> {
        let seat = &mut self.seats[id.0];
        seat.published += 1;
        let header = Header::new(FrameKind::Message, 0, 0)
            .with_topic(TopicId(topic))
            .with_sequence(Sequence(seat.published))
            .with_flags(flags);
        let mut bytes = Vec::new();
        FrameEncoder::message(&mut bytes, &header, &[], payload);
        bytes
    }

    pub fn publish_own(&mut self, topic: &str, payload: &[u8]) {
        let owner = nexusd_core::owner_of(topic, self.shards.len(), 7).index();
        let publish = Command::Publish { topic: topic.into(), payload: payload.into() };
        self.event(owner, Event::Command(publish));
    }

    pub fn drain(&mut self) {
        (0..self.shards.len()).for_each(|shard| self.drain_shard(shard));
    }

    pub fn drain_shard(&mut self, shard: usize) {
        let deadline_us = self.now.mono_us + 1_000_000;
        self.event(shard, Event::Command(Command::Drain { deadline_us }));
    }

    pub fn pong(&mut self, id: SeatId) {
        let mut bytes = Vec::new();
        FrameEncoder::ping_or_pong(&mut bytes, FrameKind::Pong, 0);
        self.say(id, &bytes);
    }

    pub fn stall(&mut self, id: SeatId) {
        self.seats[id.0].stalled = true;
    }

    /// Lets the socket take `bytes` more and then stall.
    pub fn go_on_for(&mut self, id: SeatId, bytes: usize) {
        self.seats[id.0].takes = Some(bytes);
        self.go_on(id);
    }

    /// Sends on this connection do not end until they are let go.
    pub fn hold_sends(&mut self, id: SeatId) {
        self.seats[id.0].holds = true;
    }

    /// Ends the running send; it took everything.
    pub fn let_go(&mut self, id: SeatId) {
        let seat = &mut self.seats[id.0];
        seat.holds = false;
        let held = seat.held.take().expect("a send runs");
        seat.received.extend_from_slice(&held);
        let (shard, connection) = (seat.shard, seat.connection);
        self.event(shard, Event::Sent { connection, bytes: held.len(), blocked: false });
    }

    pub fn go_on(&mut self, id: SeatId) {
        self.seats[id.0].stalled = false;
        self.tell(id, |connection| Event::Writable { connection });
    }

    /// How many shards the node has.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The wall clock goes so far ahead, in microseconds; back, if that wraps.
    pub fn set_clock(&mut self, ahead_us: u64) {
        self.now.wall_us = self.now.wall_us.wrapping_add(ahead_us);
    }

    /// Lets time pass, ticking whenever the shard asked for it.
    pub fn pass(&mut self, us: u64) {
        let end = self.now.mono_us + us;
        for shard in 0..self.shards.len() {
            while let Some(at) = self.shards[shard].wake_at().filter(|at| *at <= end) {
                self.now.mono_us = self.now.mono_us.max(at);
                self.event(shard, Event::Tick);
            }
        }
        self.now.mono_us = end;
    }

    /// Lets time pass that no shard notices before something else happens.
    pub fn pass_unnoticed(&mut self, us: u64) {
        self.now.mono_us += us;
    }

    /// The client's end of the connection closes.
    pub fn end(&mut self, id: SeatId) {
        self.seats[id.0].closed = true;
        let reason = CloseReason::EndOfStream;
        self.tell(id, |connection| Event::Closed { connection, reason });
    }

    pub fn metrics(&self) -> Metrics {
        let mut sum = Metrics::default();
        self.shards.iter().for_each(|shard| sum += shard.metrics());
        sum
    }

    /// Bytes that the rest of a large frame still has to bring.
    pub fn landing_zone(&mut self, id: SeatId) -> Option<usize> {
        let &Seat { shard, connection, .. } = &self.seats[id.0];
        self.shards[shard].landing_zone(connection).map(|zone| zone.len())
    }

    pub fn is_finished(&self) -> bool {
        self.shards.iter().all(Shard::is_finished)
    }

    /// The text of the last Error among what was heard.
    pub fn complaint(&self, id: SeatId) -> &str {
        &self.seats[id.0].complaint
    }

    /// How often the shard of this connection wanted to receive no more of it, and went on.
    pub fn pauses(&self, id: SeatId) -> (usize, usize) {
        let seat = &self.seats[id.0];
        (seat.pauses, seat.resumes)
    }

    pub fn is_closed(&self, id: SeatId) -> bool {
        self.seats[id.0].closed
    }

    /// Everything this connection was sent since the last call.
    pub fn heard(&mut self, id: SeatId) -> Vec<Heard> {
        let received = std::mem::take(&mut self.seats[id.0].received);
        let mut input = received.as_slice();
        let mut cutter = FrameCutter::new(u32::MAX, CONTROL_BYTES_MAX, usize::MAX);
        let mut heard = Vec::new();
        while let Cut::Frame(frame) =
            cutter.next(&mut input).expect("the shard speaks the protocol")
        {
            understand(&frame, &mut heard);
            if let Some(Heard::Error { .. }) = heard.last() {
                let body = frame.body::<control::Error<'_>>().expect("a body");
                self.seats[id.0].complaint = body.message().unwrap_or_default().into();
            }
        }
        assert_eq!(cutter.stashed(), 0, "frames are sent whole");
        heard
    }

    pub fn say(&mut self, id: SeatId, bytes: &[u8]) {
        self.tell(id, |connection| Event::Received { connection, bytes });
    }

    /// Tells the shard of a connection something of it.
    fn tell<'a>(&mut self, id: SeatId, event: impl FnOnce(ConnectionId) -> Event<'a>) {
        let &Seat { shard, connection, .. } = &self.seats[id.0];
        self.event(shard, event(connection));
    }

    /// Tells a shard something, and lets all of them come to rest.
    fn event(&mut self, at: usize, event: Event<'_>) {
        self.shards[at].on_event(self.now, event);
        self.carry_out(at);
        self.come_to_rest();
    }

    fn come_to_rest(&mut self) {
        loop {
            let is_looking = |at: &usize| Some(*at) != self.absent && self.shards[*at].has_mail();
            if let Some(at) = (0..self.shards.len()).find(is_looking) {
                self.shards[at].on_event(self.now, Event::Inbox);
                self.carry_out(at);
            } else if !self.holds_moves && !self.moves.is_empty() {
                let (id, to) = self.moves.remove(0);
                self.finish_move(id, to);
            } else {
                return;
            }
        }
    }

    /// What the drivers of two shards do with a connection that moves, if it is still there.
    fn finish_move(&mut self, id: SeatId, to: Destination) {
        let &Seat { shard, connection, .. } = &self.seats[id.0];
        let old = &mut self.shards[shard];
        let Some(Handover { peer, door, bytes }) = old.hand_over(connection) else { return };
        old.on_event(self.now, Event::Closed { connection, reason: CloseReason::Moved });
        old.assert_invariants();
        let Destination::Shard(to) = to else {
            self.seats[id.0].closed = true;
            self.edge.push(bytes);
            return;
        };
        let to = to.index();
        let connection = self.number(to);
        let seat = &mut self.seats[id.0];
        (seat.shard, seat.connection) = (to, connection);
        let new = &mut self.shards[to];
        new.on_event(self.now, Event::Opened { connection, peer, door, is_moved: true });
        new.on_event(self.now, Event::Received { connection, bytes: &bytes });
        self.carry_out(to);
    }

    fn carry_out(&mut self, at: usize) {
        let (shard, seats) = (&mut self.shards[at], self.seats.as_mut_slice());
        shard.assert_invariants();
        while let Some(output) = shard.poll_output() {
            match output {
                Output::Send(connection) => {
                    let seat = &mut seats[seat_of(seats, at, connection)];
                    let mut gathered = Vec::new();
                    shard.gather(connection, &mut |slice| gathered.extend_from_slice(slice));
                    if seat.holds {
                        seat.held = Some(gathered);
                        continue;
                    }
                    let takes = if seat.stalled { 0 } else { seat.takes.unwrap_or(usize::MAX) };
                    let blocked = takes < gathered.len();
                    let bytes = gathered.len().min(takes);
                    if blocked {
                        (seat.stalled, seat.takes) = (true, None);
                    }
                    seat.received.extend_from_slice(&gathered[..bytes]);
                    shard.on_event(self.now, Event::Sent { connection, bytes, blocked });
                }
                Output::Close(connection) => {
                    seats[seat_of(seats, at, connection)].closed = true;
                    let reason = CloseReason::Asked;
                    shard.on_event(self.now, Event::Closed { connection, reason });
                }
                Output::Move { connection, to } => {
                    self.moves.push((SeatId(seat_of(seats, at, connection)), to));
                }
                Output::PauseReceive(connection) => {
                    seats[seat_of(seats, at, connection)].pauses += 1;
                }
                Output::ResumeReceive(connection) => {
                    seats[seat_of(seats, at, connection)].resumes += 1;
                }
                Output::Report(Report::Link(report)) => self.reports.push(report),
                Output::Report(Report::Answer(reply)) => self.answers.push(*reply),
                _ => {}
            }
            shard.assert_invariants();
        }
    }
}

/// Who sits at a shard's connection, or sat there.
fn seat_of(seats: &[Seat], shard: usize, connection: ConnectionId) -> usize {
    let sits = |seat: &Seat| (seat.shard, seat.connection) == (shard, connection);
    seats.iter().position(sits).expect("a connection of this shard")
}
