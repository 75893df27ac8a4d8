//! What a daemon says about itself, once a second.

use crate::client::Client;
use crate::daemon::Daemon;
use crate::eventually;

/// A subscriber of a daemon's statistics.
#[derive(Debug)]
pub struct Statistics {
    client: Client,
}

impl Statistics {
    /// Subscribes to them, on a connection of its own.
    pub fn of(daemon: &Daemon) -> Self {
        let mut client = daemon.client();
        client.subscribe(&[&daemon.statistics_topic()]);
        Self { client }
    }

    /// Waits until each of these numbers is what it should be.
    pub fn wait_for(&mut self, expected: &[(&str, u64)]) {
        self.wait_for_in("metrics", expected);
    }

    /// Waits until each of these numbers about the mesh is what it should be.
    pub fn wait_for_mesh(&mut self, expected: &[(&str, u64)]) {
        self.wait_for_in("mesh", expected);
    }

    fn wait_for_in(&mut self, part: &str, expected: &[(&str, u64)]) {
        eventually(&format!("{part}: {expected:?}"), || {
            let document = self.next_document();
            expected.iter().all(|(name, number)| document[part][name] == *number)
        });
    }

    /// The next document.
    pub fn next_document(&mut self) -> serde_json::Value {
        serde_json::from_slice(&self.client.next_message().payload).expect("JSON")
    }
}
