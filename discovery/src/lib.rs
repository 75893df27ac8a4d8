//! Who is alive in the mesh and what they want: one node's view of its cluster.
//!
//! [`Discovery`] is a state machine: events in ([`Event`]), outputs out ([`Output`]), time as a
//! parameter ([`Now`]) and chance from a seed; no sockets, clocks, threads or sleeping inside. The
//! daemon's control thread turns datagrams, dials and what the links report into events, and outputs
//! into datagrams, dials and commands to the links.
//!
//! Who decides what: a link (of the data plane) says whether the peer at its other end lives.
//! Discovery says who there is, which links there should be, and what this node wants of the others.
//! It never touches a message.

mod absent;
mod address_source;
mod backoff;
mod beacon_schedule;
mod config;
mod counters;
mod dials;
mod discovery;
mod event;
mod frames;
mod interest;
pub mod limits;
mod notice;
mod outbox;
mod output;
mod peer;
mod peers;
pub mod plant;
mod retained;
mod seeds;
mod senders;
mod sync;

pub use config::{Config, Retry};
pub use counters::Counters;
pub use discovery::Discovery;
pub use event::{Event, LinkDown, LinkEvent, LinkRefusal, Now, SeedId};
pub use nexusd_wire::{ClusterKey, Member, NodeId};
pub use notice::{Departure, Level, Notice};
pub use output::Output;
pub use peer::{Peer, PeerStatus};
