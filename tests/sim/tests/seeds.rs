//! What every change has to pass: a number of seeds without a violation, everything exercised, and
//! the same run for the same seed.

use nexusd_sim::run::take_over_panics;
use nexusd_sim::{Coverage, run_seed};

const SHARDS: usize = 4;
const OPERATIONS: u64 = 500;

#[test]
fn seeds_run_without_a_violation_and_exercise_everything() {
    take_over_panics();
    let mut coverage = Coverage::default();
    for seed in 1..=800 {
        let outcome = run_seed(seed, SHARDS, OPERATIONS, false, &mut coverage);
        assert!(
            outcome.violation.is_none(),
            "seed {seed}: {}",
            outcome.violation.map_or(String::new(), |violation| violation.to_string())
        );
    }
    let missing = coverage.missing();
    assert!(missing.is_empty(), "never happened: {missing:?}\n{}", coverage.table());
}

#[test]
fn a_seed_is_the_same_conversation_every_time() {
    take_over_panics();
    for seed in [7, 1_000_003] {
        let mut coverage = Coverage::default();
        let first = run_seed(seed, SHARDS, OPERATIONS, true, &mut coverage);
        let second = run_seed(seed, SHARDS, OPERATIONS, true, &mut coverage);
        assert!(first.trace.len() > 500, "a run of 500 operations leaves a trace");
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
}

#[test]
fn different_seeds_are_different_conversations() {
    let mut coverage = Coverage::default();
    let first = run_seed(1, SHARDS, OPERATIONS, true, &mut coverage);
    let second = run_seed(2, SHARDS, OPERATIONS, true, &mut coverage);
    assert_ne!(first.trace, second.trace);
}
