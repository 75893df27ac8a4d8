//! What was measured side by side, as tables and charts in Markdown, in their place in BENCHMARKS.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result, bail};

use super::results::{Figures, Results, Row};
use super::{Measure, Pair};
use crate::repository;
use crate::statistics::{Spread, median};

/// Where the tables stand.
const BEGIN: &str = "<!-- side by side: begin; written by `cargo xtask bench` -->";
const END: &str = "<!-- side by side: end -->";
/// Where the one table stands that has everybody in it.
const GLANCE_BEGIN: &str = "<!-- at a glance: begin; written by `cargo xtask bench` -->";
const GLANCE_END: &str = "<!-- at a glance: end -->";
/// Who can stand in a row, and their heads.
const SYSTEMS: [(&str, &str); 5] = [
    ("nats", "NATS"),
    ("redis", "Redis"),
    ("mqtt", "Mosquitto"),
    ("zenoh", "Zenoh"),
    ("relay", "relay"),
];
/// The workloads in the order of the tables.
const WORKLOADS: [&str; 13] =
    ["T1", "T2", "F16", "F64", "F1000", "P", "L", "W", "K", "M1", "M3", "S", "B"];
/// Characters of a chart's longest bar.
const BAR: usize = 50;

impl Results {
    /// Tables, one for each measure, and charts of what each run is there for.
    pub(super) fn report(&self) -> String {
        let mut text =
            "Medians. The ratio is NexusD to theirs, the median of neighbouring runs.\n\n\
                        <details><summary>The same as charts; a bar of NexusD is the median of its \
                        runs beside everybody</summary>\n"
                .to_owned();
        self.charts(&mut text);
        text.push_str("\n</details>\n");
        for measure in Measure::ALL {
            self.table(measure, &mut text);
        }
        text
    }

    /// The rows, workload by workload.
    fn in_order(&self) -> Vec<(&Row, &Figures)> {
        let mut rows: Vec<_> = self.rows().collect();
        rows.sort_by_key(|((run, ..), _)| place(run));
        rows
    }

    /// A row for each run: how many times better we are than each other system, in what the run is there for.
    pub(super) fn glance(&self) -> String {
        let mut runs = BTreeMap::<_, BTreeMap<&str, f64>>::new();
        for ((run, system, name), Figures { pairs, .. }) in self.in_order() {
            let Some(ratio) = Spread::of(&ratios(pairs)) else { continue };
            let claims = claims(run);
            let Some(at) = claims.iter().position(|claim| claim.name() == *name) else { continue };
            let better = match claims[at].is_better_low() {
                true => 1.0 / ratio.median,
                false => ratio.median,
            };
            runs.entry((place(run), run, at)).or_default().insert(system, better);
        }
        let heads = SYSTEMS.map(|(_, head)| head).join(" | ");
        let lines = "---:|".repeat(SYSTEMS.len());
        let mut text = format!("| workload | judged by | {heads} |\n|---|---|{lines}\n");
        for ((_, run, at), found) in runs {
            let cell = |(system, _): &(&str, &str)| match found.get(system) {
                Some(ratio) if *ratio >= 10.0 => format!("{ratio:.0}"),
                Some(ratio) => format!("{ratio:.2}"),
                None => "–".to_owned(),
            };
            let cells = SYSTEMS.each_ref().map(cell).join(" | ");
            let _ = writeln!(text, "| {run} | {} | {cells} |", claims(run)[at].name());
        }
        text
    }

    fn table(&self, measure: Measure, text: &mut String) {
        let is_of = |(row, _): &(&Row, &Figures)| row.2 == measure.name();
        let rows: Vec<_> = self.in_order().into_iter().filter(is_of).collect();
        if rows.is_empty() {
            return;
        }
        let _ = writeln!(
            text,
            "\n| {} | beside | NexusD | theirs | ratio | min … max | pairs | commit |\n\
             |---|---|---:|---:|---:|---|---:|---|",
            title(measure)
        );
        for ((run, system, _), Figures { commit, pairs }) in rows {
            let (Some(ratio), Some((ours, theirs))) = (Spread::of(&ratios(pairs)), medians(pairs))
            else {
                continue;
            };
            let _ = writeln!(
                text,
                "| {run} | {} | {} | {} | **{:.2}** | {:.2} … {:.2} | {} | {} |",
                head(system),
                figure(ours),
                figure(theirs),
                ratio.median,
                ratio.min,
                ratio.max,
                ratio.count,
                commit.get(..7).unwrap_or(commit)
            );
        }
    }

    /// Charts for each run, of what it is there for.
    fn charts(&self, text: &mut String) {
        let mut runs = BTreeMap::<_, Vec<(&str, &[Pair])>>::new();
        for ((run, system, name), figures) in self.in_order() {
            if let Some(at) = claims(run).iter().position(|claim| claim.name() == *name) {
                runs.entry((place(run), run, at)).or_default().push((system, &figures.pairs));
            }
        }
        for ((_, run, at), systems) in runs {
            let ours: Vec<Pair> = systems.iter().flat_map(|(_, pairs)| *pairs).copied().collect();
            let theirs =
                systems.iter().filter_map(|(name, pairs)| Some((head(name), medians(pairs)?.1)));
            let Some((ours, _)) = medians(&ours) else { continue };
            let bars: Vec<_> = [("NexusD", ours)].into_iter().chain(theirs).collect();
            let longest = bars.iter().map(|(_, value)| *value).fold(1.0, f64::max);
            let _ = writeln!(text, "\n```\n{run}: {}", title(claims(run)[at]));
            for (name, value) in bars {
                let _ = writeln!(text, "{name:<9} {:>7} {}", figure(value), bar(value / longest));
            }
            text.push_str("```\n");
        }
    }
}

/// A run's workload.
fn workload(run: &str) -> &str {
    run.split([' ', ',']).next().unwrap_or(run)
}

/// Where a run stands among the others.
fn place(run: &str) -> usize {
    WORKLOADS.iter().position(|known| *known == workload(run)).unwrap_or(WORKLOADS.len())
}

/// How a system is called.
fn head(system: &str) -> &str {
    SYSTEMS.iter().find(|(known, _)| *known == system).map_or(system, |(_, head)| head)
}

fn ratios(pairs: &[Pair]) -> Vec<f64> {
    pairs.iter().map(|pair| pair.new / pair.old).collect()
}

/// A measure, and which way is better where that is not plain.
fn title(measure: Measure) -> String {
    let better = if measure.is_better_low() { ", less is better" } else { "" };
    format!("{}{better}", measure.name())
}

/// What the runs of a workload are there to show.
fn claims(run: &str) -> &'static [Measure] {
    match workload(run) {
        "L" => &[Measure::P50, Measure::P99],
        "S" => &[Measure::MemoryPerClient],
        "B" => &[Measure::Beside],
        _ => &[Measure::PerCpuSecond],
    }
}

/// A bar of a chart, as a share of the longest one.
pub(crate) fn bar(share: f64) -> String {
    "█".repeat((share * BAR as f64).round() as usize)
}

/// Of ours, and of theirs.
fn medians(pairs: &[Pair]) -> Option<(f64, f64)> {
    let of = |side: fn(&Pair) -> f64| median(&pairs.iter().map(side).collect::<Vec<_>>());
    Some((of(|pair| pair.new)?, of(|pair| pair.old)?))
}

/// A number as people read it.
pub(crate) fn figure(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.1} M", value / 1e6),
        value if value >= 1e4 => format!("{:.0} k", value / 1e3),
        value => format!("{value:.0}"),
    }
}

/// Puts the tables where BENCHMARKS.md has them.
pub(super) fn write(results: &Results) -> Result<()> {
    replace_between("BENCHMARKS.md", GLANCE_BEGIN, GLANCE_END, &results.glance())?;
    replace_between("BENCHMARKS.md", BEGIN, END, &results.report())
}

/// Puts text between two lines of a file, which is named from the root of the repository.
pub(crate) fn replace_between(file: &str, begin: &str, end: &str, text: &str) -> Result<()> {
    let path = repository::root().join(file);
    let before = fs::read_to_string(&path).with_context(|| format!("cannot read {file}"))?;
    let Some(after) = with_text(&before, begin, end, text) else {
        bail!("{file} has no place for the tables: two lines, `{begin}` and `{end}`");
    };
    fs::write(&path, after).with_context(|| format!("cannot write {file}"))?;
    eprintln!("The tables stand in {file}.");
    Ok(())
}

fn with_text(file: &str, begin: &str, end: &str, text: &str) -> Option<String> {
    let (before, rest) = file.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n\n{}\n\n{end}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::some;
    use super::*;

    #[test]
    fn tables_take_the_place_of_those_before() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let expected = format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n");
        assert_eq!(with_text(&text, BEGIN, END, "new\n"), Some(expected));
        assert_eq!(with_text("no place", BEGIN, END, "new"), None);
    }

    #[test]
    fn rows_are_in_the_order_of_the_workloads() {
        let runs = ["T1 1 → 1", "F64 1 → 64", "F1000 1 → 1000", "P, unix 1 → 1", "B 1 → 15"];
        assert!(runs.is_sorted_by_key(|run| place(run)));
        assert!(place("B 1 → 15") < place("some other"));
    }

    #[test]
    fn a_report_has_a_row_and_a_bar_for_each_system() {
        let report = some().report();
        assert!(report.contains("| T1 1 → 1 | NATS | 12.0 M | 2.0 M | **6.00** |"), "{report}");
        assert!(report.contains("\nT1 1 → 1: per CPU-second\nNexusD"), "{report}");
        let glance = "| T1 1 → 1 | per CPU-second | 6.00 | – | – | – | – |";
        assert_eq!(some().glance().lines().last(), Some(glance));
        let bar = format!("NATS        2.0 M {}\n", "█".repeat(8));
        assert!(report.contains(&bar), "{report}");
    }
}
