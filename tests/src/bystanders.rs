//! Two applications that mind their own business while others misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::daemon::Daemon;
use crate::eventually;

/// The topic they talk on.
const TOPIC: &str = "bystanders";
/// Time between two messages.
const PACE: Duration = Duration::from_millis(1);
/// Exchanges that show that they still talk.
const PROOF: u64 = 10;

/// A publisher and a subscriber on connections of their own, who exchange a message each
/// millisecond and expect every one to be accepted and to arrive, once and in order.
#[derive(Debug)]
pub struct Bystanders {
    exchanged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bystanders {
    /// Connects them and lets them talk.
    pub fn start(daemon: &Daemon) -> Self {
        let (mut subscriber, mut publisher) = (daemon.client(), daemon.client());
        let subscription = subscriber.subscribe_to_all(&[TOPIC]);
        let exchanged = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (counter, told_to_stop) = (Arc::clone(&exchanged), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut number = 0u64;
            while !told_to_stop.load(Ordering::Relaxed) {
                number += 1;
                let accepted = publisher.publish_accepted(TOPIC, &number.to_le_bytes());
                assert_eq!(accepted.sequence, number, "nobody else publishes here");
                let message = subscriber.next_message();
                assert_eq!(message.payload, number.to_le_bytes(), "once and in order");
                assert_eq!((message.sequence, message.subscription), (number, subscription));
                counter.store(number, Ordering::Relaxed);
                thread::sleep(PACE);
            }
        });
        Self { exchanged, stop, thread: Some(thread) }
    }

    /// Checks that they still talk and noticed nothing so far.
    ///
    /// # Panics
    /// If they noticed something.
    pub fn unharmed(mut self) {
        let thread = self.thread.take().expect("they talk until now");
        let before = self.exchanged.load(Ordering::Relaxed);
        eventually("bystanders exchange messages", || {
            thread.is_finished() || self.exchanged.load(Ordering::Relaxed) >= before + PROOF
        });
        self.stop.store(true, Ordering::Relaxed);
        if let Err(fault) = thread.join() {
            std::panic::resume_unwind(fault);
        }
    }
}

impl Drop for Bystanders {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
