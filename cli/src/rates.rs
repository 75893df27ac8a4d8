//! How fast counters grow: their differences over the time that has really passed.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use nexusd_admin::proto::Metric;

/// Counters by name, as they were last seen.
#[derive(Debug)]
pub(crate) struct Rates<K> {
    last: Option<(Instant, HashMap<K, u64>)>,
    per_second: HashMap<K, f64>,
}

impl<K> Default for Rates<K> {
    fn default() -> Self {
        Self { last: None, per_second: HashMap::new() }
    }
}

impl<K: Eq + Hash + Clone> Rates<K> {
    /// Takes the counters as they are at this time. One that was not there before has grown from
    /// nothing if `is_complete`; in a list that was cut off it may merely not have been shown.
    pub(crate) fn update(
        &mut self,
        at: Instant,
        counters: impl IntoIterator<Item = (K, u64)>,
        is_complete: bool,
    ) {
        let counters: HashMap<K, u64> = counters.into_iter().collect();
        self.per_second.clear();
        if let Some((then, last)) = &self.last {
            let elapsed = at.saturating_duration_since(*then);
            for (key, now) in &counters {
                let before = match last.get(key) {
                    // A daemon that was started anew counts from nothing.
                    Some(before) if before <= now => *before,
                    Some(_) => 0,
                    None if is_complete => 0,
                    None => continue,
                };
                self.per_second.insert(key.clone(), per_second(now - before, elapsed));
            }
        }
        self.last = Some((at, counters));
    }

    /// `None` until there is a difference.
    pub(crate) fn of<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<f64>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.per_second.get(key).copied()
    }
}

/// So many in that time.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> f64 {
    // A clock that stands still must not make it infinite.
    count as f64 / elapsed.as_secs_f64().max(1e-6)
}

/// The counters and gauges of INFO by their names.
pub(crate) fn by_name(stats: &[Metric]) -> impl Iterator<Item = (String, u64)> {
    stats.iter().map(|metric| (metric.name.clone(), metric.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_growth_over_the_time_that_passed() {
        let mut rates = Rates::default();
        let start = Instant::now();
        rates.update(start, [("a", 100)], true);
        assert_eq!(rates.of("a"), None);
        rates.update(start + Duration::from_millis(2_500), [("a", 350), ("b", 5)], true);
        assert_eq!(rates.of("a"), Some(100.0));
        assert_eq!(rates.of("b"), Some(2.0));
        rates.update(start + Duration::from_millis(3_500), [("a", 350)], true);
        assert_eq!((rates.of("a"), rates.of("b")), (Some(0.0), None));
    }

    #[test]
    fn a_daemon_that_was_started_anew_counts_from_nothing() {
        let mut rates = Rates::default();
        let start = Instant::now();
        rates.update(start, [("a", 1_000)], true);
        rates.update(start + Duration::from_secs(1), [("a", 30)], true);
        assert_eq!(rates.of("a"), Some(30.0));
    }

    #[test]
    fn what_a_cut_list_did_not_show_before_has_no_rate() {
        let mut rates = Rates::default();
        let start = Instant::now();
        rates.update(start, [("a", 1)], false);
        rates.update(start + Duration::from_secs(1), [("b", 1_000_000)], false);
        assert_eq!(rates.of("b"), None);
    }
}
