//! `cargo xtask codegen`: wire/src/generated is what flatc makes of wire/schema, formatted with the
//! repository's own settings.
//!
//! flatc comes from xtask/codegen, a package outside the workspace, because building it needs cmake
//! and half a minute, which nobody should pay who does not touch the schema.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use lexopt::prelude::*;

use crate::invocation::Invocation;
use crate::{repository, tool};

pub(crate) const HELP: &str = "\
Usage: cargo xtask codegen [--check]

Builds flatc (needs cmake and a C++ compiler; a minute, once), turns wire/schema/*.fbs into Rust,
formats it and writes it to wire/src/generated. Run it after a change to a schema and commit both.

  --check   write nothing; exit code 1 when the committed files differ
";

/// File name → contents.
type Sources = BTreeMap<String, String>;

pub(crate) fn run(mut parser: lexopt::Parser) -> Result<()> {
    let mut check_only = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("check") => check_only = true,
            _ => return Err(argument.unexpected().into()),
        }
    }
    if check_only {
        return check();
    }
    let generated = generate()?;
    let folder = repository::root().join("wire/src/generated");
    let committed = read_sources(&folder)?;
    let differing = differing(&committed, &generated);
    for name in &differing {
        let path = folder.join(name);
        match generated.get(name) {
            Some(text) => fs::write(&path, text),
            None => fs::remove_file(&path),
        }
        .with_context(|| format!("cannot change {}", path.display()))?;
        println!("changed wire/src/generated/{name}");
    }
    println!(
        "wire/src/generated is current ({} of {} files changed).",
        differing.len(),
        generated.len()
    );
    Ok(())
}

/// Fails when the committed files are not what the schema gives.
pub(crate) fn check() -> Result<()> {
    let generated = generate()?;
    let committed = read_sources(&repository::root().join("wire/src/generated"))?;
    let differing = differing(&committed, &generated);
    if !differing.is_empty() {
        bail!(
            "wire/src/generated differs from what wire/schema gives: {}. \
             Run `cargo xtask codegen` and commit the result",
            differing.join(", ")
        );
    }
    println!("wire/src/generated is current ({} files).", generated.len());
    Ok(())
}

fn generate() -> Result<Sources> {
    tool::CPLUSPLUS.require()?;
    tool::CMAKE.require()?;
    tool::MAKE.require()?;
    let package = repository::root().join("xtask/codegen");
    let output = repository::target().join("codegen");
    if output.exists() {
        fs::remove_dir_all(&output)
            .with_context(|| format!("cannot clear {}", output.display()))?;
    }
    fs::create_dir_all(&output).with_context(|| format!("cannot create {}", output.display()))?;
    Invocation::cargo()
        .env("CMAKE_TOOLCHAIN_FILE", package.join("flatc.cmake"))
        .args(["run", "--locked", "--manifest-path", "xtask/codegen/Cargo.toml", "--target-dir"])
        .arg(repository::tools().join("codegen"))
        .arg("--")
        .arg(&output)
        .run()?;
    let files = read_sources(&output)?;
    Invocation::new("rustfmt")
        .args(["--edition", "2024", "--config-path"])
        .arg(repository::root().join("rustfmt.toml"))
        .args(files.keys().map(|name| output.join(name)))
        .run()?;
    read_sources(&output)
}

fn read_sources(folder: &Path) -> Result<Sources> {
    let mut sources = Sources::new();
    let unreadable = || format!("cannot read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(name) = path.file_name()
        {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            sources.insert(name.to_string_lossy().into_owned(), text);
        }
    }
    Ok(sources)
}

/// The names of files that are absent on one side or differ.
fn differing(committed: &Sources, generated: &Sources) -> Vec<String> {
    let mut names: Vec<String> = generated
        .iter()
        .filter(|(name, text)| committed.get(*name) != Some(text))
        .map(|(name, _)| name.clone())
        .collect();
    names.extend(committed.keys().filter(|name| !generated.contains_key(*name)).cloned());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(files: &[(&str, &str)]) -> Sources {
        files.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect()
    }

    #[test]
    fn changed_new_and_left_over_files_all_count_as_different() {
        let committed = sources(&[("same.rs", "a"), ("changed.rs", "b"), ("left_over.rs", "c")]);
        let generated = sources(&[("same.rs", "a"), ("changed.rs", "B"), ("new.rs", "d")]);
        assert_eq!(differing(&committed, &generated), ["changed.rs", "new.rs", "left_over.rs"]);
        assert!(differing(&generated, &generated).is_empty());
    }
}
