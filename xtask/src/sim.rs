//! `cargo xtask sim`: forwards to the simulator in tests/sim, built with optimisation, and sets the
//! moderate runs that every `cargo xtask test` does.

use std::ffi::OsString;

use anyhow::Result;

use crate::invocation::Invocation;

pub(crate) const HELP: &str = "\
Usage: cargo xtask sim [--nodes N] [--shards S] [--seeds COUNT] [--from SEED] [--plant NAME] …

Drives whole conversations through the shard in one thread, in virtual time, with faults at every
step, against an oracle that accounts for every message. Ends with `violations: N`; a violation
prints its seed, and that seed alone repeats it exactly. All options go to the simulator:
`cargo xtask sim -- --help` lists them.

  A first look:    cargo xtask sim --seeds 1000
  Many nodes:      cargo xtask sim --nodes 5 --seeds 1000
  One seed again:  cargo xtask sim --seeds 1 --from 4711
  A planted bug:   cargo xtask sim --seeds 2000 --plant NAME
";

pub(crate) fn run(mut parser: lexopt::Parser) -> Result<()> {
    let arguments: Vec<OsString> = parser.raw_args()?.filter(|one| one != "--").collect();
    // The deliberate mistakes are compiled in only where one is asked for.
    let planted = arguments.iter().any(|one| one.to_string_lossy().contains("plant"));
    simulator(planted).args(arguments).run()
}

/// Enough seeds to catch a slip before it is pushed; long runs are for `cargo xtask sim`. The deliberate
/// mistakes are compiled in, and none is made: so one build serves [`planted_bugs`], too.
pub(crate) fn moderate() -> Result<()> {
    simulator(true)
        .args(["--nodes", "1", "--shards", "4", "--seeds", "3000", "--from", "1"])
        .run()?;
    simulator(true).args(["--nodes", "5", "--seeds", "300", "--ops", "300", "--from", "1"]).run()
}

/// Each deliberate mistake has to be found: a simulator that finds nothing proves nothing.
pub(crate) fn planted_bugs() -> Result<()> {
    simulator(true).args(["--check-plants", "--seeds", "4000"]).run()?;
    simulator(true).args(["--nodes", "3", "--check-plants", "--seeds", "4000"]).run()
}

fn simulator(planted: bool) -> Invocation {
    let features: &[&str] = if planted { &["--features", "plant"] } else { &[] };
    Invocation::cargo()
        .args(["run", "--locked", "--package", "nexusd-sim", "--bin", "sim"])
        .args(features)
        .arg("--")
}
