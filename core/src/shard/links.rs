//! What happens to the links of a shard: connections become them, break and take each other's place, and
//! nodes fall silent or leave.
//!
//! The peer's interest makes the filters of a queue like a subscription's; `link_frames.rs` does what the
//! peer says. A link that breaks keeps that queue, parked, and how far the peer's stream had come; if the
//! peer does not come back in time, it is dead and all of it goes.
//! Invariant: a queue that is a link's is of a link in the table, or ends with its connection.

use nexusd_wire::control::{Farewell, GapMode, GapReason, OverflowPolicy};
use nexusd_wire::{FrameEncoder, FrameKind, Header, NodeId, SubscriptionId};

use super::event::{ConnectionId, Door, Now};
use super::output::{Output, Report};
use super::parcel::Item as ParcelItem;
use super::parking::Comeback;
use super::{Shard, open_connection};
use crate::counted_stream::CountedStream;
use crate::gap::Gap;
use crate::limits::{
    ENDED_STREAM_KEPT_US, FILTER_BYTES, LINK_DEAD_US, LINK_HEARTBEAT_US, LINK_RETIRE_US,
    LINK_SUSPECTED_US, LINK_TICK_US, LINKS_MAX,
};
use crate::link::{
    Comparison, EndedStream, FetchId, Guest, Link, LinkCommand, LinkDown, LinkRefusal, LinkReport,
    LinkSession, Parts, Relay, takes_over,
};
use crate::plant::{Plant, is_planted};
use crate::session::SessionState;
use crate::subscriber_queue::{Item, Presence, QueueId, QueueLimits, SubscriberQueue};

impl Shard {
    pub(super) fn on_link_command(&mut self, command: LinkCommand, now: Now) {
        match command {
            LinkCommand::Send { peer, frames } => {
                let Some(link) = self.links.get_mut(&peer).filter(|link| link.is_up) else {
                    return;
                };
                link.stay_if_idle();
                if let Some(id) = link.connection
                    && let Some(connection) = open_connection(&mut self.connections, id)
                    && connection.session.state == SessionState::Open
                {
                    connection.outbound.control.extend_from_slice(&frames);
                    self.schedule(id);
                }
            }
            LinkCommand::Forget { peer } => self.end_link(peer, LinkDown::Forgotten, false, now),
            LinkCommand::Retire { peer } => self.retire(peer, now),
            LinkCommand::CompareRetained { peer } => self.compare_retained(peer),
            LinkCommand::CloseIdle { peer } => self.leave_peer(peer, Farewell::Idle, now),
        }
    }

    /// A connection has proven whose it is: it becomes the link to that node, unless another one stays it.
    /// Says how far the peer's stream has come.
    pub(super) fn establish(
        &mut self,
        id: ConnectionId,
        guest: Guest,
        dial: Option<u64>,
        proof: Option<&[u8]>,
        now: Now,
    ) -> bool {
        let peer = guest.peer;
        let origin = self.plane.node.origin_of(peer);
        let link = self.links.entry(peer).or_insert_with(|| {
            let mut link = Link::new(guest.clone(), origin, now.mono_us);
            if let Some(ended) = self.ended_streams.remove(&peer) {
                (link.stream, link.received) = (Some(ended.stream), ended.received);
            }
            link
        });
        let (own, is_ours) = (self.config.node, dial.is_some());
        if let Some(old) = link.connection
            && !takes_over(own, peer, link.dial.is_some(), is_ours)
            && !is_planted(Plant::SupersededKept)
        {
            debug_assert_ne!(old, id, "a connection becomes a link once");
            self.report_refused(id, LinkRefusal::Superseded);
            self.say_farewell(id, Farewell::Superseded, now);
            return false;
        }
        let overtaken = link.open_dial();
        let old = link.connection.replace(id);
        self.links_begun += 1;
        (link.guest, link.dial, link.is_up, link.begun) = (guest, dial, false, self.links_begun);
        (link.last_heard_us, link.last_said_us) = (now.mono_us, now.mono_us);
        (link.down_since_us, link.retires_at_us) = (None, None);
        link.parts = Parts::default();
        link.comparison = Comparison::default();
        link.violations.reason = None;
        let address = link.guest.address;
        if let Some(old) = old {
            self.take_from(old, peer);
            self.close_now(old);
        }
        if overtaken.is_some() && !is_planted(Plant::OvertakenDialUntold) {
            let (dial, reason) = (overtaken, LinkRefusal::Superseded);
            self.report_link(LinkReport::Refused { dial, peer: Some(peer), address, reason });
        }
        let Some(link) = self.links.get_mut(&peer) else { return false };
        let Some(connection) = open_connection(&mut self.connections, id) else { return false };
        let session = &mut connection.session;
        (session.state, session.door, session.guest) = (SessionState::Open, Door::Mesh, None);
        session.link = Some(Box::new(LinkSession {
            peer,
            relay: Relay {
                origin: link.origin,
                clock_offset_us: 0,
                is_state: false,
                fetch: FetchId::NONE,
            },
            received: link.received
                + u64::from(is_planted(Plant::LinkCountOffByOne) && link.received > 0),
            unacknowledged: 0,
            unacknowledged_bytes: 0,
            origins: Vec::new(),
            answers: FetchId::NONE,
            is_answer: false,
        }));
        let control = &mut connection.outbound.control;
        self.encoder.link_ack(control, link.stream, link.received, proof);
        self.schedule(id);
        self.look_at_links_by(now.mono_us + LINK_TICK_US);
        true
    }

    /// A connection is the link no longer: what it knows of the peer's stream is the link's again, and
    /// nothing more of it counts.
    fn take_from(&mut self, old: ConnectionId, peer: NodeId) {
        let Some(connection) = open_connection(&mut self.connections, old) else { return };
        let session = &mut connection.session;
        session.state = SessionState::Closing;
        if let (Some(ended), Some(link)) = (session.link.take(), self.links.get_mut(&peer)) {
            link.received = ended.received;
        }
    }

    /// The peer has said how far this node's stream has come there: it goes on, or a new one begins.
    pub(super) fn attach(
        &mut self,
        id: ConnectionId,
        stream: Option<SubscriptionId>,
        received: u64,
    ) {
        let Some(peer) = self.peer_of(id) else { return };
        let Some(link) = self.links.get_mut(&peer) else { return };
        (link.is_up, link.is_reported_up, link.was_up) = (true, true, true);
        (link.is_suspected, link.up_since_us) = (false, self.now_us);
        let (queue, guest, dial, hash) = (link.queue, link.guest.clone(), link.dial, link.hash);
        let is_late = is_planted(Plant::LinkResumeTwice) && received > 0;
        let said = received - u64::from(is_late);
        let received = queue.and_then(|(known, queue)| {
            let queue = &self.plane.queues[queue.0 as usize];
            let sent = &queue.stream;
            // Who never heard of a stream has had nothing of it; but who has said how far it came, and
            // does not know any more, may have had more than it said.
            let is_unheard = sent.sent() == sent.messages() && !is_planted(Plant::LinkBegunAnew);
            let had = if Some(known) == stream { Some(said) } else { is_unheard.then_some(0) };
            had.filter(|had| *had <= sent.sent() + queue.messages)
        });
        match (queue, received) {
            (Some((_, queue)), Some(received)) => {
                let mode = GapMode::None;
                self.resume(queue, Comeback { connection: id, request: 0, received, mode });
            }
            (old, _) => {
                let mut gap = Gap::new(GapReason::LinkLost);
                if let Some((_, old)) = old {
                    let queue = &self.plane.queues[old.0 as usize];
                    let lost = queue.messages + queue.stream.messages();
                    if lost > 0 {
                        gap.note_unnamed(lost);
                    }
                    self.drop_link_queue(peer, old);
                }
                // Whoever has had something has had it of a stream that was given up, or all of one that is
                // finished, and has not heard that it is.
                let was_given_up = self.given_up.remove(&peer);
                let finished = self.finished_streams.remove(&peer);
                let has_had_all = finished.is_some() && finished == stream;
                if was_given_up || said > 0 && !has_had_all {
                    gap.note_unknown();
                }
                if let Some(link) = self.links.get_mut(&peer) {
                    link.is_told = was_given_up;
                }
                self.begin_stream(id, peer, gap);
            }
        }
        let up = LinkReport::Up {
            peer,
            start_us: guest.start_us,
            address: guest.address,
            app_port: guest.app_port,
            dial,
        };
        self.report_link(up);
        if hash.is_some() {
            self.report_link(LinkReport::Stored { peer, hash });
        }
        #[cfg(feature = "protocol-next")]
        self.say_next(id);
        self.compare_retained(peer);
        self.ask_peer(peer);
        if self.links.get(&peer).is_some_and(|link| link.leaving.is_some()) {
            let now = Now { mono_us: self.now_us, wall_us: self.plane.wall_us };
            self.leave_over(id, peer, now);
        }
    }

    /// Makes the queue of what goes to the peer, behind a loss, if there is one.
    fn begin_stream(&mut self, id: ConnectionId, peer: NodeId, gap: Gap) {
        let subscription = self.fresh_subscription_id();
        let created_at = self.plane.index.renew();
        let limits = QueueLimits {
            messages: u64::MAX,
            bytes: self.config.limits.link_queue_bytes,
            policy: OverflowPolicy::DropOldest,
        };
        let stream = CountedStream::new(true);
        let (deliver_frame, filters) = (Box::default(), Box::default());
        let mut queue = SubscriberQueue::new(
            subscription,
            id,
            limits,
            deliver_frame,
            filters,
            stream,
            created_at,
        );
        queue.is_link = true;
        if self.has_early_messages_for(peer) {
            queue.awaits.insert(self.plane.routing.own);
            self.plane.neighbours.iter().for_each(|it| queue.awaits.insert(it.shard));
        }
        let has_gap = !gap.is_empty();
        if has_gap {
            self.plane.log.charge_gap(&gap);
            queue.items.push_back(Item::Gap(Box::new(gap)));
        }
        let slot = QueueId(self.plane.queues.insert(queue) as u32);
        if has_gap {
            self.plane.make_ready(slot);
        }
        self.plane.subscriptions.insert(subscription, slot);
        self.plane.add_link_queue(slot);
        if let Some(connection) = open_connection(&mut self.connections, id) {
            connection.session.subscriptions.push((subscription, slot));
        }
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.queue = Some((subscription, slot));
        let filters: Vec<_> = link.filters.iter().cloned().collect();
        for filter in filters {
            self.index_filter(slot, &filter, true);
        }
    }

    /// A filter of the peer's becomes one of its queue's, or ends to be.
    pub(super) fn index_filter(&mut self, queue: QueueId, filter: &str, is_wanted: bool) {
        let plane = &mut self.plane;
        let is_news = match is_wanted {
            true => plane.index.insert(filter, queue.0),
            false => plane.index.remove(filter, queue.0),
        };
        if is_news {
            for neighbour in plane.neighbours.all() {
                neighbour.tell(ParcelItem::Interest { filter: filter.into(), is_wanted });
            }
        }
    }

    /// Gives up what is queued for a peer.
    fn drop_link_queue(&mut self, peer: NodeId, queue: QueueId) {
        self.forget_asked_filters(peer, u64::MAX);
        let Some(link) = self.links.get_mut(&peer) else { return };
        let filters: Vec<_> = link.filters.iter().cloned().collect();
        link.queue = None;
        for filter in filters {
            if is_planted(Plant::DeadRoutesKept) {
                break;
            }
            self.index_filter(queue, &filter, false);
        }
        let held = &self.plane.queues[queue.0 as usize];
        self.plane.metrics.dropped_link += held.stream.messages();
        match held.presence {
            Presence::Parked { .. } => {
                self.plane.remove_queue(queue);
            }
            Presence::Connected | Presence::Leaving => {
                let connection = held.connection;
                if let Some(connection) = open_connection(&mut self.connections, connection) {
                    connection.session.subscriptions.retain(|(_, held)| *held != queue);
                }
                self.remove_queue(connection, queue);
            }
        }
    }

    /// The connection of a link, or of a node that was to be one, has closed.
    pub(super) fn on_link_closed(&mut self, id: ConnectionId, ended: &LinkSession, now_us: u64) {
        let Some(link) = self.links.get_mut(&ended.peer) else { return };
        if link.connection != Some(id) {
            return;
        }
        link.received = ended.received;
        link.connection = None;
        link.forget_latency();
        link.down_since_us = Some(now_us);
        let was_up = std::mem::take(&mut link.is_up);
        if link.retires_at_us.is_some() {
            let now = Now { mono_us: now_us, wall_us: self.plane.wall_us };
            self.end_link(ended.peer, LinkDown::Broken, false, now);
            return;
        }
        let was_reported_up = std::mem::take(&mut link.is_reported_up);
        let (peer, dial, address) = (ended.peer, link.dial, link.guest.address);
        let pause_us = link.violations.shut_until_us.saturating_sub(now_us);
        let violation = link.violations.reason.take();
        if was_reported_up {
            self.report_link(match violation {
                Some(reason) => LinkReport::Violated { peer, reason, pause_us },
                None => LinkReport::Down { peer, reason: LinkDown::Broken },
            });
        }
        if !was_up {
            let reason = LinkRefusal::Closed;
            self.report_link(LinkReport::Refused { dial, peer: Some(peer), address, reason });
        }
        self.look_at_links_by(now_us + LINK_TICK_US);
    }

    /// A peer is gone, or neither node wants anything of the other. `is_clean`: nothing of it was lost.
    /// Otherwise nobody knows what it had accepted for this node: its last messages may have been the first
    /// of their topics.
    pub(super) fn end_link(&mut self, peer: NodeId, reason: LinkDown, is_clean: bool, now: Now) {
        self.stop_asking(peer);
        let Some(link) = self.links.get_mut(&peer) else { return };
        let (queue, connection) = (link.queue, link.connection);
        let (dial, address) = (link.open_dial(), link.guest.address);
        if let Some((stream, queue)) = queue {
            if reason == LinkDown::Idle && self.has_sent_all(queue) {
                self.note_finished(peer, stream);
            }
            self.drop_link_queue(peer, queue);
        }
        if let Some(open) = connection.and_then(|id| open_connection(&mut self.connections, id))
            && let Some(ended) = open.session.link.take()
            && let Some(link) = self.links.get_mut(&peer)
        {
            link.received = ended.received;
        }
        if !is_clean {
            self.note_given_up(peer);
            if self.links.get(&peer).is_some_and(|link| link.was_up)
                && !is_planted(Plant::LinkDeathUntold)
            {
                self.plane.lose_unknown(now);
            }
        }
        if let Some(link) = self.links.remove(&peer) {
            self.plane.client_bytes -= link.filter_bytes;
            if !is_clean {
                self.remember_stream(&link, now.mono_us);
            }
        }
        if dial.is_some() {
            let reason = LinkRefusal::Closed;
            self.report_link(LinkReport::Refused { dial, peer: Some(peer), address, reason });
        }
        let report = match connection {
            None => LinkReport::Dead { peer },
            Some(_) => LinkReport::Down { peer, reason },
        };
        self.report_link(report);
        if let Some(id) = connection {
            self.begin_close(id, now);
        }
    }

    /// A successor of the peer was heard. Beacons overtake what goes over links: its last messages may still
    /// be under way, and behind them the Goodbye with which nothing is lost.
    fn retire(&mut self, peer: NodeId, now: Now) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if !link.is_up {
            self.end_link(peer, LinkDown::Forgotten, false, now);
            return;
        }
        link.retires_at_us = Some(now.mono_us + LINK_RETIRE_US);
        if let Some((_, queue)) = link.queue {
            self.drop_link_queue(peer, queue);
        }
    }

    /// A peer that is given up may only have stood still: should it come back, it goes on where it was.
    fn remember_stream(&mut self, link: &Link, now_us: u64) {
        self.ended_streams.retain(|_, ended| now_us < ended.until_us);
        if let Some(stream) = link.stream
            && self.ended_streams.len() < LINKS_MAX
        {
            let until_us = now_us + ENDED_STREAM_KEPT_US;
            let ended = EndedStream { stream, received: link.received, until_us };
            self.ended_streams.insert(link.guest.peer, ended);
        }
    }

    /// A stream has ended behind its last message.
    fn note_finished(&mut self, peer: NodeId, stream: SubscriptionId) {
        if self.finished_streams.len() >= LINKS_MAX {
            self.finished_streams.pop_first();
        }
        self.finished_streams.insert(peer, stream);
    }

    /// A peer may live on, and not know what it has lost: it is told if it comes back.
    fn note_given_up(&mut self, peer: NodeId) {
        if self.given_up.len() >= LINKS_MAX {
            self.given_up.pop_first();
        }
        self.given_up.insert(peer);
    }

    /// A link ends as soon as everything is sent and the peer has had it.
    pub(super) fn leave_peer(&mut self, peer: NodeId, farewell: Farewell, now: Now) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.leaving = Some(farewell);
        match link.connection {
            None => self.end_link(peer, LinkDown::Forgotten, true, now),
            Some(id) if link.is_up => self.leave_over(id, peer, now),
            // The peer takes it for the link already: it is told once this node has heard how far it is.
            Some(_) => {}
        }
    }

    fn leave_over(&mut self, id: ConnectionId, peer: NodeId, now: Now) {
        // The answer acknowledges all.
        if let Some(connection) = open_connection(&mut self.connections, id) {
            let control = &mut connection.outbound.control;
            FrameEncoder::ping_or_pong(control, FrameKind::Ping, now.mono_us);
            self.schedule(id);
        }
        self.leave_if_done(peer, now);
    }

    /// Ends a link that was to end, if nothing is under way any more.
    pub(super) fn leave_if_done(&mut self, peer: NodeId, now: Now) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if !link.filters.is_empty() {
            link.stay_if_idle();
        }
        let (Some(farewell), Some(id)) = (link.leaving, link.connection) else { return };
        if link.queue.is_some_and(|(_, queue)| !self.has_sent_all(queue)) {
            return;
        }
        self.acknowledge(id);
        if let Some(connection) = open_connection(&mut self.connections, id) {
            let reason = match farewell {
                Farewell::Idle => "neither node wants anything of the other",
                _ => "the daemon is stopping",
            };
            self.encoder.farewell(&mut connection.outbound.control, reason, farewell);
        }
        let reason = match farewell {
            Farewell::Idle => LinkDown::Idle,
            _ => LinkDown::Forgotten,
        };
        self.end_link(peer, reason, true, now);
    }

    /// Whether nothing waits for a peer, and it has acknowledged everything.
    fn has_sent_all(&self, queue: QueueId) -> bool {
        let queue = &self.plane.queues[queue.0 as usize];
        queue.is_empty() && queue.stream.messages() == 0
    }

    /// Says goodbye to all peers: the node stops.
    pub(super) fn leave_all_peers(&mut self, now: Now) {
        let peers: Vec<_> = self.links.keys().copied().collect();
        for peer in peers {
            self.leave_peer(peer, Farewell::Ending, now);
        }
    }

    /// Ends a connection that is not, or no longer, the link.
    pub(super) fn say_farewell(&mut self, id: ConnectionId, farewell: Farewell, now: Now) {
        if let Some(connection) = open_connection(&mut self.connections, id) {
            let text = "another connection between the two nodes is the link";
            self.encoder.farewell(&mut connection.outbound.control, text, farewell);
            self.begin_close(id, now);
        }
    }

    /// Tells the peer how many of its messages have come.
    pub(super) fn acknowledge(&mut self, id: ConnectionId) {
        let Some(connection) = open_connection(&mut self.connections, id) else { return };
        let Some(session) = connection.session.link.as_deref_mut() else { return };
        if is_planted(Plant::LinkNeverAcked) {
            return;
        }
        let Some(link) = self.links.get(&session.peer) else { return };
        (session.unacknowledged, session.unacknowledged_bytes) = (0, 0);
        let (control, received) = (&mut connection.outbound.control, session.received);
        self.encoder.link_ack(control, link.stream, received, None);
        self.schedule(id);
    }

    /// The node at the other end of a link.
    pub(super) fn peer_of(&mut self, id: ConnectionId) -> Option<NodeId> {
        let connection = open_connection(&mut self.connections, id)?;
        connection.session.link.as_deref().map(|link| link.peer)
    }

    pub(super) fn report_link(&mut self, report: LinkReport) {
        self.outputs.push_back(Output::Report(Report::Link(report)));
    }

    pub(super) fn look_at_links_by(&mut self, due_us: u64) {
        self.links_due_us = Some(self.links_due_us.map_or(due_us, |due| due.min(due_us)));
    }

    /// Looks at all links: who has to be told that this node lives, and who has fallen silent.
    pub(super) fn look_at_links(&mut self, now: Now) {
        let Some(due_us) = self.links_due_us.take() else { return };
        // While this thread had no CPU it could not have heard anybody.
        let late_us = now.mono_us.saturating_sub(due_us);
        let is_excused = late_us > LINK_TICK_US && !is_planted(Plant::LateTickUnexcused);
        let excused_us = if is_excused { late_us } else { 0 };
        let peers: Vec<_> = self.links.keys().copied().collect();
        for peer in peers {
            self.look_at_link(peer, excused_us, now);
        }
        if !self.links.is_empty() {
            self.look_at_links_by(now.mono_us + LINK_TICK_US);
        }
    }

    fn look_at_link(&mut self, peer: NodeId, excused_us: u64, now: Now) {
        self.forget_asked_filters(peer, now.mono_us);
        let Some(link) = self.links.get_mut(&peer) else { return };
        let Some(id) = link.connection else {
            let since = link.down_since_us.get_or_insert(now.mono_us);
            *since = (*since + excused_us).min(now.mono_us);
            let early_us =
                if is_planted(Plant::LinkGivenUpEarly) { LINK_DEAD_US - 300_000 } else { 0 };
            if now.mono_us - *since >= LINK_DEAD_US - early_us {
                self.end_link(peer, LinkDown::Broken, false, now);
            }
            return;
        };
        let Some(connection) = open_connection(&mut self.connections, id) else { return };
        let session = &connection.session;
        let heard_us = session.last_received_us.max(link.last_heard_us + excused_us);
        link.last_heard_us = heard_us.min(now.mono_us);
        // Whoever is not read cannot be heard.
        if connection.inbound.is_paused {
            link.last_heard_us = now.mono_us;
        }
        let silent_us = now.mono_us - link.last_heard_us;
        let owes_ack = session.link.as_deref().is_some_and(|link| link.unacknowledged > 0);
        let is_due = now.mono_us - link.last_said_us >= LINK_HEARTBEAT_US;
        if is_due {
            link.last_said_us = now.mono_us;
        }
        if link.retires_at_us.is_some_and(|at_us| at_us <= now.mono_us) {
            self.end_link(peer, LinkDown::Forgotten, false, now);
            return;
        }
        if silent_us >= LINK_DEAD_US {
            self.plane.metrics.timeouts += 1;
            self.end_link(peer, LinkDown::Silent, false, now);
            self.close_now(id);
            return;
        }
        let is_suspected = silent_us >= LINK_SUSPECTED_US;
        if std::mem::replace(&mut link.is_suspected, is_suspected) != is_suspected
            && (is_suspected || !is_planted(Plant::NeverTrusted))
        {
            self.report_link(match is_suspected {
                true => LinkReport::Suspected { peer },
                false => LinkReport::Trusted { peer },
            });
        }
        if is_due && owes_ack {
            self.acknowledge(id);
        } else if is_due && let Some(connection) = open_connection(&mut self.connections, id) {
            let heartbeat = Header::new(FrameKind::Heartbeat, 0, 0).with_timestamp_us(now.wall_us);
            FrameEncoder::bare(&mut connection.outbound.control, &heartbeat);
            self.schedule(id);
        }
        if is_due {
            self.measure_latency(id, peer, now);
        }
    }

    /// Memory that a peer's filter is counted with.
    pub(super) fn filter_memory(filter: &str) -> usize {
        FILTER_BYTES + filter.len()
    }

    /// Checks what must hold between events. For tests and the simulator.
    pub(super) fn assert_links(&self) {
        for (peer, link) in &self.links {
            assert_eq!(*peer, link.guest.peer, "links stand under their peers");
            if let Some((subscription, queue)) = link.queue {
                let queue = &self.plane.queues[queue.0 as usize];
                assert!(queue.is_link && queue.subscription == subscription, "a link's queue");
                assert!(
                    link.is_up
                        || queue.presence != Presence::Connected
                        || link.connection.is_some(),
                    "a queue without a connection is parked"
                );
            }
            assert!(link.is_up <= link.connection.is_some(), "what is up has a connection");
            assert!(link.is_up <= link.is_reported_up, "what is up was said to be");
            assert!(
                link.connection.is_some() || link.down_since_us.is_some(),
                "what is down knows since when"
            );
        }
        let queues = self.plane.queues.iter().filter(|(_, queue)| queue.is_link && !queue.is_dying);
        let owned = self.links.values().filter(|link| link.queue.is_some()).count();
        assert_eq!(queues.count(), owned, "queues of links are in the table");
    }
}
