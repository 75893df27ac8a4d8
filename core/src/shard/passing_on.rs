//! Messages of this shard's publishers for topics of other shards: copied into a batch for the owner.
//!
//! Messages of one topic that follow each other in their publisher's stream form a run of the batch, which
//! says once whose they are. What is wrong with a message itself is found here; the owner numbers, keeps and
//! acknowledges it (`crossing.rs`, `publish_batch`). Without a batch that has room, the publisher waits.
//!
//! Invariant: a run goes on only while one connection's bytes are dealt with.

use nexusd_wire::{Frame, MessageFlags, TopicId};

use super::event::ConnectionId;
use super::neighbour::Takes;
use super::parcel::BatchRun;
use super::plane::Plane;
use super::publish::Refusal;
use super::routing::{Route, ShardIndex};
use crate::limits::ACKS_OWED_MAX;
use crate::session::Session;

/// Flags of messages that are not passed on without a closer look.
const ASKS_FOR_MORE: u8 = MessageFlags::ACK.0 | MessageFlags::RETAIN.0;

/// Messages of one topic and publisher that follow each other into a batch for the topic's owner.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passing {
    /// The publisher's id for the topic.
    topic: TopicId,
    owner: ShardIndex,
    /// Where in the publisher's stream the next message stands that belongs to them.
    next_at: u64,
    /// Which messages do.
    takes: Takes,
}

impl Passing {
    pub(super) fn new(topic: TopicId, owner: ShardIndex, next_at: u64, takes: Takes) -> Self {
        Self { topic, owner, next_at, takes }
    }

    /// Whether a message directly follows in its publisher's stream, on the same topic.
    pub(super) fn is_followed_by(&self, frame: &Frame<'_>) -> bool {
        self.topic == frame.header().topic() && self.next_at == frame.at()
    }
}

impl Plane {
    /// Accepts a message whose topic is not this shard's: it goes into the batch for the owner.
    #[inline(never)]
    pub(super) fn publish_elsewhere(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        frame: &Frame<'_>,
    ) -> Result<(), Refusal> {
        let header = frame.header();
        if self.extend_passing(frame) {
            session.last_accepted = header.sequence().0;
            return Ok(());
        }
        self.pass_on(id, session, frame)
    }

    /// Puts another message of the run that is passed on into its batch, if it is one and there is room
    /// and nothing else to be done about it.
    #[inline(always)]
    fn extend_passing(&mut self, frame: &Frame<'_>) -> bool {
        let Some(passing) = self.passing else { return false };
        let (header, bytes) = (frame.header(), frame.bytes());
        let asks_for_more = u32::from(header.flags().0 & ASKS_FOR_MORE)
            | header.ttl_ms()
            | header.metadata_len() as u32;
        if passing.topic != header.topic()
            || passing.next_at != frame.at()
            || asks_for_more != 0
            || passing.takes == Takes::Special
            || header.payload_len() > self.limits.payload_bytes as usize
            || !self.neighbours.of(passing.owner).extend_batch(bytes, self.wall_us)
        {
            return false;
        }
        self.passing = Some(Passing { next_at: passing.next_at + bytes.len() as u64, ..passing });
        true
    }

    /// Puts a message that asks for more, or begins a run, into its owner's batch.
    #[inline(never)]
    fn pass_on(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        frame: &Frame<'_>,
    ) -> Result<(), Refusal> {
        let header = frame.header();
        let is_plain = u32::from(header.flags().0 & ASKS_FOR_MORE) | header.ttl_ms() == 0;
        // What does not directly follow in its publisher's stream begins a run of its own.
        let follows =
            |passing: &Passing| passing.is_followed_by(frame) && passing.takes.also(is_plain);
        match self.passing.filter(follows) {
            Some(passing) => {
                self.check(header)?;
                if header.metadata_len() != 0 {
                    frame.metadata().map_err(Refusal::Metadata)?;
                }
                if !self.neighbours.of(passing.owner).extend_batch(frame.bytes(), self.wall_us) {
                    self.passing = None;
                    return self.pass_on(id, session, frame);
                }
                self.note_passed_on(passing, frame);
            }
            None => self.begin_passing(id, session, frame, is_plain)?,
        }
        session.last_accepted = header.sequence().0;
        if header.flags().contains(MessageFlags::ACK) {
            session.acks.owe(header.sequence().0);
            if let Some(run) = &mut self.run {
                run.end_acks();
            }
            self.has_news |= session.acks.len() > ACKS_OWED_MAX;
        }
        Ok(())
    }

    /// Begins a run of messages that are passed on with this one.
    fn begin_passing(
        &mut self,
        id: ConnectionId,
        session: &Session,
        frame: &Frame<'_>,
        is_plain: bool,
    ) -> Result<(), Refusal> {
        let Route::Neighbour(owner, handle) = self.admit(session, frame.header())? else {
            debug_assert!(false, "topics of this shard do not come here");
            return Err(Refusal::RefusedTopic);
        };
        if frame.header().metadata_len() != 0 {
            frame.metadata().map_err(Refusal::Metadata)?;
        }
        let first_ack = session.acks.next();
        let run = BatchRun {
            connection: id,
            handle,
            bytes: 0,
            messages: 0,
            first_ack,
            offset: frame.at(),
            before: 0,
            relay: None,
            expected: None,
        };
        let takes = self.neighbours.of(owner).begin_run(run, frame.bytes(), is_plain, self.wall_us);
        let takes = takes.ok_or(Refusal::NotNow)?;
        self.passed_to.insert(owner);
        let passing = Passing { topic: frame.header().topic(), owner, next_at: 0, takes };
        self.note_passed_on(passing, frame);
        Ok(())
    }

    /// A message stands in its owner's batch.
    fn note_passed_on(&mut self, passing: Passing, frame: &Frame<'_>) {
        let header = frame.header();
        if header.ttl_ms() != 0 || header.flags().contains(MessageFlags::RETAIN) {
            self.neighbours.of(passing.owner).note_special();
        }
        let next_at = frame.at() + frame.bytes().len() as u64;
        self.passing = Some(Passing { next_at, ..passing });
    }
}
