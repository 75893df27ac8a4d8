//! Reading the configuration again: what changed and can, does; what changed and cannot is named.

use nexusd_admin::Fault;
use nexusd_admin::proto::ReloadResponse;
use nexusd_core::inspection::Request;
use tracing::info;

use super::Admin;

impl Admin {
    /// Reads the configuration that the node was started with anew, from the file, the environment and the flags of
    /// the process. What only some shards have taken on when this fails is not in the node's settings, and is taken
    /// on by all the next time.
    pub(super) async fn take_on_changes(&self) -> Result<ReloadResponse, Fault> {
        let Some(reread) = &self.process.reread else {
            let text = "this node runs inside a program that has its settings";
            return Err(Fault::Unsupported(text.to_owned()));
        };
        // One at a time: two that waited for shards would take turns with what they read.
        let _turn = self.reloading.lock().await;
        let new = reread().map_err(|fault| Fault::Invalid(fault.to_string()))?;
        let mut config = self.config();
        if let Some(log) = &self.process.log {
            // It may have been set without the configuration.
            config.log_level = log.level();
        }
        let limits = config.limits.clone();
        let (applied, need_restart) = config.take_on(&new);
        if config.limits != limits {
            for shard in 0..self.inspector.shards() {
                let request = Request::TakeOn(Box::new(config.limits.clone()));
                self.inspector.act(shard, request).await?;
            }
        }
        if let Some(log) = &self.process.log {
            log.set(config.log_level);
        }
        self.drainer.set_timeout(config.drain_timeout);
        *self.lock_config() = config;
        info!(?applied, ?need_restart, "the configuration was read again");
        let named = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        Ok(ReloadResponse { applied: named(applied), need_restart: named(need_restart) })
    }
}
