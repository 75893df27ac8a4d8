//! What shards tell each other, and what each item does: the match that stands beside the one of
//! `shard.rs`.
//!
//! A message of a publisher here for a topic of another shard goes there in a batch, is numbered
//! and kept there (in the batch's memory, if there are many), and comes back as a run for the
//! subscribers here, who read it where it lies.
//! Nothing here waits. What a shard has no memory for stands aside, with all that its sender sent
//! behind it for publishing; everything else goes on, and so memory comes back.

use nexusd_wire::control::{ErrorCode, PublishStatus};
use nexusd_wire::{ErrorReport, FrameKind, Header, MessageFlags, Sequence, TopicId};

use super::event::{ConnectionId, Now};
use super::fetching::Target;
use super::neighbour::{Asker, Neighbour};
use super::output::Output;
use super::parcel::{Batch, BatchRun, Correction, Item, LargeMessage};
use super::plane::Plane;
use super::publish::Refusal;
use super::routing::{PublisherId, ShardIndex};
use super::{Shard, open_connection};
use crate::limits::{
    INBOX_BYTES_PER_TURN, INBOX_ITEMS_PER_TURN, RETAINED_BYTES_PER_STEP, SURVIVOR_BYTES_MAX,
};
use crate::owed_acks::{AckPart, AckRange, OwnersPart};
use crate::plant::{Plant, is_planted};
use crate::session::{Binding, SessionState};
use crate::subscriber_queue::QueueId;

const NO_MEMORY: &str = "the daemon has no memory left for this message now (--memory-limit)";

impl Shard {
    /// Takes what the other shards have sent, up to a turn's share.
    pub(super) fn on_inbox(&mut self, now: Now) {
        let count = self.plane.neighbours.len();
        let (mut bytes, mut items) = (0, 0);
        for step in 0..count {
            let at = (self.next_inbox + step) % count;
            while bytes < INBOX_BYTES_PER_TURN && items < INBOX_ITEMS_PER_TURN {
                let neighbour = &mut self.plane.neighbours.all()[at];
                let from = neighbour.shard;
                let Some(mut parcel) = neighbour.receive() else { break };
                items += parcel.len();
                for item in parcel.drain(..) {
                    bytes += item.bytes();
                    self.on_item(from, item, now);
                }
                self.plane.neighbours.of(from).recycle(parcel);
            }
        }
        self.next_inbox = (self.next_inbox + 1) % count.max(1);
    }

    /// What each item does.
    fn on_item(&mut self, from: ShardIndex, item: Item, now: Now) {
        match item {
            Item::OpenTopic { .. }
            | Item::CloseTopic { .. }
            | Item::Publish(_)
            | Item::PublishLarge(_)
            | Item::LoseOnLink { .. }
            | Item::FetchPartial { .. }
            | Item::FetchAnswered { .. }
            | Item::LoseUnknown { .. }
            | Item::DrainRound(_) => {
                let stalled = &mut self.plane.neighbours.of(from).stalled;
                stalled.push_back(item);
                if stalled.len() == 1 {
                    self.publish_stalled(from, now);
                }
            }
            Item::TopicOpened { handle, topic } => {
                let refused = self.plane.neighbours.of(from).on_opened(handle, topic);
                for asker in refused {
                    self.topic_refused(asker, Binding::Elsewhere(from, handle));
                }
            }
            Item::Credit(batch) => {
                self.plane.neighbours.of(from).credit(batch);
                self.let_publishers_on(from, now);
            }
            Item::LargeTaken { bytes } => self.plane.log.taken_away(bytes),
            Item::Refused { connection, offset } => self.message_refused(connection, offset),
            Item::Interest { filter, is_wanted: true } => {
                self.plane.index.insert_elsewhere(&filter, from);
            }
            Item::Interest { filter, is_wanted: false } => {
                self.plane.index.remove_elsewhere(&filter, from);
            }
            Item::Confirm { queue, created_at, subscription, wanted } => {
                self.plane.replay_elsewhere(from, queue, subscription, &wanted);
                self.plane.neighbours.of(from).tell(Item::Confirmed { queue, created_at });
            }
            Item::Fetch { fetch, wanted } => self.begin_asking(fetch, wanted),
            Item::FetchAsked { fetch, peers, is_first } => {
                self.plane.fetch_asked(fetch, &peers, is_first.then_some(from));
            }
            Item::EndFetch { fetch } => {
                self.questions.remove(&fetch);
            }
            Item::FetchBegins { queue, subscription, topic } => {
                if self.plane.is_same_queue(queue, subscription) {
                    self.plane.close_gate(queue, topic);
                }
            }
            Item::FetchedFrom { queue, subscription, topic, origin, complete } => {
                self.plane.open_gate(queue, subscription, topic, origin, complete);
            }
            Item::FetchCut { queue, subscription } => {
                self.plane.tell_cut(queue, subscription);
            }
            Item::FetchEnds { queue, subscription, topic, outcome } => {
                self.plane.end_gate(queue, subscription, topic, outcome);
            }
            Item::Answer { queue, subscription, asked } => {
                self.plane.answer_elsewhere(from, queue, subscription, &asked);
            }
            Item::Know { peer, request } => {
                self.plane.neighbours.of(from).tell(Item::Known { peer, request });
            }
            Item::Known { peer, request } => self.on_known(peer, request, from),
            Item::EarlyMessages { queue, subscription, filters } => {
                self.plane.hand_over_early(Target { shard: from, queue, subscription }, &filters);
                let done = Item::EarlyMessagesEnd { queue, subscription };
                self.plane.neighbours.of(from).tell(done);
            }
            Item::EarlyMessagesEnd { queue, subscription } => {
                self.early_messages_end(from, queue, subscription);
            }
            Item::Confirmed { queue, created_at } => self.on_confirmed(from, queue, created_at),
            Item::ScanRetained { scan, wanted } => self.plane.begin_scan(from, scan, wanted),
            Item::DigestWanted { peer } => {
                if let Some(digest) = self.plane.retained.digest() {
                    let digest = Box::new(*digest);
                    self.plane.neighbours.of(from).tell(Item::Digest { peer, digest });
                }
            }
            Item::Digest { peer, digest } => self.on_digest_of_shard(peer, from, &digest),
            Item::MoreRetained { scan } => {
                let is_done = self.plane.step_scan(scan);
                self.plane.neighbours.of(from).tell(Item::RetainedStep { scan, is_done });
            }
            Item::RetainedStep { scan, is_done } => {
                self.plane.on_retained_step(from, scan, is_done);
            }
            Item::Recover { queue, subscription, ranges } => {
                let recovered = self.plane.recover_elsewhere(from, &ranges);
                let answer = Item::Recovered { queue, subscription, recovered };
                self.plane.neighbours.of(from).tell(answer);
            }
            Item::Recovered { queue, subscription, recovered } => {
                if self.plane.on_recovered(from, queue, subscription, recovered) {
                    self.welcome_back(queue);
                }
            }
            Item::EndScan { subscription } => {
                self.plane.scans.remove(&subscription);
            }
            Item::Replay(replay) => self.plane.on_replay(from, *replay),
            Item::Name { topic, name } => self.plane.foreign.name_topic(topic, name),
            Item::Forget { topic } => {
                let told = self.plane.foreign.forget(topic);
                self.unbind(topic, told);
            }
            Item::Run(run) => self.plane.deliver_lent(from, run, now),
            Item::Lost { topic, first, messages } => {
                self.plane.lose_foreign(topic, first, messages);
            }
            Item::UnknownLost { loss } => self.plane.tell_unknown_lost(from, loss),
            Item::Return { segment, runs } => self.plane.log.take_back(segment, runs),
            Item::Recall { segment } => {
                self.plane.give_back(from, segment);
                self.plane.return_borrowed();
                self.plane.neighbours.of(from).tell(Item::Recalled);
            }
            Item::Recalled => self.plane.recalls -= 1,
            Item::Ack { connection, part } => self.tell_ack(connection, &part, true, now),
            Item::Hold { connection, queue } => self.hold(connection, (from, queue)),
            Item::Release { connection, queue } => {
                self.release_publisher(connection, (from, queue), now);
            }
        }
    }

    /// Publishes what neighbours sent as far as there is memory for it, and lets publishers here on
    /// that waited for memory. To be called when some may have been freed.
    pub(super) fn publish_waiting(&mut self, now: Now) {
        for at in 0..self.plane.neighbours.len() {
            let neighbour = &self.plane.neighbours.all()[at];
            if !neighbour.stalled.is_empty() {
                let shard = neighbour.shard;
                self.publish_stalled(shard, now);
            }
        }
        for _ in 0..self.plane.waiting_for_memory.len() {
            let Some(id) = self.plane.waiting_for_memory.pop_front() else { break };
            self.stop_waiting(id, now);
            // Where one has to wait again, those behind it would.
            if self.plane.waiting_for_memory.back() == Some(&id) {
                break;
            }
        }
    }

    /// Does what stands aside from one neighbour, until memory is wanting.
    fn publish_stalled(&mut self, from: ShardIndex, now: Now) {
        while let Some(item) = self.plane.neighbours.of(from).stalled.pop_front() {
            let back = match item {
                Item::OpenTopic { handle, name } => {
                    let limit = self.config.limits.topics;
                    let topic = self.plane.topics.find_or_insert(&name, limit, now.mono_us);
                    let opened = topic.map(|id| {
                        let topic = self.plane.topics.topic(id);
                        topic.publishers += 1;
                        (id, Sequence(topic.sequence))
                    });
                    let neighbour = self.plane.neighbours.of(from);
                    let slot = handle.0 as usize;
                    if neighbour.opened.len() <= slot {
                        neighbour.opened.resize(slot + 1, None);
                    }
                    neighbour.opened[slot] = topic;
                    neighbour.tell(Item::TopicOpened { handle, topic: opened });
                    None
                }
                Item::CloseTopic { handle } => {
                    let opened = &mut self.plane.neighbours.of(from).opened;
                    if let Some(topic) = opened.get_mut(handle.0 as usize).and_then(Option::take) {
                        self.plane.topics.topic(topic).publishers -= 1;
                    }
                    None
                }
                Item::Publish(batch) => self.plane.publish_batch(from, batch, now),
                Item::PublishLarge(message) => self.plane.publish_large(from, message, now),
                Item::LoseOnLink { handle, messages } => {
                    let opened = &self.plane.neighbours.of(from).opened;
                    match opened.get(handle.0 as usize).copied().flatten() {
                        Some(topic) => self.plane.lose(topic, messages, now),
                        None => self.plane.lose_unnamed(messages, now),
                    }
                    None
                }
                Item::FetchPartial { fetch, peer } => {
                    self.plane.fetch_is_partial(fetch, peer);
                    None
                }
                Item::FetchAnswered { fetch, peer, has_answered } => {
                    self.plane.fetch_answered(fetch, peer, has_answered);
                    None
                }
                Item::LoseUnknown { loss } => {
                    self.plane.lose_unknown_here(loss, now);
                    None
                }
                Item::DrainRound(round) => {
                    self.plane.neighbours.of(from).drain_round = round;
                    self.advance_drain(now);
                    None
                }
                _ => None,
            };
            if let Some(item) = back {
                self.plane.neighbours.of(from).stalled.push_front(item);
                return;
            }
        }
    }

    /// A neighbour has taken a batch: publishers that wait for it go on, in turn.
    fn let_publishers_on(&mut self, shard: ShardIndex, now: Now) {
        for _ in 0..self.plane.neighbours.of(shard).waiting.len() {
            let neighbour = self.plane.neighbours.of(shard);
            if !neighbour.has_credit() {
                return;
            }
            let Some(id) = neighbour.waiting.pop_front() else { return };
            self.stop_waiting(id, now);
        }
    }

    /// The connection has asked other shards for more than is on its way there: it is read no further
    /// until that has gone.
    pub(super) fn wait_for_neighbours(&mut self, id: ConnectionId, rest: &[u8]) {
        let Some(connection) = open_connection(&mut self.connections, id) else { return };
        connection.inbound.backlog.extend_from_slice(rest);
        connection.session.is_waiting = true;
        self.waiting_for_neighbours.push(id);
        self.pause_receive(id);
    }

    /// Lets those on, in turn, as far as what they ask for goes.
    pub(super) fn let_askers_on(&mut self, now: Now) {
        let mut waiting = std::mem::take(&mut self.waiting_for_neighbours).into_iter();
        while !self.plane.neighbours.are_clogged()
            && let Some(id) = waiting.next()
        {
            self.stop_waiting(id, now);
        }
        // Who has to wait again is behind those that have not had their turn.
        let again = std::mem::take(&mut self.waiting_for_neighbours);
        self.waiting_for_neighbours = waiting.chain(again).collect();
    }

    fn stop_waiting(&mut self, id: ConnectionId, now: Now) {
        if let Some(connection) = open_connection(&mut self.connections, id) {
            connection.session.is_waiting = false;
            self.resume_if_possible(id, now);
        }
    }

    /// A shard knows the filters of a new subscription. If it was the last one, the client is told.
    fn on_confirmed(&mut self, from: ShardIndex, id: QueueId, created_at: u64) {
        let Some(queue) = self.plane.queues.get_mut(id.0 as usize) else { return };
        if queue.created_at != created_at || queue.is_dying {
            return;
        }
        queue.awaits.remove(from);
        self.confirm_if_ready(id);
    }

    /// A topic that a client bound is refused by its owner.
    fn topic_refused(&mut self, asker: Asker, binding: Binding) {
        let Asker { connection: id, id: topic, offset } = asker;
        self.plane.metrics.rejected += 1;
        if let Some(connection) = open_connection(&mut self.connections, id)
            && let Some(bound) = connection.session.bindings.get_mut(topic.0 as usize)
            && *bound == binding
        {
            *bound = Binding::Refused;
            self.plane.release_binding(binding);
        }
        let limit = self.config.limits.topics;
        let text = format!("the daemon has {limit} topics, which is its limit (--max-topics)");
        self.report_late(id, offset, FrameKind::TopicBind, &text);
    }

    /// A message that asked for no acknowledgement was refused by its topic's owner.
    fn message_refused(&mut self, id: ConnectionId, offset: u64) {
        self.report_late(id, offset, FrameKind::Message, NO_MEMORY);
    }

    fn report_late(&mut self, id: ConnectionId, offset: u64, kind: FrameKind, message: &str) {
        let Some(connection) = open_connection(&mut self.connections, id) else { return };
        if connection.session.state == SessionState::Closing && !connection.session.said_goodbye {
            return;
        }
        let code = ErrorCode::LimitReached;
        let report = ErrorReport { code, message, fatal: false, request: 0, offset, kind: kind.0 };
        self.encoder.error(&mut connection.outbound.control, &report);
        self.schedule(id);
    }

    /// Sends the next parcel that there is something for; the request to wake its receiver.
    pub(super) fn flush_parcels(&mut self) -> Option<Output> {
        if self.plane.neighbours.len() == 0 {
            return None;
        }
        self.plane.return_borrowed();
        let sent =
            self.plane.neighbours.all().iter_mut().find_map(|neighbour: &mut Neighbour| {
                neighbour.flush().then_some(neighbour.shard)
            })?;
        Some(Output::Ring(sent)).filter(|_| !is_planted(Plant::DoorbellLost))
    }
}

impl Plane {
    /// Whether a publisher, here or of another shard, waits for memory.
    #[inline]
    pub(crate) fn is_anyone_waiting(&self) -> bool {
        !self.waiting_for_memory.is_empty()
            || self.neighbours.iter().any(|neighbour| !neighbour.stalled.is_empty())
    }

    /// Publishes a batch of messages that another shard's publishers sent; gives it back with what
    /// is left if there is no memory now, but soon.
    fn publish_batch(&mut self, from: ShardIndex, mut batch: Box<Batch>, now: Now) -> Option<Item> {
        // What has to be looked at one by one, or goes behind something else, is copied.
        let is_plain = self.limits.default_ttl_ms == 0 && self.scans.is_empty();
        if is_plain && batch.is_worth_adopting() && self.has_opened_topics_of(from, &batch) {
            if self.open_fresh_tail() {
                // A full batch leaves no room for what was rescued of other segments.
                if self.history.homeless_bytes() < SURVIVOR_BYTES_MAX / 2 {
                    self.adopt_batch(from, &mut batch, now);
                }
                self.history.settle(&mut self.log, &mut self.topics);
            } else if self.recalls > 0 {
                return Some(Item::Publish(batch));
            }
        }
        while let Some(run) = batch.run() {
            let topic = self.neighbours.of(from).opened.get(run.handle.0 as usize).copied();
            if let Some(topic) = topic.flatten() {
                self.has_right_numbers(topic, &run, &mut batch);
            }
            let publisher = PublisherId { shard: from, connection: run.connection };
            let (mut done, mut acks, mut is_short) = (0, 0, false);
            while done < run.bytes {
                let rest = &batch.rest()[done as usize..];
                let Some(header) = Header::peek(rest) else { break };
                let frame = &rest[..header.stride()];
                let wants_ack = header.flags().contains(MessageFlags::ACK);
                let refusal = match topic.flatten() {
                    None => Some(Refusal::RefusedTopic),
                    Some(topic) => {
                        let appended = match run.relay {
                            None => self.append(topic, |_| Some(publisher), header, frame, now),
                            Some(relay) if relay.is_state => {
                                self.append_state(topic, relay, header, frame, now)
                            }
                            Some(relay) => self.append_relayed(topic, relay, header, frame, now),
                        };
                        appended.err()
                    }
                };
                let ack = wants_ack.then_some(run.first_ack + acks);
                match (refusal, ack) {
                    (None, None) => {}
                    (None, Some(number)) => self.end_acknowledged_run(number, now),
                    (Some(Refusal::NotNow), _) => {
                        is_short = true;
                        break;
                    }
                    (Some(_), _) if run.relay.is_some() => self.lose_relayed(topic.flatten(), now),
                    (Some(refusal), ack) => {
                        self.refuse_foreign(publisher, ack, run.offset + u64::from(done), &refusal);
                    }
                }
                acks += u64::from(wants_ack);
                done += frame.len() as u32;
            }
            self.flush_run(now);
            batch.advance(done, acks);
            if is_short {
                return Some(Item::Publish(batch));
            }
        }
        batch.clear();
        self.neighbours.of(from).tell(Item::Credit(batch));
        None
    }

    /// Whether none of the batch's messages has to be refused for its topic.
    fn has_opened_topics_of(&mut self, from: ShardIndex, batch: &Batch) -> bool {
        let opened = &self.neighbours.of(from).opened;
        let is_open = |run: &BatchRun| matches!(opened.get(run.handle.0 as usize), Some(Some(_)));
        batch.runs().iter().all(is_open)
    }

    /// Publishes a batch without copying it: its memory becomes that of the tail, which was just
    /// opened, and its messages are numbered where they lie. Their topics are open.
    fn adopt_batch(&mut self, from: ShardIndex, batch: &mut Batch, now: Now) {
        let Some(segment) = batch.give_to(&mut self.log) else { return };
        while let Some(run) = batch.run() {
            let topic = self.neighbours.of(from).opened.get(run.handle.0 as usize).copied();
            let Some(topic) = topic.flatten() else { break };
            let publisher = PublisherId { shard: from, connection: run.connection };
            let (done, wants_ack) = match self.has_right_numbers(topic, &run, batch) {
                true => (self.take_run(segment, topic, publisher, &run, now), false),
                false => {
                    self.extend_run_in_place(segment, topic, publisher, run.relay, run.bytes, now)
                }
            };
            match wants_ack {
                true => self.end_acknowledged_run(run.first_ack, now),
                false => self.flush_run(now),
            }
            batch.advance(done, u64::from(wants_ack));
        }
        self.log.release(segment);
    }

    /// Whether a run's messages are numbered already, and as they have to be. If they are numbered
    /// otherwise, their publisher's shard is told, with the batch's way back.
    fn has_right_numbers(&mut self, topic: TopicId, run: &BatchRun, batch: &mut Batch) -> bool {
        let Some(expected) = run.expected else { return false };
        let next = self.topics.topic(topic).sequence + 1;
        let is_right = expected.first.0 == next;
        if !is_right {
            let zeroth = next.wrapping_sub(run.before);
            batch.corrections.push(Correction { handle: run.handle, zeroth });
        }
        is_right || is_planted(Plant::ExpectedUnchecked)
    }

    /// The same for a large message.
    fn publish_large(
        &mut self,
        from: ShardIndex,
        message: Box<LargeMessage>,
        now: Now,
    ) -> Option<Item> {
        let bytes = message.memory.len();
        let topic = self.neighbours.of(from).opened.get(message.handle.0 as usize).copied();
        let publisher = PublisherId { shard: from, connection: message.connection };
        let refusal = match topic.flatten() {
            None => Refusal::RefusedTopic,
            Some(topic) if self.is_unwanted(topic, message.relay, &message.header, now) => {
                self.neighbours.of(from).tell(Item::LargeTaken { bytes });
                return None;
            }
            Some(topic) if !self.may_retain(topic, &message) => Refusal::TooManyRetained,
            Some(topic) if self.make_room_for_large(bytes) => {
                let LargeMessage { memory, ack, relay, .. } = *message;
                let segment = self.log.take_landing(memory);
                self.publish_landed(segment, topic, publisher, relay, ack, now);
                self.log.release(segment);
                self.neighbours.of(from).tell(Item::LargeTaken { bytes });
                return None;
            }
            Some(_) if self.recalls > 0 => return Some(Item::PublishLarge(message)),
            Some(_) => Refusal::NoMemory,
        };
        match message.relay {
            Some(_) => self.lose_relayed(topic.flatten(), now),
            None => self.refuse_foreign(publisher, message.ack, message.offset, &refusal),
        }
        self.neighbours.of(from).tell(Item::LargeTaken { bytes });
        None
    }

    /// A message of a link cannot be kept here: it is lost.
    fn lose_relayed(&mut self, topic: Option<TopicId>, now: Now) {
        self.metrics.rejected += 1;
        match topic {
            Some(topic) => self.lose(topic, 1, now),
            None => self.lose_unnamed(1, now),
        }
    }

    /// Whether a large message may become its topic's retained value, if it asks for that.
    fn may_retain(&mut self, topic: TopicId, message: &LargeMessage) -> bool {
        self.check_retained(topic, &message.header).is_ok()
    }

    /// Tells another shard's publisher that a message of its was refused.
    fn refuse_foreign(
        &mut self,
        publisher: PublisherId,
        ack: Option<u64>,
        offset: u64,
        refusal: &Refusal,
    ) {
        self.metrics.rejected += 1;
        let is_known = matches!(refusal, Refusal::RefusedTopic);
        let status = if is_known { PublishStatus::Rejected } else { PublishStatus::LimitReached };
        let connection = publisher.connection;
        match ack {
            Some(number) => {
                let owner = Some(OwnersPart { sequence: 0, shards: 0, status });
                let acks = AckRange::one(number);
                let part = AckPart { acks, delivered: 0, dropped: 0, blocked: 0, owner };
                self.acks.push((publisher, part));
            }
            // That its topic was refused it knows already.
            None if is_known => {}
            None => {
                let neighbour = self.neighbours.of(publisher.shard);
                neighbour.tell(Item::Refused { connection, offset });
            }
        }
    }

    /// Tells other shards of their segments that nobody here wants any more.
    fn return_borrowed(&mut self) {
        while let Some(back) = self.log.next_return() {
            if is_planted(Plant::RunsNotReturned) {
                continue;
            }
            let item = Item::Return { segment: back.slot, runs: back.extents };
            self.neighbours.of(back.lender).tell(item);
        }
    }
}

impl Item {
    /// What it counts for in a turn's share of bytes.
    fn bytes(&self) -> usize {
        match self {
            Self::Publish(batch) => batch.rest().len(),
            Self::PublishLarge(message) => message.memory.len(),
            Self::MoreRetained { .. } => RETAINED_BYTES_PER_STEP,
            _ => 0,
        }
    }
}
