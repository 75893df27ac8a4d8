//! Runs the vendored `flatc` over `wire/schema/*.fbs`. Called by `cargo xtask codegen`, which
//! formats the result; with `--check` that command compares instead of writing.
use std::path::PathBuf;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    // Which tree it is for is asked when it runs: several trees share what was built.
    let (output, tree) = (std::env::args_os().nth(1), std::env::var_os("CARGO_MANIFEST_DIR"));
    let (Some(output), Some(tree)) = (output.map(PathBuf::from), tree.map(PathBuf::from)) else {
        eprintln!("usage: cargo run -- OUTPUT_DIRECTORY (normally through `cargo xtask codegen`)");
        return ExitCode::from(2);
    };
    let schemas = tree.join("../../wire/schema");
    for name in ["frame", "metadata", "control", "beacon"] {
        let status = Command::new(flatc_fork::flatc())
            .args(["--rust", "-o"])
            .arg(&output)
            .arg(schemas.join(format!("{name}.fbs")))
            .status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => {
                eprintln!("flatc failed on {name}.fbs: {status}");
                return ExitCode::FAILURE;
            }
            Err(error) => {
                eprintln!("flatc could not be started: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
