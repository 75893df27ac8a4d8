//! The control thread: a glommio executor for everything that has to do with time and not with a
//! message. It asks the shards for their counters once a second and publishes them as statistics. glommio
//! stands on io_uring; where that is not to be had, the thread does the same without an executor.
//!
//! It reaches the shards through their mailboxes alone, never waits for them, and is never on the path
//! of a message. It ends when the channel of samples is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use glommio::timer::Timer;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use nexusd_core::io::mailbox::CommandSender;
use nexusd_core::{Command, Metrics};
use tracing::{debug, warn};

use crate::config::IoEngine;
use crate::engine::Engine;
use crate::error::{StartError, StopError};
use crate::panic_hook;
use crate::statistics::{Sample, Statistics};

const NAME: &str = "control";
/// Time between two statistics.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(1);
/// Memory glommio registers for files, in bytes; its least. This thread has none.
const IO_MEMORY_BYTES: usize = 64 << 10;
/// Entries of each of glommio's three rings. Timers need few.
const RING_DEPTH: usize = 8;
/// Samples on their way from the shards; one a second comes.
const SAMPLES_MAX: usize = 4;

/// What the control thread runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Executor {
    /// glommio, or no start.
    Glommio,
    /// glommio, or none where it cannot be set up.
    GlommioIfPossible,
    /// None: the thread sleeps between two statistics.
    None,
}

impl Executor {
    /// What suits shards that run on `engine`, where the operator asked for `asked`.
    pub(crate) fn beside(engine: Engine, asked: IoEngine) -> Self {
        match (engine, asked) {
            (Engine::Epoll, _) => Self::None,
            (Engine::Uring, IoEngine::Uring) => Self::Glommio,
            (Engine::Uring, _) => Self::GlommioIfPossible,
        }
    }

    /// Sets glommio up, if that is what it takes.
    fn set_up(self) -> Result<Option<LocalExecutor>, StartError> {
        if self == Self::None {
            return Ok(None);
        }
        match glommio() {
            Ok(executor) => Ok(Some(executor)),
            Err(error) if self == Self::GlommioIfPossible => {
                warn!("{error}; it goes on without glommio");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// What the control thread is made from.
#[derive(Debug)]
pub(crate) struct ControlConfig {
    pub(crate) executor: Executor,
    pub(crate) statistics: Statistics,
    /// The ways to all shards.
    pub(crate) shards: Vec<CommandSender>,
    /// The one of them that owns the topic of the statistics.
    pub(crate) publisher: CommandSender,
    /// Set once the node drains: nothing is sampled from then on.
    pub(crate) draining: Arc<AtomicBool>,
    /// The way of the shards' counters to this thread, made by [`samples`].
    pub(crate) samples: (Sender<Metrics>, Receiver<Metrics>),
}

/// A channel for the shards' counters. If it is full they may be thrown away: younger ones follow.
pub(crate) fn samples() -> (Sender<Metrics>, Receiver<Metrics>) {
    async_channel::bounded(SAMPLES_MAX)
}

/// A running control thread.
#[derive(Debug)]
pub(crate) struct ControlThread {
    samples: Sender<Metrics>,
    thread: JoinHandle<()>,
}

impl ControlThread {
    /// Starts the thread and waits until it runs.
    pub(crate) fn start(config: ControlConfig) -> Result<Self, StartError> {
        let samples = config.samples.0.clone();
        let (started, is_started) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || match config.executor.set_up() {
                Ok(executor) => {
                    drop(started.send(Ok(())));
                    match executor {
                        Some(executor) => executor.run(publish_statistics(config)),
                        None => publish_statistics_between_sleeps(config),
                    }
                }
                Err(error) => drop(started.send(Err(error))),
            })
            .map_err(StartError::system("a thread"))?;
        // A thread that ends without an answer has panicked; its end will say so.
        is_started.recv().unwrap_or(Ok(()))?;
        Ok(Self { samples, thread })
    }

    /// Ends the thread and waits for that.
    pub(crate) fn stop(self) -> Result<(), StopError> {
        self.samples.close();
        self.thread.thread().unpark();
        self.thread.join().map_err(|panic| StopError::Panicked {
            thread: NAME.to_owned(),
            reason: panic_hook::reason(&*panic),
        })
    }
}

fn glommio() -> Result<LocalExecutor, StartError> {
    LocalExecutorBuilder::new(Placement::Unbound)
        .name(NAME)
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_DEPTH)
        .make()
        .map_err(|error| StartError::Control { reason: error.to_string() })
}

/// The way of a statistic to its topic.
struct Publication {
    statistics: Statistics,
    topic: Box<str>,
    /// The way to the shard that owns the topic.
    publisher: CommandSender,
}

impl Publication {
    fn new(statistics: Statistics, publisher: CommandSender) -> Self {
        Self { topic: statistics.topic().into(), statistics, publisher }
    }

    fn publish(&mut self, metrics: &Metrics) {
        let document = self.statistics.document(&Sample::now(metrics));
        let publish = Command::Publish {
            topic: self.topic.clone(),
            payload: document.to_string().into_bytes().into(),
        };
        if self.publisher.send(publish).is_err() {
            debug!(
                "the shard takes nothing now (its mailbox is full, or it has ended); this second's statistics are not published"
            );
        }
    }
}

async fn publish_statistics(config: ControlConfig) {
    let ControlConfig { statistics, publisher, shards, draining, samples: (_, samples), .. } =
        config;
    let mut publication = Publication::new(statistics, publisher);
    let sampler = glommio::spawn_local(sample(shards, draining));
    while let Ok(metrics) = samples.recv().await {
        publication.publish(&metrics);
    }
    sampler.cancel().await;
}

/// Asks for the shards' counters at each interval.
async fn sample(shards: Vec<CommandSender>, draining: Arc<AtomicBool>) {
    loop {
        Timer::new(STATISTICS_INTERVAL).await;
        if draining.load(Ordering::Acquire) {
            break;
        }
        ask(&shards);
    }
}

/// Asks all shards for their counters, and says whether all will answer. Then their sum comes through
/// the channel.
fn ask(shards: &[CommandSender]) -> bool {
    // A mailbox without room is one its shard has not looked into for long; it is asked again.
    let refusals = shards.iter().filter(|shard| shard.send(Command::Sample).is_err()).count();
    refusals == 0
}

/// The same without an executor: sleep, ask, wait for the answer, publish.
fn publish_statistics_between_sleeps(config: ControlConfig) {
    let ControlConfig { statistics, publisher, shards, draining, samples: (_, samples), .. } =
        config;
    let mut publication = Publication::new(statistics, publisher);
    let mut due = Instant::now() + STATISTICS_INTERVAL;
    while !samples.is_closed() {
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            // Whoever closes the channel wakes us.
            thread::park_timeout(left);
            continue;
        }
        due = Instant::now() + STATISTICS_INTERVAL;
        let is_asked = !draining.load(Ordering::Acquire) && ask(&shards);
        if is_asked && let Ok(metrics) = samples.recv_blocking() {
            publication.publish(&metrics);
        }
    }
}
