//! Many nodes: their shards and their discovery as the daemon joins them, clients at each, and a network
//! that delays, duplicates, loses and cuts; in one thread and virtual time.
//!
//! ```text
//!   clients ── Node: threads that sleep ── Network: streams, datagrams, dials ── Node ── clients
//!      │         Watched(Shard) × n            latency, resets, netsplits            │
//!      │         Discovery                                                           │
//!      └────────────────▶ Oracle: order, losses, who must get what ◀────────────────┘
//! ```
//!
//! What holds is checked when it is known ([`oracle`]), when a node gives another one up, and at the end,
//! when nothing goes wrong any more ([`world`]).

pub mod client;
pub mod coverage;
pub mod network;
pub mod node;
pub mod oracle;
pub mod outages;
pub mod run;
pub mod scenario;
pub mod values;
pub mod wire;
pub mod world;

pub use coverage::Coverage;
pub use run::run_seed;
