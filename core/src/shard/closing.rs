//! How queues and connections come apart: a subscription ends, or its connection does, and what reads from
//! a queue has to end first.
//!
//! A queue that a send reads from, or of which a frame is half on the wire, stays until that has ended
//! (`look_after`). A connection that closes gives back all that was its: queues are parked or end, a landing
//! and topic ids are let go, publishers are no longer held back.

use super::event::{CloseReason, ConnectionId};
use super::flush;
use super::output::Destination;
use super::plane::Plane;
use super::routing::PublisherId;
use super::{Shard, open_connection};
use crate::connection::Landing;
use crate::limits::BINDING_BYTES;
use crate::link::LinkRefusal;
use crate::plant::{Plant, is_planted};
use crate::session::SessionState;
use crate::subscriber_queue::{Presence, QueueId};

impl Shard {
    /// After a send that read from `queue`: what had to wait for its end.
    pub(super) fn look_after(&mut self, id: ConnectionId, queue: QueueId) {
        // A send can have read from a queue in two places: it may be gone by the second.
        match self.plane.queues.get(queue.0 as usize) {
            None => {}
            Some(dying) if dying.is_dying => self.remove_queue(id, queue),
            Some(leaving) if leaving.presence == Presence::Leaving => {
                self.plane.cut_if_due(queue);
                self.park_if_free(id, queue);
            }
            Some(sent_from) if sent_from.is_carefree() => {}
            Some(_) => {
                self.plane.cut_if_due(queue);
                self.plane.release_if_drained(queue);
                self.plane.ask_for_retained(queue);
            }
        }
    }

    /// Takes a queue out of the plane and, once it is gone, out of its connection.
    pub(super) fn remove_queue(&mut self, id: ConnectionId, queue: QueueId) {
        self.disappoint(queue);
        if self.plane.remove_queue(queue) {
            self.detach(id, queue);
        }
    }

    /// The connection sends nothing more from a queue, but for the rest of a frame.
    pub(super) fn detach(&mut self, id: ConnectionId, queue: QueueId) {
        let is_gone = !self.plane.queues.contains(queue.0 as usize);
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        let outbound = &mut connection.outbound;
        outbound.ready.retain(|ready| *ready != queue);
        self.plane.newly_ready.retain(|ready| *ready != queue);
        if outbound.run.is_some_and(|run| run.queue == queue) {
            outbound.run = None;
        }
        if outbound.cut_queue == Some(queue) && is_gone {
            outbound.cut_queue = None;
        }
    }

    /// The same for many queues of a connection at once.
    pub(super) fn remove_queues(&mut self, id: ConnectionId, queues: &[QueueId]) {
        for &queue in queues {
            self.disappoint(queue);
            self.plane.remove_queue(queue);
        }
        let Plane { queues, newly_ready, .. } = &mut self.plane;
        let is_left = |queue: &QueueId| queues.contains(queue.0 as usize);
        newly_ready.retain(is_left);
        if let Some(connection) = open_connection(&mut self.connections, id) {
            let outbound = &mut connection.outbound;
            outbound.ready.retain(is_left);
            outbound.run = outbound.run.filter(|run| is_left(&run.queue));
            outbound.cut_queue = outbound.cut_queue.filter(is_left);
        }
    }

    pub(super) fn on_closed(&mut self, id: ConnectionId, reason: CloseReason) {
        if reason != CloseReason::Moved {
            self.report_refused(id, LinkRefusal::Closed);
        }
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        let mut touched = std::mem::take(&mut self.scratch_queues);
        flush::settle(&mut connection.outbound, &mut self.plane, 0, &mut touched);
        touched.extend(connection.outbound.cut_queue.take());
        let subscriptions = std::mem::take(&mut connection.session.subscriptions);
        touched.extend(connection.outbound.ready.iter().copied());
        let landing = connection.inbound.landing.take();
        let bindings = std::mem::take(&mut connection.session.bindings);
        let held_by = std::mem::take(&mut connection.session.held_by);
        // A subscription that is parked here does not go on here.
        let state = std::mem::replace(&mut connection.session.state, SessionState::Closing);
        let moves_to = connection.session.moves_to.take();
        let source = connection.session.source.take();
        let link = connection.session.link.take();
        let held: Vec<_> = subscriptions.into_iter().map(|(_, queue)| queue).collect();
        let is_parked = |queue: &QueueId| {
            let may_come_back = self.drain.is_none() && self.config.limits.parked_ttl_us > 0;
            let queue = &self.plane.queues[queue.0 as usize];
            // What becomes of a link's is the link's to say.
            (queue.is_link || may_come_back) && queue.is_confirmed()
        };
        let (mut parked, ended): (Vec<_>, Vec<_>) = held.into_iter().partition(is_parked);
        parked.sort_unstable();
        touched.extend(ended);
        touched.sort_unstable();
        touched.dedup();
        touched.retain(|queue| {
            let is_there = self.plane.queues.contains(queue.0 as usize);
            is_there && parked.binary_search(queue).is_err()
        });
        for queue in &touched {
            self.plane.queues[queue.0 as usize].front_sent = 0;
        }
        if !is_planted(Plant::ClosedQueueKept) {
            self.remove_queues(id, &touched);
        }
        self.scratch_queues = touched;
        self.plane.newly_ready.retain(|queue| parked.binary_search(queue).is_err());
        for queue in parked {
            self.park(queue);
        }
        if let Some(Landing::Segment { segment, .. }) = landing {
            self.plane.log.release(segment);
        }
        self.plane.client_bytes -= bindings.len() * BINDING_BYTES;
        for binding in bindings {
            self.plane.release_binding(binding);
        }
        if let Some(link) = link {
            self.on_link_closed(id, &link, self.now_us);
        }
        let own = self.plane.routing.own;
        // Queues of other shards find out when they release it.
        for (_, queue) in held_by.into_iter().filter(|(shard, _)| *shard == own) {
            if let Some(queue) = self.plane.queues.get_mut(queue.0 as usize) {
                queue.waiting.remove(&PublisherId { shard: own, connection: id });
            }
        }
        if let Some(connection) = self.connections[id.index as usize].take() {
            self.buffers.forget(&connection);
        }
        self.plane.open_generations[id.index as usize] = 0;
        if let Some(source) = source {
            self.plane.node.sources.close(&source, self.now_us);
        }
        match (state, reason) {
            (SessionState::Moving, CloseReason::Moved) => {
                self.plane.metrics.connections_moved += 1;
                match moves_to {
                    Some(Destination::Shard(to)) => self.plane.node.move_connection(own, to),
                    Some(Destination::Edge) | None => self.plane.node.remove_connection(own),
                }
            }
            _ => self.plane.node.remove_connection(own),
        }
        self.open -= 1;
    }
}
