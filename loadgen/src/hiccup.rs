//! Watches the machine: were the cores ours while we measured?
//!
//! One thread per core sleeps a millisecond at a time. What it oversleeps beyond another millisecond
//! is a hiccup: the host took the core away, or the kernel kept it busy elsewhere. The threads run
//! at the highest priority they get, so that the load itself does not look like a hiccup; where that
//! is refused the report says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rustix::process::setpriority_process;

use crate::clock;
use crate::pinning;

const STEP_NS: u64 = 1_000_000;
/// Lateness that counts.
const HICCUP_NS: u64 = 1_000_000;
/// Lateness that counts as a short gap: a fuller core takes longer to make up for it, and a few are a 99th percentile.
const SHORT_GAP_NS: u64 = 200_000;
/// More hiccups than this per core and second make a run worth repeating.
const MANY_PER_CORE_AND_SECOND: f64 = 2.0;
const HIGHEST_PRIORITY: i32 = -20;

/// What the meter saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Hiccups {
    /// Gaps beyond a millisecond, over all watched cores.
    pub(crate) count: u64,
    /// Gaps beyond a fifth of a millisecond, those included.
    pub(crate) short: u64,
    /// The longest gap, in nanoseconds.
    pub(crate) longest_ns: u64,
    /// Cores watched.
    pub(crate) cores: usize,
    /// Time watched, in nanoseconds.
    pub(crate) watched_ns: u64,
    /// The meter ran at ordinary priority, so that the load itself may count as hiccups.
    pub(crate) ordinary_priority: bool,
}

impl Hiccups {
    /// Whether these are too many for a tail to be trusted.
    pub(crate) fn are_many(&self) -> bool {
        let core_seconds = self.cores as f64 * self.watched_ns as f64 / 1e9;
        self.count as f64 > MANY_PER_CORE_AND_SECOND * core_seconds
    }
}

/// A running meter.
#[derive(Debug)]
pub(crate) struct HiccupMeter {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Hiccups>>,
    started_ns: u64,
}

impl HiccupMeter {
    /// Watches these cores from now on. One it may not run on is left out.
    pub(crate) fn start(cores: &[usize]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut cores = cores.to_vec();
        cores.sort_unstable();
        cores.dedup();
        let threads = cores
            .into_iter()
            .filter_map(|core| {
                let stop = Arc::clone(&stop);
                thread::Builder::new()
                    .name(format!("hiccup-{core}"))
                    .spawn(move || watch(core, &stop))
                    .ok()
            })
            .collect();
        Self { stop, threads, started_ns: clock::now_ns() }
    }

    /// Stops and says what was seen.
    pub(crate) fn stop(self) -> Hiccups {
        self.stop.store(true, Ordering::Relaxed);
        let mut seen =
            Hiccups { watched_ns: clock::now_ns() - self.started_ns, ..Hiccups::default() };
        for core in self.threads.into_iter().filter_map(|t| t.join().ok()) {
            seen.count += core.count;
            seen.short += core.short;
            seen.longest_ns = seen.longest_ns.max(core.longest_ns);
            seen.cores += core.cores;
            seen.ordinary_priority |= core.ordinary_priority;
        }
        seen
    }
}

fn watch(core: usize, stop: &AtomicBool) -> Hiccups {
    let mut seen = Hiccups::default();
    if pinning::pin_to(&[core]).is_err() {
        return seen;
    }
    seen.cores = 1;
    seen.ordinary_priority = setpriority_process(None, HIGHEST_PRIORITY).is_err();
    clock::wake_on_time();
    while !stop.load(Ordering::Relaxed) {
        let deadline = clock::now_ns() + STEP_NS;
        clock::sleep_until(deadline);
        let late_ns = clock::now_ns().saturating_sub(deadline);
        seen.short += u64::from(late_ns > SHORT_GAP_NS);
        if late_ns > HICCUP_NS {
            seen.count += 1;
            seen.longest_ns = seen.longest_ns.max(late_ns);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_watches_each_core_once_and_stops() {
        let core = pinning::allowed_cores()[0];
        let seen = HiccupMeter::start(&[core, core]).stop();
        assert_eq!(seen.cores, 1);
    }

    #[test]
    fn more_than_two_per_core_and_second_are_many() {
        let few = Hiccups { count: 3, cores: 2, watched_ns: 1_000_000_000, ..Hiccups::default() };
        assert!(!few.are_many());
        let many = Hiccups { count: 5, ..few };
        assert!(many.are_many());
    }
}
