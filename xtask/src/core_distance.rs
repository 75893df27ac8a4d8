//! A host may move the cores of a virtual machine apart, so that they have no cache in common, and together again
//! within seconds. What was measured in such a moment is measured once more.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value as Json;

/// From this distance on, in nanoseconds, cores have no cache in common.
const APART_NS: f64 = 100.0;
/// A measurement with such cores is repeated this often before it counts all the same. If none before it had others,
/// this machine's are taken to be apart always, until one has.
const ATTEMPTS: u32 = 40;
static WERE_TOGETHER: AtomicBool = AtomicBool::new(false);
static ARE_ALWAYS_APART: AtomicBool = AtomicBool::new(false);

/// Whether the cores of server and load had no cache in common in a run of this report of the load generator, which has a
/// line of JSON for each; `None` if no run says.
pub(crate) fn is_apart(report: &str) -> Option<bool> {
    let runs = report.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    let farthest_ns = runs.filter_map(|run| run["core_distance_ns"].as_f64()).reduce(f64::max)?;
    Some(farthest_ns >= APART_NS)
}

/// How often one measurement found the cores apart.
#[derive(Debug, Default)]
pub(crate) struct Apart(u32);

impl Apart {
    /// Whether the measurement has to be made once more, and says so.
    pub(crate) fn repeats(&mut self, measurement: &str, is_apart: Option<bool>) -> bool {
        if is_apart == Some(false) {
            WERE_TOGETHER.store(true, Ordering::Relaxed);
            ARE_ALWAYS_APART.store(false, Ordering::Relaxed);
        }
        if is_apart != Some(true) || ARE_ALWAYS_APART.load(Ordering::Relaxed) {
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
        assert_eq!(is_apart(together), Some(false));
        let apart = format!("{together}{{\"core_distance_ns\": 160}}\n");
        assert_eq!(is_apart(&apart), Some(true));
        assert_eq!(is_apart("{\"core_distance_ns\": null}\n"), None);
    }

    #[test]
    fn a_measurement_is_repeated_until_the_cores_are_together_or_seem_never_to_be() {
        let repetitions = || {
            let mut apart = Apart::default();
            (1..).take_while(|_| apart.repeats("T1", Some(true))).count()
        };
        assert!(!Apart::default().repeats("S", None));
        assert_eq!(repetitions(), 39, "nothing is known of this machine yet");
        assert_eq!(repetitions(), 0, "its cores are always apart");
        assert!(!Apart::default().repeats("T1", Some(false)));
        // Cores that were together once are waited for in each measurement anew.
        assert_eq!(repetitions(), 39);
        assert_eq!(repetitions(), 39);
    }
}
