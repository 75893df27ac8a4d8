//! What was refused, counted: for want of room, and messages that the daemon was not even asked to take.

use std::sync::atomic::{AtomicU64, Ordering};

use tonic::Code;

/// Counters since the start.
#[derive(Default, Debug)]
pub struct Refusals {
    connections: AtomicU64,
    calls: AtomicU64,
    publishes: AtomicU64,
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

    /// Messages that were refused here, such as those to a topic that is none. What the daemon refuses it counts.
    pub fn publishes(&self) -> u64 {
        self.publishes.load(Ordering::Relaxed)
    }

    /// One more connection.
    pub fn count_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// One more message, if this is why it was not published and the daemon does not know of it: no other failure has
    /// these codes.
    pub(crate) fn count_publish(&self, code: Code) {
        if matches!(code, Code::InvalidArgument | Code::PermissionDenied) {
            self.publishes.fetch_add(1, Ordering::Relaxed);
        }
    }
}
