//! What a publisher, its subscribers and the measuring thread share about its topics.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::window::Window;

/// "Still publishing."
const UNKNOWN: u64 = u64::MAX;

/// One publisher, its topics, and everybody subscribed to them.
#[derive(Debug)]
pub(crate) struct Lane {
    /// Messages that may be undelivered at an unlimited rate.
    pub(crate) window: Window,
    sent: AtomicU64,
    total: AtomicU64,
    /// How `total` is shared between its topics.
    by_topic: OnceLock<Vec<u64>>,
}

impl Lane {
    /// A lane with a window of `window` messages.
    pub(crate) fn new(window: u64) -> Self {
        Self {
            window: Window::new(window),
            sent: AtomicU64::new(0),
            total: AtomicU64::new(UNKNOWN),
            by_topic: OnceLock::new(),
        }
    }

    /// The publisher has handed `sent` messages to its socket.
    #[inline]
    pub(crate) fn on_sent(&self, sent: u64) {
        self.sent.store(sent, Ordering::Relaxed);
    }

    /// Messages handed to the publisher's socket so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The publisher has ended; it sent `total` messages, of its topics these.
    pub(crate) fn on_ended(&self, total: u64, by_topic: Vec<u64>) {
        // A publisher ends once.
        let _ = self.by_topic.set(by_topic);
        self.on_sent(total);
        self.total.store(total, Ordering::Release);
    }

    /// How many messages were sent in all; `None` while the publisher is at it.
    #[inline]
    pub(crate) fn total(&self) -> Option<u64> {
        let total = self.total.load(Ordering::Acquire);
        (total != UNKNOWN).then_some(total)
    }

    /// How many messages of each topic were sent; empty while the publisher is at it.
    pub(crate) fn by_topic(&self) -> &[u64] {
        self.by_topic.get().map_or(&[], Vec::as_slice)
    }
}

/// What all threads of a run share.
#[derive(Debug, Default)]
pub(crate) struct RunState {
    given_up: AtomicBool,
    received: AtomicU64,
}

impl RunState {
    /// Something failed: everybody stops at once.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Whether something failed.
    #[inline]
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// All subscribers together have received this many messages.
    #[inline]
    pub(crate) fn on_received(&self, received: u64) {
        self.received.store(received, Ordering::Relaxed);
    }

    /// Messages received by all subscribers together so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}
