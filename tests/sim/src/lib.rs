//! The deterministic simulator: whole conversations through the shard, in one thread and virtual
//! time, with faults at every step and an oracle that works out what must have happened.
//!
//! ```text
//!            seed ──▶ Dice ──▶ Scenario: bounds, topics, clients, faults
//!                       │
//!     ┌──────────┐  ┌───▼─────────────────┐  events   ┌─────────────────┐
//!     │ clients  │─▶│ World               │──────────▶│ Cluster of      │
//!     │ publish  │  │  sockets that stall │           │ Watched(Shard)  │
//!     │ subscribe│◀─│  and break, a clock │◀──────────│  lent memory    │
//!     │ offend   │  │  that jumps         │  outputs  │  invariants     │
//!     │          │  │                     │           │  inboxes        │
//!     │          │  │                     │           └─────────────────┘
//!     └────┬─────┘  └──────────┬──────────┘
//!          │ what was fed      │ what is on the wire
//!          ▼                   ▼
//!     ┌───────────────────────────────┐
//!     │ Oracle: who must get what     │──▶ Violation, with its seed
//!     └───────────────────────────────┘
//! ```
//!
//! A run ([`run_seed`]) works for a number of operations, lets everything come to rest, and drains.
//! Everything in it follows from the seed, so a violation is replayed by naming its seed, and
//! `--trace` shows the conversation. A second kind of run plants a known bug in the shard
//! ([`nexusd_core::plant`]) and must find it.
//!
//! With more than one node ([`mesh`]) whole nodes, discovery included, talk over a network with faults.
//!
//! `cargo xtask sim --seeds 1000` runs seeds; for very many, `cargo run --profile sim -p nexusd-sim
//! -- --seeds 100000` is built with full optimisation and still has every assertion in it.

pub mod clock;
pub mod cluster;
pub mod conversation;
pub mod coverage;
pub mod dice;
pub mod mesh;
pub mod numbering;
pub mod oracle;
pub mod payload;
pub mod planting;
pub mod run;
pub mod scenario;
pub mod socket;
pub mod trace;
pub mod violation;
pub mod watched;
pub mod world;

pub use coverage::Coverage;
pub use run::{Outcome, run_seed};
pub use violation::Violation;
