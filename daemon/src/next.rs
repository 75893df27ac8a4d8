//! The binary `nexusd-next`: the daemon as a release to come, for the tests of two versions side by side.

#[path = "main.rs"]
mod daemon;

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::main()
}
