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
        client.subscribe(&["$SYS/+/stats"]);
        Self { client }
    }

    /// Waits until each of these numbers is what it should be.
    pub fn wait_for(&mut self, expected: &[(&str, u64)]) {
        eventually(&format!("{expected:?}"), || {
            let message = self.client.next_message();
            let document: serde_json::Value =
                serde_json::from_slice(&message.payload).expect("JSON");
            expected.iter().all(|(name, number)| document["metrics"][name] == *number)
        });
    }
}
