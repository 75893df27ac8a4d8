//! `cargo xtask setup`: brings a machine to where the asked-for job runs, and nothing more.
//! Safe to repeat; quick when everything is there.

use anyhow::{Result, bail};
use lexopt::prelude::*;

use crate::tool::{self, Tool};

pub(crate) const HELP: &str = "\
Usage: cargo xtask setup [JOB] [--check]

Installs what JOB needs beside Rust, a C compiler and git, and says what and why. Debian packages are
installed when you are root; otherwise the exact command is printed. Tools that cargo builds go to
a cache of your own (~/.cache/nexusd/tools). Building and running NexusD itself needs nothing from here.

Jobs:
  test      what `cargo xtask test` uses (default)
  codegen   flatc's build: a C++ compiler and cmake
  deny      cargo-deny
  fuzz      a C++ compiler and cargo-fuzz
  bench     valgrind and perf
  peers     NATS, Redis and Mosquitto, to be measured beside NexusD
  zenoh     a Zenoh router, for the same; building it takes a quarter of an hour
  all       everything above

  --check   only look: exit code 1 and the command to type when something is missing

cargo-nextest is used when it is there and not asked for when it is not.
";

/// A kind of work and the tools it needs.
struct Job {
    name: &'static str,
    tools: &'static [&'static Tool],
}

const JOBS: &[Job] = &[
    Job {
        name: "test",
        tools: &[
            &tool::CPLUSPLUS,
            &tool::CMAKE,
            &tool::MAKE,
            &tool::VALGRIND,
            &tool::PYTHON,
            &tool::PIP,
            &tool::NODE,
            &tool::NPM,
            &tool::IPROUTE,
            &tool::NFTABLES,
            &tool::TMUX,
            &tool::CARGO_DENY,
        ],
    },
    Job { name: "codegen", tools: &[&tool::CPLUSPLUS, &tool::CMAKE, &tool::MAKE] },
    Job { name: "deny", tools: &[&tool::CARGO_DENY] },
    Job { name: "fuzz", tools: &[&tool::CPLUSPLUS, &tool::CARGO_FUZZ] },
    Job { name: "bench", tools: &[&tool::VALGRIND, &tool::PERF] },
    Job { name: "peers", tools: tool::PEERS },
    Job { name: "zenoh", tools: &[&tool::ZENOHD] },
];

#[derive(Debug, PartialEq)]
struct Arguments {
    job: String,
    check: bool,
}

pub(crate) fn run(parser: lexopt::Parser) -> Result<()> {
    let arguments = parse(parser)?;
    let tools = tools_of(&arguments.job)?;
    let missing: Vec<&Tool> = if arguments.check {
        tools.iter().copied().filter(|tool| tool.find().is_none()).collect()
    } else {
        tool::install_missing(&tools)
    };
    for tool in &tools {
        match tool.find() {
            Some(path) => println!("ok       {:<11} {}", tool.program, path.display()),
            None => println!("missing  {:<11} {}", tool.program, tool.why),
        }
    }
    if !missing.is_empty() {
        bail!("{}.", tool::remedy(&missing));
    }
    println!("Everything that `{}` needs is here.", arguments.job);
    Ok(())
}

fn parse(mut parser: lexopt::Parser) -> Result<Arguments> {
    let mut job = None;
    let mut check = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("check") => check = true,
            Value(value) if job.is_none() => job = Some(value.string()?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    Ok(Arguments { job: job.unwrap_or_else(|| "test".to_owned()), check })
}

fn tools_of(job: &str) -> Result<Vec<&'static Tool>> {
    let mut tools: Vec<&'static Tool> = Vec::new();
    for known in JOBS.iter().filter(|known| job == "all" || known.name == job) {
        for tool in known.tools {
            if !tools.contains(tool) {
                tools.push(tool);
            }
        }
    }
    if tools.is_empty() {
        let names: Vec<&str> = JOBS.iter().map(|known| known.name).collect();
        bail!("there is no job `{job}`; the jobs are: {}, all", names.join(", "));
    }
    Ok(tools)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_job_the_tests_are_meant() {
        let arguments = parse(lexopt::Parser::from_args(["--check"])).expect("valid");
        assert_eq!(arguments, Arguments { job: "test".to_owned(), check: true });
    }

    #[test]
    fn all_names_each_tool_once() {
        let all = tools_of("all").expect("a job");
        for (index, tool) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(tool), "{tool:?}");
        }
        assert!(all.contains(&&tool::CARGO_FUZZ));
    }

    #[test]
    fn an_unknown_job_is_answered_with_the_known_ones() {
        let error = tools_of("bnech").expect_err("unknown").to_string();
        assert!(error.contains("test, codegen, deny, fuzz, bench, peers, zenoh, all"), "{error}");
    }
}
