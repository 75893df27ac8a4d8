//! How a subscription is served: what an application may choose.

use crate::limits;

/// What the daemon does when a subscription's queue is full.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum OverflowPolicy {
    /// Drop the oldest messages.
    DropOldest,
    /// Drop those that come.
    DropNewest,
    /// Hold publishers back for a while, then drop the oldest.
    Block,
    /// Close the connection.
    Disconnect,
}

/// How a subscription is served. What is not set is the daemon's default.
#[derive(Clone, Debug)]
#[must_use = "options do nothing until they are given to a subscription"]
pub struct SubscribeOptions {
    pub(crate) policy: Option<OverflowPolicy>,
    pub(crate) queue_messages: Option<u32>,
    pub(crate) queue_bytes: Option<u64>,
    pub(crate) buffer_messages: usize,
    pub(crate) buffer_bytes: usize,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            policy: None,
            queue_messages: None,
            queue_bytes: None,
            buffer_messages: limits::BUFFER_MESSAGES,
            buffer_bytes: limits::BUFFER_BYTES,
        }
    }
}

impl SubscribeOptions {
    /// The daemon's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the daemon does when its queue for this subscription is full.
    pub fn policy(mut self, policy: OverflowPolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// How many messages the daemon queues; 0 leaves bytes as the only bound.
    pub fn queue_messages(mut self, messages: u32) -> Self {
        self.queue_messages = Some(messages);
        self
    }

    /// How many bytes the daemon queues.
    pub fn queue_bytes(mut self, bytes: u64) -> Self {
        self.queue_bytes = Some(bytes);
        self
    }

    /// How much waits on this side for the application: messages, and bytes as encoded. When either
    /// is reached the client stops reading from the daemon, up to one read (128 KiB or one larger
    /// message) later. Default: 4,096 and 8 MiB.
    pub fn buffer(mut self, messages: usize, bytes: usize) -> Self {
        self.buffer_messages = messages;
        self.buffer_bytes = bytes;
        self
    }
}
