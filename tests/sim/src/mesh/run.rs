//! One seed of a mesh from start to end.

use super::coverage::Coverage;
use super::world::World;
use crate::run::{Outcome, catch};
use crate::trace::Trace;

/// Runs a seed for that many operations, on so many nodes of at most `shards` shards.
pub fn run_seed(
    seed: u64,
    nodes: usize,
    shards: usize,
    operations: u64,
    wants_trace: bool,
    coverage: &mut Coverage,
) -> Outcome {
    let trace = Trace::new(wants_trace);
    let mut world = World::new(seed, nodes, shards, operations, coverage, trace);
    let violation = catch(|| world.run());
    world.count();
    Outcome { violation, trace: world.into_trace().into_lines() }
}
