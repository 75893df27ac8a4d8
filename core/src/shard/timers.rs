//! What is due by time: greetings and pongs that did not come, writes that stand still, blocking
//! that lasted too long, idle topics, the end of a drain.
//!
//! Connections are looked at together, at most four times a second, so that timers cost nothing per
//! message and next to nothing per idle client.

use nexusd_wire::control::ErrorCode;
use nexusd_wire::{FrameEncoder, FrameKind, Header, TopicId};

use super::drain::Drain;
use super::event::{ConnectionId, Now};
use super::neighbour::Neighbour;
use super::parcel::Item;
use super::{Shard, fatal, open_connection};
use crate::limits::{
    HEARTBEAT_AFTER_US, HELLO_TIMEOUT_US, PING_AFTER_US, PONG_TIMEOUT_US, SCAN_INTERVAL_US,
    TOPICS_PER_SCAN, WRITE_TIMEOUT_US,
};
use crate::plant::{Plant, is_planted};
use crate::session::SessionState;
use crate::topic::Forgotten;

/// What a connection needs, by the clock.
enum Due {
    Nothing,
    Ping,
    Heartbeat,
    Fail(&'static str),
    Close,
}

impl Shard {
    /// Makes sure that connections are looked at no later than `due_us`.
    pub(super) fn scan_by(&mut self, due_us: u64) {
        self.next_scan_us = Some(self.next_scan_us.map_or(due_us, |next| next.min(due_us)));
    }

    pub(super) fn on_tick(&mut self, now: Now) {
        if self.block_due_us.is_some_and(|due| due <= now.mono_us) {
            self.block_due_us = self.plane.expire_blocking(now);
        }
        self.expire_parked(now);
        self.plane.reap_retained();
        self.plane.step_scans_due();
        if self.plane.expiring.due_us().is_some_and(|due| due <= now.mono_us) {
            self.plane.reap_expired();
        }
        if self.drain.as_ref().and_then(Drain::due_us).is_some_and(|due| due <= now.mono_us) {
            self.end_drain();
        }
        if self.links_due_us.is_some_and(|due| due <= now.mono_us) {
            self.look_at_links(now);
        }
        if self.next_scan_us.is_some_and(|due| due <= now.mono_us) {
            self.scan(now);
        }
    }

    /// Looks at every connection, forgets idle topics, and finds out when to look again.
    fn scan(&mut self, now: Now) {
        self.next_scan_us = None;
        for slot in 0..self.connections.len() {
            let Some(connection) = &self.connections[slot] else {
                continue;
            };
            let id = connection.id;
            match self.due(id, now) {
                Due::Nothing => {}
                Due::Ping => self.ping(id, now),
                Due::Heartbeat => self.heartbeat(id, now),
                Due::Fail(message) => {
                    self.plane.metrics.timeouts += 1;
                    self.fail(id, &fatal(ErrorCode::Timeout, message), now);
                }
                Due::Close => {
                    self.plane.metrics.timeouts += 1;
                    self.close_now(id);
                }
            }
            if let Some(due) = self.next_due(id) {
                self.scan_by(due.max(now.mono_us + SCAN_INTERVAL_US));
            }
        }
        self.plane.tidy_history();
        self.plane.settle_history();
        self.plane.gap_bytes_left = self.plane.gap_bytes_left.min(self.plane.log.gap_bytes());
        self.plane.log.trim();
        self.plane.log.forget_recalls();
        self.plane.neighbours.all().iter_mut().for_each(Neighbour::shrink);
        self.forget_topics(now);
    }

    fn due(&self, id: ConnectionId, now: Now) -> Due {
        let Some(connection) = &self.connections[id.index as usize] else {
            return Due::Nothing;
        };
        let session = &connection.session;
        let passed = |since: u64, time: u64| now.mono_us >= since.saturating_add(time);
        if connection.close_asked {
            return Due::Nothing;
        }
        if connection.outbound.blocked_since_us.is_some_and(|since| passed(since, WRITE_TIMEOUT_US))
        {
            return Due::Close;
        }
        match session.state {
            SessionState::AwaitingHello if passed(session.opened_at_us, HELLO_TIMEOUT_US) => {
                Due::Fail("no Hello came within 5 s")
            }
            SessionState::AwaitingWelcome | SessionState::AwaitingLinkAck
                if passed(session.opened_at_us, HELLO_TIMEOUT_US) =>
            {
                Due::Fail("the other node did not show who it is within 5 s")
            }
            // Links have their own heartbeats.
            SessionState::Open if session.link.is_some() => Due::Nothing,
            SessionState::Closing
                if session.close_deadline_us.is_some_and(|due| due <= now.mono_us) =>
            {
                Due::Close
            }
            // A connection that is not read cannot answer.
            SessionState::Open if !connection.inbound.is_paused => match session.pinged_at_us {
                Some(_) if is_planted(Plant::SilentClientKept) => Due::Nothing,
                Some(pinged) if passed(pinged, PONG_TIMEOUT_US) => {
                    Due::Fail("no answer to a ping within 10 s")
                }
                None if passed(session.last_received_us, PING_AFTER_US) => Due::Ping,
                _ if passed(session.last_sent_us, HEARTBEAT_AFTER_US)
                    && !session.subscriptions.is_empty()
                    && connection.outbound.is_empty() =>
                {
                    Due::Heartbeat
                }
                _ => Due::Nothing,
            },
            _ => Due::Nothing,
        }
    }

    fn next_due(&self, id: ConnectionId) -> Option<u64> {
        let connection = self.connections[id.index as usize].as_ref()?;
        let session = &connection.session;
        let by_state = match session.state {
            SessionState::AwaitingHello
            | SessionState::AwaitingWelcome
            | SessionState::AwaitingLinkAck => Some(session.opened_at_us + HELLO_TIMEOUT_US),
            SessionState::Closing => session.close_deadline_us,
            // The driver goes on with one that moves at once.
            SessionState::Moving | SessionState::Draining => None,
            SessionState::Open if session.link.is_some() => None,
            SessionState::Open => {
                let ping = match session.pinged_at_us {
                    Some(pinged) => pinged + PONG_TIMEOUT_US,
                    None => session.last_received_us + PING_AFTER_US,
                };
                let heartbeat = (!session.subscriptions.is_empty())
                    .then_some(session.last_sent_us + HEARTBEAT_AFTER_US);
                Some(heartbeat.map_or(ping, |heartbeat| ping.min(heartbeat)))
            }
        };
        let write = connection.outbound.blocked_since_us.map(|since| since + WRITE_TIMEOUT_US);
        if connection.close_asked { None } else { [by_state, write].into_iter().flatten().min() }
    }

    fn ping(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        connection.session.pinged_at_us = Some(now.mono_us);
        connection.shrink();
        FrameEncoder::ping_or_pong(&mut connection.outbound.control, FrameKind::Ping, now.mono_us);
        self.schedule(id);
    }

    fn heartbeat(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        connection.session.last_sent_us = now.mono_us;
        let heartbeat = Header::new(FrameKind::Heartbeat, 0, 0).with_timestamp_us(now.wall_us);
        FrameEncoder::bare(&mut connection.outbound.control, &heartbeat);
        self.schedule(id);
    }

    /// Tells connections that a topic's id will not be used any more.
    pub(super) fn unbind(&mut self, topic: TopicId, mut told: Vec<ConnectionId>) {
        if is_planted(Plant::UnbindForgotten) {
            return;
        }
        told.sort_unstable();
        told.dedup();
        for id in told {
            if let Some(connection) = open_connection(&mut self.connections, id)
                && connection.session.state != SessionState::Closing
            {
                FrameEncoder::topic_unbind(&mut connection.outbound.control, topic);
                self.schedule(id);
            }
        }
    }

    /// Forgets topics that nobody has used for a minute, a few thousand at a time, and tells the
    /// connections that knew their ids.
    fn forget_topics(&mut self, now: Now) {
        let plane = &mut self.plane;
        let forgotten =
            plane.topics.forget_idle(TOPICS_PER_SCAN, now.mono_us, &plane.index, &plane.queues);
        for Forgotten { topic, connections, shards } in forgotten {
            for shard in shards {
                self.plane.neighbours.of(shard).tell(Item::Forget { topic });
            }
            self.unbind(topic, connections);
        }
        match self.plane.topics.len() {
            0 => {}
            1..TOPICS_PER_SCAN => self.scan_by(now.mono_us + 4 * SCAN_INTERVAL_US),
            _ => self.scan_by(now.mono_us + SCAN_INTERVAL_US),
        }
    }
}
