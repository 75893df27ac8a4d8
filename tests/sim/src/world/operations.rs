//! What clients and the daemon's other threads do, one operation at a time, and the faults.

use nexusd_core::limits::SHARDS_MAX;
use nexusd_core::{CloseReason, Command, ConnectionId, Service};
use nexusd_wire::control::{OverflowPolicy, Role as HelloRole};
use nexusd_wire::{
    FrameEncoder, FrameKind, Header, MessageFlags, Position, Sequence, SubscribeRequest,
    SubscriptionId, TopicId,
};

use super::{Connection, Role, World};
use crate::conversation::{Bind, BindFate, Sent};
use crate::coverage::Mark;
use crate::dice::Dice;
use crate::oracle::{DAEMON, FAR_AHEAD, Fate, Oracle, Publication, Stream};
use crate::payload::{self, NAME_BYTES};
use crate::scenario::{HANDS_OVER, PARKS, Pace};
use crate::trace::trace;
use crate::violation::Violation;

/// Bytes a client keeps unwritten before it writes no more messages.
const OUTBOX_BYTES_MAX: usize = 256 << 10;
/// The same of a client that does not hold back when asked to.
const RUDE_OUTBOX_BYTES_MAX: usize = 2 << 20;
/// Subscriptions a client holds.
const STREAMS_MAX: usize = 5;
/// Acknowledged messages in a flood: more than one PublishAck answers, all in one receive.
const FLOOD_MESSAGES: u64 = 1_300;
/// Messages for a client that will not read: more than its socket and a small queue take.
const VICTIM_MESSAGES: usize = 220;
/// Their length.
const VICTIM_MESSAGE_BYTES: usize = 1_000;
/// Operations at the end of a run that are kept for each fault that is still to come.
const OPERATIONS_KEPT_FOR_FAULT: u64 = 40;
/// Pings in a flood: enough to fill a connection's control backlog.
const FLOOD_PINGS: u64 = 6_000;

impl World<'_> {
    /// One operation.
    pub(super) fn operate(&mut self, service: &mut impl Service) -> Result<(), Violation> {
        if self.dice.one_in(12) {
            return self.operate_daemon(service);
        }
        let client = self.dice.below(self.clients.len());
        let Some(slot) = self.clients[client].slot else {
            return self.connect_and_greet(client, service);
        };
        if self.dice.permille(self.scenario.fault_permille) || self.is_fault_due() {
            self.faults += 1;
            return self.fault(client, slot, service);
        }
        if self.clients[client].is_frozen {
            return Ok(());
        }
        let Some(connection) = self.slots[slot].as_deref() else { return Ok(()) };
        let conversation = &connection.conversation;
        // A client may write on before it is welcome.
        if conversation.closes_when_written || (!conversation.is_welcome && !self.dice.one_in(3)) {
            return Ok(());
        }
        if !conversation.hello_was_written() {
            self.offend(slot);
            return Ok(());
        }
        if self.oracle.parks() {
            if self.dice.one_in(2) && self.resume_one(slot) {
                return Ok(());
            }
            match self.dice.below(40) {
                0..=3 => {
                    self.acknowledge(slot);
                    return Ok(());
                }
                4 if self.dice.one_in(4) => {
                    self.resume_own(slot);
                    return Ok(());
                }
                _ => {}
            }
        }
        match (self.clients[client].role, self.dice.below(100)) {
            (Role::Violator, 0..=49) => self.offend(slot),
            (Role::Violator, 50..=64) => self.subscribe(slot),
            (Role::Violator, _) => self.publish(slot),
            (_, 0..=1) => self.offend_mildly(slot),
            (_, 2..=6) => self.ping(slot),
            (_, 7) if self.dice.one_in(20) => self.flood(slot),
            (Role::Publisher, 8..=10) => self.unbind(slot),
            (Role::Publisher, _) => self.publish(slot),
            (Role::Subscriber, 8..=49) => self.subscribe(slot),
            (Role::Subscriber, 50..=65) => self.unsubscribe(slot),
            (Role::Subscriber, _) => {
                let us = self.dice.magnitude(3_000);
                self.stall(client, us);
            }
            (Role::Mixed, 8..=25) => self.subscribe(slot),
            (Role::Mixed, 26..=32) => self.unsubscribe(slot),
            (Role::Mixed, _) => self.publish(slot),
        }
        Ok(())
    }

    /// What the daemon's other threads ask, and what happens to its clock.
    fn operate_daemon(&mut self, service: &mut impl Service) -> Result<(), Violation> {
        match self.dice.below(8) {
            0..=2 => self.command(Command::Sample, service),
            3 => {
                let hours = self.dice.pick(&[-24, -1, 1, 24]);
                self.clock.jump_wall(hours * 3_600_000_000);
                self.coverage.mark(Mark::WallJump);
                Ok(())
            }
            4 => {
                let topic = self.dice.pick(&["", "a/+", "a\u{0}"]).into();
                self.command(
                    Command::Publish { topic, payload: Box::from(&b"ill-formed"[..]) },
                    service,
                )
            }
            _ => self.publish_own(service),
        }
    }

    fn publish_own(&mut self, service: &mut impl Service) -> Result<(), Violation> {
        let topic = self.scenario.client_topics() + self.dice.below(self.scenario.system_topics);
        let index = self.oracle.next_publication();
        let len = NAME_BYTES + self.dice.below(200);
        let header = Header::new(FrameKind::Message, 0, len);
        let mut publication = Publication::new(DAEMON, topic, header, 0, len, 0, Fate::Written);
        publication.ttl_us = u64::from(self.scenario.limits.default_ttl_ms) * 1_000;
        self.oracle.write(publication, crate::oracle::NONE);
        self.oracle.publish_fed(index);
        let before = self.gauges.metrics.get().messages_in;
        let name = self.scenario.topics[topic].as_str().into();
        let payload = payload::bytes(index, len).into_boxed_slice();
        self.command(Command::Publish { topic: name, payload }, service)?;
        // Without memory the daemon gives its own messages up.
        if self.gauges.metrics.get().messages_in > before {
            self.unsettled_own.push(index);
        } else {
            self.oracle.publish_given_up(index);
        }
        Ok(())
    }

    /// Whether too few faults have happened for what is left of the run.
    fn is_fault_due(&self) -> bool {
        let left = self.operations_left.min(self.drain_after.saturating_sub(self.operations));
        let due = self.faults_due.saturating_sub(self.faults);
        due > 0 && left < due * OPERATIONS_KEPT_FOR_FAULT
    }

    /// Something goes wrong.
    fn fault(
        &mut self,
        client: usize,
        slot: usize,
        service: &mut impl Service,
    ) -> Result<(), Violation> {
        match self.dice.below(12) {
            10 | 11 if self.oracle.parks() => self.abandon(client, slot, service),
            0 | 1 => {
                self.coverage.mark(Mark::Reset);
                self.close(slot, CloseReason::Failed(104), service)
            }
            2 => {
                self.with(slot, |connection, _| connection.conversation.closes_when_written = true);
                Ok(())
            }
            3 => {
                self.say_goodbye(slot);
                Ok(())
            }
            4 if self.scenario.pace == Pace::Sleepy => {
                self.coverage.mark(Mark::Freeze);
                self.clients[client].is_frozen = true;
                Ok(())
            }
            _ => {
                self.coverage.mark(Mark::Stall);
                let us = self.dice.magnitude(3_000_000);
                self.stall(client, us);
                Ok(())
            }
        }
    }

    fn stall(&mut self, client: usize, us: u64) {
        self.clients[client].stalled_until_us = self.clock.now().mono_us + us;
    }

    /// Runs `act` on a connection, with the encoder beside it.
    fn with(&mut self, slot: usize, act: impl FnOnce(&mut Connection, &mut FrameEncoder)) {
        if let Some(connection) = self.slots[slot].as_deref_mut() {
            act(connection, &mut self.encoder);
        }
    }

    fn connect_and_greet(
        &mut self,
        client: usize,
        service: &mut impl Service,
    ) -> Result<(), Violation> {
        if self.dice.one_in(3) {
            return Ok(());
        }
        self.connect(client, service)?;
        let Some(slot) = self.clients[client].slot else { return Ok(()) };
        if self.clients[client].role == Role::Violator && self.dice.one_in(3) {
            return Ok(());
        }
        self.greet(slot);
        Ok(())
    }

    pub(super) fn greet(&mut self, slot: usize) {
        let minor = self.dice.pick(&[0, 0, 3]);
        let Some(client) = self.slots[slot].as_deref().map(|connection| connection.client) else {
            return;
        };
        let resume = self.named_in_hello(client);
        let shards = self.scenario.shards;
        let Some(connection) = self.slots[slot].as_deref_mut() else { return };
        let encoder = &mut self.encoder;
        if let Some(home) =
            resume.map(|id| id.0 as usize % SHARDS_MAX).filter(|home| HANDS_OVER && *home < shards)
        {
            connection.conversation.home = home;
        }
        connection.conversation.write(Sent::Hello, self.coverage, |out| {
            let role = HelloRole::Client;
            encoder.hello_again(out, minor, role, "simulated client", "nexusd-sim", resume);
        });
    }

    fn say_goodbye(&mut self, slot: usize) {
        let Some(connection) = self.slots[slot].as_deref_mut() else { return };
        if !connection.conversation.is_welcome {
            return;
        }
        let encoder = &mut self.encoder;
        connection
            .conversation
            .write(Sent::Goodbye, self.coverage, |out| encoder.goodbye(out, "done", 0));
    }

    fn ping(&mut self, slot: usize) {
        let token = self.dice.bits();
        let Some(connection) = self.slots[slot].as_deref_mut() else { return };
        connection.conversation.write(Sent::Ping(token), self.coverage, |out| {
            FrameEncoder::ping_or_pong(out, FrameKind::Ping, token);
        });
    }

    /// More questions than the daemon is willing to answer at once.
    fn flood(&mut self, slot: usize) {
        self.coverage.mark(Mark::Flood);
        if self.dice.one_in(2) {
            for _ in 0..FLOOD_PINGS {
                self.ping(slot);
            }
        } else {
            let topic = self.dice.below(self.scenario.client_topics());
            for _ in 0..FLOOD_MESSAGES {
                self.publish_one(slot, topic, 0, MessageFlags::ACK);
            }
        }
    }

    fn unbind(&mut self, slot: usize) {
        let Some(connection) = self.slots[slot].as_deref_mut() else { return };
        let conversation = &mut connection.conversation;
        if conversation.topic_ids.is_empty() {
            return;
        }
        let id = self.dice.below(conversation.topic_ids.len());
        conversation.topic_ids[id] = None;
        conversation.write(Sent::Other, self.coverage, |out| {
            FrameEncoder::topic_unbind(out, TopicId(id as u32));
        });
    }

    /// Somebody publishes more than the `block` queues of a client take that will not read.
    pub(super) fn flood_victim(&mut self, victim: ConnectionId) {
        let Some(connection) = self.slots[victim.index as usize].as_deref() else { return };
        let streams = connection.conversation.known_streams.iter();
        let streams: Vec<_> = streams.map(|&stream| self.oracle.stream(stream)).collect();
        let mut topics = 0..self.scenario.client_topics();
        let wanted = |topic: &usize| {
            streams.iter().any(|stream| stream.is_small_block_queue() && stream.wants(*topic))
        };
        let Some(topic) = topics.find(wanted) else { return };
        let is_other = |connection: &Connection| {
            connection.socket.id != victim && connection.conversation.is_welcome
        };
        let publisher = self.slots.iter().position(|slot| slot.as_deref().is_some_and(is_other));
        let Some(publisher) = publisher else { return };
        for _ in 0..VICTIM_MESSAGES {
            self.publish_one(publisher, topic, VICTIM_MESSAGE_BYTES, MessageFlags::default());
        }
    }

    /// Clients release their topics and end their subscriptions, most of them.
    pub(super) fn give_up_topics(&mut self) {
        for slot in 0..self.slots.len() {
            if self.dice.one_in(4) {
                continue;
            }
            let Some(connection) = self.slots[slot].as_deref() else { continue };
            if !connection.conversation.is_welcome {
                continue;
            }
            for _ in 0..connection.conversation.topic_ids.len() {
                self.unbind(slot);
            }
            if self.dice.one_in(2) {
                self.unsubscribe(slot);
            }
        }
    }

    /// Something that needs no answer.
    pub(super) fn show_life(&mut self, slot: usize) {
        let Some(connection) = self.slots[slot].as_deref_mut() else { return };
        if connection.conversation.is_welcome {
            connection.conversation.write(Sent::Other, self.coverage, |out| {
                FrameEncoder::bare(out, &Header::new(FrameKind::Heartbeat, 0, 0));
            });
        }
    }

    /// The client's id for a topic: an old one, or one bound now.
    fn bound_id(&mut self, slot: usize, topic: usize) -> Option<usize> {
        let connection = self.slots[slot].as_deref_mut()?;
        let conversation = &mut connection.conversation;
        let names =
            |id: &Option<usize>| id.is_some_and(|bind| conversation.binds[bind].topic == topic);
        if let Some(id) = conversation.topic_ids.iter().position(names) {
            return Some(id);
        }
        let free = conversation.topic_ids.iter().position(Option::is_none);
        let id = match free {
            Some(free) => free,
            // Now and then a name takes another's place.
            None if !conversation.topic_ids.is_empty() && self.dice.one_in(10) => {
                self.dice.below(conversation.topic_ids.len())
            }
            None => conversation.topic_ids.len(),
        };
        if id >= self.scenario.limits.topics {
            return None;
        }
        if id == conversation.topic_ids.len() {
            conversation.topic_ids.push(None);
        }
        let bind = conversation.binds.len();
        conversation.binds.push(Bind { topic, fate: BindFate::Held });
        conversation.topic_ids[id] = Some(bind);
        let (encoder, name) = (&mut self.encoder, &self.scenario.topics[topic]);
        conversation.write(Sent::Bind(bind), self.coverage, |out| {
            encoder.topic_bind(out, TopicId(id as u32), name);
        });
        Some(id)
    }

    /// A burst of messages.
    fn publish(&mut self, slot: usize) {
        let Some(connection) = self.slots[slot].as_deref() else { return };
        let conversation = &connection.conversation;
        let is_polite = self.clients[connection.client].is_polite;
        let most = if is_polite { OUTBOX_BYTES_MAX } else { RUDE_OUTBOX_BYTES_MAX };
        if (conversation.is_held_back && is_polite) || conversation.outbox().len() > most {
            return;
        }
        let count = 1 + self.dice.below(self.scenario.burst_max);
        let mut topic = self.dice.below(self.scenario.client_topics());
        for at in 0..count {
            if self.scenario.alternates {
                topic = at % 2;
            } else if self.dice.one_in(4) {
                topic = self.dice.below(self.scenario.client_topics());
            }
            let len = self.scenario.payload_len(&mut self.dice);
            let wants_ack = self.dice.one_in(4);
            let flags = if wants_ack { MessageFlags::ACK } else { MessageFlags::default() };
            self.publish_one(slot, topic, len, flags);
        }
    }

    fn publish_one(&mut self, slot: usize, topic: usize, len: usize, mut flags: MessageFlags) {
        let Some(id) = self.bound_id(slot, topic) else { return };
        let index = self.oracle.next_publication();
        let has_metadata = !self.scenario.alternates && self.dice.one_in(4);
        let metadata = if has_metadata { self.oracle.shelf().pick(&mut self.dice) } else { 0 };
        if len < NAME_BYTES {
            flags = flags.with(MessageFlags::KEYED);
        }
        if self.scenario.retains && self.dice.one_in(6) {
            flags = flags.with(MessageFlags::RETAIN);
        }
        let ttl_ms = match self.scenario.ttl_ms_max {
            0 if self.dice.one_in(8) => 60_000_000,
            0 => 0,
            most if self.dice.one_in(3) => self.dice.magnitude(u64::from(most)) as u32,
            _ => 0,
        };
        let Some(connection) = self.slots[slot].as_deref_mut() else { return };
        let conversation = &mut connection.conversation;
        let Some(bind) = conversation.topic_ids[id] else { return };
        let is_refused = conversation.binds[bind].fate == BindFate::Refused;
        let shelf = self.oracle.shelf().table(metadata);
        let header = Header::new(FrameKind::Message, shelf.len() as u16, len)
            .with_topic(TopicId(id as u32))
            .with_sequence(Sequence(conversation.next_sequence))
            .with_flags(flags)
            .with_ttl_ms(ttl_ms)
            .with_key_hash(if len < NAME_BYTES { index } else { 0 });
        conversation.next_sequence += 1;
        conversation.write(Sent::Publish(index), self.coverage, |out| {
            payload::encode(out, &header, shelf, index, len);
        });
        let fate = if is_refused { Fate::Refused } else { Fate::Written };
        let mut publication =
            Publication::new(conversation.number, topic, header, metadata, len, bind, fate);
        let default_ms = self.scenario.limits.default_ttl_ms;
        let ttl_ms = if ttl_ms == 0 { default_ms } else { ttl_ms };
        publication.ttl_us = u64::from(ttl_ms) * 1_000;
        let previous = match is_refused {
            true => crate::oracle::NONE,
            false => conversation.newest.insert(topic, index).unwrap_or(crate::oracle::NONE),
        };
        self.oracle.write(publication, previous);
        if is_refused {
            self.coverage.mark(Mark::RefusedPublish);
        }
    }

    /// A subscription with some filters and limits.
    fn subscribe(&mut self, slot: usize) {
        let Some(connection) = self.slots[slot].as_deref_mut() else { return };
        let conversation = &mut connection.conversation;
        if conversation.streams.len() >= STREAMS_MAX * 4
            || conversation.known_streams.len() >= STREAMS_MAX
        {
            return;
        }
        let count = if self.dice.one_in(3) { 1 + self.dice.below(4) } else { 1 };
        let choices = &self.scenario.filters;
        let filters: Vec<String> =
            (0..count).map(|_| choices[self.dice.below(choices.len())].clone()).collect();
        let limits = &self.scenario.limits;
        let policies = [
            None,
            Some(OverflowPolicy::DropOldest),
            Some(OverflowPolicy::DropNewest),
            Some(OverflowPolicy::Block),
            Some(OverflowPolicy::Disconnect),
        ];
        let policy = self.dice.pick(&policies);
        let queue_messages = self.dice.pick(&[None, Some(0), Some(1), Some(2), Some(9), Some(100)]);
        let queue_bytes = self.dice.pick(&[None, Some(500), Some(20_000), Some(10 << 20)]);
        let request = conversation.next_request;
        conversation.next_request += 1;
        let effective = policy.unwrap_or(limits.policy);
        let mut stream = Stream::new(
            conversation.number,
            connection.client,
            request,
            filters,
            effective,
            queue_messages.map_or(limits.queue_messages, u64::from),
            queue_bytes.unwrap_or(limits.queue_bytes),
        );
        stream.is_counted = self.scenario.counts && self.dice.one_in(2);
        self.gauges.keeps_sent.set(self.gauges.keeps_sent.get() || stream.is_counted);
        stream.wants_retained = self.scenario.retains && self.dice.one_in(2);
        if self.dice.one_in(4) {
            stream.positions = positions(&mut self.dice, &self.oracle, &stream.filters);
            let told = stream.positions.len();
            trace!(self.trace, "  {} had so much: {:?}", conversation.number, stream.positions);
            if told > 0 {
                self.coverage.mark(Mark::ToldPositions);
            }
        }
        trace!(
            self.trace,
            "  {} subscribes, request {request}, stream {}: {:?} {effective:?} {} messages {} bytes",
            conversation.number,
            self.oracle.next_stream(),
            stream.filters,
            stream.queue_messages,
            stream.queue_bytes
        );
        let filters: Vec<&str> = stream.filters.iter().map(String::as_str).collect();
        let position = |&(topic, sequence): &(usize, u64)| Position {
            topic: &self.scenario.topics[topic],
            sequence: Sequence(sequence),
            origin: None,
        };
        let positions: Vec<_> = stream.positions.iter().map(position).collect();
        let subscribe = SubscribeRequest {
            request,
            filters: &filters,
            policy,
            queue_messages,
            queue_bytes,
            counted: stream.is_counted,
            receive_retained: stream.wants_retained,
            positions: &positions,
            wait_mesh: false,
            ended: &[],
        };
        let encoder = &mut self.encoder;
        let place = self.oracle.next_stream();
        conversation
            .write(Sent::Subscribe(place), self.coverage, |out| encoder.subscribe(out, &subscribe));
        drop((filters, positions));
        conversation.streams.push(place);
        self.oracle.subscribe(stream);
        self.coverage.subscribed(effective);
    }

    /// The end of a subscription, or of one that never was.
    fn unsubscribe(&mut self, slot: usize) {
        let unknown = SubscriptionId((u128::from(self.dice.bits()) << 64) | 1);
        let Some(connection) = self.slots[slot].as_deref_mut() else { return };
        let conversation = &mut connection.conversation;
        let request = conversation.next_request;
        conversation.next_request += 1;
        let pause = PARKS && self.dice.one_in(3);
        let (sent, id) = if conversation.known_streams.is_empty() || self.dice.one_in(10) {
            (Sent::UnsubscribeUnknown, unknown)
        } else {
            let at = self.dice.below(conversation.known_streams.len());
            let stream = conversation.known_streams[at];
            let Some(id) = conversation.subscription_of(stream, &self.oracle) else { return };
            conversation.known_streams.swap_remove(at);
            if pause {
                conversation.pausing.push(stream);
            }
            (if pause { Sent::Pause(stream) } else { Sent::Unsubscribe(stream) }, id)
        };
        trace!(self.trace, "  {} writes {sent:?}, request {request}", conversation.number);
        let encoder = &mut self.encoder;
        conversation.write(sent, self.coverage, |out| encoder.unsubscribe(out, request, id, pause));
    }
}

/// How far a client that asks anew had come: to any place in some of the topics, or nowhere near.
fn positions(dice: &mut Dice, oracle: &Oracle, filters: &[String]) -> Vec<(usize, u64)> {
    let mut positions = Vec::new();
    for topic in oracle.matching(filters) {
        let newest = oracle.newest_number(topic);
        match dice.below(8) {
            0 => positions.push((topic, 0)),
            1 => positions.push((topic, FAR_AHEAD)),
            2 => positions.push((topic, newest)),
            3..=5 if newest > 0 => {
                let back = dice.magnitude(newest) - 1;
                positions.push((topic, oracle.number_up_to(topic, newest - back)));
            }
            _ => {}
        }
    }
    positions
}
