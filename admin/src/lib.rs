//! What operators ask a node, and tell it: the admin service over gRPC (`service.rs`), the same as JSON over
//! HTTP (`http/`), health, and metrics for Prometheus (`exposition.rs`).
//!
//! The crate speaks the protocols and knows nothing of shards: whatever it is asked it asks a [`Node`], which
//! the daemon implements. Only the view of the whole mesh is made here (`topology.rs`), from what each node
//! says of itself.
//!
//! All of this is the feature `server`. Without it there are the messages and the client alone.
//!
//! What changes something is done for callers on this host alone ([`Caller`]). Everything is bounded
//! (`limits.rs`): connections, what is read of one, the time that one may take.

#[cfg(feature = "server")]
mod caller;
#[cfg(feature = "server")]
mod exposition;
#[cfg(feature = "server")]
mod http;
#[cfg(feature = "server")]
pub mod limits;
#[cfg(feature = "server")]
mod node;
#[cfg(feature = "server")]
mod service;
#[cfg(feature = "server")]
mod topology;

#[cfg(feature = "server")]
pub use caller::{Caller, FORWARDED};
#[cfg(feature = "server")]
pub use exposition::{Family, Kind, Sample};
#[cfg(feature = "server")]
pub use http::{HttpMetrics, health_router, metrics_router, serve};
#[cfg(feature = "server")]
pub use node::{Fault, Health, Node};
#[cfg(feature = "server")]
pub use service::Service;

/// The messages and services of `proto/admin.proto`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("nexusd.admin");

    /// The description that reflection serves.
    pub const DESCRIPTION: &[u8] = tonic::include_file_descriptor_set!("admin");
}
