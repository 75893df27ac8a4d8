//! Reading the configuration again: what changed and can, does; what changed and cannot is named.

use std::sync::Arc;

use nexusd_admin::Fault;
use nexusd_admin::proto::ReloadResponse;
use nexusd_core::inspection::Request;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::Admin;

/// Has a node's configuration read again; see [`crate::Node::reloader`].
#[derive(Clone, Default, Debug)]
pub struct Reloader(Arc<Notify>);

impl Reloader {
    /// Asks for it, and returns at once. What comes of it is in the log.
    pub fn reload(&self) {
        self.0.notify_one();
    }
}

impl Admin {
    /// Reads the configuration again each time that a [`Reloader`] asks for it.
    pub(crate) async fn reload_when_asked(&self) {
        loop {
            self.reloader.0.notified().await;
            if let Err(fault) = self.take_on_changes().await {
                warn!("the configuration was not read again: {fault}");
            }
        }
    }

    /// Reads the configuration that the node was started with anew, from the file, the environment and the flags of
    /// the process. Where this fails behind the reading some shards may have taken on what is new. Reading it once
    /// more, changed back or not, brings all of them together again.
    pub(super) async fn take_on_changes(&self) -> Result<ReloadResponse, Fault> {
        let Some(reread) = self.process.reread.clone() else {
            let text = "this node runs inside a program that has its settings";
            return Err(Fault::Unsupported(text.to_owned()));
        };
        // One at a time: two that waited for shards would take turns with what they read.
        let _turn = self.reloading.lock().await;
        // Files may be far away.
        let read = spawn_blocking(move || reread()).await;
        let read = read.map_err(|_| Fault::Unavailable("the node is stopping".to_owned()))?;
        let new = read.map_err(|fault| Fault::Invalid(fault.to_string()))?;
        for caution in new.sources.cautions() {
            warn!("{caution}");
        }
        let mut config = self.settings.config();
        if let Some(log) = &self.process.log {
            // It may have been set without the configuration.
            config.log_level = log.level();
        }
        let (applied, need_restart) = config.take_on(&new);
        for shard in 0..self.inspector.shards() {
            let request = Request::TakeOn(Box::new(config.limits.clone()));
            self.inspector.act(shard, request).await?;
        }
        if let Some(log) = self.process.log.as_ref().filter(|_| applied.contains(&"log-level")) {
            log.set(config.log_level);
        }
        self.drainer.set_timeout(config.drain_timeout);
        self.settings.set(config);
        info!(?applied, ?need_restart, "the configuration was read again");
        let named = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        Ok(ReloadResponse { applied: named(applied), need_restart: named(need_restart) })
    }
}
