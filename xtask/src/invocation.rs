//! Starting other programs: every one is shown before it runs, so that a developer can repeat it by
//! hand, and a failure names the command that failed.
//!
//! Children inherit the terminal (cargo's progress bar stays alive) unless their output is asked
//! for.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::repository;

/// A command about to run at the root of the repository.
pub(crate) struct Invocation {
    command: Command,
    /// Variables set for this command alone, shown in front of it.
    shown_environment: Vec<(String, String)>,
}

impl Invocation {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.current_dir(repository::root());
        Self { command, shown_environment: Vec::new() }
    }

    /// The cargo that runs us, hence the pinned toolchain.
    pub(crate) fn cargo() -> Self {
        let mut invocation = Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // What `cargo run` tells us about our own package is not meant for the next cargo: build
        // scripts would take a changed value for a reason to run again.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
                invocation.command.env_remove(&name);
            }
        }
        invocation
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, args: I) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.shown_environment
            .push((name.to_owned(), value.as_ref().to_string_lossy().into_owned()));
        self.command.env(name, value);
        self
    }

    pub(crate) fn current_dir(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// The command line as one would type it.
    pub(crate) fn line(&self) -> String {
        let mut line = String::new();
        for (name, value) in &self.shown_environment {
            let _ = write!(line, "{name}={} ", quoted(value));
        }
        let program = Path::new(self.command.get_program());
        let shown = match program.file_name() {
            Some(name) if program.is_absolute() && name == "cargo" => "cargo".to_owned(),
            _ => quoted(&program.to_string_lossy()),
        };
        line.push_str(&shown);
        for arg in self.command.get_args() {
            line.push(' ');
            line.push_str(&quoted(&arg.to_string_lossy()));
        }
        line
    }

    /// Shows the command, runs it on our terminal, and fails when it does.
    pub(crate) fn run(self) -> Result<()> {
        let line = self.line();
        let status = self.status()?;
        if !status.success() {
            bail!("`{line}` failed: {status}");
        }
        Ok(())
    }

    /// Shows the command and runs it on our terminal, whatever it answers.
    pub(crate) fn status(mut self) -> Result<ExitStatus> {
        let line = self.line();
        eprintln!("$ {line}");
        self.command.status().with_context(|| format!("`{line}` could not be started"))
    }

    /// Runs the command and returns what it wrote to standard output; its standard error stays on
    /// the terminal.
    pub(crate) fn output(mut self) -> Result<String> {
        let line = self.line();
        let output = self
            .command
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("`{line}` could not be started"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            eprint!("{text}");
            bail!("`{line}` failed: {}", output.status);
        }
        Ok(text)
    }

    /// Hands over the prepared command, for children that live beside us.
    pub(crate) fn into_command(self) -> Command {
        self.command
    }
}

fn quoted(word: &str) -> String {
    let plain = |one: char| one.is_ascii_alphanumeric() || "-_./:=,@+%".contains(one);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shown_line_can_be_typed_again() {
        let line = Invocation::new("cargo")
            .env("RUSTDOCFLAGS", "-D warnings")
            .args(["doc", "--no-deps", "it's"])
            .line();
        assert_eq!(line, r"RUSTDOCFLAGS='-D warnings' cargo doc --no-deps 'it'\''s'");
    }

    #[test]
    fn a_failing_program_is_named() {
        let error = Invocation::new("false").run().expect_err("false fails");
        assert!(error.to_string().contains("`false` failed"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Invocation::new("no-such-program").run().expect_err("it does not exist");
        assert!(format!("{error:#}").contains("`no-such-program` could not be started"));
    }
}
