//! What every change has to pass with more than one node: some seeds without a violation, and the same run
//! for the same seed.

use nexusd_sim::mesh::{Coverage, run_seed};
use nexusd_sim::run::take_over_panics;

const SHARDS: usize = 3;
const OPERATIONS: u64 = 300;

#[test]
fn small_meshes_keep_their_promises() {
    take_over_panics();
    let mut coverage = Coverage::default();
    for seed in 1..=60 {
        let nodes = 2 + seed as usize % 3;
        let outcome = run_seed(seed, nodes, SHARDS, OPERATIONS, false, &mut coverage);
        let violation = outcome.violation.map(|violation| violation.to_string());
        assert_eq!(violation, None, "seed {seed}, {nodes} nodes");
    }
}

#[test]
fn a_seed_is_the_same_mesh_every_time() {
    take_over_panics();
    for seed in [5, 1_000_003] {
        let mut coverage = Coverage::default();
        let [first, again] =
            [(); 2].map(|()| run_seed(seed, 3, SHARDS, OPERATIONS, true, &mut coverage).trace);
        assert!(first.len() > 100 && first == again, "seed {seed}");
    }
}
