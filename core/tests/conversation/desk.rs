//! A desk in front of a shard: opens connections, says frames, collects what is heard. Sends take
//! everything at once unless a connection is stalled.

use nexusd_core::limits::CONTROL_BYTES_MAX;
use nexusd_core::{
    CloseReason, Command, ConnectionId, Event, Limits, Metrics, Now, Output, PeerAddress, Service,
    Shard, ShardConfig,
};
use nexusd_wire::control::{self, ErrorCode, OverflowPolicy, Role};
use nexusd_wire::{
    Cut, Frame, FrameCutter, FrameEncoder, FrameKind, Header, MessageFlags, NodeId, Sequence,
    SubscribeRequest, SubscriptionId, TopicId,
};

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    Bind { topic: u32, name: String },
    Deliver { subscription: SubscriptionId },
    Message { topic: u32, sequence: u64, payload: Vec<u8> },
    Gap { entries: Vec<(u32, u64, u64)>, missed: u64 },
    Ack { publisher_sequence: u64, sequence: u64, delivered: u32 },
    Unsubscribed { success: bool },
    Subscribed { subscription: SubscriptionId },
    Error { code: ErrorCode, fatal: bool, offset: u64 },
    Goodbye { last_accepted: u64 },
    Welcome,
    Pause,
    Resume,
    Ping,
    Other(FrameKind),
}

#[derive(Default)]
struct Seat {
    received: Vec<u8>,
    stalled: bool,
    /// Bytes the socket takes before it stalls.
    takes: Option<usize>,
    /// Sends do not end by themselves: what the running one took.
    held: Option<Vec<u8>>,
    holds: bool,
    closed: bool,
    published: u64,
}

pub struct Desk {
    shard: Shard,
    encoder: FrameEncoder,
    seats: Vec<Seat>,
    now: Now,
}

impl Desk {
    pub fn new() -> Self {
        Self::with_limits(Limits { memory_bytes: 8 << 20, ..Limits::default() })
    }

    pub fn with_limits(limits: Limits) -> Self {
        let config = ShardConfig {
            node: NodeId(1),
            cluster: "test".into(),
            software: "test".into(),
            seed: 7,
            limits,
        };
        let now = Now { mono_us: 1, wall_us: 1_700_000_000_000_000 };
        Self { shard: Shard::new(config), encoder: FrameEncoder::new(), seats: Vec::new(), now }
    }

    pub fn open(&mut self) -> ConnectionId {
        let connection = ConnectionId { index: self.seats.len() as u32, generation: 5 };
        self.seats.push(Seat::default());
        self.event(Event::Opened { connection, peer: PeerAddress::Unix });
        connection
    }

    pub fn greet(&mut self) -> ConnectionId {
        let id = self.open();
        let mut bytes = Vec::new();
        self.encoder.hello(&mut bytes, 0, Role::Client, "tester", "test");
        self.say(id, &bytes);
        assert_eq!(self.heard(id), [Heard::Welcome]);
        id
    }

    pub fn subscribe(&mut self, id: ConnectionId, filters: &[&str]) -> SubscriptionId {
        self.subscribe_as(
            id,
            &SubscribeRequest { request: 1, filters, ..SubscribeRequest::default() },
        )
    }

    pub fn subscribe_with(
        &mut self,
        id: ConnectionId,
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

    pub fn subscribe_as(
        &mut self,
        id: ConnectionId,
        request: &SubscribeRequest<'_>,
    ) -> SubscriptionId {
        let mut bytes = Vec::new();
        self.encoder.subscribe(&mut bytes, request);
        self.say(id, &bytes);
        let heard = self.heard(id);
        match heard.as_slice() {
            [.., Heard::Subscribed { subscription }] => *subscription,
            other => panic!("no subscription but {other:?}"),
        }
    }

    pub fn unsubscribe(&mut self, id: ConnectionId, subscription: SubscriptionId) {
        let mut bytes = Vec::new();
        self.encoder.unsubscribe(&mut bytes, 2, subscription, false);
        self.say(id, &bytes);
    }

    pub fn bind(&mut self, id: ConnectionId, topic: u32, name: &str) {
        let mut bytes = Vec::new();
        self.encoder.topic_bind(&mut bytes, TopicId(topic), name);
        self.say(id, &bytes);
    }

    pub fn publish(&mut self, id: ConnectionId, topic: u32, payload: &[u8], flags: MessageFlags) {
        let seat = &mut self.seats[id.index as usize];
        seat.published += 1;
        let header = Header::new(FrameKind::Message, 0, 0)
            .with_topic(TopicId(topic))
            .with_sequence(Sequence(seat.published))
            .with_flags(flags);
        let mut bytes = Vec::new();
        FrameEncoder::message(&mut bytes, &header, &[], payload);
        self.say(id, &bytes);
    }

    pub fn publish_own(&mut self, topic: &str, payload: &[u8]) {
        self.event(Event::Command(Command::Publish {
            topic: topic.into(),
            payload: payload.into(),
        }));
    }

    pub fn drain(&mut self) {
        self.event(Event::Command(Command::Drain { deadline_us: self.now.mono_us + 1_000_000 }));
    }

    pub fn stall(&mut self, id: ConnectionId) {
        self.seats[id.index as usize].stalled = true;
    }

    /// Lets the socket take `bytes` more and then stall.
    pub fn go_on_for(&mut self, id: ConnectionId, bytes: usize) {
        self.seats[id.index as usize].takes = Some(bytes);
        self.go_on(id);
    }

    /// Sends on this connection do not end until they are let go.
    pub fn hold_sends(&mut self, id: ConnectionId) {
        self.seats[id.index as usize].holds = true;
    }

    /// Ends the running send; it took everything.
    pub fn let_go(&mut self, id: ConnectionId) {
        let seat = &mut self.seats[id.index as usize];
        seat.holds = false;
        let held = seat.held.take().expect("a send runs");
        seat.received.extend_from_slice(&held);
        self.event(Event::Sent { connection: id, bytes: held.len(), blocked: false });
    }

    pub fn go_on(&mut self, id: ConnectionId) {
        self.seats[id.index as usize].stalled = false;
        self.event(Event::Writable { connection: id });
    }

    /// Lets time pass, ticking whenever the shard asked for it.
    pub fn pass(&mut self, us: u64) {
        let end = self.now.mono_us + us;
        while let Some(at) = self.shard.wake_at().filter(|at| *at <= end) {
            self.now.mono_us = self.now.mono_us.max(at);
            self.event(Event::Tick);
        }
        self.now.mono_us = end;
    }

    /// The client's end of the connection closes.
    pub fn end(&mut self, connection: ConnectionId) {
        self.event(Event::Closed { connection, reason: CloseReason::EndOfStream });
    }

    pub fn metrics(&self) -> Metrics {
        self.shard.metrics()
    }

    /// Bytes that the rest of a large frame still has to bring.
    pub fn landing_zone(&mut self, id: ConnectionId) -> Option<usize> {
        self.shard.landing_zone(id).map(|zone| zone.len())
    }

    pub fn is_finished(&self) -> bool {
        self.shard.is_finished()
    }

    pub fn is_closed(&self, id: ConnectionId) -> bool {
        self.seats[id.index as usize].closed
    }

    /// Everything this connection was sent since the last call.
    pub fn heard(&mut self, id: ConnectionId) -> Vec<Heard> {
        let received = std::mem::take(&mut self.seats[id.index as usize].received);
        let mut input = received.as_slice();
        let mut cutter = FrameCutter::new(u32::MAX, CONTROL_BYTES_MAX, usize::MAX);
        let mut heard = Vec::new();
        while let Cut::Frame(frame) =
            cutter.next(&mut input).expect("the shard speaks the protocol")
        {
            understand(&frame, &mut heard);
        }
        assert_eq!(cutter.stashed(), 0, "frames are sent whole");
        heard
    }

    pub fn say(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.event(Event::Received { connection, bytes });
    }

    fn event(&mut self, event: Event<'_>) {
        self.shard.on_event(self.now, event);
        self.shard.assert_invariants();
        while let Some(output) = self.shard.poll_output() {
            match output {
                Output::Send(connection) => {
                    let seat = &mut self.seats[connection.index as usize];
                    let mut gathered = Vec::new();
                    self.shard.gather(connection, &mut |slice| gathered.extend_from_slice(slice));
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
                    self.shard.on_event(self.now, Event::Sent { connection, bytes, blocked });
                }
                Output::Close(connection) => {
                    self.seats[connection.index as usize].closed = true;
                    let reason = CloseReason::Asked;
                    self.shard.on_event(self.now, Event::Closed { connection, reason });
                }
                _ => {}
            }
            self.shard.assert_invariants();
        }
    }
}

fn understand(frame: &Frame<'_>, heard: &mut Vec<Heard>) {
    let header = frame.header();
    let topic = header.topic().0;
    heard.push(match frame.kind() {
        FrameKind::TopicBind => {
            let body = frame.body::<control::TopicBind<'_>>().expect("a body");
            Heard::Bind { topic, name: body.name().into() }
        }
        FrameKind::Deliver => {
            let body = frame.body::<control::Deliver<'_>>().expect("a body");
            Heard::Deliver { subscription: body.subscription().into() }
        }
        FrameKind::Message => Heard::Message {
            topic,
            sequence: header.sequence().0,
            payload: frame.payload().to_vec(),
        },
        FrameKind::Gap => {
            let body = frame.body::<control::Gap<'_>>().expect("a body");
            let entries = body.entries().into_iter().flatten();
            let entries =
                entries.map(|entry| (entry.topic(), entry.first(), entry.last())).collect();
            Heard::Gap { entries, missed: body.missed() }
        }
        FrameKind::PublishAck => {
            let body = frame.body::<control::PublishAck<'_>>().expect("a body");
            heard.extend(body.entries().iter().map(|entry| Heard::Ack {
                publisher_sequence: entry.publisher_sequence(),
                sequence: entry.sequence(),
                delivered: entry.delivered(),
            }));
            return;
        }
        FrameKind::UnsubscribeResult => {
            let body = frame.body::<control::UnsubscribeResult<'_>>().expect("a body");
            Heard::Unsubscribed { success: body.success() }
        }
        FrameKind::SubscriptionInfo => {
            let body = frame.body::<control::SubscriptionInfo<'_>>().expect("a body");
            Heard::Subscribed { subscription: body.subscription().into() }
        }
        FrameKind::Error => {
            let body = frame.body::<control::Error<'_>>().expect("a body");
            Heard::Error { code: body.code(), fatal: body.fatal(), offset: body.offset() }
        }
        FrameKind::Goodbye => {
            let body = frame.body::<control::Goodbye<'_>>().expect("a body");
            Heard::Goodbye { last_accepted: body.last_accepted() }
        }
        FrameKind::Welcome => Heard::Welcome,
        FrameKind::PublishPause => Heard::Pause,
        FrameKind::PublishResume => Heard::Resume,
        FrameKind::Ping => Heard::Ping,
        other => Heard::Other(other),
    });
}
