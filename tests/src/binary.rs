//! The binary under test: where it is, and that it is built from the sources as they are.
//!
//! Cargo builds the binary for the tests of its own package only, so a run of this package alone
//! could find an old one or none. It lies beside the test binary's folder; the dependency list that
//! cargo writes next to it names every source, and if one of those is younger, it is built anew.
//! `TESTS_NEXUSD_BINARY` names another binary to test, which is taken as it is; `TESTS_NEXUSD_NEXT_BINARY`
//! that of the next release.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// Which daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Release {
    /// The one under test.
    This,
    /// One to come, which speaks a later minor version of the protocol (feature `protocol-next`).
    Next,
}

impl Release {
    fn binary(self) -> &'static str {
        match self {
            Self::This => "nexusd",
            Self::Next => "nexusd-next",
        }
    }

    /// The variable that names another binary.
    pub fn variable(self) -> &'static str {
        match self {
            Self::This => "TESTS_NEXUSD_BINARY",
            Self::Next => "TESTS_NEXUSD_NEXT_BINARY",
        }
    }

    /// Where its binary is, built at the first call.
    ///
    /// # Panics
    /// If it cannot be built.
    pub fn path(self) -> &'static Path {
        static BINARIES: [OnceLock<PathBuf>; 2] = [const { OnceLock::new() }; 2];
        BINARIES[self as usize].get_or_init(|| match std::env::var_os(self.variable()) {
            Some(given) => PathBuf::from(given),
            None => built(self),
        })
    }
}

/// A command that runs the binary, without the settings of whoever runs the tests.
///
/// # Panics
/// If it cannot be built.
pub fn nexusd() -> Command {
    let mut command = Command::new(Release::This.path());
    forget_settings(&mut command);
    command
}

/// Removes the variables that a daemon would read its settings from. It has no HTTP ports, unless a flag says
/// otherwise: many daemons run side by side.
pub(crate) fn forget_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NEXUSD_") {
            command.env_remove(name);
        }
    }
    command.env("NEXUSD_HEALTH_PORT", "off").env("NEXUSD_METRICS_PORT", "off");
}

fn built(release: Release) -> PathBuf {
    // target/<profile>/deps/<test binary>
    let test = std::env::current_exe().expect("the path of the test binary");
    let profile_folder = test.ancestors().nth(2).expect("a folder of the profile");
    let binary = profile_folder.join(release.binary());
    if !is_current(&binary) {
        build(release, profile_folder);
    }
    binary
}

/// Whether the binary is younger than all its sources.
fn is_current(binary: &Path) -> bool {
    let Some(built_at) = modified_at(binary) else {
        return false;
    };
    let Ok(list) = std::fs::read_to_string(binary.with_extension("d")) else {
        return false;
    };
    let Some((_, sources)) = list.split_once(": ") else {
        return false;
    };
    // The list is a make rule: spaces in paths are escaped.
    sources.replace("\\ ", "\0").split_ascii_whitespace().all(|source| {
        modified_at(Path::new(&source.replace('\0', " "))).is_some_and(|at| at <= built_at)
    })
}

fn modified_at(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|data| data.modified()).ok()
}

fn build(release: Release, profile_folder: &Path) {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let profile = match name(profile_folder).expect("a profile").as_str() {
        "debug" => "dev".to_owned(),
        profile => profile.to_owned(),
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--package", "nexusd", "--bin", release.binary(), "--profile"])
        .arg(profile)
        .args((release == Release::Next).then_some("--features=protocol-next"))
        .arg("--target-dir")
        .arg(profile_folder.parent().expect("a target folder"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
