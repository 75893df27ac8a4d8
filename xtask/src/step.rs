//! A list of named steps, run in order: each announces itself, is timed, and ends as passed, failed
//! or skipped; a table at the end shows them all and the last line counts them.
//!
//! A step that lacks a tool is skipped with the command that brings it, and one that this machine does
//! not permit with the reason; never silently passed. In strict mode that counts as a failure.

use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::tool::{self, Tool};

/// One thing that is proven.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    /// What holds when it passes, in a few words.
    pub(crate) proves: &'static str,
    pub(crate) needs: &'static [&'static Tool],
    pub(crate) run: fn() -> Result<()>,
}

/// How to treat failures and missing tools.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Mode {
    /// A step that cannot run counts as failed.
    pub(crate) strict: bool,
    /// End at the first failure.
    pub(crate) fail_fast: bool,
}

enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// What became of one step.
pub(crate) struct Report {
    name: &'static str,
    outcome: Outcome,
    duration: Duration,
}

/// Runs the steps one after the other; installs what they lack first, where that is possible.
pub(crate) fn run_all(steps: &[&Step], mode: Mode) -> Vec<Report> {
    let mut tools: Vec<&Tool> = Vec::new();
    for tool in steps.iter().flat_map(|step| step.needs) {
        if !tools.contains(tool) {
            tools.push(tool);
        }
    }
    tool::install_missing(&tools);
    let mut reports = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        eprintln!("\n== {}/{} {}: {}", index + 1, steps.len(), step.name, step.proves);
        let start = Instant::now();
        let outcome = run_one(step, mode);
        let duration = start.elapsed();
        match &outcome {
            Outcome::Passed => eprintln!("== {}: passed in {}", step.name, seconds(duration)),
            Outcome::Failed(reason) => eprintln!("== {}: FAILED: {reason}", step.name),
            Outcome::Skipped(reason) => eprintln!("== {}: skipped: {reason}", step.name),
        }
        let failed = matches!(outcome, Outcome::Failed(_));
        reports.push(Report { name: step.name, outcome, duration });
        if failed && mode.fail_fast {
            break;
        }
    }
    reports
}

fn run_one(step: &Step, mode: Mode) -> Outcome {
    let missing: Vec<&Tool> =
        step.needs.iter().copied().filter(|tool| tool.find().is_none()).collect();
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|tool| tool.program).collect();
        let reason = format!("{} missing. {}", names.join(", "), tool::remedy(&missing));
        return if mode.strict { Outcome::Failed(reason) } else { Outcome::Skipped(reason) };
    }
    match (step.run)() {
        Ok(()) => Outcome::Passed,
        Err(error) if error.is::<NotPermitted>() && !mode.strict => {
            Outcome::Skipped(format!("{error:#}"))
        }
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

/// What a step fails with where this machine does not let it run.
#[derive(Debug)]
pub(crate) struct NotPermitted(pub(crate) String);

impl fmt::Display for NotPermitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotPermitted {}

/// Whether nothing failed.
pub(crate) fn all_passed(reports: &[Report]) -> bool {
    !reports.iter().any(|report| matches!(report.outcome, Outcome::Failed(_)))
}

/// The table, the first failure with the command that repeats it, and the counts as the last line.
/// `command` is what runs a single step when `--only NAME` is appended.
pub(crate) fn summary(reports: &[Report], command: &str) -> String {
    let mut text = String::new();
    let width = reports.iter().map(|report| report.name.len()).max().unwrap_or(0).max(4);
    let _ = writeln!(text, "{:<width$}  {:>7}  result", "step", "time");
    for report in reports {
        let result = match &report.outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::Failed(_) => "FAILED".to_owned(),
            Outcome::Skipped(reason) => format!("skipped: {reason}"),
        };
        let _ =
            writeln!(text, "{:<width$}  {:>7}  {result}", report.name, seconds(report.duration));
    }
    let total: Duration = reports.iter().map(|report| report.duration).sum();
    let _ = writeln!(text, "{:<width$}  {:>7}", "all", seconds(total));
    let mut failures = reports.iter().filter_map(|report| match &report.outcome {
        Outcome::Failed(reason) => Some((report.name, reason)),
        Outcome::Passed | Outcome::Skipped(_) => None,
    });
    if let Some((name, reason)) = failures.next() {
        let _ = writeln!(text, "\nFirst failure: {name}: {reason}");
        let _ = writeln!(text, "Repeat it alone: {command} --only {name}");
    }
    let count = |wanted: fn(&Outcome) -> bool| {
        reports.iter().filter(|report| wanted(&report.outcome)).count()
    };
    let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
    if skipped > 0 {
        let _ = writeln!(text, "\n{skipped} skipped: see the table for what to install");
    }
    let passed = count(|outcome| matches!(outcome, Outcome::Passed));
    let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let _ = writeln!(text, "\n{passed} passed, {failed} failed");
    text
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &'static str, outcome: Outcome) -> Report {
        Report { name, outcome, duration: Duration::from_millis(1250) }
    }

    #[test]
    fn the_last_line_counts_the_steps() {
        let text = summary(
            &[report("format", Outcome::Passed), report("lints", Outcome::Passed)],
            "cargo xtask test",
        );
        assert_eq!(text.lines().last(), Some("2 passed, 0 failed"));
    }

    #[test]
    fn the_first_failure_is_shown_with_the_command_that_repeats_it() {
        let reports = [
            report("format", Outcome::Passed),
            report("lints", Outcome::Failed("clippy said no".to_owned())),
            report("docs", Outcome::Failed("a broken link".to_owned())),
        ];
        let text = summary(&reports, "cargo xtask test");
        assert!(text.contains("First failure: lints: clippy said no\n"), "{text}");
        assert!(text.contains("cargo xtask test --only lints\n"), "{text}");
        assert!(!text.contains("a broken link"), "{text}");
        assert_eq!(text.lines().last(), Some("1 passed, 2 failed"));
        assert!(!all_passed(&reports));
    }

    #[test]
    fn a_skipped_step_is_neither_passed_nor_failed_but_named() {
        let reports = [report("gate", Outcome::Skipped("valgrind missing".to_owned()))];
        let text = summary(&reports, "cargo xtask test");
        assert!(text.contains("skipped: valgrind missing"), "{text}");
        assert_eq!(text.lines().last(), Some("0 passed, 0 failed"));
    }

    #[test]
    fn a_step_that_is_not_permitted_is_skipped_unless_that_counts_as_failed() {
        let run = || Err(NotPermitted("no namespaces".to_owned()).into());
        let step = Step { name: "hosts", proves: "", needs: &[], run };
        let strict = Mode { strict: true, ..Mode::default() };
        let skipped = run_all(&[&step], Mode::default());
        assert!(matches!(&skipped[0].outcome, Outcome::Skipped(why) if why == "no namespaces"));
        assert!(!all_passed(&run_all(&[&step], strict)));
    }

    #[test]
    fn fail_fast_ends_at_the_first_failure() {
        let fail = Step { name: "a", proves: "", needs: &[], run: || anyhow::bail!("no") };
        let pass = Step { name: "b", proves: "", needs: &[], run: || Ok(()) };
        let mode = Mode { fail_fast: true, ..Mode::default() };
        assert_eq!(run_all(&[&fail, &pass], mode).len(), 1);
        assert_eq!(run_all(&[&fail, &pass], Mode::default()).len(), 2);
    }
}
