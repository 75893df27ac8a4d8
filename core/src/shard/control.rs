//! What the control frames of a client do: greeting, binding topics, subscribing, leaving.

use std::hash::{Hash, Hasher};

use nexusd_wire::control::{self, DeliveryMode, ErrorCode, OverflowPolicy, Role};
use nexusd_wire::{
    ErrorReport, Frame, FrameEncoder, FrameKind, NameError, PROTOCOL_MAJOR, PROTOCOL_MINOR,
    SubscriptionId, check_filter, check_topic,
};
use siphasher::sip::SipHasher24;

use super::event::{ConnectionId, Door, Now};
use super::inspecting::shown;
use super::neighbour::Asker;
use super::output::{Destination, Output};
use super::parcel::Item;
use super::violation::Violation;
use super::{Shard, open_connection};
use crate::counted_stream::CountedStream;
use crate::limits::{
    BINDING_BYTES, CLOSE_LINGER_US, FILTER_BYTES, FILTERS_PER_SUBSCRIPTION_MAX, INDEX_NODE_BYTES,
    METADATA_BYTES_MAX, POSITIONS_MAX, SUBSCRIPTION_BYTES, SUBSCRIPTIONS_PER_CONNECTION_MAX,
};
use crate::plant::{Plant, is_planted};
use crate::session::{Binding, SessionState};
use crate::subscriber_queue::{Presence, QueueId, QueueLimits, SubscriberQueue};

const NODES_ELSEWHERE: &str =
    "this is the port for applications; nodes connect to the one for links (--mesh-port)";
const CLIENTS_ELSEWHERE: &str =
    "this is the port for other nodes; applications connect to theirs (--app-port)";

/// Characters of a malformed name that its error shows.
const NAME_CHARACTERS_SHOWN: usize = 64;

impl Shard {
    pub(super) fn on_hello(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
        now: Now,
    ) -> Result<(), Violation> {
        let hello = frame.body::<control::Hello<'_>>()?;
        if hello.major() != PROTOCOL_MAJOR {
            return Err(Violation {
                code: ErrorCode::VersionMismatch,
                message: format!(
                    "the client speaks protocol version {}, this daemon speaks {PROTOCOL_MAJOR}",
                    hello.major()
                ),
                at: Some((frame.at(), frame.kind())),
            });
        }
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return Ok(());
        };
        match (connection.session.door, hello.role()) {
            (Door::Apps | Door::Edge, Role::Client) => {}
            (Door::Mesh, Role::Node) => return self.on_node_hello(id, frame, &hello, now),
            (Door::Apps, Role::Node) => return Err(stranger(frame, NODES_ELSEWHERE)),
            _ => return Err(stranger(frame, CLIENTS_ELSEWHERE)),
        }
        let routing = &self.plane.routing;
        let home = hello.resume().and_then(|resumed| routing.home_of(resumed.into()));
        if let Some(home) = home.filter(|home| *home != routing.own) {
            self.begin_move(id, frame.bytes(), Destination::Shard(home));
            return Ok(());
        }
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return Ok(());
        };
        connection.session.state = SessionState::Open;
        connection.session.name = shown(hello.name().unwrap_or_default());
        connection.session.software = shown(hello.software().unwrap_or_default());
        #[cfg_attr(
            not(feature = "protocol-next"),
            expect(
                clippy::unnecessary_min_or_max,
                reason = "the rule stands also while our minor is 0"
            )
        )]
        let minor = hello.minor().min(PROTOCOL_MINOR);
        self.encoder.welcome(
            &mut connection.outbound.control,
            minor,
            self.config.node,
            &self.config.software,
            &self.config.cluster,
            self.config.limits.payload_bytes,
            METADATA_BYTES_MAX,
        );
        #[cfg(feature = "protocol-next")]
        self.agree_on(id, minor, true);
        Ok(())
    }

    pub(super) fn on_ping(&mut self, id: ConnectionId, frame: &Frame<'_>) -> Result<(), Violation> {
        if let Some(connection) = self.connection(id) {
            let token = frame.header().sequence().0;
            FrameEncoder::ping_or_pong(&mut connection.outbound.control, FrameKind::Pong, token);
        }
        Ok(())
    }

    pub(super) fn on_goodbye(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
        now: Now,
    ) -> Result<(), Violation> {
        frame.body::<control::Goodbye<'_>>()?;
        if let Some(connection) = self.connection(id) {
            connection.session.said_goodbye = true;
        }
        self.send_acks(id);
        self.begin_close(id, now);
        Ok(())
    }

    pub(super) fn on_topic_bind(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
        now: Now,
    ) -> Result<(), Violation> {
        let name = frame.body::<control::TopicBind<'_>>()?.name();
        let slot = frame.header().topic().0 as usize;
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return Ok(());
        };
        let bound = connection.session.bindings.len();
        if slot > bound {
            let text = format!("topic ids are given in order: the next is {bound}, not {slot}");
            return Err(Violation::by(frame, &text));
        }
        let limit = self.config.limits.topics;
        if slot >= limit {
            return Err(Violation::by(
                frame,
                "the connection has bound as many topic ids as there may be",
            ));
        }
        if slot == bound && !self.plane.make_room_for_clients(BINDING_BYTES) {
            let text = "the daemon's clients have bound as many topic ids as its memory allows \
                        (--memory-limit)";
            return Err(Violation { code: ErrorCode::LimitReached, ..Violation::by(frame, text) });
        }
        let asker = Asker { connection: id, id: frame.header().topic(), offset: frame.at() };
        let binding = match self.bind(name, asker, now) {
            Ok(binding) => binding,
            Err((code, message)) => {
                self.plane.metrics.rejected += 1;
                self.report(id, frame, code, 0, &message);
                Binding::Refused
            }
        };
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return Ok(());
        };
        match connection.session.bindings.get_mut(slot) {
            Some(place) => {
                let before = std::mem::replace(place, binding);
                self.plane.release_binding(before);
            }
            None => {
                connection.session.bindings.push(binding);
                self.plane.client_bytes += BINDING_BYTES;
            }
        }
        Ok(())
    }

    /// What a client's topic id is to stand for.
    fn bind(&mut self, name: &str, asker: Asker, now: Now) -> Result<Binding, (ErrorCode, String)> {
        check_topic(name).map_err(|cause| (ErrorCode::InvalidTopic, invalid_name(name, cause)))?;
        if name.starts_with("$SYS/") || name == "$SYS" {
            return Err((ErrorCode::Rejected, format!("topic '{name}' belongs to the daemon")));
        }
        let limit = self.config.limits.topics;
        let too_many = || {
            let text = format!("the daemon has {limit} topics, which is its limit (--max-topics)");
            (ErrorCode::LimitReached, text)
        };
        let owner = self.plane.routing.owner_of(name);
        if owner != self.plane.routing.own {
            let handle = self.plane.neighbours.of(owner).open_topic(name, asker);
            return Ok(Binding::Elsewhere(owner, handle));
        }
        let topic =
            self.plane.topics.find_or_insert(name, limit, now.mono_us).ok_or_else(too_many)?;
        self.plane.topics.topic(topic).publishers += 1;
        Ok(Binding::Topic(topic))
    }

    pub(super) fn on_topic_unbind(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
    ) -> Result<(), Violation> {
        let slot = frame.header().topic().0 as usize;
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return Ok(());
        };
        let Some(place) = connection.session.bindings.get_mut(slot) else {
            return Err(Violation::by(frame, "the topic id was never bound"));
        };
        let before = std::mem::replace(place, Binding::Free);
        self.plane.release_binding(before);
        Ok(())
    }

    pub(super) fn on_subscribe(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
    ) -> Result<(), Violation> {
        let subscribe = frame.body::<control::Subscribe<'_>>()?;
        let request = request_number(frame, subscribe.request())?;
        if let Err((code, message)) = self.check_subscribe(id, &subscribe) {
            self.report(id, frame, code, request, &message);
            return Ok(());
        }
        let mut filters: Vec<Box<str>> = subscribe.filters().iter().map(Box::from).collect();
        filters.sort_unstable();
        filters.dedup();
        let defaults = &self.config.limits;
        let limits = QueueLimits {
            messages: match subscribe.queue_messages().map_or(defaults.queue_messages, u64::from) {
                0 => u64::MAX,
                messages => messages,
            },
            bytes: subscribe.queue_bytes().unwrap_or(defaults.queue_bytes),
            policy: subscribe.policy().unwrap_or(defaults.policy),
        };
        let subscription = self.fresh_subscription_id();
        let mut deliver_frame = Vec::new();
        self.encoder.deliver(&mut deliver_frame, subscription, DeliveryMode::Live);
        let created_at = self.plane.index.generation() + 1;
        let filters = filters.into_boxed_slice();
        let slot = self.plane.queues.vacant_key() as u32;
        for filter in &filters {
            self.plane.interest_changes.push((filter.clone(), true));
            if self.plane.index.insert(filter, slot) {
                for neighbour in self.plane.neighbours.all() {
                    neighbour.tell(Item::Interest { filter: filter.clone(), is_wanted: true });
                }
            }
        }
        let mut queue = SubscriberQueue::new(
            subscription,
            id,
            limits,
            deliver_frame.into_boxed_slice(),
            filters,
            CountedStream::new(subscribe.counted()),
            created_at,
        );
        queue.request = request;
        // It has no turn before it is confirmed.
        queue.is_ready = true;
        let mut wanted = self.plane.wanted_by_owner(&subscribe, self.config.node, &queue.filters);
        for neighbour in self.plane.neighbours.all() {
            queue.awaits.insert(neighbour.shard);
            let wanted = std::mem::take(&mut wanted[neighbour.shard.index()]);
            let queue = QueueId(slot);
            neighbour.tell(Item::Confirm { queue, created_at, subscription, wanted });
        }
        self.plane.client_bytes += queue.subscription_bytes();
        self.plane.queues.insert(queue);
        self.plane.subscriptions.insert(subscription, QueueId(slot));
        self.plane.replay(QueueId(slot), &wanted[self.plane.routing.own.index()]);
        if subscribe.wait_mesh() && self.plane.fetching.is_possible() {
            self.plane.begin_waiting(QueueId(slot));
        }
        if subscribe.receive_retained() {
            self.plane.begin_scans(QueueId(slot));
        }
        self.plane.metrics.subscriptions += 1;
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return Ok(());
        };
        connection.session.subscriptions.push((subscription, QueueId(slot)));
        self.confirm_if_ready(QueueId(slot));
        Ok(())
    }

    /// A fresh subscription id: unpredictable without the seed, never the same twice on the node. Its
    /// low bits name this shard.
    pub(super) fn fresh_subscription_id(&mut self) -> SubscriptionId {
        self.next_subscription += 1;
        let input = (self.next_subscription, self.plane.routing.own.index() as u64);
        let half = |salt: u64| {
            let mut hasher = SipHasher24::new_with_keys(self.config.seed, salt);
            input.hash(&mut hasher);
            hasher.finish()
        };
        let random = (u128::from(half(1)) << 64) | u128::from(half(2));
        self.plane.routing.subscription_id(random)
    }

    /// Every shard knows the filters of a subscription, and other nodes have answered: its client is told,
    /// once, and gets what was queued meanwhile.
    pub(super) fn confirm_if_ready(&mut self, id: QueueId) {
        let Some(queue) = self.plane.queues.get_mut(id.0 as usize) else { return };
        if !queue.is_confirmed() || queue.is_link || queue.is_told || queue.is_dying {
            return;
        }
        queue.is_told = true;
        queue.is_ready = !queue.is_empty();
        if queue.is_ready {
            self.plane.newly_ready.push(id);
        }
        let (connection, report) = (queue.connection, queue.report());
        if let Some(connection) = open_connection(&mut self.connections, connection) {
            let control = &mut connection.outbound.control;
            self.encoder.subscription_info(control, &report);
        }
        self.plane.ask_for_retained(id);
        self.schedule(connection);
    }

    /// How many subscriptions a connection has.
    pub(super) fn subscriptions_of(&self, id: ConnectionId) -> usize {
        let connection = self.connections[id.index as usize].as_ref();
        connection.map_or(0, |connection| connection.session.subscriptions.len())
    }

    fn check_subscribe(
        &mut self,
        id: ConnectionId,
        subscribe: &control::Subscribe<'_>,
    ) -> Result<(), (ErrorCode, String)> {
        if self.subscriptions_of(id) >= SUBSCRIPTIONS_PER_CONNECTION_MAX {
            let text = format!(
                "a connection holds at most {SUBSCRIPTIONS_PER_CONNECTION_MAX} subscriptions"
            );
            return Err((ErrorCode::LimitReached, text));
        }
        let filters = subscribe.filters();
        if filters.is_empty() {
            return Err((
                ErrorCode::InvalidTopic,
                "a subscription needs at least one filter".to_string(),
            ));
        }
        if filters.len() > FILTERS_PER_SUBSCRIPTION_MAX {
            let text = format!("a subscription has at most {FILTERS_PER_SUBSCRIPTION_MAX} filters");
            return Err((ErrorCode::LimitReached, text));
        }
        let positions = subscribe.positions();
        if positions.is_some_and(|positions| positions.len() > POSITIONS_MAX) {
            let text = format!("a subscription begins at most at {POSITIONS_MAX} positions");
            return Err((ErrorCode::LimitReached, text));
        }
        if subscribe.ended().is_some_and(|ended| ended.len() > POSITIONS_MAX) {
            let text =
                format!("a subscription names at most {POSITIONS_MAX} nodes that have ended");
            return Err((ErrorCode::LimitReached, text));
        }
        for position in positions.into_iter().flatten() {
            let topic = position.topic();
            check_topic(topic)
                .map_err(|cause| (ErrorCode::InvalidTopic, invalid_name(topic, cause)))?;
        }
        // At most: levels that other filters have too are kept once.
        let mut bytes = SUBSCRIPTION_BYTES;
        for filter in filters {
            check_filter(filter)
                .map_err(|cause| (ErrorCode::InvalidTopic, invalid_name(filter, cause)))?;
            let levels = filter.split('/').count();
            bytes += FILTER_BYTES + 2 * filter.len() + levels * INDEX_NODE_BYTES;
        }
        if !self.plane.make_room_for_clients(bytes) {
            let text = "the daemon's clients have as many subscriptions as its memory allows \
                        (--memory-limit)";
            return Err((ErrorCode::LimitReached, text.to_string()));
        }
        let unsupported = |text: &str| Err((ErrorCode::Unsupported, text.to_string()));
        match subscribe.policy().unwrap_or(OverflowPolicy::DropOldest) {
            OverflowPolicy::DropOldest
            | OverflowPolicy::DropNewest
            | OverflowPolicy::Block
            | OverflowPolicy::Disconnect => {}
            _ => return unsupported("this version of the daemon does not know the policy"),
        }
        Ok(())
    }

    pub(super) fn on_unsubscribe(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
    ) -> Result<(), Violation> {
        let unsubscribe = frame.body::<control::Unsubscribe<'_>>()?;
        let request = request_number(frame, unsubscribe.request())?;
        let wanted = SubscriptionId::from(unsubscribe.subscription());
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return Ok(());
        };
        let held = &mut connection.session.subscriptions;
        let found = held.iter().position(|(subscription, _)| *subscription == wanted);
        let queues = &self.plane.queues;
        let is_confirmed = |at: usize| queues[held[at].1.0 as usize].is_confirmed();
        if found.is_none() && self.plane.is_parked(wanted) {
            let ttl_ms = self.end_parked(wanted, unsubscribe.pause());
            let Some(connection) = open_connection(&mut self.connections, id) else {
                return Ok(());
            };
            let control = &mut connection.outbound.control;
            self.encoder.unsubscribe_result(control, request, None, ttl_ms);
            return Ok(());
        }
        let found = found.filter(|&at| !unsubscribe.pause() || is_confirmed(at));
        let queue = found.map(|at| held[at].1);
        let refusal = found.is_none().then_some("Subscription not found");
        let control = &mut connection.outbound.control;
        if let (Some(queue), true) = (queue, unsubscribe.pause()) {
            let ttl_ms = self.config.limits.parked_ttl_us / 1_000;
            self.encoder.unsubscribe_result(control, request, refusal, ttl_ms);
            self.leave(id, queue);
            return Ok(());
        }
        self.encoder.unsubscribe_result(control, request, refusal, 0);
        if let (Some(at), Some(queue)) = (found, queue) {
            held.swap_remove(at);
            self.remove_queue(id, queue);
        }
        Ok(())
    }

    pub(super) fn on_unsupported(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
    ) -> Result<(), Violation> {
        let kind = frame.kind().variant_name().unwrap_or("such");
        let text = format!("this version of the daemon does not support {kind} frames");
        self.report(id, frame, ErrorCode::Unsupported, 0, &text);
        Ok(())
    }

    /// Refuses a request of a client at a later time.
    pub(super) fn report_request(
        &mut self,
        id: ConnectionId,
        request: u64,
        code: ErrorCode,
        message: &str,
    ) {
        let Some(connection) = open_connection(&mut self.connections, id) else { return };
        // Behind a connection's last words nothing more is said.
        if connection.session.state == SessionState::Closing && !connection.session.said_goodbye {
            return;
        }
        let report = ErrorReport { code, message, fatal: false, request, offset: 0, kind: 0 };
        self.encoder.error(&mut connection.outbound.control, &report);
        self.schedule(id);
    }

    /// Tells the client what was wrong with a frame; the connection goes on.
    pub(super) fn report(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
        code: ErrorCode,
        request: u64,
        message: &str,
    ) {
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        let (offset, kind) = (frame.at(), frame.kind().0);
        let report = ErrorReport { code, message, fatal: false, request, offset, kind };
        self.encoder.error(&mut connection.outbound.control, &report);
    }

    /// Ends a connection that broke the protocol.
    pub(super) fn violate(&mut self, id: ConnectionId, violation: &Violation, now: Now) {
        self.plane.metrics.protocol_errors += 1;
        let (offset, kind) = violation.at.map_or((0, 0), |(at, kind)| (at, kind.0));
        let Violation { code, message, .. } = violation;
        let report = ErrorReport { code: *code, message, fatal: true, request: 0, offset, kind };
        self.shut_link(id, message, now);
        self.fail(id, &report, now);
    }

    /// Ends a connection with a last word.
    pub(super) fn fail(&mut self, id: ConnectionId, report: &ErrorReport<'_>, now: Now) {
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        if connection.session.state != SessionState::Closing {
            self.encoder.error(&mut connection.outbound.control, report);
            // What is queued for a peer waits for its next connection.
            if report.code == ErrorCode::Timeout || connection.session.link.is_some() {
                self.leave_all(id);
            }
            if is_planted(Plant::OffenderKept) {
                return;
            }
            self.begin_close(id, now);
        }
    }

    /// Gives up the connection's subscriptions, sends what control frames there are, and closes.
    /// What still arrives meanwhile is thrown away.
    pub(super) fn begin_close(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        let session = &mut connection.session;
        session.state = SessionState::Closing;
        session.close_deadline_us = Some(now.mono_us + CLOSE_LINGER_US);
        let queues = &self.plane.queues;
        let is_leaving = |held: &(SubscriptionId, QueueId)| {
            queues[held.1.0 as usize].presence == Presence::Leaving
        };
        let (leaving, subscriptions): (Vec<_>, Vec<_>) =
            session.subscriptions.drain(..).partition(is_leaving);
        session.subscriptions = leaving;
        connection.inbound.backlog = Vec::new();
        connection.inbound.is_paused = false;
        let queues: Vec<_> = subscriptions.into_iter().map(|(_, queue)| queue).collect();
        self.receive_on(id);
        self.remove_queues(id, &queues);
        self.scan_by(now.mono_us + CLOSE_LINGER_US);
        self.schedule(id);
        self.close_if_done(id);
    }

    /// Closes a connection whose last frames are out.
    pub(super) fn close_if_done(&mut self, id: ConnectionId) {
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        let is_done = connection.outbound.is_empty() || is_planted(Plant::DrainDropsQueues);
        if connection.close_asked || !is_done || connection.outbound.scheduled {
            return;
        }
        let is_over = match connection.session.state {
            SessionState::Closing => {
                !connection.session.said_goodbye || connection.session.acks.len() == 0
            }
            SessionState::Draining => {
                connection.session.was_told_goodbye && !self.say_that_is_all(id)
            }
            SessionState::AwaitingHello
            | SessionState::AwaitingWelcome
            | SessionState::AwaitingLinkAck
            | SessionState::Moving
            | SessionState::Open => false,
        };
        if is_over {
            self.close_now(id);
        }
    }

    /// Closes a connection now, whatever is unsent.
    pub(super) fn close_now(&mut self, id: ConnectionId) {
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        if !std::mem::replace(&mut connection.close_asked, true) {
            self.outputs.push_back(Output::Close(id));
        }
    }
}

/// The number that tells the answer apart.
pub(super) fn request_number(frame: &Frame<'_>, request: u64) -> Result<u64, Violation> {
    match request {
        0 => Err(Violation::by(frame, "the request number is 0, which no request has")),
        request => Ok(request),
    }
}

/// Whoever says Hello came in the wrong way.
fn stranger(frame: &Frame<'_>, text: &str) -> Violation {
    Violation { code: ErrorCode::Unsupported, ..Violation::by(frame, text) }
}

/// What is wrong with a name, of which the error shows the start: it may be longer than any frame.
fn invalid_name(name: &str, cause: NameError) -> String {
    let shown: String = name.chars().take(NAME_CHARACTERS_SHOWN).collect();
    let dots = if shown.len() < name.len() { "…" } else { "" };
    format!("'{}{dots}': {cause}", shown.escape_debug())
}
