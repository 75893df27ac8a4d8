//! Profiles: defaults for hosts of three sizes.
//!
//! A profile stands behind all sources: it fills in the settings of the table below, and whatever a
//! file, a variable or a flag says about one of them beats it. The values are text, read like those of
//! any source. The table is also what the help and the README show.

use std::fmt;

use super::Config;
use super::error::Origin;
use super::setting::named;
use super::{ConfigError, Given};

/// The size of host that the defaults suit (`--profile`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// A sidecar among others: some 64 MiB in all.
    Small,
    /// A server that has other things to do as well.
    Medium,
    /// A machine for messaging.
    Large,
}

impl Profile {
    /// All of them, in the order of the table's columns.
    pub(super) const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    /// The profile of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.to_string() == name)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        })
    }
}

/// Settings whose defaults differ, and their values: small, medium, large.
///
/// A million topics take some 220 MB beside `--memory-limit`. 50,000 connections fit the 65,536 files
/// that service managers commonly allow.
pub(super) const PRESETS: [(&str, [&str; 3]); 6] = [
    ("memory-limit", ["32M", "384M", "4G"]),
    ("max-connections", ["500", "10000", "50000"]),
    ("max-topics", ["20000", "2000000", "5000000"]),
    ("subscriber-queue-limit", ["1000", "10000", "100000"]),
    ("subscriber-queue-bytes", ["2M", "16M", "64M"]),
    ("max-buffer-memory", ["4M", "50M", "512M"]),
];

impl Config {
    /// The defaults of that profile.
    pub(super) fn of_profile(profile: Profile) -> Result<Self, ConfigError> {
        let mut config = Self { profile, ..Self::default() };
        config.apply(PRESETS.iter().filter_map(|(name, values)| {
            let value = values[profile as usize].to_owned();
            named(name).map(|setting| Given { setting, origin: Origin::flag(name), value })
        }))?;
        Ok(config)
    }
}

/// The table for the help.
pub(super) fn table() -> String {
    let row = |name: &str, values: [&str; 3]| {
        let [small, medium, large] = values;
        format!("  {name:<24}{small:>8}{medium:>10}{large:>10}\n")
    };
    let head = Profile::ALL.map(|profile| profile.to_string());
    let head = row("", [&head[0], &head[1], &head[2]]);
    PRESETS.iter().fold(head, |table, (name, values)| table + &row(name, *values))
}
