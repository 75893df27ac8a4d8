//! `cargo xtask build`: the programs that people run, all in one build with one set of features, so that no later
//! command builds their libraries once more.

use anyhow::Result;

use crate::invocation::Invocation;
use crate::repository;

pub(crate) const HELP: &str = "\
Usage: cargo xtask build

Builds nexusd, nexusd-cli and nexusd-loadgen with full optimisation, and the Rust client's examples.
Ten minutes on two cores the first time; takes 2 GB below `target`.
";

pub(crate) fn run(mut parser: lexopt::Parser) -> Result<()> {
    if let Some(argument) = parser.next()? {
        return Err(argument.unexpected().into());
    }
    programs()?;
    println!("nexusd, nexusd-cli and nexusd-loadgen are in {}.", repository::release().display());
    Ok(())
}

/// Builds them.
pub(crate) fn programs() -> Result<()> {
    match repository::release_binary("nexusd").exists() {
        true => println!("Building what changed."),
        false => println!("Building NexusD with full optimisation: ten minutes on two cores."),
    }
    Invocation::cargo()
        .args(["build", "--release", "--locked"])
        .args(["--package", "nexusd", "--package", "nexusd-cli", "--package", "nexusd-loadgen"])
        .args(["--package", "nexusd-client", "--bins", "--examples"])
        .run()
}
