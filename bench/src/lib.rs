//! What the benchmarks and the regression gate measure: traffic through the pure shard, without
//! sockets, so that the numbers are the code's alone.

mod bench_shard;
mod traffic;

pub use bench_shard::BenchShards;
pub use traffic::{Order, Traffic, Workload};
