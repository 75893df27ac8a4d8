//! What the tests of the `nexusd` binary are made of.
//!
//! [`Daemon`] is a real process on free ports, killed when dropped. [`Client`] is an application on
//! a blocking socket that knows nothing but the wire format, so that what the daemon does is judged
//! by the protocol and not by an SDK; an [`Application`] is one in a process of its own, to be killed.
//! [`Account`] checks one subscription's stream: every message once and in order, or told by a Gap;
//! [`Replay`] checks what comes of one return to it. The tests stand in `tests/integration/`.
//!
//! Everything here panics when an expectation fails: it is called by tests alone.

mod account;
mod address;
mod application;
mod binary;
mod bystanders;
mod client;
mod daemon;
pub mod golden;
mod grpc;
mod heard;
mod hearing;
pub mod http2;
mod mesh;
mod process;
mod relay;
mod replay;
mod say;
mod statistics;
mod turn_off;

pub use account::Account;
pub use address::Address;
pub use application::{Application, wait_for_the_end};
pub use binary::{Release, nexusd};
pub use bystanders::Bystanders;
pub use client::{Client, Line, Listened};
pub use daemon::{Daemon, Ended};
pub use grpc::{Events, Grpc};
pub use heard::{Complaint, Confirmation, Delivery, Heard, Loss, Replayed, Subscribed, Warning};
pub use http2::Http2;
pub use mesh::Mesh;
pub use process::{Usage, open_files_limit, usage};
pub use relay::Relay;
pub use replay::Replay;
pub use say::{note, skip};
pub use statistics::Statistics;
pub use turn_off::TurnOff;

use std::time::{Duration, Instant};

/// Longest wait for something that should happen soon, on a busy machine too.
pub const SOON: Duration = Duration::from_secs(30);

/// Waits until `condition` holds; `what` says what was expected.
///
/// # Panics
/// If it does not hold [`SOON`].
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The same, looked at more often; returns how long it took, to a few milliseconds.
///
/// # Panics
/// If it does not hold [`SOON`].
pub fn soon(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < SOON, "still not: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    begun.elapsed()
}
