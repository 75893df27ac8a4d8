//! What a peer says over a link: the match beside the one of `shard.rs` for control frames of nodes.

use nexusd_wire::control::{self, DeliveryMode, Farewell};
use nexusd_wire::{
    Frame, FrameKind, Header, Member, NodeId, SubscriptionId, check_filter, check_topic,
};

use super::event::{ConnectionId, Now};
use super::neighbour::Asker;
use super::violation::Violation;
use super::{Shard, open_connection};
use crate::limits::{
    BINDING_BYTES, LINK_ACK_BYTES, LINK_ACK_MESSAGES, LINK_TOO_LARGE_US, LOST_ON_LINK_MAX,
    PEERS_WORD_CHARACTERS,
};
use crate::link::{LinkDown, LinkReport, Parts};
use crate::plant::{Plant, is_planted};
use crate::session::Binding;

impl Shard {
    /// What each control frame of a peer does.
    pub(super) fn on_link_frame(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
        now: Now,
    ) -> Result<(), Violation> {
        match frame.kind() {
            FrameKind::Heartbeat | FrameKind::ReplayComplete => Ok(()),
            FrameKind::Pong => {
                self.note_latency(id, frame, now);
                Ok(())
            }
            FrameKind::NodeBind => self.on_node_bind(id, frame),
            FrameKind::RetainedDigest => self.on_retained_digest(id, frame),
            FrameKind::RetainedFetch => self.on_retained_fetch(id, frame),
            FrameKind::ReplayRequest => self.on_replay_request(id, frame),
            FrameKind::InterestRequest => self.on_interest_request(id, frame),
            FrameKind::ReplayAnswer => self.on_replay_answer(id, frame, now),
            FrameKind::Ping => {
                self.acknowledge(id);
                self.on_ping(id, frame)
            }
            FrameKind::LinkAck => self.on_link_ack(id, frame, now),
            FrameKind::NodeState => self.on_node_state(id, frame),
            FrameKind::InterestDelta => self.on_interest_delta(id, frame),
            FrameKind::NodeStateRequest => {
                if let Some(peer) = self.peer_of(id) {
                    self.report_link(LinkReport::StateWanted { peer });
                }
                Ok(())
            }
            FrameKind::TopicBind => self.on_peers_topic_bind(id, frame, now),
            FrameKind::TopicUnbind => self.on_topic_unbind(id, frame),
            FrameKind::Deliver => self.on_deliver(id, frame, now),
            FrameKind::Gap => self.on_gap(id, frame, now),
            FrameKind::Goodbye => self.on_farewell(id, frame, now),
            FrameKind::Error => {
                let error = frame.body::<control::Error<'_>>()?;
                if error.fatal() {
                    let said = error.message().unwrap_or_default();
                    let said: String = said.chars().take(PEERS_WORD_CHARACTERS).collect();
                    self.shut_link(id, &format!("it says: {}", said.escape_debug()), now);
                    self.close_now(id);
                }
                Ok(())
            }
            #[cfg(feature = "protocol-next")]
            nexusd_wire::NEXT_KIND => self.on_next(id, frame),
            _ => Err(Violation::by(frame, "nodes do not send this kind of frame over a link")),
        }
    }

    fn on_link_ack(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
        now: Now,
    ) -> Result<(), Violation> {
        let ack = frame.body::<control::LinkAck<'_>>()?;
        let stream = ack.stream().map(SubscriptionId::from);
        let Some(peer) = self.peer_of(id) else { return Ok(()) };
        let Some(link) = self.links.get(&peer) else { return Ok(()) };
        if !link.is_up {
            self.attach(id, stream, ack.received());
            return Ok(());
        }
        if let Some((known, queue)) = link.queue
            && Some(known) == stream
        {
            let plane = &mut self.plane;
            plane.queues[queue.0 as usize].stream.acknowledge(ack.received(), &mut plane.log);
        }
        self.leave_if_done(peer, now);
        Ok(())
    }

    /// A part of what the peer wants; with the last one it takes the place of what was known.
    fn on_node_state(&mut self, id: ConnectionId, frame: &Frame<'_>) -> Result<(), Violation> {
        let state = frame.body::<control::NodeState<'_>>()?;
        let Some(peer) = self.peer_of(id) else { return Ok(()) };
        let members: Vec<_> = state.members().into_iter().flatten().filter_map(member).collect();
        if !members.is_empty() {
            self.report_link(LinkReport::Members { peer, members });
        }
        let Some(link) = self.links.get_mut(&peer) else { return Ok(()) };
        if state.part() == 0 {
            link.parts = Parts::default();
        }
        if state.part() != link.parts.next {
            // The parts before it went to a connection that was the link until now.
            link.parts = Parts::default();
            return self.forget_hash(peer);
        }
        link.parts.next += 1;
        for filter in state.filters().into_iter().flatten() {
            if let Err(cause) = check_filter(filter) {
                return Err(Violation::by(frame, &format!("a filter of the peer's: {cause}")));
            }
            if link.parts.filters.insert(filter.into()) {
                link.parts.bytes += Self::filter_memory(filter);
            }
        }
        let (parts_bytes, kept_bytes) = (link.parts.bytes, link.filter_bytes);
        if !self.plane.may_keep_for_clients(parts_bytes.saturating_sub(kept_bytes)) {
            return self.refuse_interest(peer);
        }
        if state.is_last() {
            let Some(link) = self.links.get_mut(&peer) else { return Ok(()) };
            let wanted = std::mem::take(&mut link.parts).filters;
            let gone: Vec<_> = link.filters.difference(&wanted).cloned().collect();
            let new: Vec<_> = wanted.difference(&link.filters).cloned().collect();
            link.has_told = true;
            self.change_interest(peer, new, gone, Some(state.hash()));
            self.hand_over_early_messages(peer);
        }
        Ok(())
    }

    fn on_interest_delta(&mut self, id: ConnectionId, frame: &Frame<'_>) -> Result<(), Violation> {
        let delta = frame.body::<control::InterestDelta<'_>>()?;
        let Some(peer) = self.peer_of(id) else { return Ok(()) };
        let Some(link) = self.links.get_mut(&peer) else { return Ok(()) };
        if link.hash != Some(delta.before()) {
            return self.forget_hash(peer);
        }
        let (mut new, mut bytes) = (Vec::new(), 0);
        for filter in delta.added().into_iter().flatten() {
            if let Err(cause) = check_filter(filter) {
                return Err(Violation::by(frame, &format!("a filter of the peer's: {cause}")));
            }
            bytes += Self::filter_memory(filter);
            new.push(Box::from(filter));
        }
        let gone = delta.removed().into_iter().flatten().map(Box::from).collect();
        if !self.plane.may_keep_for_clients(bytes) {
            return self.refuse_interest(peer);
        }
        self.change_interest(peer, new, gone, Some(delta.hash()));
        Ok(())
    }

    /// The peer wants more than there is memory for: what is known of it stays as it is.
    fn refuse_interest(&mut self, peer: NodeId) -> Result<(), Violation> {
        self.plane.metrics.rejected += 1;
        if let Some(link) = self.links.get_mut(&peer) {
            link.parts = Parts::default();
        }
        self.forget_hash(peer)
    }

    fn forget_hash(&mut self, peer: NodeId) -> Result<(), Violation> {
        if let Some(link) = self.links.get_mut(&peer) {
            link.hash = None;
        }
        self.report_link(LinkReport::Stored { peer, hash: None });
        Ok(())
    }

    fn change_interest(
        &mut self,
        peer: NodeId,
        new: Vec<Box<str>>,
        gone: Vec<Box<str>>,
        hash: Option<u64>,
    ) {
        for (filters, is_wanted) in [(gone, false), (new, true)] {
            for filter in filters {
                let Some(link) = self.links.get_mut(&peer) else { return };
                if is_planted(Plant::LinkDeltaLost) && link.hash.is_some() && is_wanted {
                    continue;
                }
                let memory = Self::filter_memory(&filter);
                let is_news = match is_wanted {
                    true => link.filters.insert(filter.clone()),
                    false => link.filters.remove(&filter),
                };
                if !is_news {
                    continue;
                }
                if is_wanted {
                    link.filter_bytes += memory;
                    self.plane.client_bytes += memory;
                } else {
                    link.filter_bytes -= memory;
                    self.plane.client_bytes -= memory;
                }
                let queue = link.queue;
                let is_indexed = is_wanted && self.take_asked_filter(peer, &filter);
                if let Some((_, queue)) = queue.filter(|_| !is_indexed) {
                    self.index_filter(queue, &filter, is_wanted);
                }
            }
        }
        if let Some(link) = self.links.get_mut(&peer) {
            link.hash = hash;
            self.report_link(LinkReport::Stored { peer, hash });
        }
    }

    /// The peer's id for a topic, which is any number.
    fn on_peers_topic_bind(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
        now: Now,
    ) -> Result<(), Violation> {
        let name = frame.body::<control::TopicBind<'_>>()?.name();
        if let Err(cause) = check_topic(name) {
            return Err(Violation::by(frame, &format!("a topic of the peer's: {cause}")));
        }
        let topic = frame.header().topic();
        let slot = topic.0 as usize;
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return Ok(());
        };
        let growth = (slot + 1).saturating_sub(connection.session.bindings.len());
        if growth > 0 && !self.plane.make_room_for_clients(growth * BINDING_BYTES) {
            let text = "the peer has bound as many topic ids as memory allows (--memory-limit)";
            return Err(Violation::by(frame, text));
        }
        let owner = self.plane.routing.owner_of(name);
        let binding = if owner != self.plane.routing.own {
            let asker = Asker { connection: id, id: topic, offset: frame.at() };
            Binding::Elsewhere(owner, self.plane.neighbours.of(owner).open_topic(name, asker))
        } else {
            let limit = self.config.limits.topics;
            match self.plane.topics.find_or_insert(name, limit, now.mono_us) {
                Some(topic) => {
                    self.plane.topics.topic(topic).publishers += 1;
                    Binding::Topic(topic)
                }
                None => {
                    self.plane.metrics.rejected += 1;
                    Binding::Refused
                }
            }
        };
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return Ok(());
        };
        let bindings = &mut connection.session.bindings;
        if growth > 0 {
            bindings.resize(slot + 1, Binding::Free);
            self.plane.client_bytes += growth * BINDING_BYTES;
        }
        let before = std::mem::replace(&mut bindings[slot], binding);
        self.plane.release_binding(before);
        Ok(())
    }

    /// Names the peer's stream, and tells its time.
    fn on_deliver(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
        now: Now,
    ) -> Result<(), Violation> {
        let deliver = frame.body::<control::Deliver<'_>>()?;
        let stream = SubscriptionId::from(deliver.subscription());
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return Ok(());
        };
        let Some(session) = connection.session.link.as_deref_mut() else { return Ok(()) };
        if deliver.now_us() != 0 {
            session.relay.clock_offset_us = now.mono_us.wrapping_sub(deliver.now_us());
        }
        session.relay.is_state = deliver.mode() == DeliveryMode::Retained;
        session.is_answer = deliver.mode() == DeliveryMode::Fetched;
        session.note_fetch();
        let Some(link) = self.links.get_mut(&session.peer) else { return Ok(()) };
        link.is_told = false;
        if link.stream != Some(stream) {
            link.stream = Some(stream);
            session.received = 0;
        }
        Ok(())
    }

    /// The peer, or what is between, has lost messages.
    fn on_gap(&mut self, id: ConnectionId, frame: &Frame<'_>, now: Now) -> Result<(), Violation> {
        let gap = frame.body::<control::Gap<'_>>()?;
        let Some(peer) = self.peer_of(id) else { return Ok(()) };
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return Ok(());
        };
        let bindings = &connection.session.bindings;
        let mut lost = Vec::new();
        for entry in gap.entries().into_iter().flatten() {
            let messages = entry.last().wrapping_sub(entry.first()).wrapping_add(1);
            if messages == 0 || messages > LOST_ON_LINK_MAX {
                return Err(Violation::by(frame, "a gap loses more than there can have been"));
            }
            let binding = bindings.get(entry.topic() as usize).copied().unwrap_or(Binding::Free);
            lost.push((binding, messages));
        }
        let is_bound = |(binding, messages): &(Binding, u64)| match binding {
            Binding::Free => 0,
            _ => *messages,
        };
        let is_all_named = gap.missed() == lost.iter().map(is_bound).sum::<u64>();
        if is_planted(Plant::LinkGapUntold) {
            return Ok(());
        }
        for (binding, messages) in lost {
            self.plane.lose_bound(binding, messages, now);
        }
        if !is_all_named && self.links.get(&peer).is_some_and(|link| !link.is_told) {
            // The topics of the rest may never have been bound here.
            self.plane.lose_unknown(now);
        }
        // Retained values may have been among them.
        self.compare_retained(peer);
        Ok(())
    }

    /// The peer ends the link.
    fn on_farewell(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
        now: Now,
    ) -> Result<(), Violation> {
        let farewell = frame.body::<control::Goodbye<'_>>()?.farewell();
        let Some(peer) = self.peer_of(id) else { return Ok(()) };
        match farewell {
            Farewell::Idle => self.end_link(peer, LinkDown::Idle, true, now),
            // What is queued waits for the other connection.
            Farewell::Superseded => self.close_now(id),
            _ => self.end_link(peer, LinkDown::Ending, true, now),
        }
        Ok(())
    }

    /// A message of a link cannot be kept, or is longer than this node takes: it is lost. Of a retained value that
    /// nodes compare nobody is told: it is no message that a subscription misses.
    pub(super) fn lose_refused(&mut self, id: ConnectionId, header: &Header) {
        self.plane.metrics.rejected += 1;
        let Some(connection) = open_connection(&mut self.connections, id) else { return };
        let binding = connection.session.binding(header.topic());
        let Some(link) = connection.session.link.as_deref_mut() else { return };
        let (is_state, peer) = (link.count(header).is_state, link.peer);
        let now = Now { mono_us: self.now_us, wall_us: self.plane.wall_us };
        if header.payload_len() > self.config.limits.payload_bytes as usize {
            self.report_too_large(peer, header.payload_len(), now);
        }
        if let Some(binding) = binding.filter(|_| !is_state) {
            self.plane.lose_bound(binding, 1, now);
        }
    }

    /// The peer takes longer messages than this node does.
    fn report_too_large(&mut self, peer: NodeId, bytes: usize, now: Now) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let is_told = |told_us| now.mono_us < told_us + LINK_TOO_LARGE_US;
        if !link.too_large_told_us.is_some_and(is_told) {
            link.too_large_told_us = Some(now.mono_us);
            self.report_link(LinkReport::TooLarge { peer, bytes });
        }
    }

    /// Behind a link's bytes: acknowledges what has come, now and then.
    pub(super) fn acknowledge_if_due(&mut self, id: ConnectionId) {
        let Some(connection) = open_connection(&mut self.connections, id) else { return };
        let Some(link) = connection.session.link.as_deref() else { return };
        if link.unacknowledged >= LINK_ACK_MESSAGES || link.unacknowledged_bytes >= LINK_ACK_BYTES {
            self.acknowledge(id);
        }
    }
}

/// A node that the peer knows; none if its address is not one.
fn member(member: control::Member<'_>) -> Option<Member> {
    Some(Member {
        node: member.node().into(),
        start_us: member.start_us(),
        mesh_address: member.mesh_address().parse().ok()?,
        app_port: member.app_port(),
    })
}
