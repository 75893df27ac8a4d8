//! The gRPC shim of a node: applications without an SDK publish and subscribe through it.
//!
//! ```text
//! shard ── connections that speak HTTP/2 ──▶ greeting.rs ──▶ admission.rs ──▶ service.rs (one function a call)
//!   ▲                                                                            │            │
//!   └────────── a native connection for each application ── publishing.rs ◀──────┘            │
//!   └────────── and for each subscription ───────────────── feed.rs ◀─────────────────────────┘
//! ```
//!
//! It is a client of the daemon like any other, through socket pairs inside the process: what bounds
//! connections, queues and sources bounds it. What it holds itself, `sources.rs` shares out: requests as they come
//! (`uploads.rs`), answers until they have left (`answers.rs`), and calls that nobody takes end (`calls.rs`). It runs on a current-thread tokio runtime of its own, so nothing
//! here is on the path of a native message. Links between nodes carry native frames; there is no gRPC between
//! nodes.

mod admission;
mod answers;
mod batches;
mod calls;
pub mod codec;
mod connection;
mod daemon;
mod deadline;
mod errors;
mod feed;
mod fetch;
mod greeting;
mod limits;
mod message_id;
mod native;
mod progress;
mod publishing;
mod refusals;
mod registry;
mod server;
mod service;
mod sources;
mod uploads;

/// The messages and services of `proto/sidecar.proto`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("nexusd.sidecar");

    /// The description that reflection serves.
    pub const DESCRIPTION: &[u8] = tonic::include_file_descriptor_set!("sidecar");
}

pub use connection::{Accepted, Caller};
pub use daemon::{Daemon, Filters};
pub use limits::ROOM_MAX;
pub use refusals::Refusals;
pub use server::{Health, Server};
