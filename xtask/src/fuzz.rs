//! `cargo xtask fuzz`: runs the targets of fuzz/ on the pinned toolchain.
//!
//! cargo-fuzz wants unstable compiler flags. RUSTC_BOOTSTRAP=1 lets the pinned stable compiler take
//! them, so that nobody needs a nightly and the fuzzed code is compiled as it ships.

use anyhow::{Context as _, Result, bail};
use lexopt::prelude::*;

use crate::invocation::Invocation;
use crate::{repository, tool};

pub(crate) const HELP: &str = "\
Usage: cargo xtask fuzz [TARGET]… [--minutes N] [--list]

Feeds hostile bytes to whatever reads bytes from outside, each TARGET (default: all, one after the
other) for N minutes (default 1), starting from fuzz/seeds/TARGET. A finding ends the run with exit
code 1 and lies in fuzz/artifacts/TARGET. Commit it, made small with `cargo fuzz tmin`, to fuzz/seeds
together with the fix: the ordinary tests replay everything there. See fuzz/README.md.

  --list         the targets
  --minutes N    per target; fractions are fine

Needs a C++ compiler and cargo-fuzz: cargo xtask setup fuzz
";

#[derive(Debug, PartialEq)]
struct Arguments {
    targets: Vec<String>,
    minutes: f64,
    list: bool,
}

pub(crate) fn run(parser: lexopt::Parser) -> Result<()> {
    let arguments = parse(parser)?;
    let known = targets()?;
    if arguments.list {
        println!("{}", known.join("\n"));
        return Ok(());
    }
    if let Some(unknown) = arguments.targets.iter().find(|name| !known.contains(name)) {
        bail!("there is no fuzz target `{unknown}`; the targets are: {}", known.join(", "));
    }
    let missing = tool::install_missing(&[&tool::CPLUSPLUS, &tool::CARGO_FUZZ]);
    if !missing.is_empty() {
        bail!("{}", tool::remedy(&missing));
    }
    let chosen = if arguments.targets.is_empty() { known } else { arguments.targets };
    let seconds = (arguments.minutes * 60.0).ceil() as u64;
    for target in &chosen {
        eprintln!("\n== {target}: {} minutes", arguments.minutes);
        // What libFuzzer finds interesting goes to the first folder, which is not committed.
        let corpus = format!("fuzz/corpus/{target}");
        std::fs::create_dir_all(repository::root().join(&corpus))
            .with_context(|| format!("cannot create {corpus}"))?;
        Invocation::new(tool::CARGO_FUZZ.require()?)
            .env("RUSTC_BOOTSTRAP", "1")
            .args(["run", target, &corpus, &format!("fuzz/seeds/{target}"), "--"])
            .arg(format!("-max_total_time={seconds}"))
            .arg("-print_final_stats=1")
            .run()
            .with_context(|| format!("{target} found something; see fuzz/artifacts/{target}"))?;
    }
    println!("{} targets ran {} minutes each without a finding", chosen.len(), arguments.minutes);
    Ok(())
}

fn parse(mut parser: lexopt::Parser) -> Result<Arguments> {
    let mut arguments = Arguments { targets: Vec::new(), minutes: 1.0, list: false };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("minutes") => arguments.minutes = parser.value()?.parse()?,
            Long("list") => arguments.list = true,
            Value(name) => arguments.targets.push(name.string()?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    if !arguments.minutes.is_finite() || arguments.minutes <= 0.0 {
        bail!("--minutes takes a number above 0");
    }
    Ok(arguments)
}

/// Every file in fuzz/fuzz_targets is one.
fn targets() -> Result<Vec<String>> {
    let folder = repository::root().join("fuzz/fuzz_targets");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            (path.extension()? == "rs").then(|| path.file_stem()?.to_str().map(str::to_owned))?
        })
        .collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_minutes_are_read_in_any_order() {
        let arguments = parse(lexopt::Parser::from_args(["cutter", "--minutes", "0.5", "filters"]));
        let arguments = arguments.expect("valid");
        assert_eq!(arguments.targets, ["cutter", "filters"]);
        assert!((arguments.minutes - 0.5).abs() < f64::EPSILON);
    }

    #[test]
    fn no_time_at_all_is_refused() {
        assert!(parse(lexopt::Parser::from_args(["--minutes", "0"])).is_err());
        assert!(parse(lexopt::Parser::from_args(["--minutes", "NaN"])).is_err());
    }
}
