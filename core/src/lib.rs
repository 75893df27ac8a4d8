//! The data plane of one NexusD node.
//!
//! [`Shard`] is a state machine: events in ([`Event`]), outputs out ([`Output`]), time as a
//! parameter ([`Now`]); no sockets, clocks, threads or randomness inside. A [`Driver`] turns a
//! kernel's completions into events and outputs into submissions; `io/` holds one on io_uring and one
//! on epoll (feature `uring`), the simulator is another.
//!
//! A message's way through: `shard.rs` (the one match) → `topic.rs` (number) → `log.rs` (the one
//! copy) → `subscriber_queue.rs` (an extent per queue) → `shard/flush.rs` (gathered sends).

mod audience;
mod backpressure_warning;
mod connection;
mod counted_stream;
mod expiry;
mod foreign_topics;
mod gap;
mod history;
pub mod inspection;
pub mod io;
pub mod limits;
pub mod link;
mod log;
pub mod metrics;
mod overflow;
mod owed_acks;
pub mod plant;
mod prefetch;
mod retained;
mod session;
pub mod shard;
mod sources;
mod subscriber_queue;
mod subscription_index;
mod token_bucket;
mod topic;
mod topic_slots;

pub use io::driver::{Driver, Service, run};
pub use limits::Limits;
pub use link::{LinkCommand, LinkDown, LinkRefusal, LinkReport, MeshConfig};
pub use metrics::Metrics;
pub use shard::event::{CloseReason, Command, ConnectionId, Door, Event, Now, PeerAddress};
pub use shard::handover::Handover;
pub use shard::other_protocols::{BROKER_ANSWER, HTTP1_ANSWER, MQTT_ANSWER};
pub use shard::output::{Destination, Output, Report};
pub use shard::routing::{ShardIndex, home_of_node, owner_of};
pub use shard::wiring::{Wiring, wire};
pub use shard::{Shard, ShardConfig};
pub use subscription_index::SubscriptionIndex;
