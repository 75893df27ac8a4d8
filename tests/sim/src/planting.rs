//! Planted bugs: the proof that the oracle would notice.

use nexusd_core::plant::Plant;

use crate::coverage::Coverage;
use crate::run::run_seed;
use crate::violation::Violation;

/// Makes `plant` the one bug in this thread's shards; `None` takes it out again. Fails if the shard
/// was compiled without its plants.
#[cfg(feature = "plant")]
pub fn set(plant: Option<Plant>) -> Result<(), &'static str> {
    nexusd_core::plant::plant(plant);
    Ok(())
}

/// Makes `plant` the one bug in this thread's shards. Fails: the shard was compiled without its
/// plants.
#[cfg(not(feature = "plant"))]
pub fn set(_plant: Option<Plant>) -> Result<(), &'static str> {
    Err("this simulator was built without its plants: build it with --features plant")
}

/// Looks for a planted bug: the first seed that finds it, and what that seed found.
pub fn search(
    plant: Plant,
    shards: usize,
    from: u64,
    seeds: u64,
    operations: u64,
) -> Result<Option<(u64, Violation)>, &'static str> {
    set(Some(plant))?;
    let mut coverage = Coverage::default();
    let found = (from..from.saturating_add(seeds)).find_map(|seed| {
        run_seed(seed, shards, operations, false, &mut coverage)
            .violation
            .map(|violation| (seed, violation))
    });
    set(None)?;
    Ok(found)
}
