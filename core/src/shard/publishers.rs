//! What publishers are told, and when they are read on: acknowledgements and refusals, full queues
//! that hold them back, and the wait for another shard or for memory.
//!
//! Publishers of other shards are told through their shards. Nothing here accepts a message; that is
//! `publish.rs`.

use nexusd_wire::control::{ErrorCode, PublishStatus};
use nexusd_wire::{ErrorReport, FrameEncoder, FrameKind, Header, MessageFlags};

use super::event::{ConnectionId, Now};
use super::output::Output;
use super::parcel::Item;
use super::publish::Refusal;
use super::routing::{PublisherId, ShardIndex};
use super::violation::Violation;
use super::{Shard, must_pause, open_connection};
use crate::connection::Connection;
use crate::limits::{
    ACKS_PER_FRAME, BLOCKED_READ_BYTES, CONTROL_BACKLOG_BYTES, METADATA_BYTES_MAX,
};
use crate::owed_acks::AckPart;
use crate::plant::{Plant, is_planted};
use crate::session::{Binding, SessionState};
use crate::subscriber_queue::QueueId;

impl Shard {
    /// Tells publishers that full queues hold them back, and what became of their messages.
    #[inline(always)]
    pub(super) fn tell_publishers(&mut self, now: Now) {
        self.plane.has_news = false;
        if !self.plane.holds.is_empty() || !self.plane.acks.is_empty() {
            self.tell_holds_and_acks(now);
        }
    }

    #[inline(never)]
    fn tell_holds_and_acks(&mut self, now: Now) {
        let own = self.plane.routing.own;
        while let Some((PublisherId { shard, connection }, queue)) = self.plane.holds.pop() {
            if shard == own {
                self.hold(connection, (own, queue));
            } else {
                self.plane.neighbours.of(shard).tell(Item::Hold { connection, queue });
            }
        }
        let mut acks = std::mem::take(&mut self.plane.acks);
        for (at, &(publisher, part)) in acks.iter().enumerate() {
            let PublisherId { shard, connection } = publisher;
            if shard == own {
                self.tell_ack(connection, &part, is_last_to(publisher, &acks[at + 1..]), now);
            } else {
                self.plane.neighbours.of(shard).tell(Item::Ack { connection, part });
            }
        }
        acks.clear();
        self.plane.acks = acks;
    }

    /// What one shard has to say of an acknowledged message. `is_last`: it says no more for now.
    pub(super) fn tell_ack(&mut self, id: ConnectionId, part: &AckPart, is_last: bool, now: Now) {
        let Some(connection) = open_connection(&mut self.connections, id) else { return };
        let session = &mut connection.session;
        session.acks.tell(part);
        // Behind a connection's last words nothing more is said.
        if is_last && (session.state != SessionState::Closing || session.said_goodbye) {
            self.send_acks(id);
            self.schedule(id);
            self.resume_if_possible(id, now);
            self.close_if_done(id);
        }
    }

    /// Sends the acknowledgements that are complete.
    pub(super) fn send_acks(&mut self, id: ConnectionId) {
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        let Connection { session, outbound, .. } = connection;
        loop {
            let entries = &mut self.scratch_acks;
            entries.clear();
            while entries.len() < ACKS_PER_FRAME
                && let Some(entry) = session.acks.next_complete()
            {
                entries.push(entry);
                if is_planted(Plant::AckTwice) {
                    entries.push(entry);
                }
            }
            if entries.is_empty() {
                return;
            }
            self.encoder.publish_ack(&mut outbound.control, entries);
        }
    }

    /// Answers a publish that was not accepted; some refusals mean that the publisher is out of
    /// step, and end the connection.
    pub(super) fn refuse(
        &mut self,
        id: ConnectionId,
        header: &Header,
        at: u64,
        refusal: Refusal,
    ) -> Result<(), Violation> {
        let fault = Some((at, FrameKind::Message));
        if !matches!(refusal, Refusal::NotBound(_)) && self.peer_of(id).is_some() {
            if refusal.is_loss_on_link() {
                self.lose_refused(id, header);
            }
            return Ok(());
        }
        self.plane.metrics.rejected += 1;
        let limit = self.config.limits.payload_bytes;
        let (status, code, message) = match refusal {
            Refusal::NotBound(topic) => {
                let message =
                    format!("message for topic id {}, which no TopicBind named before", topic.0);
                return Err(Violation { code: ErrorCode::NotBound, message, at: fault });
            }
            Refusal::Metadata(error) => {
                let message = format!("metadata of the message at byte {at}: {error}");
                return Err(Violation { code: ErrorCode::Malformed, message, at: fault });
            }
            Refusal::RefusedTopic => (PublishStatus::Rejected, None, String::new()),
            Refusal::PayloadTooLarge(bytes) => (
                PublishStatus::TooLarge,
                Some(ErrorCode::TooLarge),
                format!("a payload of {bytes} bytes exceeds the limit of {limit} (--max-payload)"),
            ),
            Refusal::MetadataTooLarge(bytes) => (
                PublishStatus::TooLarge,
                Some(ErrorCode::TooLarge),
                format!("{bytes} bytes of metadata exceed the limit of {METADATA_BYTES_MAX}"),
            ),
            Refusal::TooManyRetained => (
                PublishStatus::LimitReached,
                Some(ErrorCode::LimitReached),
                "retained values take all the memory they may (an eighth of --memory-limit)"
                    .to_string(),
            ),
            Refusal::TooFast => {
                self.refuse_too_fast(id, header, at);
                return Ok(());
            }
            Refusal::NoMemory | Refusal::NotNow => (
                PublishStatus::LimitReached,
                Some(ErrorCode::LimitReached),
                "the daemon has no memory left for this message now (--memory-limit)".to_string(),
            ),
        };
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return Ok(());
        };
        if header.flags().contains(MessageFlags::ACK) {
            connection.session.acks.refuse(header.sequence().0, status);
        } else if let Some(code) = code {
            let kind = FrameKind::Message.0;
            let report =
                ErrorReport { code, message: &message, fatal: false, request: 0, offset: at, kind };
            self.encoder.error(&mut connection.outbound.control, &report);
        }
        Ok(())
    }

    /// A full queue holds this publisher back.
    pub(super) fn hold(&mut self, id: ConnectionId, queue: (ShardIndex, QueueId)) {
        let Some(connection) = open_connection(&mut self.connections, id) else { return };
        let Connection { session, outbound, .. } = connection;
        let was_free = session.held_by.is_empty();
        session.held_by.insert(queue);
        session.count_if_needed();
        if was_free && session.state == SessionState::Open {
            session.held_allowance = BLOCKED_READ_BYTES;
            self.plane.metrics.publisher_pauses += 1;
            let pause = Header::new(FrameKind::PublishPause, 0, 0);
            FrameEncoder::bare(&mut outbound.control, &pause);
            self.schedule(id);
        }
    }

    /// A queue holds a publisher back no longer.
    pub(super) fn release(&mut self, publisher: PublisherId, queue: QueueId, now: Now) {
        let PublisherId { shard, connection } = publisher;
        if shard == self.plane.routing.own {
            self.release_publisher(connection, (shard, queue), now);
        } else {
            self.plane.neighbours.of(shard).tell(Item::Release { connection, queue });
        }
    }

    /// If that queue was the last one, the publisher goes on.
    pub(super) fn release_publisher(
        &mut self,
        id: ConnectionId,
        queue: (ShardIndex, QueueId),
        now: Now,
    ) {
        let Some(connection) = open_connection(&mut self.connections, id) else { return };
        if !connection.session.held_by.remove(&queue) || is_planted(Plant::PublisherNeverResumed) {
            return;
        }
        connection.session.count_if_needed();
        // Behind a connection's last words nothing more is said.
        if connection.session.held_by.is_empty() && connection.session.state == SessionState::Open {
            let resume = Header::new(FrameKind::PublishResume, 0, 0);
            FrameEncoder::bare(&mut connection.outbound.control, &resume);
            self.schedule(id);
            self.resume_if_possible(id, now);
        }
    }

    /// The publisher's next message cannot be taken now; it and what follows stands in the backlog
    /// until there is room.
    pub(super) fn wait_for_room(&mut self, id: ConnectionId, header: &Header, rest: &[u8]) {
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        connection.inbound.backlog.extend_from_slice(rest);
        connection.session.is_waiting = true;
        match connection.session.binding(header.topic()) {
            Some(Binding::Elsewhere(owner, _)) => {
                self.plane.neighbours.of(owner).waiting.push_back(id);
            }
            _ => self.plane.waiting_for_memory.push_back(id),
        }
        self.pause_receive(id);
    }

    /// Deals with no more of what a connection sends, for now.
    pub(super) fn pause_receive(&mut self, id: ConnectionId) {
        let Some(connection) = open_connection(&mut self.connections, id) else { return };
        connection.inbound.is_paused = true;
        if !std::mem::replace(&mut connection.inbound.is_stopped, true) {
            self.outputs.push_back(Output::PauseReceive(id));
        }
    }

    /// Reads on where a pause ended: first what had already arrived, and more only if that is not where
    /// it pauses again.
    pub(super) fn resume_if_possible(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.connection(id) else {
            return;
        };
        if !connection.inbound.is_paused
            || is_planted(Plant::ReceiveNeverResumed)
            || !matches!(connection.session.state, SessionState::AwaitingHello | SessionState::Open)
            || must_pause(connection)
            || connection.outbound.control_backlog() > CONTROL_BACKLOG_BYTES / 2
        {
            return;
        }
        connection.inbound.is_paused = false;
        let backlog = std::mem::take(&mut connection.inbound.backlog);
        if !backlog.is_empty() {
            self.read(id, &backlog, now);
        }
        self.receive_on(id);
    }

    /// Lets the driver receive more of a connection, unless that is paused.
    pub(super) fn receive_on(&mut self, id: ConnectionId) {
        let Some(connection) = open_connection(&mut self.connections, id) else { return };
        let inbound = &mut connection.inbound;
        if !inbound.is_paused && std::mem::take(&mut inbound.is_stopped) {
            self.outputs.push_back(Output::ResumeReceive(id));
        }
    }
}

/// Whether nothing of what follows is for this publisher. Connections of two shards may have the same id.
fn is_last_to(publisher: PublisherId, following: &[(PublisherId, AckPart)]) -> bool {
    following.first().is_none_or(|(next, _)| match is_planted(Plant::AckHeldForAnother) {
        true => next.connection != publisher.connection,
        false => *next != publisher,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owed_acks::AckRange;

    #[test]
    fn what_follows_for_the_same_connection_of_another_shard_is_anothers() {
        let connection = ConnectionId { index: 3, generation: 1 };
        let [own, elsewhere] =
            [0, 1].map(|shard| PublisherId { shard: ShardIndex::new(shard), connection });
        let acks = AckRange::one(0);
        let part = AckPart { acks, delivered: 1, dropped: 0, blocked: 0, owner: None };
        assert!(is_last_to(own, &[]));
        assert!(is_last_to(own, &[(elsewhere, part), (own, part)]));
        assert!(!is_last_to(own, &[(own, part), (elsewhere, part)]));
    }
}
