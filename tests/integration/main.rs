//! The `nexusd` binary as applications and operators meet it: real processes, real sockets.
//!
//! Each test has a daemon of its own on free ports, so all of them run at the same time. What takes
//! longer than a person likes to wait is ignored by default:
//! `cargo test -p nexusd-tests -- --ignored` runs it.

mod broken_lines;
mod broken_peers;
mod conversation;
mod delivery;
mod expiry;
mod gap_modes;
mod grpc;
mod grpc_hostile;
mod guarantees;
mod hostile_input;
mod http1;
mod killed_subscribers;
mod large_messages;
mod life_cycle;
mod many_connections;
mod mesh;
mod moves;
mod open_files;
mod positions;
mod resources;
mod retained;
mod returning;
mod slow_subscribers;
mod sluggish_readers;
mod sources;
mod storms;
mod warnings;
mod wildcards;
