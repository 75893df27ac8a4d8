//! Measured curves, as they are kept below target/ and as they stand in docs/SCALING.md.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value as Json, json};

use super::fit::{Fit, Point};
use super::sweeps::{Curve, Measured};
use crate::bench::tables::bar;
use crate::repository;

/// Bars of costs that differ by more than this stand on a logarithmic scale.
const LINEAR_MAX: f64 = 30.0;

/// Writes something down.
pub(super) fn save(name: &str, document: &Json) -> Result<()> {
    let path = path(name);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(&path, format!("{document:#}\n"))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// What was written down; an error says how to get it.
pub(super) fn load(name: &str) -> Result<Json> {
    let path = path(name);
    let text = fs::read_to_string(&path).with_context(|| {
        format!(
            "there are no figures of `{name}` in {}; measure them: cargo xtask scaling --only {name}",
            path.display()
        )
    })?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

fn path(name: &str) -> PathBuf {
    repository::target().join("scaling").join(format!("{name}.json"))
}

impl Curve {
    /// Its growth.
    pub(super) fn fit(&self) -> Option<Fit> {
        if self.is_derived() {
            return None;
        }
        let points = self.points.iter().map(|point| Point { x: point.x, cost: point.median });
        Fit::of(&points.collect::<Vec<_>>())
    }

    /// The point at or next to `x`.
    pub(super) fn at(&self, x: f64) -> Option<Measured> {
        let distance = |point: &Measured| (point.x - x).abs();
        self.points.iter().copied().min_by(|one, other| distance(one).total_cmp(&distance(other)))
    }

    pub(super) fn json(&self) -> Json {
        let fit = self.fit().map(|fit| {
            json!({
                "form": format!("{:?}", fit.form), "a": fit.a, "b": fit.b, "formula": fit.to_string(),
                "error": fit.error(), "error_max": fit.error_max,
            })
        });
        let point = |point: &Measured| {
            json!({
                "x": point.x, "median": point.median, "min": point.min, "max": point.max,
                "user_ns": point.split.map(|(user, _)| user),
                "kernel_ns": point.split.map(|(_, kernel)| kernel),
                "runs": point.runs, "noisy": point.noisy,
            })
        };
        let points: Vec<_> = self.points.iter().map(point).collect();
        json!({ "name": self.name, "of": self.of, "unit": self.unit, "points": points, "fit": fit })
    }

    /// The reverse; `None` where something is missing.
    pub(super) fn from_json(json: &Json) -> Option<Self> {
        let text = |key: &str| json[key].as_str().map(str::to_owned);
        let point = |json: &Json| {
            let number = |key: &str| json[key].as_f64();
            let count = |key: &str| json[key].as_u64().map(|count| count as usize);
            Some(Measured {
                x: number("x")?,
                median: number("median")?,
                min: number("min")?,
                max: number("max")?,
                split: number("user_ns").zip(number("kernel_ns")),
                runs: count("runs")?,
                noisy: count("noisy")?,
            })
        };
        let points: Option<Vec<_>> = json["points"].as_array()?.iter().map(point).collect();
        Some(Self { name: text("name")?, of: text("of")?, unit: text("unit")?, points: points? })
    }

    /// A table, a chart and the growth.
    pub(super) fn report(&self) -> String {
        let fit = self.fit();
        let has_split = self.points.iter().any(|point| point.split.is_some());
        let mut text = format!("\n**{}**: {}\n\n", capitalised(&self.name), self.unit);
        let _ = write!(text, "| {} | median | least … most |", self.of);
        text.push_str(if has_split { " user, kernel |" } else { "" });
        text.push_str(if fit.is_some() { " fit | off by |\n" } else { "\n" });
        text.push_str("|---:|---:|---|");
        text.push_str(if has_split { "---:|" } else { "" });
        text.push_str(if fit.is_some() { "---:|---:|\n" } else { "\n" });
        for point in &self.points {
            let (median, least, most) =
                (number(point.median), number(point.min), number(point.max));
            let x = grouped(point.x);
            let _ = match point.runs {
                1 => write!(text, "| {x} | {median} | one run |"),
                _ => write!(text, "| {x} | {median} | {least} … {most} |"),
            };
            if let Some((user, kernel)) = point.split {
                let _ = write!(text, " {}, {} |", number(user), number(kernel));
            }
            if let Some(fit) = fit {
                let at = fit.at(point.x);
                let off = (at / point.median - 1.0) * 100.0;
                let _ = write!(text, " {} | {off:+.0} % |", number(at));
            }
            text.push('\n');
        }
        self.chart(&mut text);
        match (fit, self.points.first(), self.points.last()) {
            (Some(fit), Some(first), Some(last)) => {
                let _ = writeln!(
                    text,
                    "\nGrowth: **{fit}**, x: {}; standard error {:.0} %, at most {:.0} %. From {} to {}: × {:.2}.",
                    self.of,
                    fit.error() * 100.0,
                    fit.error_max * 100.0,
                    grouped(first.x),
                    grouped(last.x),
                    last.median / first.median
                );
            }
            _ if self.is_derived() => {}
            _ => text.push_str("\nToo few points for a fit.\n"),
        }
        text
    }

    fn chart(&self, text: &mut String) {
        let values = || self.points.iter().map(|point| point.median);
        let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
        let is_logarithmic = most > least * LINEAR_MAX;
        let share = |value: f64| {
            // The shortest bar is still to be seen.
            if is_logarithmic {
                (value / least * 1.5).ln() / (most / least * 1.5).ln()
            } else {
                value / most
            }
        };
        let scale = if is_logarithmic { "; bars on a logarithmic scale" } else { "" };
        let _ = writeln!(text, "\n```\n{}{scale}", self.unit);
        for point in &self.points {
            let (x, value) = (grouped(point.x), number(point.median));
            let _ = writeln!(text, "{x:>9} {value:>7} {}", bar(share(point.median)));
        }
        text.push_str("```\n");
    }
}

/// How many of all runs were noisy.
pub(super) fn noise(curves: &[Curve]) -> String {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let (runs, noisy) =
        (points().map(|it| it.runs).sum::<usize>(), points().map(|it| it.noisy).sum::<usize>());
    let share = noisy as f64 / runs.max(1) as f64 * 100.0;
    format!("In {share:.0} % of the runs other programs used more than 5 % of the two cores.")
}

/// A number with as many digits as tell something.
pub(super) fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => grouped(value),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// `1000000` → `1,000,000`.
pub(super) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Costs as measured, of one run each.
    pub(crate) fn curve(name: &str, points: &[(f64, f64)]) -> Curve {
        let measured = |&(x, median): &(f64, f64)| Measured {
            x,
            median,
            min: median * 0.9,
            max: median * 1.2,
            split: Some((median * 0.25, median * 0.75)),
            runs: 3,
            noisy: 0,
        };
        let (of, unit) = ("subscribers".to_owned(), "ns per message".to_owned());
        Curve { name: name.to_owned(), of, unit, points: points.iter().map(measured).collect() }
    }

    #[test]
    fn a_report_has_a_row_and_a_bar_for_each_point_and_the_growth() {
        let report = curve("cost", &[(1.0, 60.0), (10.0, 240.0), (100.0, 2040.0)]).report();
        assert!(
            report.contains("| 100 | 2,040 | 1,836 … 2,448 | 510, 1,530 | 2,040 | +0 % |"),
            "{report}"
        );
        assert!(report.contains("**40.0 + 20.0·x**"), "{report}");
        assert!(report.contains("logarithmic scale"), "{report}");
        let bars = report.lines().filter(|line| line.contains('█')).count();
        assert_eq!(bars, 3, "{report}");
        assert!(report.contains(&format!("100   2,040 {}\n", "█".repeat(50))), "{report}");
    }

    #[test]
    fn what_was_written_down_is_read_again() {
        let curve = curve("cost", &[(1.0, 60.0), (10.0, 240.0)]);
        assert_eq!(Curve::from_json(&curve.json()), Some(curve.clone()));
        assert_eq!(Curve::from_json(&json!({ "name": "cost" })), None);
        assert!(curve.report().contains("Too few points"));
    }

    #[test]
    fn numbers_are_printed_as_people_read_them() {
        assert_eq!([number(1234567.8), number(12.34), number(0.5)], ["1,234,568", "12.3", "0.50"]);
        assert_eq!(grouped(1000.0), "1,000");
    }
}
