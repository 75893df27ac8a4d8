//! What was refused because there was no room for it, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the start.
#[derive(Default, Debug)]
pub struct Refusals {
    connections: AtomicU64,
    calls: AtomicU64,
}

impl Refusals {
    /// Connections that were closed at once.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Calls that were answered with RESOURCE_EXHAUSTED before anything was done.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// One more connection.
    pub fn count_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
}
