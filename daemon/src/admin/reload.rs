//! Reading the configuration again: what changed and can, does; what changed and cannot is named.

use nexusd_admin::Fault;
use nexusd_admin::proto::ReloadResponse;
use tracing::info;

use crate::config::Config;
use crate::node::Process;

/// Reads the configuration that a node was started with anew, from the file, the environment and the flags of
/// the process.
pub(super) fn reload(running: &Config, process: &Process) -> Result<ReloadResponse, Fault> {
    let Some(reread) = &process.reread else {
        let text = "this node runs inside a program that has its settings";
        return Err(Fault::Unsupported(text.to_owned()));
    };
    let new = reread().map_err(|fault| Fault::Invalid(fault.to_string()))?;
    let mut answer = ReloadResponse::default();
    if let Some(log) = &process.log
        && log.level() != new.log_level
    {
        log.set(new.log_level);
        answer.applied.push("log-level".to_owned());
    }
    for ((name, before), (_, after)) in running.settings().zip(new.settings()) {
        let is_changed = match name {
            // Its value is not shown.
            "cluster-key" => running.cluster_key != new.cluster_key,
            _ => before != after,
        };
        if is_changed && !Config::is_reloadable(name) {
            answer.need_restart.push(name.to_owned());
        }
    }
    info!(applied = ?answer.applied, need_restart = ?answer.need_restart, "the configuration was read again");
    Ok(answer)
}
