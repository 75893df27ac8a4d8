//! Messages that flow while the network breaks: who publishes them, and who accounts for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nexusd_tests::{Account, Client, Daemon, Heard, Listened, soon};

use crate::network::Meets;

/// Time between two portions.
const PACE: Duration = Duration::from_millis(5);
/// How often a listener looks whether it is over.
const PATIENCE: Duration = Duration::from_millis(50);
/// What the last message holds.
const END: u64 = u64::MAX;

/// A publisher that goes on until it is told to stop. Its messages are numbered from 1.
#[derive(Debug)]
pub struct Load {
    published: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Publishes to a topic of a daemon: so many messages of so many bytes every 5 ms, of which it waits
    /// for the last one's acknowledgement.
    pub fn start(daemon: &Daemon, topic: &str, portion: u64, bytes: usize) -> Self {
        let published = Arc::new(AtomicU64::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let (counter, told) = (Arc::clone(&published), Arc::clone(&is_over));
        let (mut client, topic) = (daemon.meet(), topic.to_owned());
        let thread = thread::spawn(move || {
            let mut payload = vec![0; bytes.max(8)];
            let mut number = 0u64;
            loop {
                let is_last = told.load(Ordering::Relaxed);
                for at in 0..portion {
                    number += 1;
                    let what = if is_last && at + 1 == portion { END } else { number };
                    payload[..8].copy_from_slice(&what.to_le_bytes());
                    if at + 1 < portion {
                        client.publish(&topic, &payload);
                    }
                }
                client.publish_accepted(&topic, &payload);
                counter.store(number, Ordering::Relaxed);
                if is_last {
                    return;
                }
                thread::sleep(PACE);
            }
        });
        Self { published, is_over, thread: Some(thread) }
    }

    /// The number of the newest message that was accepted.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// Publishes a last message; returns how many there were.
    pub fn finish(mut self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && let Err(fault) = thread.join()
        {
            std::panic::resume_unwind(fault);
        }
        self.published()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// A subscriber that reads all the time, and what it has had of one [`Load`].
#[derive(Debug)]
pub struct Listener {
    newest: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    unknown_gaps: Arc<AtomicU64>,
    has_ended: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Account>>,
}

impl Listener {
    /// Subscribes to a topic of a daemon. The numbers of the messages only grow: none comes twice.
    pub fn start(daemon: &Daemon, topic: &str) -> Self {
        let mut client = daemon.meet();
        let account = Account::new(client.subscribe_to_all(&[topic]));
        let mut listener = Self {
            newest: Arc::default(),
            received: Arc::default(),
            unknown_gaps: Arc::default(),
            has_ended: Arc::default(),
            is_over: Arc::default(),
            thread: None,
        };
        let shared = [&listener.newest, &listener.received, &listener.unknown_gaps].map(Arc::clone);
        let flags = [&listener.has_ended, &listener.is_over].map(Arc::clone);
        listener.thread = Some(thread::spawn(move || listen(client, account, &shared, &flags)));
        listener
    }

    /// Waits until it has had this message or a later one; returns how long that took.
    pub fn wait_for(&self, number: u64) -> Duration {
        soon(&format!("message {number} comes"), || self.newest.load(Ordering::Relaxed) >= number)
    }

    /// Waits until it was told of so many losses of unknown size.
    pub fn wait_for_unknown_gaps(&self, gaps: u64) -> Duration {
        soon("a loss is told", || self.unknown_gaps.load(Ordering::Relaxed) >= gaps)
    }

    /// The newest message's number.
    pub fn newest(&self) -> u64 {
        self.newest.load(Ordering::Relaxed)
    }

    /// Messages so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits for the load's last message; returns what became of all of them.
    pub fn finish(mut self) -> Account {
        soon("the last message comes", || {
            let is_finished = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            self.has_ended.load(Ordering::Relaxed) || is_finished
        });
        self.is_over.store(true, Ordering::Relaxed);
        match self.thread.take().expect("it listens until now").join() {
            Ok(account) => account,
            Err(fault) => std::panic::resume_unwind(fault),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn listen(
    mut client: Client,
    mut account: Account,
    [newest, received, unknown_gaps]: &[Arc<AtomicU64>; 3],
    [has_ended, is_over]: &[Arc<AtomicBool>; 2],
) -> Account {
    while !is_over.load(Ordering::Relaxed) {
        let heard = match client.listen(PATIENCE) {
            Listened::Heard(heard) => heard,
            Listened::Silence => continue,
            Listened::End => return account,
        };
        account.take(&heard);
        unknown_gaps.store(account.unknown_gaps(), Ordering::Relaxed);
        let Heard::Message(message) = heard else { continue };
        let Some(number) = message.payload.first_chunk().copied().map(u64::from_le_bytes) else {
            continue;
        };
        let before = newest.load(Ordering::Relaxed);
        assert!(number > before, "message {number} comes behind {before}");
        newest.store(number, Ordering::Relaxed);
        received.store(account.received(), Ordering::Relaxed);
        if number == END {
            has_ended.store(true, Ordering::Relaxed);
        }
    }
    account
}

/// Lets a fault last.
pub fn last_until(begun: Instant, duration: Duration) {
    thread::sleep(duration.saturating_sub(begun.elapsed()));
}
