//! `cargo xtask`: the commands a developer of NexusD needs, in one place.
//!
//! Owns nothing of the product. Each command is one module with its help text, its arguments and
//! `run`; the tables below are the whole map. A command says what it is about to do and why before
//! it does it, and an error ends with what to do next.
//! Must stay quick to compile: the first command of the README waits for it.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line talks through its standard streams"
)]

mod bench;
mod build;
mod codegen;
mod core_distance;
mod cores;
mod daemon;
mod demo;
mod dependencies;
mod example;
mod fuzz;
mod grpc_clients;
mod invocation;
mod mesh_view;
mod profile;
mod repository;
mod scaling;
mod setup;
mod sim;
mod soak;
mod statistics;
mod step;
mod test;
mod tool;
mod use_cases;

use std::process::ExitCode;

use anyhow::Result;
use lexopt::Arg;

/// One `cargo xtask NAME`.
struct Command {
    name: &'static str,
    /// One line for the overview.
    summary: &'static str,
    /// What `cargo xtask NAME --help` prints: usage, what happens, examples.
    help: &'static str,
    run: fn(lexopt::Parser) -> Result<()>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "demo",
        summary: "builds NexusD, lets messages flow through three daemons and measures them",
        help: demo::HELP,
        run: demo::run,
    },
    Command {
        name: "build",
        summary: "builds nexusd, nexusd-cli and nexusd-loadgen, to be run from target/release",
        help: build::HELP,
        run: build::run,
    },
    Command {
        name: "test",
        summary: "runs everything that continuous integration proves",
        help: test::HELP,
        run: test::run,
    },
    Command {
        name: "ci",
        summary: "the same, where a step that cannot run counts as failed",
        help: test::HELP_CI,
        run: test::run_ci,
    },
    Command {
        name: "setup",
        summary: "installs the tools a job needs, or prints the command that does",
        help: setup::HELP,
        run: setup::run,
    },
    Command {
        name: "codegen",
        summary: "generates wire/src/generated from wire/schema, or checks that it is current",
        help: codegen::HELP,
        run: codegen::run,
    },
    Command {
        name: "sim",
        summary: "drives whole conversations through the shard in virtual time, with faults",
        help: sim::HELP,
        run: sim::run,
    },
    Command {
        name: "soak",
        summary: "runs real daemons for long, where they have it hard",
        help: soak::HELP,
        run: soak::run,
    },
    Command {
        name: "fuzz",
        summary: "feeds hostile bytes to whatever reads bytes from outside",
        help: fuzz::HELP,
        run: fuzz::run,
    },
    Command {
        name: "bench",
        summary: "measures this tree against a revision or the relay, alternately",
        help: bench::HELP,
        run: bench::run,
    },
    Command {
        name: "scaling",
        summary: "measures what growth costs, and states a model of latency beside what is measured",
        help: scaling::HELP,
        run: scaling::run,
    },
    Command {
        name: "profile",
        summary: "shows where the daemon's cycles go under one workload",
        help: profile::HELP,
        run: profile::run,
    },
];

fn main() -> ExitCode {
    let mut parser = lexopt::Parser::from_env();
    match dispatch(&mut parser) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(parser: &mut lexopt::Parser) -> Result<()> {
    let name = match parser.next()? {
        None | Some(Arg::Short('h') | Arg::Long("help")) => {
            print!("{}", overview());
            return Ok(());
        }
        Some(Arg::Value(name)) => name.to_string_lossy().into_owned(),
        Some(option) => return Err(option.unexpected().into()),
    };
    if name == "help" {
        let topic = match parser.next()? {
            Some(Arg::Value(topic)) => topic.to_string_lossy().into_owned(),
            _ => {
                print!("{}", overview());
                return Ok(());
            }
        };
        print!("{}", find(&topic)?.help);
        return Ok(());
    }
    let command = find(&name)?;
    let rest: Vec<_> = parser.raw_args()?.collect();
    if rest.iter().take_while(|&one| one != "--").any(|one| one == "--help" || one == "-h") {
        print!("{}", command.help);
        return Ok(());
    }
    (command.run)(lexopt::Parser::from_args(rest)).map_err(|error| {
        match error.downcast_ref::<lexopt::Error>() {
            Some(_) => error.context(format!("see `cargo xtask {name} --help`")),
            None => error,
        }
    })
}

fn find(name: &str) -> Result<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name).ok_or_else(|| {
        anyhow::anyhow!(
            "there is no command `{name}`; the commands are: {}",
            COMMANDS.iter().map(|command| command.name).collect::<Vec<_>>().join(", ")
        )
    })
}

fn overview() -> String {
    let mut text = String::from(
        "Commands for people who work on NexusD.\n\n\
         Usage: cargo xtask COMMAND [OPTIONS]\n\n",
    );
    for command in COMMANDS {
        text.push_str(&format!("  {:<9}{}\n", command.name, command.summary));
    }
    text.push_str(
        "\nNew here?       cargo xtask demo\n\
         Before a push:  cargo xtask test\n\
         More about one: cargo xtask COMMAND --help\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_explains_itself() {
        for command in COMMANDS {
            assert!(command.help.starts_with("Usage: cargo xtask "), "{}", command.name);
            assert!(command.help.contains(command.name), "{}", command.name);
            assert!(command.help.ends_with('\n'), "{}", command.name);
            assert!(overview().contains(command.summary), "{}", command.name);
        }
    }

    #[test]
    fn an_unknown_command_is_answered_with_the_known_ones() {
        let error = find("tset").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("`tset`") && error.contains("demo, build, test"), "{error}");
    }
}
