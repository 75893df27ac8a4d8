//! Who may build on what: some crates must stay free of others, and `cargo tree` proves it.
//!
//! deny.toml says who may name a crate directly; here it is about what a whole tree contains, with
//! the features that this tree is built with. A simulator that secretly pulled in io_uring would no
//! longer prove that the state machine stands alone.

use anyhow::{Result, bail};

use crate::invocation::Invocation;

/// A tree that must stay free of some packages.
struct Rule {
    package: &'static str,
    /// Arguments for cargo tree beside the package.
    features: &'static [&'static str],
    free_of: &'static [&'static str],
}

const RUNTIMES: &[&str] = &["io-uring", "glommio", "tokio"];

const RULES: &[Rule] = &[
    Rule {
        package: "nexusd-wire",
        features: &[],
        free_of: &["nexusd-core", "libc", "io-uring", "glommio", "tokio"],
    },
    Rule { package: "nexusd-core", features: &["--no-default-features"], free_of: RUNTIMES },
    Rule { package: "nexusd-core", features: &[], free_of: &["glommio", "tokio"] },
    Rule {
        package: "nexusd-discovery",
        features: &[],
        free_of: &["nexusd-core", "libc", "io-uring", "glommio", "tokio"],
    },
    Rule { package: "nexusd-sim", features: &[], free_of: RUNTIMES },
    Rule {
        package: "nexusd-client",
        features: &[],
        free_of: &["nexusd-core", "io-uring", "glommio"],
    },
    Rule {
        package: "nexusd-cli",
        features: &[],
        free_of: &["nexusd-core", "axum", "io-uring", "glommio"],
    },
];

/// Fails when a tree holds what it must not.
pub(crate) fn check() -> Result<()> {
    for rule in RULES {
        let tree = Invocation::cargo()
            .args(["tree", "--locked", "--edges", "normal,build", "--prefix", "none"])
            .args(["--format", "{p}", "--package", rule.package])
            .args(rule.features)
            .output()?;
        let found = packages_in(&tree, rule.free_of);
        let build = [&[rule.package], rule.features].concat().join(" ");
        if !found.is_empty() {
            bail!(
                "{build} builds {}, which it must not; see how with `cargo tree --package {build} \
                 --invert {}`",
                found.join(", "),
                found[0]
            );
        }
        println!("{build}: free of {}", rule.free_of.join(", "));
    }
    Ok(())
}

/// Which of `wanted` a listing of `name vVERSION …` lines contains.
fn packages_in<'a>(listing: &str, wanted: &[&'a str]) -> Vec<&'a str> {
    wanted
        .iter()
        .copied()
        .filter(|&name| listing.lines().any(|line| line.split(' ').next() == Some(name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_found_by_its_whole_name() {
        let listing =
            "nexusd-core v0.1.0 (/repository/core)\nio-uring v0.7.10\ntokio-util v0.7.0 (*)\n";
        assert_eq!(packages_in(listing, &["io-uring", "tokio", "core"]), ["io-uring"]);
    }
}
