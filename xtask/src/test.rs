//! `cargo xtask test`: the list of everything that continuous integration proves. A further proof is
//! one more entry in `STEPS`.

use anyhow::{Context as _, Result, bail};
use lexopt::prelude::*;

use crate::invocation::Invocation;
use crate::step::{self, Mode, Step};
use crate::{codegen, dependencies, grpc_clients, repository, sim, tool, use_cases};

pub(crate) const HELP: &str = "\
Usage: cargo xtask test [--only STEP]… [--skip STEP]… [--fail-fast] [--list]

Runs everything that continuous integration proves, step by step, and ends with a table and a line
`N passed, N failed`. A step whose tool is missing is skipped with the command that installs it
(as root on Debian it is installed); where the environment says CI=true that counts as failed.

  --list        the steps and what each proves
  --only STEP   this step alone; may be repeated
  --skip STEP   all but this one; may be repeated
  --fail-fast   end at the first failure

While working:  cargo xtask test --only lints --only tests
";

pub(crate) const HELP_CI: &str = "\
Usage: cargo xtask ci [--only STEP]… [--skip STEP]… [--fail-fast]

`cargo xtask test` as continuous integration runs it: a step that cannot run because a tool is
missing counts as failed.
";

const STEPS: &[Step] = &[
    Step {
        name: "format",
        proves: "the code is formatted as rustfmt.toml says",
        needs: &[],
        run: format,
    },
    Step {
        name: "dependencies",
        proves: "the state machine builds without io-uring, glommio and tokio",
        needs: &[],
        run: dependencies::check,
    },
    Step {
        name: "lints",
        proves: "clippy has nothing to say, in tests and examples neither",
        needs: &[],
        run: lints,
    },
    Step { name: "tests", proves: "the behaviour of every crate", needs: &[], run: tests },
    Step {
        name: "tests-on-epoll",
        proves: "the real binary behaves on epoll as it does on io_uring",
        needs: &[],
        run: tests_on_epoll,
    },
    Step {
        name: "hosts",
        proves: "daemons on several hosts live through netsplits, lost packets, restarts and upgrades",
        needs: &[&tool::IPROUTE, &tool::NFTABLES],
        run: hosts,
    },
    Step {
        name: "terminal",
        proves: "the prompt and `top` of nexusd-cli behave on a real terminal",
        needs: &[&tool::TMUX],
        run: terminal,
    },
    Step {
        name: "peers",
        proves: "the load generator drives other systems without loss",
        needs: tool::PEERS,
        run: peers,
    },
    Step { name: "doctests", proves: "documented examples run", needs: &[], run: doctests },
    Step {
        name: "docs",
        proves: "the documentation builds and its links lead somewhere",
        needs: &[],
        run: docs,
    },
    Step {
        name: "simulation",
        proves: "conversations with faults lose, repeat and reorder nothing unaccounted",
        needs: &[],
        run: sim::moderate,
    },
    Step {
        name: "planted-bugs",
        proves: "the simulator finds each deliberate mistake",
        needs: &[],
        run: sim::planted_bugs,
    },
    Step {
        name: "loom",
        proves: "no order of two threads' steps loses a parcel or a wake-up between shards",
        needs: &[],
        run: loom,
    },
    Step {
        name: "python-example",
        proves: "docs/PROTOCOL.md is enough to write a client",
        needs: &[&tool::PYTHON],
        run: python_example,
    },
    Step {
        name: "grpc-clients",
        proves: "clients of gRPC as everybody has them publish, subscribe and come back",
        needs: &[&tool::PYTHON, &tool::PIP, &tool::NODE, &tool::NPM],
        run: grpc_clients,
    },
    Step {
        name: "use-cases",
        proves: "what docs/USE_CASES.md shows is so",
        needs: &[&tool::PYTHON, &tool::PIP],
        run: use_cases,
    },
    Step {
        name: "instructions",
        proves: "instructions per message stay within 3 % of bench/gate.toml",
        needs: &[&tool::VALGRIND],
        run: instructions,
    },
    Step {
        name: "generated-code",
        proves: "wire/src/generated is what wire/schema gives",
        needs: &[&tool::CPLUSPLUS, &tool::CMAKE, &tool::MAKE],
        run: codegen::check,
    },
    Step {
        name: "licences",
        proves: "dependencies keep to deny.toml: licences, bans, sources",
        needs: &[&tool::CARGO_DENY],
        run: licences,
    },
];

/// Tests with daemons that run at the same time. They wait most of the time, for deadlines and silences, so
/// more than there are cores; still more would disturb each other's figures on two.
const TESTS_AT_ONCE: &str = "4";

#[derive(Debug, Default, PartialEq)]
struct Arguments {
    only: Vec<String>,
    skip: Vec<String>,
    list: bool,
    fail_fast: bool,
}

pub(crate) fn run(parser: lexopt::Parser) -> Result<()> {
    // The convention of all continuous-integration services.
    let in_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    run_steps(&parse(parser)?, in_ci)
}

pub(crate) fn run_ci(parser: lexopt::Parser) -> Result<()> {
    run_steps(&parse(parser)?, true)
}

fn run_steps(arguments: &Arguments, strict: bool) -> Result<()> {
    let steps = select(arguments)?;
    if arguments.list {
        for step in steps {
            println!("{:<16}{}", step.name, step.proves);
        }
        return Ok(());
    }
    let mode = Mode { strict, fail_fast: arguments.fail_fast };
    let reports = step::run_all(&steps, mode);
    eprintln!();
    print!("{}", step::summary(&reports, "cargo xtask test"));
    if !step::all_passed(&reports) {
        // The summary's counts are the last line; main would add an error behind it.
        std::process::exit(1);
    }
    Ok(())
}

fn parse(mut parser: lexopt::Parser) -> Result<Arguments> {
    let mut arguments = Arguments::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("only") => arguments.only.push(parser.value()?.string()?),
            Long("skip") => arguments.skip.push(parser.value()?.string()?),
            Long("list") => arguments.list = true,
            Long("fail-fast") => arguments.fail_fast = true,
            _ => return Err(argument.unexpected().into()),
        }
    }
    Ok(arguments)
}

fn select(arguments: &Arguments) -> Result<Vec<&'static Step>> {
    for name in arguments.only.iter().chain(&arguments.skip) {
        if !STEPS.iter().any(|step| step.name == name) {
            let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
            bail!("there is no step `{name}`; the steps are: {}", names.join(", "));
        }
    }
    let chosen = |step: &&Step| {
        let named = |names: &[String]| names.iter().any(|name| name == step.name);
        (arguments.only.is_empty() || named(&arguments.only)) && !named(&arguments.skip)
    };
    Ok(STEPS.iter().filter(chosen).collect())
}

fn format() -> Result<()> {
    let check = |selection: &[&str]| {
        Invocation::cargo().args(["fmt", "--check"]).args(selection).run().with_context(|| {
            format!("some code is not formatted; run `cargo fmt {}`", selection.join(" "))
        })
    };
    check(&["--all"])?;
    // Packages outside the workspace, which `--all` does not see.
    for manifest in ["xtask/codegen/Cargo.toml", "fuzz/Cargo.toml"] {
        check(&["--manifest-path", manifest])?;
    }
    Ok(())
}

fn lints() -> Result<()> {
    Invocation::cargo()
        .args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])
        .run()?;
    // What is built with other features: the simulator with its planted bugs, and the daemon that speaks a
    // later protocol.
    Invocation::cargo()
        .args([
            "clippy",
            "--package",
            "nexusd-sim",
            "--package",
            "nexusd",
            "--package",
            "nexusd-core",
        ])
        .args(["--package", "nexusd-wire", "--features", "nexusd-sim/plant,nexusd/protocol-next"])
        .args(["--all-targets", "--locked", "--", "-D", "warnings"])
        .run()
}

fn tests() -> Result<()> {
    // Includes the daemon, which the tests of its own package need.
    test_run(&["--lib", "--bins", "--tests"]).run()
}

/// The tests that start the real binary, which the step before has run on the driver of the daemon's
/// own choice. (Those of the driver itself run on both at once.)
fn tests_on_epoll() -> Result<()> {
    daemon_of_tests()?;
    test_run(&["--test", "integration"]).env("TESTS_NEXUSD_IO", "epoll").run()
}

/// What is typed into a terminal, and what it shows.
fn terminal() -> Result<()> {
    daemon_of_tests()?;
    Invocation::cargo()
        .args(["test", "--workspace", "--locked", "--test", "operator", "--no-fail-fast"])
        .args(["--", "--ignored"])
        .env("RUST_TEST_THREADS", TESTS_AT_ONCE)
        .env("PATH", tool::path_with(&[&tool::TMUX])?)
        .env("TESTS_NEXUSD_BINARY", repository::debug_binary("nexusd"))
        .run()
}

/// What the load generator measures NexusD beside.
fn peers() -> Result<()> {
    let mut tools = tool::PEERS.to_vec();
    let mut but = Vec::new();
    if tool::ZENOHD.find().is_some() {
        tools.push(&tool::ZENOHD);
    } else {
        println!("Without Zenoh, which takes long to build: `cargo xtask setup zenoh`.");
        but.extend(["--skip", "zenoh"]);
    }
    Invocation::cargo()
        .args(["test", "--workspace", "--locked", "--test", "end_to_end", "--no-fail-fast"])
        .args(["--", "--ignored"])
        .args(but)
        .env("PATH", tool::path_with(&tools)?)
        .run()
}

/// Networks in a box.
fn hosts() -> Result<()> {
    daemon_of_tests()?;
    // The release to come: in the same folder and profile, so that little is built once more, and as a binary
    // of another name, so that it does not take the place of the first.
    Invocation::cargo()
        .args(["build", "--locked", "--workspace", "--bin", "nexusd-next"])
        .args(["--features", "nexusd/protocol-next"])
        .run()?;
    // With the features of the whole workspace, as above.
    let obstacle = "nexusd-netns-obstacle";
    Invocation::cargo().args(["build", "--locked", "--workspace", "--bin", obstacle]).run()?;
    let obstacle = Invocation::new(repository::debug_binary(obstacle)).output()?;
    if !obstacle.is_empty() {
        return Err(step::NotPermitted(obstacle.trim().to_owned()).into());
    }
    Invocation::cargo()
        .args(["test", "--workspace", "--locked", "--test", "hosts", "--no-fail-fast"])
        .env("RUST_TEST_THREADS", TESTS_AT_ONCE)
        .env("TESTS_NEXUSD_BINARY", repository::debug_binary("nexusd"))
        .run()
}

/// Builds the daemon as a run of the workspace's tests does (it is a part of what `start_and_stop` needs): with
/// the features that they all ask of its dependencies. By itself it would be built from the ground once more.
fn daemon_of_tests() -> Result<()> {
    Invocation::cargo()
        .args(["test", "--workspace", "--locked", "--no-run", "--test", "start_and_stop"])
        .run()
}

/// A run of these targets of the workspace, but not of those that need networks of their own.
fn test_run(targets: &[&str]) -> Invocation {
    // nextest shows slow and failing tests better; cargo's own runner proves the same.
    let runner = tool::CARGO_NEXTEST.find().map_or(vec!["test"], |_| vec!["nextest", "run"]);
    Invocation::cargo()
        .args(&runner)
        .args(["--workspace", "--exclude", "nexusd-netns", "--locked", "--no-fail-fast"])
        .args(targets)
        .env("RUST_TEST_THREADS", TESTS_AT_ONCE)
        .env("NEXTEST_TEST_THREADS", TESTS_AT_ONCE)
        .env("TESTS_NEXUSD_BINARY", repository::debug_binary("nexusd"))
}

fn doctests() -> Result<()> {
    Invocation::cargo().args(["test", "--workspace", "--locked", "--doc"]).run()
}

fn docs() -> Result<()> {
    Invocation::cargo()
        .env("RUSTDOCFLAGS", "-D warnings")
        .args(["doc", "--workspace", "--locked", "--no-deps", "--document-private-items"])
        .run()
}

fn instructions() -> Result<()> {
    Invocation::cargo()
        .args(["run", "--release", "--locked", "--package", "nexusd-bench", "--bin", "nexusd-gate"])
        .run()
}

fn loom() -> Result<()> {
    // A folder of its own: the flag would have everything built anew.
    Invocation::cargo()
        .env("RUSTFLAGS", "--cfg loom")
        .env("CARGO_TARGET_DIR", repository::target().join("loom"))
        .args(["test", "--locked", "--package", "nexusd-core", "--lib"])
        .args(["--no-default-features", "models"])
        .run()
}

fn python_example() -> Result<()> {
    daemon_of_tests()?;
    Invocation::new(tool::PYTHON.require()?)
        .args(["docs/examples/python/check.py", "--nexusd"])
        .arg(repository::debug_binary("nexusd"))
        .run()
}

fn grpc_clients() -> Result<()> {
    daemon_of_tests()?;
    grpc_clients::check(&repository::debug_binary("nexusd"))
}

fn use_cases() -> Result<()> {
    // With the features of the whole workspace; the example brings those of its tests, as above.
    Invocation::cargo()
        .args(["build", "--locked", "--workspace", "--bin", "nexusd", "--bin", "nexusd-cli"])
        .args(["--example", "orders"])
        .run()?;
    use_cases::check()
}

fn licences() -> Result<()> {
    Invocation::new(tool::CARGO_DENY.require()?)
        .args(["--locked", "--workspace", "check", "--hide-inclusion-graph"])
        .args(["licenses", "bans", "sources"])
        .run()
}

#[cfg(test)]
mod tests_of_arguments {
    use super::*;

    fn parsed(arguments: &[&str]) -> Arguments {
        parse(lexopt::Parser::from_args(arguments)).expect("valid")
    }

    fn names(arguments: &[&str]) -> Vec<&'static str> {
        let chosen = select(&parsed(arguments)).expect("known steps");
        chosen.into_iter().map(|step| step.name).collect()
    }

    #[test]
    fn without_arguments_every_step_runs() {
        assert_eq!(names(&[]).len(), STEPS.len());
    }

    #[test]
    fn only_and_skip_choose_steps_in_the_order_of_the_list() {
        assert_eq!(names(&["--only", "tests", "--only=format"]), ["format", "tests"]);
        assert!(!names(&["--skip", "licences"]).contains(&"licences"));
    }

    #[test]
    fn an_unknown_step_is_answered_with_the_known_ones() {
        let error = select(&parsed(&["--only", "tset"])).err().map(|error| error.to_string());
        assert!(error.is_some_and(|text| text.contains("`tset`") && text.contains("format, ")));
    }

    #[test]
    fn step_names_are_distinct() {
        for (index, step) in STEPS.iter().enumerate() {
            assert!(STEPS[index + 1..].iter().all(|other| other.name != step.name));
        }
    }
}
