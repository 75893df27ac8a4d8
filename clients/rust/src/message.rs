//! A message as a subscription receives it.
//!
//! A [`Message`] is a view of its frame: nothing of it was copied or decoded when it arrived.
//! Messages that arrived together share memory, up to 128 KiB of it: an application that keeps a
//! small message for long should copy what it needs.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use nexusd_wire::control::{self, DeliveryMode};
use nexusd_wire::{HEADER_BYTES, Header, Metadata, NodeId};

use crate::error::Error;

/// Why a message is delivered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Delivery {
    /// It was just published.
    Live,
    /// It was missed while there was no connection.
    Replay,
    /// It is the retained value of its topic.
    Retained,
}

impl Delivery {
    pub(crate) fn of(mode: DeliveryMode) -> Self {
        match mode {
            DeliveryMode::Retained => Self::Retained,
            DeliveryMode::Replay | DeliveryMode::Redelivery => Self::Replay,
            _ => Self::Live,
        }
    }
}

/// One delivered message. Cheap to clone.
#[derive(Clone)]
pub struct Message {
    topic: Arc<str>,
    /// Header, metadata, payload and padding. Invariant: the header was checked.
    frame: Bytes,
    /// As it travels: a number of 128 bits would be aligned, and the message longer.
    origin: control::NodeId,
    delivery: Delivery,
}

const _: () = assert!(size_of::<Message>() <= 72);

impl Message {
    /// `frame` is one whole frame with a checked header.
    pub(crate) fn new(
        topic: Arc<str>,
        frame: Bytes,
        origin: control::NodeId,
        delivery: Delivery,
    ) -> Self {
        debug_assert!(Header::peek(&frame).is_some_and(|header| header.stride() == frame.len()));
        Self { topic, frame, origin, delivery }
    }

    fn header(&self) -> &Header {
        Header::peek(&self.frame).expect("a message holds a whole frame")
    }

    /// The topic it was published to.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The topic, to keep without copying it.
    pub fn shared_topic(&self) -> Arc<str> {
        Arc::clone(&self.topic)
    }

    /// The topic's name; messages that came together share the allocation.
    pub(crate) fn topic_name(&self) -> &Arc<str> {
        &self.topic
    }

    /// Whether the other message is known to have the same topic and origin without a look at their names.
    #[inline]
    pub(crate) fn is_alike(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.topic, &other.topic) && self.origin == other.origin
    }

    /// Why it is delivered: live, as a replay of what was missed, or as a retained value.
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// What was published.
    pub fn payload(&self) -> &[u8] {
        let header = self.header();
        self.frame.get(header.payload_start()..header.total()).unwrap_or_default()
    }

    /// What was published, to keep without copying it; it keeps the memory alive that it arrived
    /// in.
    pub fn shared_payload(&self) -> Bytes {
        let header = self.header();
        self.frame.slice(header.payload_start()..header.total())
    }

    /// Its number within its topic, given by the daemon this client is connected to: from 1, dense.
    /// Losses need not be inferred from it: a [`Gap`](crate::Gap) tells them.
    pub fn sequence(&self) -> u64 {
        self.header().sequence().0
    }

    /// Its number within its topic at the node where it was published. Together with
    /// [`origin`](Self::origin) and the topic it identifies the message in the whole mesh.
    pub fn origin_sequence(&self) -> u64 {
        self.header().origin_sequence().0
    }

    /// The node where it was published.
    pub fn origin(&self) -> NodeId {
        NodeId::from(&self.origin)
    }

    /// When its origin accepted it, by the origin's wall clock, in microseconds since 1970.
    pub fn timestamp_us(&self) -> u64 {
        self.header().timestamp_us()
    }

    /// When its origin accepted it, by the origin's wall clock.
    pub fn timestamp(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(self.timestamp_us())
    }

    /// The time to live it was published with.
    pub fn ttl(&self) -> Option<Duration> {
        match self.header().ttl_ms() {
            0 => None,
            ms => Some(Duration::from_millis(u64::from(ms))),
        }
    }

    /// All its metadata, `None` if it has none. Fails if the metadata cannot be read; the accessors
    /// below take such metadata for none.
    pub fn metadata(&self) -> Result<Option<Metadata<'_>>, Error> {
        let len = self.header().metadata_len();
        match self.frame.get(HEADER_BYTES..HEADER_BYTES + len) {
            None | Some([]) => Ok(None),
            Some(bytes) => Ok(Some(Metadata::decode(bytes)?)),
        }
    }

    /// Media type of the payload.
    pub fn content_type(&self) -> Option<&str> {
        self.metadata().ok().flatten()?.content_type()
    }

    /// Links the message to another one.
    pub fn correlation_id(&self) -> Option<&str> {
        self.metadata().ok().flatten()?.correlation_id()
    }

    /// The publisher's headers, in their order; keys may repeat.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.metadata().ok().flatten().into_iter().flat_map(|metadata| metadata.headers())
    }

    /// The first header of this name.
    pub fn header_value(&self, key: &str) -> Option<&[u8]> {
        self.headers().find_map(|(name, value)| (name == key).then_some(value))
    }

    /// Bytes it occupies.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.frame.len()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic)
            .field("sequence", &self.sequence())
            .field("delivery", &self.delivery)
            .field("payload_bytes", &self.payload().len())
            .finish_non_exhaustive()
    }
}
