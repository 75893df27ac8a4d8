//! How a node ends in good order: all of its threads are told, once, whoever asks for it first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nexusd_core::Command;
use nexusd_core::io::clock;
use nexusd_core::io::mailbox::CommandSender;
use tracing::info;

use crate::edge::PhaseSender;
use crate::mesh::Reports;

/// Time between two attempts to put a command into a full mailbox.
const SEND_RETRY: Duration = Duration::from_millis(1);

/// Ends a node; see [`crate::Node::drainer`].
#[derive(Clone, Debug)]
pub struct Drainer {
    shards: Vec<CommandSender>,
    /// Microseconds.
    timeout_us: Arc<AtomicU64>,
    draining: Arc<AtomicBool>,
    /// The way to the mesh thread, if there is one.
    mesh: Option<Arc<Reports>>,
    edge: Option<PhaseSender>,
}

impl Drainer {
    pub(crate) fn new(
        shards: Vec<CommandSender>,
        timeout: Duration,
        mesh: Option<Arc<Reports>>,
    ) -> Self {
        let timeout_us = Arc::new(AtomicU64::new(microseconds(timeout)));
        Self { shards, timeout_us, draining: Arc::default(), mesh, edge: None }
    }

    /// Begins to end the node, and returns at once: nothing more is accepted, publishers are told
    /// goodbye, and subscribers get what is queued for them, for [`crate::Config::drain_timeout`] at most.
    /// Later calls change nothing; whether this was the first one.
    pub fn drain(&self) -> bool {
        let is_first = self.begin();
        if is_first {
            self.tell();
        }
        is_first
    }

    /// From now on the node ends; whether it did not before. Whoever hears that it did not has to [`Self::tell`].
    pub(crate) fn begin(&self) -> bool {
        !self.draining.swap(true, Ordering::AcqRel)
    }

    /// Tells all threads; waits for shards whose mailboxes are full.
    pub(crate) fn tell(&self) {
        let timeout_us = self.timeout_us.load(Ordering::Relaxed);
        info!(timeout = ?Duration::from_micros(timeout_us), "draining");
        self.drain_until(clock::now().mono_us.saturating_add(timeout_us));
    }

    /// From now on it takes so long at most.
    pub(crate) fn set_timeout(&self, timeout: Duration) {
        self.timeout_us.store(microseconds(timeout), Ordering::Relaxed);
    }

    /// From now on it tells the edge thread, too.
    pub(crate) fn reach_edge(&mut self, edge: PhaseSender) {
        self.edge = Some(edge);
    }

    /// Set once the node ends.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.draining)
    }

    /// Whether the node ends.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// The same, with the end of the shards' time (`Now::mono_us`).
    pub(crate) fn drain_until(&self, deadline_us: u64) {
        self.draining.store(true, Ordering::Release);
        if let Some(mesh) = &self.mesh {
            mesh.on_drain();
        }
        if let Some(edge) = &self.edge {
            edge.drain();
        }
        for shard in &self.shards {
            // The sample tells what was dropped before, so that the end can tell what was not flushed.
            send(shard, Command::Sample);
            send(shard, Command::Drain { deadline_us });
        }
    }
}

/// Waits for room in the mailbox: what is sent here must not get lost.
fn send(shard: &CommandSender, mut command: Command) {
    while let Err(back) = shard.send(command) {
        if shard.is_gone() {
            return;
        }
        command = back;
        thread::sleep(SEND_RETRY);
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
