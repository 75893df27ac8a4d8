//! What is fuzzed: one function from bytes per target.
//!
//! A target takes any bytes, returns, and panics if something is wrong: that is the whole contract,
//! so libFuzzer and ordinary tests run the same code. Targets are deterministic: no clock, no
//! threads, no randomness but the bytes.

mod beacons;
mod bodies;
mod config;
mod cutter;
mod filters;
mod input;
mod session;

pub use beacons::beacons;
pub use bodies::{bodies, metadata};
pub use config::config;
pub use cutter::cutter;
pub use filters::filters;
pub use session::session;

/// One target: its name, which is also that of its folder of seeds, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 7] = [
    ("cutter", cutter),
    ("bodies", bodies),
    ("metadata", metadata),
    ("beacons", beacons),
    ("filters", filters),
    ("session", session),
    ("config", config),
];
