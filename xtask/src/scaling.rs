//! `cargo xtask scaling`: what a message costs as subscribers, topics, filters, payloads, connections and nodes
//! grow; what a model of a shard says about latency, and whether that is so; and what a large host would give.
//!
//! Every part writes its figures below target/scaling/ and its tables between two lines of docs/SCALING.md,
//! whose other text is for people to write. The last part measures nothing: it computes from the others.

mod fit;
mod host;
mod idle;
mod load;
mod model;
mod prediction;
mod report;
mod results;
mod sweeps;

use anyhow::{Context as _, Result, bail};
use lexopt::prelude::*;
use serde_json::json;

use crate::bench;
use prediction::Observed;
use sweeps::{Curve, SWEEPS, Sweep};

pub(crate) const HELP: &str = "\
Usage: cargo xtask scaling [--only NAME]… [--report]

Measures what a message costs the server (user and kernel time) while something grows, three times in runs of a
second, and fits the growth. Measures latency at shares of the capacity beside what a queueing model of a shard
predicts. Computes what a host with 64 cores and a link of 100 Gbit/s would give. Writes the tables of
docs/SCALING.md. Takes about nine minutes, and needs a machine on which nothing else runs.

  --only NAME  subscribers, topics, filters, payload, connections, nodes, model or host; may be repeated
  --report     write the tables anew from what was measured before

One curve:        cargo xtask scaling --only payload
All tables again: cargo xtask scaling --report
";

/// Parts that are no sweeps.
const MODEL: &str = "model";
const HOST: &str = "host";

#[derive(Debug, PartialEq)]
struct Arguments {
    only: Vec<String>,
    is_report: bool,
}

pub(crate) fn run(parser: lexopt::Parser) -> Result<()> {
    let arguments = parse(parser)?;
    let is_wanted =
        |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name);
    let commit = if arguments.is_report { None } else { Some(bench::build_tree()?.label) };
    for sweep in SWEEPS.iter().filter(|sweep| is_wanted(sweep.name)) {
        if let Some(commit) = &commit {
            eprintln!("\n== {}: {}", sweep.name, sweep.about);
            let curves = sweep.run()?;
            let all: Vec<_> = curves.iter().map(Curve::json).collect();
            results::save(sweep.name, &json!({ "commit": commit, "curves": all }))?;
        }
        let (commit, curves) = measured(sweep)?;
        report::write(sweep.name, &report::curves(sweep.about, &commit, &curves))?;
    }
    if is_wanted(MODEL) {
        if let Some(commit) = &commit {
            eprintln!("\n== {MODEL}: latency at shares of the capacity");
            let observed = prediction::measure()?;
            let document = json!({ "commit": commit, "observed": observed.json() });
            results::save(MODEL, &document)?;
        }
        let document = results::load(MODEL)?;
        let observed = Observed::from_json(&document["observed"])
            .with_context(|| format!("the figures of `{MODEL}` are of another version"))?;
        let commit = document["commit"].as_str().unwrap_or_default();
        report::write(MODEL, &format!("Measured of {commit}.\n\n{}", observed.report()?))?;
    }
    if is_wanted(HOST) {
        let curves = |name: &str| {
            let sweep = SWEEPS.iter().find(|sweep| sweep.name == name).context("it is a sweep")?;
            Ok::<_, anyhow::Error>(measured(sweep)?.1)
        };
        let text = report::host(
            &curves("payload")?,
            &curves("subscribers")?,
            &curves("connections")?,
            &curves("nodes")?,
        )?;
        report::write(HOST, &text)?;
    }
    Ok(())
}

/// What was measured last, and of what.
fn measured(sweep: &Sweep) -> Result<(String, Vec<Curve>)> {
    let document = results::load(sweep.name)?;
    let curves = document["curves"].as_array().into_iter().flatten().map(Curve::from_json);
    let curves: Option<Vec<_>> = curves.collect();
    let curves = curves.filter(|curves| !curves.is_empty());
    let curves = curves
        .with_context(|| format!("the figures of `{}` are of another version", sweep.name))?;
    Ok((document["commit"].as_str().unwrap_or_default().to_owned(), curves))
}

fn parse(mut parser: lexopt::Parser) -> Result<Arguments> {
    let mut arguments = Arguments { only: Vec::new(), is_report: false };
    let names: Vec<_> = SWEEPS.iter().map(|sweep| sweep.name).chain([MODEL, HOST]).collect();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("only") => {
                let name = parser.value()?.string()?;
                if !names.contains(&name.as_str()) {
                    bail!("--only takes one of {}, not `{name}`", names.join(", "));
                }
                arguments.only.push(name);
            }
            Long("report") => arguments.is_report = true,
            _ => return Err(argument.unexpected().into()),
        }
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_may_be_named_and_unknown_ones_are_answered_with_the_known() {
        let line = ["--only", "payload", "--only=host", "--report"];
        let arguments = parse(lexopt::Parser::from_args(line)).expect("valid");
        assert_eq!(arguments.only, ["payload", "host"]);
        assert!(arguments.is_report);
        let error = parse(lexopt::Parser::from_args(["--only", "speed"])).expect_err("unknown");
        assert!(error.to_string().contains("payload, connections"), "{error}");
    }

    #[test]
    fn help_names_every_part() {
        for name in SWEEPS.iter().map(|sweep| sweep.name).chain([MODEL, HOST]) {
            assert!(HELP.contains(name), "{name}");
        }
    }
}
