//! A connection that publishes acknowledged messages to find out whom they would reach.
//!
//! A probe is one small message whose stamp says who sent it, to which topic, and which probe of its
//! sender it is. Its acknowledgement counts the queues that took it. Acknowledgements come in the order
//! of the probes. Systems without such acknowledgements leave a probe's arrival as the only answer.

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd};

use nexusd_wire::FrameKind;
use nexusd_wire::control::PublishAck;

use crate::batch::Batch;
use crate::clock;
use crate::connection::{Connection, Endpoint, Received};
use crate::error::LoadError;
use crate::stamp::{STAMP_BYTES, Stamp};
use crate::target::{
    Framing, FramingError, Introduction, PublisherEnd, Target, TargetFraming, TopicNames,
};
use crate::topic_walk::Step;

/// Who it is that an error speaks of.
const ROLE: &str = "prober";
/// Bytes of one read.
const READ_BYTES: usize = 16 << 10;

/// A probe that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Probe {
    /// Who sent it.
    pub(super) sender: u64,
    /// To which of its topics.
    pub(super) topic: u32,
    /// Which one of its sender's it is, from 0.
    pub(super) number: u64,
}

impl Probe {
    /// Reads a payload; `None` if it is no probe.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let stamp = Stamp::read(payload).filter(|_| payload.len() == STAMP_BYTES)?;
        Some(Self { sender: stamp.counter, topic: stamp.topic, number: stamp.intended_ns })
    }
}

/// Publishes probes at one node.
#[derive(Debug)]
pub(super) struct Prober {
    sender: u64,
    connection: Connection,
    framing: TargetFraming,
    /// Whether its probes are acknowledged.
    is_answered: bool,
    batch: Batch,
    sent: u64,
    /// Topics of the probes that are not acknowledged yet.
    unanswered: VecDeque<u32>,
}

impl Prober {
    /// Connects, and binds the topics that it may probe.
    pub(super) fn connect(
        target: Target,
        endpoint: &Endpoint,
        sender: u64,
        topics: &[String],
    ) -> Result<Self, LoadError> {
        let introduction = Introduction { endpoint, lane: 0, payload_bytes: STAMP_BYTES };
        let mut names = TopicNames {
            count: topics.len() as u32,
            name: &|topic| topics[topic as usize].clone(),
            watch: &mut |_| {},
        };
        let PublisherEnd { connection, framing, template } =
            target.publish(&introduction, &mut names)?;
        let every = target.acknowledges().then_some(NonZeroU64::MIN);
        let batch = Batch::new(template, Some(topics.len() as u64)).acknowledged(every);
        Ok(Self {
            sender,
            connection,
            framing,
            is_answered: target.acknowledges(),
            batch,
            sent: 0,
            unanswered: VecDeque::new(),
        })
    }

    /// Probes sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether probes are acknowledged at all.
    pub(super) fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// Whether all that are to be are acknowledged.
    pub(super) fn is_idle(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// Publishes a message to each of these topics.
    pub(super) fn probe(&mut self, topics: &[u32], deadline_ns: u64) -> Result<(), LoadError> {
        for topics in topics.chunks(self.batch.capacity() as usize) {
            let (first, number) = (self.sent, self.sender);
            let step = |n: u64| Step { topic: topics[(n - first) as usize], number };
            let bytes = self.batch.prepare(first, topics.len() as u64, 0, |n| n, step);
            self.connection.send_all(bytes, || clock::now_ns() > deadline_ns).map_err(lost)?;
            self.sent += topics.len() as u64;
            if self.is_answered {
                self.unanswered.extend(topics);
            }
        }
        Ok(())
    }

    /// Reads what is there, without waiting, and says of each topic whose probe is acknowledged how
    /// many queues took that.
    pub(super) fn on_readable(
        &mut self,
        on_ack: &mut impl FnMut(u32, u32),
    ) -> Result<(), LoadError> {
        let mut buffer = [0; READ_BYTES];
        match self.connection.receive_now(&mut buffer).map_err(lost)? {
            Received::Bytes(bytes) => self.on_bytes(&buffer[..bytes], on_ack),
            Received::Nothing => Ok(()),
            Received::End => Err(lost(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Publishes to topic 0, waits for the acknowledgement, and says how many queues took it.
    pub(super) fn probe_and_wait(&mut self, deadline_ns: u64) -> Result<u32, LoadError> {
        self.probe(&[0], deadline_ns)?;
        let mut buffer = [0; READ_BYTES];
        let mut delivered = 0;
        while !self.is_idle() {
            match self.connection.receive_waiting(&mut buffer).map_err(lost)? {
                Received::Bytes(bytes) => {
                    self.on_bytes(&buffer[..bytes], &mut |_, count| delivered = count)?;
                }
                Received::Nothing if clock::now_ns() > deadline_ns => {
                    return Err(lost(io::ErrorKind::TimedOut.into()));
                }
                Received::Nothing => {}
                Received::End => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
            }
        }
        Ok(delivered)
    }

    /// Says goodbye.
    pub(super) fn leave(self) {
        leave(&self.connection, &self.framing);
    }

    fn on_bytes(
        &mut self,
        bytes: &[u8],
        on_ack: &mut impl FnMut(u32, u32),
    ) -> Result<(), LoadError> {
        let Self { framing, unanswered, sent, is_answered, .. } = self;
        if !*is_answered {
            framing
                .on_bytes(bytes, &mut |_| {})
                .map_err(|source| LoadError::Conversation { role: ROLE, source })?;
            let reply = framing.take_reply();
            return self.connection.send_all(&reply, || true).map_err(lost);
        }
        framing
            .on_frames(bytes, &mut |frame| {
                if frame.kind() != FrameKind::PublishAck {
                    return Ok(());
                }
                let ack = frame
                    .body::<PublishAck<'_>>()
                    .map_err(|error| FramingError::Malformed(error.to_string()))?;
                for entry in ack.entries() {
                    let number = entry.publisher_sequence();
                    let expected = *sent - unanswered.len() as u64 + 1;
                    match unanswered.pop_front() {
                        Some(topic) if number == expected => on_ack(topic, entry.delivered()),
                        _ => {
                            let said = format!("an acknowledgement of message {number}");
                            return Err(FramingError::Malformed(said));
                        }
                    }
                }
                Ok(())
            })
            .map_err(|source| LoadError::Conversation { role: ROLE, source })?;
        let reply = self.framing.take_reply();
        self.connection.send_all(&reply, || true).map_err(lost)
    }
}

impl AsFd for Prober {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// Ends a connection so that nothing of it is kept. What does not get through matters to nobody.
pub(super) fn leave(connection: &Connection, framing: &TargetFraming) {
    drop(connection.send_all(&framing.farewell(), || true));
}

fn lost(source: io::Error) -> LoadError {
    LoadError::Connection { role: ROLE, source }
}
