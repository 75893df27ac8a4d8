//! On what a figure was measured: a number without it cannot be reproduced.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;

/// What is the same for all runs of one invocation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Machine {
    /// The commit this program was built from or runs in, if it can be known.
    pub(crate) commit: Option<String>,
    /// Model of the CPU.
    pub(crate) cpu_model: Option<String>,
    /// CPUs of the machine that this process may use.
    pub(crate) cpus: usize,
    /// Release of the kernel.
    pub(crate) kernel: Option<String>,
    /// The command line.
    pub(crate) command: String,
}

impl Machine {
    /// Looks at this machine.
    pub(crate) fn look(cpus: usize) -> Self {
        Self {
            commit: commit(),
            cpu_model: fs::read_to_string("/proc/cpuinfo").ok().as_deref().and_then(model_name),
            cpus,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .ok()
                .map(|release| release.trim().to_owned()),
            command: std::env::args().collect::<Vec<_>>().join(" "),
        }
    }
}

fn model_name(cpuinfo: &str) -> Option<String> {
    cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map(|(_, name)| name.trim().to_owned())
}

/// The commit of the checkout that this program's file lies in (its `target/` folder), with `-dirty`
/// for one with changes. A program copied elsewhere has none.
fn commit() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    describe(program.parent()?)
}

fn describe(folder: &Path) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let commit = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !commit.trim().is_empty()).then(|| commit.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_the_first_cpus() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC\nprocessor\t: 1\nmodel name\t: other\n";
        assert_eq!(model_name(text), Some("AMD EPYC".into()));
        assert_eq!(model_name("processor : 0"), None);
    }

    #[test]
    fn a_folder_outside_any_checkout_has_no_commit() {
        assert_eq!(describe(Path::new("/proc")), None);
    }
}
