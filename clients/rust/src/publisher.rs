//! A publisher of one topic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nexusd_wire::TopicId;

use crate::client::Client;
use crate::error::Error;
use crate::outbox::KnownTopic;
use crate::publication::{Publication, PublishAck};

/// Publishes to one topic whose name was checked once: the shortest way into the outbox.
///
/// Made by [`Client::publisher`]. It keeps the client alive.
#[derive(Debug)]
pub struct Publisher {
    client: Client,
    topic: Arc<str>,
    /// The id the topic had last; ids are only hints here, the outbox checks them.
    last_id: AtomicU32,
}

impl Publisher {
    pub(crate) fn new(client: Client, topic: Arc<str>) -> Self {
        Self { client, topic, last_id: AtomicU32::new(u32::MAX) }
    }

    /// The topic it publishes to.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// As [`Client::publish`].
    pub async fn publish(&self, payload: impl AsRef<[u8]>) -> Result<(), Error> {
        let publication = Publication::new(&self.topic, payload.as_ref());
        self.client.enqueue(&publication, Some(self), &mut None).await
    }

    /// As [`Client::try_publish`].
    pub fn try_publish(&self, payload: impl AsRef<[u8]>) -> Result<(), Error> {
        let publication = Publication::new(&self.topic, payload.as_ref());
        self.client.try_enqueue(&publication, Some(self))
    }

    /// As [`Client::publish_acked`].
    pub async fn publish_acked(&self, payload: impl AsRef<[u8]>) -> Result<PublishAck, Error> {
        let publication = Publication::new(&self.topic, payload.as_ref());
        self.client.enqueue_acked(&publication, Some(self)).await
    }

    pub(crate) fn known(&self) -> KnownTopic<'_> {
        KnownTopic { name: &self.topic, last_id: TopicId(self.last_id.load(Ordering::Relaxed)) }
    }

    pub(crate) fn learn(&self, topic: TopicId) {
        self.last_id.store(topic.0, Ordering::Relaxed);
    }
}
