//! `cargo xtask soak`: long runs of real daemons that continuous integration has no time and no machine for.

use std::ffi::OsString;

use anyhow::{Result, bail};
use lexopt::prelude::*;

use crate::invocation::Invocation;
use crate::repository;

pub(crate) const HELP: &str = "\
Usage: cargo xtask soak overload [--nodes N] [--busy N] [--seconds N]

overload: starts a mesh of N nodes (5) with modest traffic on the loopback interface, and keeps N threads (6)
busy beside it for N seconds (600): three times what two cores have. Nobody may be taken for dead, and every
message that was accepted comes to each node once. Prints progress and a table, and fails if that does not
hold. It takes the whole machine.

  A first look:  cargo xtask soak overload --seconds 60
";

pub(crate) fn run(mut parser: lexopt::Parser) -> Result<()> {
    let what = match parser.next()? {
        Some(Value(what)) => what.string()?,
        Some(option) => return Err(option.unexpected().into()),
        None => bail!("which one? overload; see `cargo xtask soak --help`"),
    };
    if what != "overload" {
        bail!("there is no soak `{what}`; there is: overload");
    }
    let arguments: Vec<OsString> = parser.raw_args()?.collect();
    Invocation::cargo()
        .args(["build", "--locked", "--package", "nexusd", "--bin", "nexusd"])
        .run()?;
    Invocation::cargo()
        .env("TESTS_NEXUSD_BINARY", repository::debug_binary("nexusd"))
        .args(["run", "--locked", "--package", "nexusd-tests", "--bin", "nexusd-overload", "--"])
        .args(arguments)
        .run()
}
