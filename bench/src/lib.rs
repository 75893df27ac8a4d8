//! What the benchmarks and the regression gate measure: traffic through the pure shard, without
//! sockets, so that the numbers are the code's alone. And a prototype, measured beside sockets: rings in
//! shared memory.

mod bench_shard;
pub mod shared_ring;
mod traffic;

pub use bench_shard::BenchShards;
pub use traffic::{Order, Traffic, Workload};
