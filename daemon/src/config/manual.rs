//! `docs/OPERATIONS.md` names what there is: every setting with its default, every profile, every error of
//! the protocol, every metric; and its example is a configuration.

use std::collections::BTreeSet;
use std::ffi::OsString;

use nexusd_core::Metrics;
use nexusd_wire::control::{ErrorCode, GapReason, PublishStatus};

use super::profile::PRESETS;
use super::setting::{SETTINGS, named};
use super::{Config, Invocation};
use crate::catalogue::{MeshFigures, ProcessFigures, families};

const MANUAL: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/OPERATIONS.md"));

/// The cells of a line that is a row of a table.
fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(row.split('|').map(str::trim).collect())
}

/// Flags in the first column of a table, each with what stands beside it.
fn flags() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    MANUAL.lines().filter_map(cells).filter_map(|cells| {
        let flag = cells.first()?.strip_prefix("`--")?.strip_suffix('`')?;
        // A sentence of the daemon may begin with a flag.
        (!flag.contains(' ')).then(|| (flag, cells[1..].to_vec()))
    })
}

#[test]
fn the_manual_names_every_setting_with_its_default_and_says_which_can_change() {
    let defaults = Config::default();
    for setting in SETTINGS {
        let default = (setting.show)(&defaults);
        let is_told = flags().any(|(flag, beside)| {
            flag == setting.name
                && beside.len() == 3
                && beside[0] == default
                && beside[2].ends_with('↻') == Config::is_reloadable(flag)
        });
        assert!(is_told, "no row `--{}` with the default {default}, or a wrong ↻", setting.name);
    }
}

#[test]
fn the_manual_names_no_setting_that_is_not_there() {
    for (flag, _) in flags() {
        assert!(flag == "config" || named(flag).is_some(), "--{flag}");
    }
}

#[test]
fn the_manual_shows_the_profiles() {
    for (name, values) in PRESETS {
        assert!(flags().any(|row| row == (name, values.to_vec())), "{name}: {values:?}");
    }
}

#[test]
fn the_example_of_the_manual_is_a_configuration() {
    let (_, rest) = MANUAL.split_once("\n```toml\n").expect("an example");
    let (example, rest) = rest.split_once("\n```\n").expect("it ends");
    assert!(!rest.contains("\n```toml\n"), "each example is to be tried");
    let args = ["nexusd", "--config", "/etc/nexusd.toml"].map(OsString::from);
    let invocation = Config::from_sources(args, [], |_| Ok(example.to_owned()));
    let Ok(Invocation::Run(config)) = invocation else {
        panic!("not a configuration: {invocation:?}");
    };
    config.check().expect("settings that suit each other");
    assert_ne!(*config, Config::default(), "it sets something");
}

#[test]
fn the_manual_names_every_error_of_the_protocol() {
    let rows: Vec<_> = MANUAL.lines().filter_map(cells).collect();
    for code in ErrorCode::ENUM_VALUES {
        let name = format!("`{}`", code.variant_name().expect("a name"));
        let value = code.0.to_string();
        assert!(
            rows.iter().any(|row| row.len() == 5 && row[0] == value && row[1] == name),
            "no row of five cells for {value}, {name}"
        );
    }
    for reason in GapReason::ENUM_VALUES {
        let name = format!("`{}`", reason.variant_name().expect("a name"));
        assert!(rows.iter().any(|row| row.len() == 3 && row[0] == name), "no row for {name}");
    }
    for status in PublishStatus::ENUM_VALUES {
        let name = status.variant_name().expect("a name");
        assert!(MANUAL.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn the_manual_names_every_metric_and_no_others() {
    let mesh = Some(MeshFigures::default());
    let all = families(&Metrics::default(), ProcessFigures::default(), mesh, "1");
    // What only a release to come counts is none of this one's.
    let there: BTreeSet<_> =
        all.iter().map(|family| family.name).filter(|name| !name.contains("_next_")).collect();
    let words = MANUAL.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let told: BTreeSet<_> = words
        .filter(|word| word.starts_with("nexusd_") || word.starts_with("process_"))
        // The crate, as it is named in Rust.
        .filter(|word| *word != "nexusd_client")
        .collect();
    assert_eq!(told, there);
}
