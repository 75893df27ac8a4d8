//! The proof that the oracle would notice: every planted bug is found, and none is left behind. Those that
//! take a mesh are looked for by `cargo xtask test`, as is whoever wants to see how soon each is found.

#![cfg(feature = "plant")]

use nexusd_core::plant::Plant;
use nexusd_sim::planting::Planted;
use nexusd_sim::run::take_over_panics;
use nexusd_sim::{Coverage, planting, run_seed};

#[test]
fn every_planted_bug_is_found_within_two_thousand_seeds() {
    take_over_panics();
    let mut coverage = Coverage::default();
    for planted in Planted::all(false) {
        let run = |seed| run_seed(seed, 4, 500, false, &mut coverage);
        let found = planting::search(planted, 1..=2_000, run).expect("plants are compiled in");
        assert!(found.is_some(), "{} was not found", planted.name());
    }
    let outcome = run_seed(1, 4, 500, false, &mut coverage);
    assert_eq!(outcome.violation, None, "nothing is left planted");
}

#[test]
fn plants_are_known_by_their_names() {
    for &plant in Plant::ALL {
        assert_eq!(Plant::named(plant.name()), Some(plant));
    }
    for planted in [true, false].into_iter().flat_map(Planted::all) {
        assert_eq!(Planted::named(planted.name()), Some(planted));
    }
    assert_eq!(Plant::named("no-such-bug"), None);
}
