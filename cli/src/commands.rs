//! What commands do: each group of them asks the daemon and shows what it says. `beacons`, `event` and `topology`
//! are parts of DISCOVER, SUBSCRIBE and MESH.

pub(crate) mod beacons;
pub(crate) mod client;
pub(crate) mod debug;
pub(crate) mod discover;
pub(crate) mod event;
pub(crate) mod info;
pub(crate) mod mesh;
pub(crate) mod monitor;
pub(crate) mod ping;
pub(crate) mod publish;
pub(crate) mod pubsub;
pub(crate) mod subscribe;
pub(crate) mod topology;

/// A line below a list that was cut off.
pub(crate) fn cut_off(is_truncated: bool, remedy: &str) -> String {
    if is_truncated { format!("\nThere are more; {remedy}.") } else { String::new() }
}
