//! A host may move the cores of a virtual machine apart, so that they have no cache in common, and together again
//! within seconds. What was measured in such a moment is measured once more.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value as Json;

/// From this distance on, in nanoseconds, cores have no cache in common.
const APART_NS: f64 = 100.0;
/// A measurement with such cores is repeated this often before it counts all the same. If none before it had others,
/// this machine's always are.
const ATTEMPTS: u32 = 40;
static WERE_TOGETHER: AtomicBool = AtomicBool::new(false);
static ARE_ALWAYS_APART: AtomicBool = AtomicBool::new(false);

/// Whether the cores of server and load had no cache in common in a run of this report of the load generator, which has a
/// line of JSON for each.
pub(crate) fn is_apart(report: &str) -> bool {
    let runs = report.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    runs.filter_map(|run| run["core_distance_ns"].as_f64()).any(|distance| distance >= APART_NS)
}

/// How often one measurement found the cores apart.
#[derive(Debug, Default)]
pub(crate) struct Apart(u32);

impl Apart {
    /// Whether the measurement has to be made once more, and says so.
    pub(crate) fn repeats(&mut self, measurement: &str, is_apart: bool) -> bool {
        WERE_TOGETHER.fetch_or(!is_apart, Ordering::Relaxed);
        if !is_apart || ARE_ALWAYS_APART.load(Ordering::Relaxed) {
            return false;
        }
        self.0 += 1;
        let Self(times) = *self;
        if times < ATTEMPTS {
            eprintln!("{measurement}: the cores had no cache in common; once more");
            return true;
        }
        eprintln!("{measurement}: the cores had no cache in common, {times} times; it counts");
        ARE_ALWAYS_APART.store(!WERE_TOGETHER.load(Ordering::Relaxed), Ordering::Relaxed);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_apart_from_a_hundred_nanoseconds_on_in_one_of_its_runs() {
        let together = "a table\n{\"core_distance_ns\": 55.5}\n{\"core_distance_ns\": null}\n";
        assert!(!is_apart(together));
        assert!(is_apart(&format!("{together}{{\"core_distance_ns\": 160}}\n")));
    }

    #[test]
    fn a_measurement_is_repeated_until_the_cores_are_together_or_never_are() {
        let mut apart = Apart::default();
        assert!(apart.repeats("T1", true));
        assert!(!apart.repeats("T1", false));
        // Cores that were together once are waited for in each measurement anew.
        for _ in 0..2 {
            let mut apart = Apart::default();
            assert_eq!((1..).take_while(|_| apart.repeats("T1", true)).count(), 39);
        }
    }
}
