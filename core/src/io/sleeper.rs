//! Who wakes a loop that sleeps: of the loop, which looks before it sleeps, and those who send to it,
//! at least one sees the other.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Whether a receiver sleeps, for senders that would wake it.
///
/// Sender: send, then ask [`Self::is_to_be_woken`]. Receiver: [`Self::fall_asleep`], look into its
/// inboxes once more, and sleep only if they are empty. Of the two, at least one sees the other.
#[derive(Debug)]
pub(crate) struct Sleeper {
    sleeps: AtomicBool,
}

impl Default for Sleeper {
    /// One that is awake.
    fn default() -> Self {
        Self { sleeps: AtomicBool::new(false) }
    }
}

impl Sleeper {
    /// The receiver is about to sleep.
    pub(crate) fn fall_asleep(&self) {
        // A swap stands behind every earlier one of a sender, for whoever checks the order.
        self.sleeps.swap(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The receiver is awake.
    pub(crate) fn wake_up(&self) {
        self.sleeps.store(false, Ordering::Relaxed);
    }

    /// Whether the caller, who has just sent something, is the one to wake the receiver.
    pub(crate) fn is_to_be_woken(&self) -> bool {
        fence(Ordering::SeqCst);
        self.sleeps.load(Ordering::SeqCst) && self.sleeps.swap(false, Ordering::SeqCst)
    }
}
