//! Messages that come over a link: published here like a client's, under this node's numbers, but with the
//! identity that their origin gave them, and never for another link.
//!
//! What they are as old as is told by the sender's clock, which Deliver frames bring; from here on the
//! monotonic clock counts, so that no two clocks are ever compared.

use nexusd_wire::{Frame, Header, MessageFlags, Sequence, TopicId};

use super::event::{ConnectionId, Now};
use super::neighbour::Takes;
use super::parcel::BatchRun;
use super::passing_on::Passing;
use super::plane::Plane;
use super::publish::Refusal;
use super::routing::Route;
use crate::expiry::Expiry;
use crate::link::{FetchId, LinkSession, Relay};
use crate::plant::{Plant, is_planted};
use crate::session::{Binding, Session};

impl LinkSession {
    /// What is known of a message besides its header: of another node's state, that it is that one's. `None`
    /// if the peer has not named that node.
    pub(super) fn relay_of(&self, header: &Header) -> Option<Relay> {
        let handle = header.origin();
        if !self.relay.is_state || handle == 0 {
            return Some(self.relay);
        }
        let origin = self.origins.iter().find(|(named, _)| *named == handle).map(|(_, it)| *it)?;
        Some(Relay { origin, ..self.relay })
    }

    /// A message of the peer's stream has come, whatever becomes of it.
    #[inline]
    pub(crate) fn count(&mut self, header: &Header) -> Relay {
        self.received += 1;
        self.unacknowledged += 1;
        self.unacknowledged_bytes += header.stride();
        self.relay
    }
}

impl Relay {
    /// When a message ends that its origin gave a time to live.
    pub(super) fn expiry(self, header: &Header, now: Now) -> Expiry {
        if is_planted(Plant::LinkTtlLost) {
            return Expiry::NEVER;
        }
        let are_compared = is_planted(Plant::ClocksCompared);
        let peers_us = now.mono_us.wrapping_sub(self.clock_offset_us);
        let peers_us = if are_compared { now.wall_us } else { peers_us };
        let age_ms = peers_us.saturating_sub(header.timestamp_us()) / 1_000;
        let age_ms = if is_planted(Plant::LinkAgeLost) { 0 } else { age_ms };
        Expiry::after(header.ttl_ms(), age_ms, now)
    }
}

impl Plane {
    /// Accepts one message of a link.
    #[inline(never)]
    pub(super) fn publish_from_link(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        frame: &Frame<'_>,
        now: Now,
    ) -> Result<(), Refusal> {
        let header = frame.header();
        let Some(link) = session.link.as_deref_mut() else { return Ok(()) };
        let relay = link.relay;
        if relay.is_state {
            return self.take_state(id, session, frame, now);
        }
        if relay.fetch != FetchId::NONE && header.origin() != 0 {
            // The peer is not asked for what others accepted.
            link.count(header);
            return Ok(());
        }
        if let Some(&Binding::Topic(topic)) = session.bindings.get(header.topic().0 as usize) {
            self.check(header)?;
            let header = relayed_header(header, relay);
            self.append_relayed(topic, relay, &header, frame.bytes(), now)?;
        } else {
            self.relay_elsewhere(id, session, relay, frame)?;
        }
        if let Some(link) = session.link.as_deref_mut() {
            link.count(header);
        }
        Ok(())
    }

    /// Numbers a message that another node accepted, and copies it to the log.
    pub(super) fn append_relayed(
        &mut self,
        topic: TopicId,
        relay: Relay,
        header: &Header,
        frame: &[u8],
        now: Now,
    ) -> Result<(), Refusal> {
        if relay.fetch != FetchId::NONE && !self.is_fetched(relay, header) {
            return Ok(());
        }
        let is_live_value = header.flags().contains(MessageFlags::RETAIN)
            && relay.fetch == FetchId::NONE
            && !relay.is_state;
        if is_live_value && self.is_overtaken(topic, header, now) {
            return Ok(());
        }
        let expiry = relay.expiry(header, now);
        if !self.run.as_ref().is_some_and(|run| run.takes_relayed(topic, relay, expiry)) {
            self.begin_relayed_run(topic, relay, expiry, header, now)?;
        }
        if !self.extend_relayed_run(header, frame) {
            // The tail is full.
            self.begin_relayed_run(topic, relay, expiry, header, now)?;
            if !self.extend_relayed_run(header, frame) {
                return Err(Refusal::NoMemory);
            }
        }
        if header.flags().contains(MessageFlags::RETAIN)
            && relay.fetch == FetchId::NONE
            && self.may_become_retained(topic, header)
            && let Some(run) = &self.run
        {
            let (extent, len) = (run.extent, frame.len() as u32);
            self.set_retained(topic, (extent.segment, extent.end() - len, len), extent.expiry);
        }
        Ok(())
    }

    fn begin_relayed_run(
        &mut self,
        topic: TopicId,
        relay: Relay,
        expiry: Expiry,
        header: &Header,
        now: Now,
    ) -> Result<(), Refusal> {
        self.begin_run(topic, None, header.stride(), 0, now)?;
        if let Some(run) = &mut self.run {
            run.come_from(relay, expiry);
        }
        Ok(())
    }

    fn extend_relayed_run(&mut self, header: &Header, frame: &[u8]) -> bool {
        let Some(run) = &mut self.run else { return false };
        let sequence = Sequence(run.sequence.0 + 1);
        if !self.log.append(&renumbered_header(header, run.topic, sequence), frame) {
            return false;
        }
        run.sequence = sequence;
        run.extent.len += frame.len() as u32;
        run.extent.messages += 1;
        true
    }

    /// Whether a message of another node may become its topic's retained value: it is newer than the one
    /// there is, and there is room for it.
    pub(super) fn may_become_retained(&mut self, topic: TopicId, header: &Header) -> bool {
        self.is_newer_state(topic, header) && self.check_retained(topic, header).is_ok()
    }

    /// Takes a retained value that the peer has and this node lacked, or had otherwise, from whichever
    /// node it came first.
    #[cold]
    fn take_state(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        frame: &Frame<'_>,
        now: Now,
    ) -> Result<(), Refusal> {
        let header = frame.header();
        let Some(link) = session.link.as_deref() else { return Ok(()) };
        if let Some(relay) = link.relay_of(header) {
            if let Some(&Binding::Topic(topic)) = session.bindings.get(header.topic().0 as usize) {
                self.check(header)?;
                let header = relayed_header(header, relay);
                self.append_state(topic, relay, &header, frame.bytes(), now)?;
            } else {
                self.relay_elsewhere(id, session, relay, frame)?;
            }
        }
        if let Some(link) = session.link.as_deref_mut() {
            link.count(header);
        }
        Ok(())
    }

    /// Whether a live message that would become its topic's value has come before, as state by way of another
    /// node; or a later one of its origin has: then it is lost. A node that was given up and stood on hands
    /// over what it has kept.
    #[cold]
    pub(super) fn is_overtaken(&mut self, topic: TopicId, header: &Header, now: Now) -> bool {
        let value = self.topics.topic(topic).retained.as_deref();
        let Some(known) = value.and_then(|value| Header::peek(&value.frame)) else { return false };
        let (number, newest) = (header.origin_sequence(), known.origin_sequence());
        let is_overtaken = known.origin() == header.origin() && number <= newest;
        if is_overtaken && number < newest {
            self.lose(topic, 1, now);
        }
        is_overtaken
    }

    /// Publishes a retained value of another node, if it is newer than the one there is.
    pub(super) fn append_state(
        &mut self,
        topic: TopicId,
        relay: Relay,
        header: &Header,
        frame: &[u8],
        now: Now,
    ) -> Result<(), Refusal> {
        let is_over = header.ttl_ms() != 0 && relay.expiry(header, now).is_past(now.mono_us);
        if is_over || !self.is_newer_state(topic, header) {
            return Ok(());
        }
        self.append_relayed(topic, relay, header, frame, now)
    }

    /// Whether a large message is a retained value that is not newer than the one there is, answers a fetch
    /// that does not want it, or has come before.
    pub(super) fn is_unwanted(
        &mut self,
        topic: TopicId,
        relay: Option<Relay>,
        header: &Header,
        now: Now,
    ) -> bool {
        let Some(relay) = relay else { return false };
        let relayed = relayed_header(header, relay);
        if relay.is_state {
            return !self.is_newer_state(topic, &relayed);
        }
        if relay.fetch != FetchId::NONE {
            return header.origin() != 0 || !self.is_fetched(relay, &relayed);
        }
        header.flags().contains(MessageFlags::RETAIN) && self.is_overtaken(topic, &relayed, now)
    }

    /// Puts a message whose topic is another shard's into that one's batch.
    fn relay_elsewhere(
        &mut self,
        id: ConnectionId,
        session: &Session,
        relay: Relay,
        frame: &Frame<'_>,
    ) -> Result<(), Refusal> {
        let header = frame.header();
        let Route::Neighbour(owner, handle) = self.admit(session, header)? else {
            debug_assert!(false, "topics of this shard do not come here");
            return Err(Refusal::RefusedTopic);
        };
        let is_special = relay.is_state
            || relay.fetch != FetchId::NONE
            || header.ttl_ms() != 0
            || header.flags().contains(MessageFlags::RETAIN);
        let next_at = frame.at() + frame.bytes().len() as u64;
        // Those of a peer's state come from many nodes.
        let follows = !relay.is_state
            && self.passing.as_ref().is_some_and(|passing| passing.is_followed_by(frame));
        if !follows || !self.neighbours.of(owner).extend_batch(frame.bytes(), self.wall_us) {
            let run = BatchRun {
                connection: id,
                handle,
                bytes: 0,
                messages: 0,
                first_ack: 0,
                offset: frame.at(),
                before: 0,
                relay: Some(relay),
                expected: None,
            };
            let batch = self.neighbours.of(owner);
            batch.begin_run(run, frame.bytes(), true, self.wall_us).ok_or(Refusal::NotNow)?;
        }
        if is_special {
            self.neighbours.of(owner).note_special();
        }
        self.passing = Some(Passing::new(header.topic(), owner, next_at, Takes::Any));
        self.passed_to.insert(owner);
        Ok(())
    }
}

/// The header of a message that another node accepted, with the identity it has from there.
#[inline(always)]
pub(crate) fn relayed_header(header: &Header, relay: Relay) -> Header {
    // What a peer passes on of other nodes' state has its number from there.
    let is_own = !relay.is_state || header.origin() == 0;
    let number = if is_own { header.sequence() } else { header.origin_sequence() };
    let number = if is_planted(Plant::OriginNumberLost) { Sequence(0) } else { number };
    header.with_origin(relay.origin.0).with_origin_sequence(number)
}

/// The same as it is delivered here.
#[inline(always)]
pub(super) fn renumbered_header(header: &Header, topic: TopicId, sequence: Sequence) -> Header {
    header
        .with_topic(topic)
        .with_sequence(sequence)
        .with_flags(header.flags().without(MessageFlags::ACK))
}
