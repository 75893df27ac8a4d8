//! A client of one node: it publishes and subscribes in the native protocol, and tells the oracle all that it
//! hears.

use std::collections::{BTreeMap, VecDeque};

use nexusd_core::limits::CONTROL_BYTES_MAX;
use nexusd_wire::control::{
    self, DeliveryMode, ErrorCode, GapMode, GapReason, OverflowPolicy, PublishStatus, Role,
};
use nexusd_wire::{
    Cut, Frame, FrameCutter, FrameEncoder, FrameKind, Header, MessageFlags, NodeId, Position,
    Sequence, SubscribeRequest, SubscriptionId, TopicId,
};

use super::coverage::{Coverage, Mark};
use super::oracle::{Delivered, Loss, Oracle};
use super::wire::{Times, WireId};
use crate::violation::{Violation, ensure};

/// A subscription that acknowledges does so after so many messages.
const MESSAGES_PER_ACK: u64 = 16;

/// One of them.
pub struct Client {
    /// Its number among all clients of all nodes there ever were.
    pub number: u32,
    /// Its connection; it is end 0.
    pub wire: WireId,
    /// What it has written and its socket has not taken.
    pub outbox: VecDeque<u8>,
    /// Bytes written so far: frames are named by where they begin.
    written: u64,
    /// It was welcomed.
    pub is_welcome: bool,
    /// Its node, once it is.
    node: NodeId,
    /// It went on over another connection.
    has_come_back: bool,
    /// Its connection broke; it will come back.
    pub is_away: bool,
    /// Its connection is over, or it was told that it will be.
    pub is_over: bool,
    /// It was disconnected as too slow; another one will come in its place.
    pub was_too_slow: bool,
    /// Its node asked it to publish nothing for now.
    pub is_held_back: bool,
    /// Some of its subscriptions may have ended while it was away.
    may_have_lost_streams: bool,
    /// It reads nothing until then.
    pub stalls_until_us: u64,
    /// Its subscriptions.
    pub streams: Vec<usize>,
    /// What it asked for, by the number of the request.
    requests: BTreeMap<u64, usize>,
    next_request: u64,
    /// Topics that it has bound, under their own numbers.
    bound: Vec<usize>,
    /// Messages it has published: the one of number n is at n - 1.
    published: Vec<u32>,
    /// Where they begin in what it wrote.
    begins: BTreeMap<u64, u32>,
    encoder: FrameEncoder,
    cutter: FrameCutter,
    names: BTreeMap<u32, usize>,
    nodes: BTreeMap<u32, NodeId>,
    run: Option<usize>,
    /// They are values that the subscription asked for.
    is_handed_over: bool,
    /// The last number that its daemon accepted, if it was told goodbye.
    pub goodbye: Option<u64>,
}

impl Client {
    /// A client that says Hello on a connection that was just made.
    pub fn new(number: u32, wire: WireId) -> Self {
        let mut client = Self::on(number, wire);
        client.write(|encoder, out| encoder.hello(out, 0, Role::Client, "client", "sim"));
        client
    }

    fn on(number: u32, wire: WireId) -> Self {
        Self {
            number,
            wire,
            outbox: VecDeque::new(),
            written: 0,
            is_welcome: false,
            node: NodeId::default(),
            has_come_back: false,
            is_away: false,
            is_over: false,
            was_too_slow: false,
            is_held_back: false,
            may_have_lost_streams: false,
            stalls_until_us: 0,
            streams: Vec::new(),
            requests: BTreeMap::new(),
            next_request: 1,
            bound: Vec::new(),
            published: Vec::new(),
            begins: BTreeMap::new(),
            encoder: FrameEncoder::new(),
            cutter: FrameCutter::new(u32::MAX, CONTROL_BYTES_MAX, usize::MAX),
            names: BTreeMap::new(),
            nodes: BTreeMap::new(),
            run: None,
            is_handed_over: false,
            goodbye: None,
        }
    }

    /// Whether its connection may break without anything that nobody knows of: it waits for no answer, and
    /// has published nothing.
    pub fn may_leave(&self) -> bool {
        let is_idle =
            self.outbox.is_empty() && self.requests.is_empty() && self.published.is_empty();
        is_idle && self.is_welcome && !self.is_over && !self.is_away && !self.streams.is_empty()
    }

    /// Whether it waits for an answer to a Resume, among others.
    pub fn is_coming_back(&self) -> bool {
        self.has_come_back && !self.requests.is_empty()
    }

    /// Goes on with its subscriptions over a new connection.
    pub fn come_back(&mut self, wire: WireId, oracle: &mut Oracle) {
        let stalls_until_us = self.stalls_until_us;
        let streams = std::mem::take(&mut self.streams);
        *self =
            Self { streams, stalls_until_us, has_come_back: true, ..Self::on(self.number, wire) };
        let first = self.streams.first().and_then(|stream| oracle.streams[*stream].subscription);
        self.write(|encoder, out| {
            encoder.hello_again(out, 0, Role::Client, "client", "sim", first);
        });
        for stream in self.streams.clone() {
            let it = &mut oracle.streams[stream];
            it.has_come_back = true;
            // Before its node saw that it was away it may have seen it as too slow.
            self.may_have_lost_streams |= it.policy == OverflowPolicy::Disconnect;
            let (received, Some(subscription)) = (it.received, it.subscription) else { continue };
            let request = self.next_request;
            self.next_request += 1;
            self.requests.insert(request, stream);
            let mode = GapMode::None;
            self.write(|encoder, out| encoder.resume(out, request, subscription, received, mode));
        }
    }

    fn write(&mut self, encode: impl FnOnce(&mut FrameEncoder, &mut Vec<u8>)) {
        let mut bytes = Vec::new();
        encode(&mut self.encoder, &mut bytes);
        self.written += bytes.len() as u64;
        self.outbox.extend(bytes);
    }

    /// Publishes a message; binds its topic before, if that is new.
    pub fn publish(
        &mut self,
        publication: u32,
        (topic, name): (usize, &str),
        len: usize,
        ttl_ms: u32,
        ack: bool,
    ) {
        let mut payload = vec![publication as u8; len.max(4)];
        payload[..4].copy_from_slice(&publication.to_le_bytes());
        let flags = if ack { MessageFlags::ACK } else { MessageFlags::default() };
        self.send(publication, (topic, name), (flags, ttl_ms), &payload);
    }

    /// Publishes a message that becomes its topic's retained value; of length 0: clears it.
    pub fn retain(&mut self, publication: u32, topic: usize, name: &str, len: usize) {
        let payload = vec![publication as u8; len];
        let flags = MessageFlags::RETAIN.with(MessageFlags::KEYED).with(MessageFlags::ACK);
        self.send(publication, (topic, name), (flags, 0), &payload);
    }

    fn send(
        &mut self,
        publication: u32,
        (topic, name): (usize, &str),
        (flags, ttl_ms): (MessageFlags, u32),
        payload: &[u8],
    ) {
        let known = self.bound.iter().position(|bound| *bound == topic);
        let id = TopicId(known.unwrap_or(self.bound.len()) as u32);
        if known.is_none() {
            self.bound.push(topic);
            self.write(|encoder, out| encoder.topic_bind(out, id, name));
        }
        self.published.push(publication);
        self.begins.insert(self.written, publication);
        let header = Header::new(FrameKind::Message, 0, 0)
            .with_topic(id)
            .with_sequence(Sequence(self.published.len() as u64))
            .with_flags(flags)
            .with_ttl_ms(ttl_ms)
            .with_key_hash(publication);
        self.write(|_, out| FrameEncoder::message(out, &header, &[], payload));
    }

    /// Subscribes.
    pub fn subscribe(
        &mut self,
        stream: usize,
        filters: &[&str],
        (policy, queue_messages, counted): (OverflowPolicy, u32, bool),
        (positions, ended): (&[Position<'_>], &[NodeId]),
    ) {
        let request = self.next_request;
        self.next_request += 1;
        self.requests.insert(request, stream);
        self.streams.push(stream);
        let queue_messages = (queue_messages > 0).then_some(queue_messages);
        let subscribe = SubscribeRequest {
            request,
            filters,
            policy: Some(policy),
            queue_messages,
            counted,
            positions,
            ended,
            ..SubscribeRequest::default()
        };
        self.write(|encoder, out| encoder.subscribe(out, &subscribe));
    }

    /// Subscribes to topics and asks for the values that they have.
    pub fn subscribe_to_values(&mut self, stream: usize, filters: &[&str]) {
        let request = self.next_request;
        self.next_request += 1;
        self.requests.insert(request, stream);
        self.streams.push(stream);
        let subscribe = SubscribeRequest {
            request,
            filters,
            receive_retained: true,
            ..SubscribeRequest::default()
        };
        self.write(|encoder, out| encoder.subscribe(out, &subscribe));
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, stream: usize, subscription: SubscriptionId) {
        let request = self.next_request;
        self.next_request += 1;
        self.requests.insert(request, stream);
        self.write(|encoder, out| encoder.unsubscribe(out, request, subscription, false));
    }

    /// Reads bytes that arrived, and were written when `times` says.
    pub fn read(
        &mut self,
        bytes: &[u8],
        times: &mut Times,
        oracle: &mut Oracle,
        coverage: &mut Coverage,
    ) -> Result<(), Violation> {
        let mut cutter =
            std::mem::replace(&mut self.cutter, FrameCutter::new(0, CONTROL_BYTES_MAX, 0));
        let mut input = bytes;
        let result = loop {
            match cutter.next(&mut input) {
                Ok(Cut::Frame(frame)) => {
                    let begun_us = times.of(frame.at());
                    if let Err(violation) = self.on_frame(&frame, begun_us, oracle, coverage) {
                        break Err(violation);
                    }
                }
                Ok(_) => break Ok(()),
                Err(error) => {
                    break Err(Violation(format!("a node sent malformed bytes: {error}")));
                }
            }
        };
        self.cutter = cutter;
        result
    }

    fn on_frame(
        &mut self,
        frame: &Frame<'_>,
        begun_us: u64,
        oracle: &mut Oracle,
        coverage: &mut Coverage,
    ) -> Result<(), Violation> {
        let number = self.number;
        let malformed = |error| Violation(format!("client {number} got a bad body: {error}"));
        let header = frame.header();
        match frame.kind() {
            FrameKind::Welcome => {
                let body = frame.body::<control::Welcome<'_>>().map_err(malformed)?;
                (self.is_welcome, self.node) = (true, body.node().into());
            }
            FrameKind::Ping => {
                let token = header.timestamp_us();
                self.write(|_, out| FrameEncoder::ping_or_pong(out, FrameKind::Pong, token));
            }
            FrameKind::TopicBind => {
                let body = frame.body::<control::TopicBind<'_>>().map_err(malformed)?;
                let topic = oracle.topic_named(body.name());
                ensure!(topic.is_some(), "client {number} was told of a topic '{}'", body.name());
                self.names.extend(topic.map(|topic| (header.topic().0, topic)));
            }
            FrameKind::TopicUnbind => {
                if let Some(topic) = self.names.remove(&header.topic().0) {
                    self.streams.iter().for_each(|&stream| oracle.forget_numbers(stream, topic));
                }
            }
            FrameKind::NodeBind => {
                let body = frame.body::<control::NodeBind<'_>>().map_err(malformed)?;
                self.nodes.insert(header.origin(), body.node().into());
            }
            FrameKind::SubscriptionInfo => {
                let body = frame.body::<control::SubscriptionInfo<'_>>().map_err(malformed)?;
                let stream = self.requests.remove(&body.request());
                ensure!(stream.is_some(), "client {number}: an answer to no request");
                if let Some(stream) = stream {
                    if oracle.streams[stream].has_come_back {
                        coverage.mark(Mark::Resumed);
                    }
                    oracle.confirmed(stream, body.subscription().into());
                }
            }
            FrameKind::UnsubscribeResult => {
                let body = frame.body::<control::UnsubscribeResult<'_>>().map_err(malformed)?;
                ensure!(body.success(), "client {number}: a subscription was not found");
                let stream = self.requests.remove(&body.request());
                if let Some(stream) = stream {
                    oracle.ended(stream);
                    self.streams.retain(|known| *known != stream);
                    self.run = self.run.filter(|run| *run != stream);
                }
            }
            FrameKind::Deliver => {
                let body = frame.body::<control::Deliver<'_>>().map_err(malformed)?;
                let subscription = body.subscription().into();
                let stream = oracle.stream_of(&self.streams, subscription);
                ensure!(stream.is_some(), "client {number}: a run of an unknown subscription");
                self.run = stream;
                self.is_handed_over = body.mode() == DeliveryMode::Retained;
            }
            FrameKind::Message => {
                let topic = self.names.get(&header.topic().0).copied();
                let (Some(stream), Some(topic)) = (self.run, topic) else {
                    return Err(Violation(format!("client {number}: a message without a name")));
                };
                let origin = header.origin();
                let node = self.nodes.get(&origin).copied();
                ensure!(
                    (origin == 0) == node.is_none(),
                    "client {number}: a message of a node {origin} that it does not know"
                );
                coverage.mark(if origin == 0 { Mark::OwnMessage } else { Mark::LinkMessage });
                oracle.delivered(&Delivered {
                    stream,
                    topic,
                    origin: node,
                    sequence: header.sequence().0,
                    origin_sequence: header.origin_sequence().0,
                    payload: frame.payload(),
                    timestamp_us: header.timestamp_us(),
                    key_hash: header.key_hash(),
                    is_handed_over: self.is_handed_over,
                    begun_us,
                })?;
                if header.ttl_ms() > 0 {
                    let is_own = origin == 0;
                    coverage.mark(if is_own { Mark::OwnMortal } else { Mark::LinkMortal });
                }
                let it = &oracle.streams[stream];
                if it.is_counted
                    && it.received.is_multiple_of(MESSAGES_PER_ACK)
                    && let Some(subscription) = it.subscription
                {
                    let ack = [(subscription, it.received)];
                    self.write(|encoder, out| encoder.stream_ack(out, &ack));
                }
            }
            FrameKind::Gap => {
                let body = frame.body::<control::Gap<'_>>().map_err(malformed)?;
                let stream = oracle.stream_of(&self.streams, body.subscription().into());
                let Some(stream) = stream else {
                    return Err(Violation(format!("client {number}: a gap of nothing")));
                };
                let mut entries = Vec::new();
                for entry in body.entries().into_iter().flatten() {
                    let topic = self.names.get(&entry.topic()).copied();
                    let Some(topic) = topic else {
                        return Err(Violation(format!("client {number}: a gap without a name")));
                    };
                    entries.push((topic, entry.first(), entry.last()));
                }
                coverage.gap(body.reason());
                if body.reason() == GapReason::LinkLost && !entries.is_empty() {
                    coverage.mark(Mark::LinkGap);
                }
                if body.missed() == u64::MAX {
                    coverage.mark(Mark::UnknownGap);
                }
                let (missed, reason) = (body.missed(), body.reason());
                let is_full = reason == GapReason::SlowConsumer;
                if is_full && oracle.streams[stream].policy == OverflowPolicy::Block {
                    coverage.mark(Mark::BlockedFull);
                }
                oracle.lost(stream, &Loss { entries, missed, reason })?;
            }
            FrameKind::PublishAck => {
                let body = frame.body::<control::PublishAck<'_>>().map_err(malformed)?;
                for entry in body.entries() {
                    let at = entry.publisher_sequence().wrapping_sub(1);
                    let Some(&publication) = self.published.get(at as usize) else {
                        return Err(Violation(format!("client {number}: an ack of nothing")));
                    };
                    if entry.status() == PublishStatus::Accepted {
                        coverage.mark(Mark::Acked);
                        // A queue that was full was handed it all the same.
                        let handed = entry.delivered() + entry.dropped();
                        oracle.accepted(publication, entry.sequence(), handed)?;
                    } else {
                        coverage.mark(Mark::RefusedPublish);
                        oracle.refused(publication);
                    }
                }
            }
            FrameKind::Goodbye => {
                let body = frame.body::<control::Goodbye<'_>>().map_err(malformed)?;
                self.goodbye = Some(body.last_accepted());
                oracle.told_goodbye(self.number);
                if body.is_complete() {
                    oracle.told_all(self.node, &self.streams);
                }
                self.is_over = true;
                for (at, &publication) in self.published.iter().enumerate() {
                    if at as u64 >= body.last_accepted() {
                        oracle.refused(publication);
                    }
                }
            }
            FrameKind::Error => {
                let body = frame.body::<control::Error<'_>>().map_err(malformed)?;
                let message = body.message().unwrap_or_default();
                let is_too_slow = body.code() == ErrorCode::LimitReached && body.fatal();
                if is_too_slow && message.ends_with("its policy is disconnect") {
                    coverage.mark(Mark::Disconnected);
                    (self.is_over, self.was_too_slow) = (true, true);
                    return oracle.disconnected(number, &self.streams);
                }
                if body.code() == ErrorCode::NotFound
                    && self.may_have_lost_streams
                    && let Some(stream) = self.requests.remove(&body.request())
                {
                    coverage.mark(Mark::DisconnectedAway);
                    oracle.ended(stream);
                    self.streams.retain(|known| *known != stream);
                    return Ok(());
                }
                match self.begins.get(&body.offset()) {
                    Some(&publication) if !body.fatal() => {
                        coverage.mark(Mark::RefusedPublish);
                        oracle.refused(publication);
                    }
                    _ => return Err(Violation(format!("client {number} was told: {message}"))),
                }
            }
            FrameKind::PublishPause => {
                coverage.mark(Mark::HeldBack);
                ensure!(!self.is_held_back, "client {number} was held back twice");
                self.is_held_back = true;
            }
            FrameKind::PublishResume => {
                ensure!(self.is_held_back, "client {number} was let go on, but was not held back");
                self.is_held_back = false;
            }
            FrameKind::Heartbeat
            | FrameKind::Pong
            | FrameKind::BackpressureWarning
            | FrameKind::ReplayComplete => {}
            other => {
                return Err(Violation(format!("client {number} got a frame of kind {other:?}")));
            }
        }
        Ok(())
    }
}
