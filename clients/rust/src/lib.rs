#![doc = include_str!("../README.md")]

mod address;
mod awaited;
mod backoff;
mod client;
mod connection;
mod error;
mod event;
mod greeting;
mod inbox;
mod limits;
mod message;
mod options;
mod outbox;
mod publication;
mod publisher;
mod receiver;
mod sender;
mod session;
mod shared;
mod socket;
mod state;
mod subscription;
mod subscription_table;
mod task;
mod topic_table;

pub use client::Client;
pub use error::Error;
pub use event::{Event, Gap, GapReason, MissedRange};
pub use message::Message;
pub use nexusd_wire::{Metadata, NodeId};
pub use options::ClientBuilder;
pub use publication::{BatchError, Publication, PublishAck};
pub use publisher::Publisher;
pub use state::{ConnectionState, Daemon};
pub use subscription::{Filters, OverflowPolicy, SubscribeOptions, Subscription};
