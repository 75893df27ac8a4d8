//! Where a shard meets the kernel. The only place that touches sockets.
//!
//! `driver.rs` is the contract and always there; the rest is two drivers (feature `uring`). Both stand
//! on the table of connections (`connection.rs`), gathered sends (`gathered.rs`), the rules of the last
//! second of a connection (`lingering.rs`) and of errors (`errno.rs`), and the ways between the loops of
//! a node (`mailbox.rs`, `neighbours.rs`) and the connections that go them (`arrival.rs`).
//!
//! * `ring.rs` turns completions into events and outputs into submissions, on top of io_uring's two
//!   queues (`kernel_ring.rs`), the shared receive buffers (`buffer_ring.rs`) and the memory that
//!   describes a turn's sends (`send_slots.rs`).
//! * `epoll.rs` is for hosts where io_uring is refused: it turns readiness (`kernel_poll.rs`) into
//!   events and outputs into system calls.
//!
//! `unsafe` lives here and nowhere above. Two rules carry it: what the kernel may still touch stays
//! where it is until its completion was seen, and a slot changes its user only then.

pub mod driver;

#[cfg(feature = "uring")]
mod arrival;
#[cfg(feature = "uring")]
mod buffer_ring;
#[cfg(feature = "uring")]
pub mod clock;
#[cfg(feature = "uring")]
mod connection;
#[cfg(feature = "uring")]
pub mod counters;
#[cfg(feature = "uring")]
mod doorbell;
#[cfg(feature = "uring")]
pub mod edge;
#[cfg(feature = "uring")]
pub mod epoll;
#[cfg(feature = "uring")]
mod errno;
#[cfg(feature = "uring")]
mod gathered;
#[cfg(feature = "uring")]
mod kernel_poll;
#[cfg(feature = "uring")]
mod kernel_ring;
#[cfg(feature = "uring")]
mod lingering;
#[cfg(feature = "uring")]
pub mod listener;
#[cfg(feature = "uring")]
pub mod mailbox;
#[cfg(feature = "uring")]
mod neighbours;
#[cfg(feature = "uring")]
mod operation;
#[cfg(feature = "uring")]
mod retransmission;
#[cfg(feature = "uring")]
pub mod ring;
#[cfg(feature = "uring")]
mod send_slots;
#[cfg(feature = "uring")]
pub mod setup_error;
#[cfg(any(feature = "uring", loom))]
pub(crate) mod sleeper;
