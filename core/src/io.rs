//! Where a shard meets the kernel. The only place that touches sockets.

pub mod driver;
