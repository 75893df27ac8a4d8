//! What is published: a topic, a payload, and what may accompany them.

use std::time::Duration;

use nexusd_wire::MetadataBuilder;

/// A message to publish. It borrows everything: publishing copies it once, into the outbox.
///
/// ```
/// # use nexusd_client::Publication;
/// # use std::time::Duration;
/// let publication = Publication::new("plant/boiler/temperature", r#"{"celsius":71}"#)
///     .content_type("application/json")
///     .correlation_id("order-17")
///     .header("unit", "celsius")
///     .ttl(Duration::from_secs(60));
/// ```
#[derive(Clone, Debug)]
pub struct Publication<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) ttl_ms: u32,
    pub(crate) is_retained: bool,
    content_type: Option<&'a str>,
    correlation_id: Option<&'a str>,
    headers: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Publication<'a> {
    /// A message for `topic`, without anything beside its payload.
    pub fn new(topic: &'a str, payload: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self {
            topic,
            payload: payload.as_ref(),
            ttl_ms: 0,
            is_retained: false,
            content_type: None,
            correlation_id: None,
            headers: Vec::new(),
        }
    }

    /// Media type of the payload.
    #[must_use]
    pub fn content_type(mut self, content_type: &'a str) -> Self {
        self.content_type = Some(content_type);
        self
    }

    /// Links the message to another one; the mesh does not look at it.
    #[must_use]
    pub fn correlation_id(mut self, correlation_id: &'a str) -> Self {
        self.correlation_id = Some(correlation_id);
        self
    }

    /// Adds a header. Keys may repeat; the order is kept. All metadata together may have 16 KiB.
    #[must_use]
    pub fn header(mut self, key: &'a str, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.headers.push((key, value.as_ref()));
        self
    }

    /// Whether the message becomes the retained value of its topic, in place of the one it has: what
    /// subscribers that ask for [retained](crate::SubscribeOptions::retained) values get first. An
    /// empty payload leaves the topic without one, as [`Client::clear_retained`] does.
    ///
    /// [`Client::clear_retained`]: crate::Client::clear_retained
    #[must_use]
    pub fn retain(mut self, retain: bool) -> Self {
        self.is_retained = retain;
        self
    }

    /// How long the message is worth delivering, rounded up to milliseconds, at most 49 days.
    /// Zero is the daemon's default. What has expired is neither delivered, replayed nor kept as a
    /// retained value, which is no loss and not told.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        let ms = ttl.as_micros().div_ceil(1_000);
        self.ttl_ms = u32::try_from(ms).unwrap_or(u32::MAX);
        self
    }

    /// The encoded metadata; empty if there is none.
    pub(crate) fn metadata<'b>(&self, builder: &'b mut MetadataBuilder) -> &'b [u8] {
        if self.content_type.is_none() && self.correlation_id.is_none() && self.headers.is_empty() {
            return &[];
        }
        builder.encode(self.content_type, self.correlation_id, self.headers.iter().copied())
    }
}

/// The daemon's answer to an acknowledged publish: the message was accepted and handed to the
/// queues of all who want it. It does not say that anybody has read it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PublishAck {
    /// The message's number within its topic, at the daemon that accepted it.
    pub sequence: u64,
    /// Subscriptions and nodes it was queued for; 0 if nobody wants it.
    pub delivered: u32,
    /// Queues that were full and refused it.
    pub dropped: u32,
    /// Queues that are full and hold publishers back.
    pub blocked: u32,
}

impl PublishAck {
    /// The answer to what was no message.
    pub(crate) const NONE: Self = Self { sequence: 0, delivered: 0, dropped: 0, blocked: 0 };
}

/// How far a batch got, and why no further.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{accepted} messages of the batch are in the outbox, the next one is not: {cause}")]
#[non_exhaustive]
pub struct BatchError {
    /// Messages from the start of the batch that were put into the outbox.
    pub accepted: usize,
    /// Why the next one was not.
    #[source]
    pub cause: crate::Error,
}
