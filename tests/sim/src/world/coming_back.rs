//! Clients that come back: they pause, break off, leave connections standing, and go on elsewhere.

use nexusd_core::limits::SHARDS_MAX;
use nexusd_core::{CloseReason, Service};
use nexusd_wire::SubscriptionId;
use nexusd_wire::control::GapMode;

use super::World;
use crate::conversation::Sent;
use crate::coverage::Mark;
use crate::oracle::Resuming;
use crate::trace::trace;
use crate::violation::Violation;

/// A count that no subscription reaches.
const COUNT_TOO_LARGE: u64 = 1 << 40;

impl World<'_> {
    /// The subscription that a client's Hello names: mostly one it comes back for.
    pub(super) fn named_in_hello(&mut self, client: usize) -> Option<SubscriptionId> {
        let random = (u128::from(self.dice.bits()) << 64) | u128::from(self.dice.bits());
        let parked = &self.clients[client].parked;
        if !parked.is_empty() && !self.dice.one_in(12) {
            let stream = self.dice.pick(parked);
            return self.oracle.stream(stream).subscription;
        }
        match self.dice.below(8) {
            0 => Some(SubscriptionId(random)),
            1 => {
                let home = self.dice.below(self.scenario.shards) as u128;
                Some(SubscriptionId(random & !(SHARDS_MAX as u128 - 1) | home))
            }
            _ => None,
        }
    }

    /// What a client had on a connection that is gone waits for it.
    pub(super) fn keep_for_later(&mut self, client: usize, streams: &[usize]) {
        let parked = &mut self.clients[client].parked;
        for stream in streams {
            if !parked.contains(stream) {
                parked.push(*stream);
            }
        }
    }

    /// A client that has something parked goes on with it. Returns whether it did.
    pub(super) fn resume_one(&mut self, slot: usize) -> bool {
        let Some(connection) = self.slots[slot].as_deref_mut() else { return false };
        let conversation = &mut connection.conversation;
        let client = &mut self.clients[connection.client];
        if client.parked.is_empty() || !conversation.is_welcome || conversation.is_abandoned {
            return false;
        }
        let oracle = &self.oracle;
        let is_near = |stream: &usize| oracle.stream(*stream).home() == Some(conversation.home);
        let near = client.parked.iter().position(is_near);
        let at = match near {
            Some(near) if !self.dice.one_in(6) => near,
            _ => self.dice.below(client.parked.len()),
        };
        let stream = client.parked.swap_remove(at);
        let (had, acked) = oracle.stream(stream).counts();
        let is_wrong = self.is_working() && self.dice.one_in(16);
        let count = match self.dice.below(6) {
            _ if is_wrong => COUNT_TOO_LARGE,
            // It has lost what it had not acknowledged.
            0 => acked,
            _ => had,
        };
        self.write_resume(slot, stream, count, is_wrong);
        true
    }

    /// A client tries to resume what it has.
    pub(super) fn resume_own(&mut self, slot: usize) {
        let Some(connection) = self.slots[slot].as_deref() else { return };
        let known = &connection.conversation.known_streams;
        if known.is_empty() {
            return;
        }
        let stream = known[self.dice.below(known.len())];
        let (had, _) = self.oracle.stream(stream).counts();
        self.write_resume(slot, stream, had, true);
    }

    fn write_resume(&mut self, slot: usize, stream: usize, count: u64, is_wrong: bool) {
        let Some(id) = self.oracle.stream(stream).subscription else { return };
        if !is_wrong {
            self.oracle.client_forgets(stream, count);
        }
        let modes = [GapMode::None, GapMode::None, GapMode::RetainedOnly, GapMode::ReplayBuffer];
        let mode = self.dice.pick(&modes);
        let Some(connection) = self.slots[slot].as_deref_mut() else { return };
        let conversation = &mut connection.conversation;
        let request = conversation.next_request;
        conversation.next_request += 1;
        let resuming =
            Resuming { request, stream, count, mode, is_wrong, fed_at: 0, dropped_before: 0 };
        if count == COUNT_TOO_LARGE {
            conversation.resuming_parked.push(stream);
        }
        if !conversation.known_streams.contains(&stream) {
            conversation.resuming.push(stream);
        }
        trace!(
            self.trace,
            "  {} resumes stream {stream}, request {request}, behind {count} messages, {mode:?}",
            conversation.number
        );
        self.coverage.mark(Mark::Resumed);
        let encoder = &mut self.encoder;
        conversation.write(Sent::Resume(resuming), self.coverage, |out| {
            encoder.resume(out, request, id, count, mode);
        });
    }

    /// A client says how much it has had, or nonsense.
    pub(super) fn acknowledge(&mut self, slot: usize) {
        let Some(connection) = self.slots[slot].as_deref_mut() else { return };
        let conversation = &mut connection.conversation;
        if conversation.known_streams.is_empty() {
            return;
        }
        let stream = conversation.known_streams[self.dice.below(conversation.known_streams.len())];
        let Some(id) = self.oracle.stream(stream).subscription else { return };
        let (had, acked) = self.oracle.stream(stream).counts();
        let count = match self.dice.below(8) {
            0 => acked.saturating_sub(self.dice.below(3) as u64),
            1 => COUNT_TOO_LARGE,
            2 => self.dice.between(acked.min(had), had),
            _ => had,
        };
        let encoder = &mut self.encoder;
        conversation.write(Sent::StreamAck(stream, count), self.coverage, |out| {
            encoder.stream_ack(out, &[(id, count)]);
        });
    }

    /// A client leaves its connection standing, as one does whose network is gone, and comes back on
    /// another.
    pub(super) fn abandon(
        &mut self,
        client: usize,
        slot: usize,
        service: &mut impl Service,
    ) -> Result<(), Violation> {
        let Some(connection) = self.slots[slot].as_deref_mut() else { return Ok(()) };
        let conversation = &mut connection.conversation;
        if conversation.known_streams.is_empty() || conversation.closes_when_written {
            return Ok(());
        }
        trace!(self.trace, "  {} is left standing", conversation.number);
        self.coverage.mark(Mark::TakeOver);
        conversation.is_abandoned = true;
        conversation.doubtful_since_us.get_or_insert(self.clock.now().mono_us);
        let streams = conversation.client_streams();
        self.clients[client].slot = None;
        self.keep_for_later(client, &streams);
        self.connect(client, service)?;
        if let Some(slot) = self.clients[client].slot {
            self.greet(slot);
        }
        Ok(())
    }

    /// Connections that were left standing end, but for those that the daemon has to end because
    /// another took over what they had. Returns whether any did.
    pub(super) fn end_abandoned(&mut self, service: &mut impl Service) -> Result<bool, Violation> {
        let mut have_ended = false;
        for slot in 0..self.slots.len() {
            let Some(connection) = self.slots[slot].as_deref_mut() else { continue };
            let conversation = &connection.conversation;
            if !conversation.is_abandoned {
                continue;
            }
            connection.socket.client_left = true;
            let is_over = conversation.was_taken_over(&self.oracle)
                || conversation.is_to_be_taken_over(&self.oracle);
            if !is_over {
                have_ended = true;
                self.close(slot, CloseReason::Failed(110), service)?;
            }
        }
        Ok(have_ended)
    }

    /// Clients that are away and have something parked come back, most of them.
    pub(super) fn come_back(&mut self, service: &mut impl Service) -> Result<(), Violation> {
        for client in 0..self.clients.len() {
            let is_away = self.clients[client].slot.is_none();
            if is_away && !self.clients[client].parked.is_empty() && !self.dice.one_in(4) {
                self.connect(client, service)?;
                if let Some(slot) = self.clients[client].slot {
                    self.greet(slot);
                }
            }
        }
        Ok(())
    }

    /// Everybody goes on with what is parked.
    pub(super) fn resume_all(&mut self) {
        for slot in 0..self.slots.len() {
            while self.resume_one(slot) {}
        }
    }
}
