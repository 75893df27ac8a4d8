//! How many messages of a lane may be on their way, and where the publisher waits for room.
//!
//! A lane is one publisher, one topic, and its subscribers. The subscribers' thread says how far the
//! slowest of them has come; the publisher asks for room and, finding none, parks: it gives the core
//! away, which it shares with that thread, and is woken once half the window is free. Waking earlier
//! would trade large writes for many switches between the two threads.
//! Invariant: `sent - delivered <= size` as long as every publisher asks before it sends.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

/// How long a publisher sleeps at most before it looks whether the run was given up.
const PARK_MAX: Duration = Duration::from_millis(100);
/// "The publisher does not wait."
const NOBODY: u64 = u64::MAX;

/// The window of one lane.
#[derive(Debug)]
pub(crate) struct Window {
    size: u64,
    /// Messages that the slowest subscriber has had.
    delivered: AtomicU64,
    /// The publisher waits for `delivered` to reach this.
    wake_at: AtomicU64,
    publisher: OnceLock<Thread>,
}

impl Window {
    /// A window of `size` messages.
    pub(crate) fn new(size: u64) -> Self {
        Self {
            size: size.max(1),
            delivered: AtomicU64::new(0),
            wake_at: AtomicU64::new(NOBODY),
            publisher: OnceLock::new(),
        }
    }

    /// Messages that may be sent now, when `sent` were.
    #[inline]
    pub(crate) fn room(&self, sent: u64) -> u64 {
        let delivered = self.delivered.load(Ordering::Acquire);
        (delivered + self.size).saturating_sub(sent)
    }

    /// Half the window, which is what is free when a waiting publisher is woken.
    pub(crate) fn half(&self) -> u64 {
        (self.size / 2).max(1)
    }

    /// Parks the calling publisher until half the window is free, for 100 ms at most.
    pub(crate) fn wait_for_room(&self, sent: u64) {
        self.publisher.get_or_init(thread::current);
        let wanted = (sent + self.half()).saturating_sub(self.size);
        self.wake_at.store(wanted, Ordering::SeqCst);
        // Between the caller's look and the store the subscribers may have come this far: look
        // again, so that their wake-up is not missed.
        if self.delivered.load(Ordering::SeqCst) < wanted {
            thread::park_timeout(PARK_MAX);
        }
        self.wake_at.store(NOBODY, Ordering::SeqCst);
    }

    /// The slowest subscriber has had `delivered` messages.
    #[inline]
    pub(crate) fn on_delivered(&self, delivered: u64) {
        self.delivered.store(delivered, Ordering::SeqCst);
        if delivered >= self.wake_at.load(Ordering::SeqCst) {
            self.wake_at.store(NOBODY, Ordering::SeqCst);
            if let Some(publisher) = self.publisher.get() {
                publisher.unpark();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn room_shrinks_with_what_is_sent_and_grows_with_what_is_delivered() {
        let window = Window::new(10);
        assert_eq!(window.room(4), 6);
        assert_eq!(window.room(10), 0);
        window.on_delivered(5);
        assert_eq!(window.room(10), 5);
    }

    #[test]
    fn a_waiting_publisher_is_woken_by_deliveries_and_never_oversteps() {
        let window = Arc::new(Window::new(64));
        let messages = 200_000;
        let publisher = {
            let window = Arc::clone(&window);
            let sent = Arc::new(AtomicU64::new(0));
            let seen = Arc::clone(&sent);
            let thread = thread::spawn(move || {
                let mut n = 0;
                while n < messages {
                    let room = window.room(n);
                    if room == 0 {
                        window.wait_for_room(n);
                        continue;
                    }
                    n += room.min(messages - n);
                    sent.store(n, Ordering::SeqCst);
                }
            });
            (thread, seen)
        };
        let (thread, sent) = publisher;
        let mut delivered = 0;
        while delivered < messages {
            let n = sent.load(Ordering::SeqCst);
            assert!(n - delivered <= 64);
            if n > delivered {
                delivered = n;
                window.on_delivered(delivered);
            } else {
                thread::yield_now();
            }
        }
        thread.join().expect("the publisher ends");
    }
}
