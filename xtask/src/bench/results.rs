//! The pairs that were measured side by side. Each is written down at once
//! (`target/bench/side-by-side.jsonl`; those of a quick look beside it), so that an interrupted session goes
//! on where it was.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value as Json, json};

use super::{Measure, Pair, folder};

/// A run of a workload, a system, and what both are judged by.
pub(super) type Row = (String, String, &'static str);

/// The pairs of a row at one commit.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) commit: String,
    pub(super) pairs: Vec<Pair>,
}

/// All that was measured, and what of it is of the commit that is measured now.
pub(super) struct Results {
    commit: String,
    path: PathBuf,
    /// Pairs done of this commit, by peer and case.
    done: BTreeMap<(String, String), usize>,
    rows: BTreeMap<Row, Vec<Figures>>,
}

impl Results {
    /// Those that were written down before.
    pub(super) fn open(commit: String, is_quick: bool) -> Result<Self> {
        let name = if is_quick { "quick-look.jsonl" } else { "side-by-side.jsonl" };
        let path = folder().join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let mut results = Self { commit, path, done: BTreeMap::new(), rows: BTreeMap::new() };
        // A line that is cut short is of a session that was interrupted while it wrote.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
        for line in lines {
            results.take(&line);
        }
        Ok(results)
    }

    fn take(&mut self, line: &Json) -> Option<()> {
        let text = |key: &str| line[key].as_str().map(str::to_owned);
        let (commit, peer, case, run) =
            (text("commit")?, text("peer")?, text("case")?, text("run")?);
        let measure = Measure::ALL.into_iter().find(|measure| line["measure"] == measure.name())?;
        let pair = Pair { old: line["theirs"].as_f64()?, new: line["ours"].as_f64()? };
        let number = line["number"].as_u64()? as usize;
        if commit == self.commit {
            let done = self.done.entry((peer.clone(), case.clone())).or_default();
            *done = (number + 1).max(*done);
        }
        let row = self.rows.entry((format!("{case} {run}"), peer, measure.name())).or_default();
        match row.iter_mut().find(|figures| figures.commit == commit) {
            Some(figures) => figures.pairs.push(pair),
            None => row.push(Figures { commit, pairs: vec![pair] }),
        }
        Some(())
    }

    /// Of each row the commit with the most pairs, and of several with as many the one that was measured
    /// last.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&Row, &Figures)> {
        self.rows.iter().filter_map(|(row, figures)| {
            Some((row, figures.iter().max_by_key(|figures| figures.pairs.len())?))
        })
    }

    /// Pairs of a case and a system that there are.
    pub(super) fn count(&self, peer: &str, case: &str) -> usize {
        self.done.get(&(peer.to_owned(), case.to_owned())).copied().unwrap_or(0)
    }

    /// Writes down a pair.
    pub(super) fn add(
        &mut self,
        peer: &str,
        case: &str,
        number: usize,
        run: &str,
        measure: Measure,
        pair: Pair,
    ) -> Result<()> {
        let line = json!({
            "commit": self.commit, "peer": peer, "case": case, "number": number,
            "run": run, "measure": measure.name(), "ours": pair.new, "theirs": pair.old,
        });
        let cannot_write = || format!("cannot write {}", self.path.display());
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
            .with_context(cannot_write)?;
        writeln!(file, "{line}").with_context(cannot_write)?;
        self.take(&line);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two pairs of a case.
    pub(crate) fn some() -> Results {
        let (commit, path) = ("c".to_owned(), PathBuf::new());
        let mut results = Results { commit, path, done: BTreeMap::new(), rows: BTreeMap::new() };
        for number in 0..2 {
            take(&mut results, "c", number, 12e6);
        }
        results
    }

    fn take(results: &mut Results, commit: &str, number: usize, ours: f64) {
        results.take(&json!({
            "commit": commit, "peer": "nats", "case": "T1", "number": number, "run": "1 → 1",
            "measure": "per CPU-second", "ours": ours, "theirs": 2e6,
        }));
    }

    #[test]
    fn a_row_is_of_the_commit_that_was_measured_last_but_not_with_fewer_pairs() {
        let mut results = some();
        let shown = |results: &Results| {
            let (_, figures) = results.rows().next().expect("a row");
            (figures.commit.clone(), figures.pairs.len())
        };
        take(&mut results, "d", 0, 14e6);
        assert_eq!(shown(&results), ("c".to_owned(), 2));
        take(&mut results, "d", 1, 14e6);
        assert_eq!(shown(&results), ("d".to_owned(), 2));
        take(&mut results, "c", 2, 12e6);
        assert_eq!(shown(&results), ("c".to_owned(), 3), "which goes on where it was");
    }

    #[test]
    fn what_was_measured_before_is_not_measured_again() {
        let results = some();
        assert_eq!((results.count("nats", "T1"), results.count("nats", "T2")), (2, 0));
    }
}
