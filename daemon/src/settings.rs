//! The settings that a node runs with: as it was started, but for what was changed since.

use std::sync::{Mutex, MutexGuard, PoisonError};

use nexusd_core::Limits;

use crate::config::Config;

/// Shared by whoever looks at them.
#[derive(Debug)]
pub(crate) struct Settings(Mutex<Config>);

impl Settings {
    pub(crate) fn new(config: Config) -> Self {
        Self(Mutex::new(config))
    }

    /// All of them.
    pub(crate) fn config(&self) -> Config {
        self.lock().clone()
    }

    /// The bounds of the data plane.
    pub(crate) fn limits(&self) -> Limits {
        self.lock().limits.clone()
    }

    /// The name of the cluster.
    pub(crate) fn cluster(&self) -> String {
        self.lock().cluster.clone()
    }

    /// From now on it runs with these.
    pub(crate) fn set(&self, config: Config) {
        *self.lock() = config;
    }

    fn lock(&self) -> MutexGuard<'_, Config> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
