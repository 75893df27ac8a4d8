//! The NexusD daemon: a library that runs a node, and the binary around it.
//!
//! [`Config`] says what to run, [`Node`] runs it: shard threads (`shard_thread.rs`) that share the
//! topics and the sockets of applications; beside them a control thread (`control.rs`) for statistics, a mesh thread
//! (`mesh.rs`) that finds other nodes, and an edge thread (`edge.rs`) for gRPC and HTTP, which reach the shards only
//! through their mailboxes. Several nodes may run in one process.
//!
//! What belongs to the process and not to a node is left to the binary: signals, logs
//! ([`logging`]), and that a panic ends everything ([`panic_hook`]). The node only raises the limit
//! on open files.
//!
//! ```
//! use nexusd::config::HttpPort;
//! use nexusd::{Config, Node};
//!
//! let config = Config {
//!     bind: vec!["127.0.0.1".parse()?],
//!     app_port: 0,
//!     mesh_port: 0,
//!     health_port: HttpPort::Off,
//!     metrics_port: HttpPort::Off,
//!     ..Config::default()
//! };
//! let node = Node::start(config)?;
//! println!("{}", node.ready_line());
//! node.drain();
//! node.wait()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod config;
pub mod logging;
pub mod node;
pub mod panic_hook;

mod admin;
mod beside;
mod catalogue;
mod control;
mod drainer;
mod edge;
mod engine;
mod error;
mod files;
mod inspector;
mod listeners;
mod mesh;
mod process;
mod samples;
mod settings;
mod shard_thread;
mod statistics;

pub use admin::Reloader;
pub use config::{Config, ConfigError, Invocation};
pub use drainer::Drainer;
pub use error::{StartError, StopError};
pub use nexusd_wire::NodeId;
pub use node::{Node, Process, Stopped};

/// Name and version, as told to clients.
pub const SOFTWARE: &str = concat!("nexusd/", env!("CARGO_PKG_VERSION"));
