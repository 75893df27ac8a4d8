//! The end of a shard in good order: nothing more is read, all that was accepted is delivered, and
//! every publisher is told how far it came. The last word to a client says that all was sent: where it comes
//! back it misses nothing of this node.
//!
//! A message and its acknowledgement take up to four steps between shards: from the publisher's to
//! the owner, to the subscribers' shards, back to the owner's and the publisher's. So draining goes
//! in rounds: a shard begins the next one when all others have told it that they are in this one, and
//! what they said before has then arrived.

use super::event::{ConnectionId, Now};
use super::output::Output;
use super::parcel::Item;
use super::{Shard, open_connection};
use crate::plant::{Plant, is_planted};
use crate::session::SessionState;
use crate::subscriber_queue::QueueId;

/// Rounds until nothing of a message is under way any more.
const ROUNDS: u8 = 4;

/// How far the shard has come.
#[derive(Debug)]
pub(super) struct Drain {
    deadline_us: Option<u64>,
    round: u8,
}

impl Drain {
    /// When the drain is cut short.
    pub(super) fn due_us(&self) -> Option<u64> {
        self.deadline_us
    }

    /// Whether closing the connections is all that is left.
    pub(super) fn is_done(&self) -> bool {
        self.round > ROUNDS || self.deadline_us.is_none()
    }
}

impl Shard {
    pub(super) fn on_drain(&mut self, deadline_us: u64, now: Now) {
        if let Some(drain) = &mut self.drain {
            // Asked again: the stricter deadline holds, unless closing is under way already.
            drain.deadline_us = drain.deadline_us.map(|earlier| earlier.min(deadline_us));
            return;
        }
        self.drain = Some(Drain { deadline_us: Some(deadline_us), round: 0 });
        self.outputs.push_back(Output::StopAccepting);
        for slot in 0..self.connections.len() {
            let Some(connection) = &self.connections[slot] else {
                continue;
            };
            let (id, state) = (connection.id, connection.session.state);
            match state {
                SessionState::AwaitingHello
                | SessionState::AwaitingWelcome
                | SessionState::AwaitingLinkAck
                | SessionState::Moving => self.close_now(id),
                // A peer still says how much of what is queued for it it has had.
                SessionState::Open if connection.session.link.is_some() => self.hear_no_more(id),
                SessionState::Open => self.read_no_more(id),
                SessionState::Draining | SessionState::Closing => {}
            }
        }
        self.advance_drain(now);
    }

    /// Begins every round whose time has come; behind the last one publishers are told how far they
    /// came.
    pub(super) fn advance_drain(&mut self, now: Now) {
        let Some(drain) = &mut self.drain else {
            return;
        };
        if is_planted(Plant::DrainRoundsSkipped) {
            drain.round = ROUNDS;
        }
        while drain.round <= ROUNDS
            && self.plane.neighbours.iter().all(|neighbour| {
                neighbour.drain_round >= drain.round || is_planted(Plant::DrainRoundsSkipped)
            })
        {
            drain.round += 1;
            if drain.round <= ROUNDS {
                for neighbour in self.plane.neighbours.all() {
                    neighbour.close_batch();
                    neighbour.tell(Item::DrainRound(drain.round));
                }
            }
            if drain.round == ROUNDS + 1 {
                self.say_goodbyes();
                self.leave_all_peers(now);
                return;
            }
        }
    }

    fn say_goodbyes(&mut self) {
        for slot in 0..self.connections.len() {
            if let Some(connection) = &self.connections[slot]
                && connection.session.state == SessionState::Draining
            {
                let id = connection.id;
                self.say_goodbye(id);
                self.close_if_done(id);
            }
        }
    }

    /// From now on messages of a peer are passed over, unacknowledged.
    fn hear_no_more(&mut self, id: ConnectionId) {
        if let Some(connection) = open_connection(&mut self.connections, id) {
            connection.session.may_publish = Some(0);
        }
    }

    fn read_no_more(&mut self, id: ConnectionId) {
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        connection.session.state = SessionState::Draining;
        self.pause_receive(id);
    }

    /// A Goodbye with the newest accepted publish, ahead of what is queued.
    fn say_goodbye(&mut self, id: ConnectionId) {
        self.send_acks(id);
        let is_complete = self.was_sent_all(id);
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        connection.session.was_told_goodbye = true;
        connection.session.was_told_all = is_complete;
        self.encode_goodbye(id);
    }

    /// The last word of a connection to which all was sent, once; whether it was said now.
    pub(super) fn say_that_is_all(&mut self, id: ConnectionId) -> bool {
        let is_complete = self.was_sent_all(id);
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return false;
        };
        let was_told = connection.session.was_told_all;
        if !is_complete || was_told || is_planted(Plant::GoodbyeForgotten) {
            return false;
        }
        connection.session.was_told_all = true;
        self.encode_goodbye(id);
        true
    }

    fn encode_goodbye(&mut self, id: ConnectionId) {
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        let (control, session) = (&mut connection.outbound.control, &connection.session);
        let (last, reason) = (session.last_accepted, "the daemon is stopping");
        match session.was_told_all {
            _ if is_planted(Plant::GoodbyeForgotten) => {}
            true => self.encoder.complete_goodbye(control, reason, last),
            false => self.encoder.goodbye(control, reason, last),
        }
        self.schedule(id);
    }

    /// Whether nothing follows what a connection was sent. What a subscription gets from other nodes, or
    /// of retained values, may still be under way when it has no messages.
    fn was_sent_all(&self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections[id.index as usize].as_ref() else {
            return false;
        };
        let session = &connection.session;
        let is_sent = |queue: &QueueId| self.plane.queues[queue.0 as usize].is_sent();
        session.acks.len() == 0 && session.subscriptions.iter().all(|(_, queue)| is_sent(queue))
    }

    /// The time for draining is over.
    pub(super) fn end_drain(&mut self) {
        if let Some(drain) = &mut self.drain {
            drain.deadline_us = None;
        }
        for slot in 0..self.connections.len() {
            if let Some(connection) = &self.connections[slot] {
                let id = connection.id;
                self.close_now(id);
            }
        }
    }
}
