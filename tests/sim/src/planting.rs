//! Planted bugs: the proof that the oracle would notice.

use nexusd_core::plant::Plant;
use nexusd_discovery::plant::Plant as DiscoveryPlant;

use crate::run::Outcome;
use crate::violation::Violation;

/// A deliberate mistake, in the data plane or in discovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planted {
    /// In the shard.
    Core(Plant),
    /// In discovery.
    Discovery(DiscoveryPlant),
}

impl Planted {
    /// Those that a mesh is needed to find, or the others.
    pub fn all(is_mesh: bool) -> Vec<Self> {
        let core = Plant::ALL.iter().filter(|plant| plant.needs_mesh() == is_mesh);
        let mut all: Vec<Self> = core.copied().map(Self::Core).collect();
        if is_mesh {
            all.extend(DiscoveryPlant::ALL.iter().copied().map(Self::Discovery));
        }
        all
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        let discovery = || DiscoveryPlant::named(name).map(Self::Discovery);
        Plant::named(name).map(Self::Core).or_else(discovery)
    }

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Core(plant) => plant.name(),
            Self::Discovery(plant) => plant.name(),
        }
    }
}

/// Makes `planted` the one bug in this thread's nodes; `None` takes it out again. Fails if they were
/// compiled without their plants.
#[cfg(feature = "plant")]
pub fn set(planted: Option<Planted>) -> Result<(), &'static str> {
    let (core, discovery) = match planted {
        Some(Planted::Core(plant)) => (Some(plant), None),
        Some(Planted::Discovery(plant)) => (None, Some(plant)),
        None => (None, None),
    };
    nexusd_core::plant::plant(core);
    nexusd_discovery::plant::plant(discovery);
    Ok(())
}

/// Makes `planted` the one bug in this thread's nodes. Fails: they were compiled without their plants.
#[cfg(not(feature = "plant"))]
pub fn set(_planted: Option<Planted>) -> Result<(), &'static str> {
    Err("this simulator was built without its plants: build it with --features plant")
}

/// Looks for a planted bug: the first seed that finds it, and what that seed found.
pub fn search(
    planted: Planted,
    seeds: impl IntoIterator<Item = u64>,
    mut run: impl FnMut(u64) -> Outcome,
) -> Result<Option<(u64, Violation)>, &'static str> {
    set(Some(planted))?;
    let found = seeds.into_iter().find_map(|seed| Some((seed, run(seed).violation?)));
    set(None)?;
    Ok(found)
}
