//! One node's view of its cluster: the one match.

use crate::config::Config;
use crate::counters::Counters;
use crate::event::{Event, Now};
use crate::output::Output;
use crate::peer::Peer;

/// See the crate's documentation.
#[derive(Debug)]
pub struct Discovery {
    config: Config,
    counters: Counters,
}

impl Discovery {
    /// A node that has heard nobody yet.
    pub fn new(config: Config) -> Self {
        Self { config, counters: Counters::default() }
    }

    /// Takes in what happened. Events that happened together are given together, before outputs are
    /// polled: what they change is then told at once.
    pub fn on_event(&mut self, _now: Now, _event: Event<'_>) {}

    /// What is to be done next; `None`: nothing before the next event.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// When [`Event::Tick`] is due, in the time of [`Now::mono_us`].
    pub fn wake_at(&self) -> Option<u64> {
        None
    }

    /// The nodes that are known.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        std::iter::empty()
    }

    /// CRC-64/WE of what this node wants, as of its last beacon.
    pub fn interest_hash(&self) -> u64 {
        0
    }

    /// What it has done.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Panics if what must always hold does not.
    pub fn assert_invariants(&self) {
        assert!(!self.config.cluster.is_empty());
    }
}
