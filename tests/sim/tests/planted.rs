//! The proof that the oracle would notice: every planted bug is found, and none is left behind.

#![cfg(feature = "plant")]

use nexusd_core::plant::Plant;
use nexusd_sim::run::take_over_panics;
use nexusd_sim::{Coverage, planting, run_seed};

#[test]
fn every_planted_bug_is_found_within_two_thousand_seeds() {
    take_over_panics();
    for &plant in Plant::ALL {
        let found = planting::search(plant, 4, 1, 2_000, 500).expect("plants are compiled in");
        assert!(found.is_some(), "{} was not found", plant.name());
    }
    let mut coverage = Coverage::default();
    assert_eq!(
        run_seed(1, 4, 500, false, &mut coverage).violation,
        None,
        "nothing is left planted"
    );
}

#[test]
fn plants_are_known_by_their_names() {
    for &plant in Plant::ALL {
        assert_eq!(Plant::named(plant.name()), Some(plant));
    }
    assert_eq!(Plant::named("no-such-bug"), None);
}
