//! Large messages: received into a segment of their own, without a second copy.
//!
//! The cutter names a large frame by its first bytes; a place of its whole length is taken from the
//! log's budget, and what follows goes there, copied from buffers or received in place by the
//! driver. A message that is refused is thrown away as it comes, so that the stream goes on behind
//! it.

use nexusd_wire::{HEADER_BYTES, Header, MessageFlags};

use super::event::{ConnectionId, Now};
use super::output::Output;
use super::parcel::LargeMessage;
use super::publish::Refusal;
use super::routing::{PublisherId, Route};
use super::violation::Violation;
use super::{Shard, open_connection};
use crate::connection::Landing;
use crate::log::SegmentId;
use crate::plant::{Plant, is_planted};
use crate::session::SessionState;

impl Shard {
    /// A large message begins: finds a place for it, or decides to throw it away, as one that comes
    /// too fast is.
    pub(super) fn begin_landing(
        &mut self,
        id: ConnectionId,
        head: &[u8],
        stride: usize,
        at: u64,
    ) -> Result<(), Violation> {
        let Some(header) = Header::peek(head).copied() else {
            return Ok(());
        };
        let stride = stride - 8 * usize::from(is_planted(Plant::LandingCutShort));
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return Ok(());
        };
        let refusal = match self.plane.admit(&connection.session, &header) {
            Ok(_) if connection.session.is_too_fast() => Refusal::TooFast,
            Ok(_) if self.plane.make_room_for_large(stride) => {
                connection.session.count_published();
                let segment = self.plane.log.open_landing(stride);
                self.plane.log.landing_memory(segment)[..head.len()].copy_from_slice(head);
                let landing = Landing::Segment { segment, filled: head.len(), stride };
                connection.inbound.landing = Some(landing);
                if head.len() < stride {
                    self.outputs.push_back(Output::ReceiveInPlace(id));
                }
                return Ok(());
            }
            Ok(_) => Refusal::NoMemory,
            Err(refusal) => refusal,
        };
        let remaining = stride - head.len();
        let is_lost = connection.session.link.is_some() && refusal.is_loss_on_link();
        connection.inbound.landing =
            Some(Landing::Discard { remaining, lost: is_lost.then_some(header) });
        if is_lost { Ok(()) } else { self.refuse(id, &header, at, refusal) }
    }

    /// Copies received bytes to where the large frame goes; returns how many were its.
    pub(super) fn land(&mut self, id: ConnectionId, input: &[u8]) -> usize {
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return 0;
        };
        match &mut connection.inbound.landing {
            Some(Landing::Segment { segment, filled, stride, .. }) => {
                let taken = input.len().min(*stride - *filled);
                let memory = self.plane.log.landing_memory(*segment);
                memory[*filled..*filled + taken].copy_from_slice(&input[..taken]);
                *filled += taken;
                taken
            }
            Some(Landing::Discard { remaining, .. }) => {
                let taken = input.len().min(*remaining);
                *remaining -= taken;
                taken
            }
            None => 0,
        }
    }

    pub(super) fn on_landed(&mut self, id: ConnectionId, bytes: usize, now: Now) {
        let Some(connection) = self.connection(id) else {
            return;
        };
        connection.session.last_received_us = now.mono_us;
        connection.session.pinged_at_us = None;
        let Some(Landing::Segment { filled, stride, .. }) = &mut connection.inbound.landing else {
            return;
        };
        debug_assert!(*filled + bytes <= *stride, "the landing zone ends with the frame");
        *filled = (*filled + bytes).min(*stride);
        connection.inbound.cutter.skipped(bytes);
        let position = connection.inbound.cutter.position();
        if connection.session.state == SessionState::Open {
            let count = self.begin_count();
            let result = self.finish_landing(id, position, now);
            self.end_of_bytes(id, now);
            self.end_count(id, count);
            if let Err(violation) = result {
                self.violate(id, &violation, now);
            }
        }
    }

    /// Publishes the large frame if it is complete; `position` is the stream position behind what
    /// has arrived. Returns whether the stream goes on with another frame.
    pub(super) fn finish_landing(
        &mut self,
        id: ConnectionId,
        position: u64,
        now: Now,
    ) -> Result<bool, Violation> {
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return Ok(false);
        };
        match connection.inbound.landing {
            Some(Landing::Segment { segment, filled, stride }) if filled == stride => {
                connection.inbound.landing = None;
                let session = &mut connection.session;
                session.held_allowance = session.held_allowance.saturating_sub(stride);
                self.landed(id, segment, position - stride as u64, now)?;
                Ok(true)
            }
            Some(Landing::Discard { remaining: 0, lost }) => {
                connection.inbound.landing = None;
                if let Some(header) = lost {
                    self.lose_refused(id, &header);
                }
                Ok(true)
            }
            Some(_) => Ok(false),
            None => Ok(true),
        }
    }

    /// Publishes the large frame that fills `segment`, or passes it on to its topic's owner; `offset`
    /// is where it stood in the stream.
    fn landed(
        &mut self,
        id: ConnectionId,
        segment: SegmentId,
        offset: u64,
        now: Now,
    ) -> Result<(), Violation> {
        let memory = self.plane.log.landing_memory(segment);
        let Some(header) = Header::peek(memory).copied() else {
            return Ok(());
        };
        let metadata = &memory[HEADER_BYTES..][..header.metadata_len()];
        if !metadata.is_empty()
            && let Err(error) = nexusd_wire::Metadata::decode(metadata)
        {
            self.plane.log.release(segment);
            return self.refuse(id, &header, offset, Refusal::Metadata(error));
        }
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return Ok(());
        };
        let session = &mut connection.session;
        // While it landed, the owner of its topic may have refused that.
        let route = match self.plane.admit(session, &header) {
            Ok(route) => route,
            Err(refusal) => {
                self.plane.log.release(segment);
                return self.refuse(id, &header, offset, refusal);
            }
        };
        if let Route::Own(topic) = route
            && let Err(refusal) = self.plane.check_retained(topic, &header)
        {
            self.plane.log.release(segment);
            return self.refuse(id, &header, offset, refusal);
        }
        let sequence = header.sequence().0;
        session.last_accepted = sequence;
        let mut relay = session.link.as_deref_mut().map(|link| link.count(&header));
        if let Some(link) = session.link.as_deref().filter(|link| link.relay.is_state) {
            relay = link.relay_of(&header);
            if relay.is_none() {
                self.plane.log.release(segment);
                return Ok(());
            }
        }
        let ack = header.flags().contains(MessageFlags::ACK).then(|| session.acks.owe(sequence));
        match route {
            Route::Own(topic) if self.plane.is_unwanted(topic, relay, &header, now) => {
                self.plane.log.release(segment);
            }
            Route::Own(topic) => {
                let publisher = PublisherId { shard: self.plane.routing.own, connection: id };
                self.plane.publish_landed(segment, topic, publisher, relay, ack, now);
                self.plane.log.release(segment);
            }
            Route::Neighbour(owner, handle) => {
                if let Some(memory) = self.plane.log.give_away(segment) {
                    let message =
                        LargeMessage { handle, connection: id, header, memory, ack, relay, offset };
                    self.plane.neighbours.of(owner).publish_large(message);
                    self.plane.passed_to.insert(owner);
                }
            }
        }
        Ok(())
    }
}
