//! How fast counters grow: their differences over the time that has really passed.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use nexusd_admin::proto::Metric;

/// Counters of a daemon that tell what was lost.
pub(crate) const LOSSES: [&str; 4] =
    ["dropped_slow_consumer", "dropped_memory", "lost_on_links", "dropped_link"];

/// Counters, and when each was asked for.
type Counts<K> = HashMap<K, (Instant, u64)>;

/// Counters by name, as they were last seen.
#[derive(Debug)]
pub(crate) struct Rates<K> {
    last: Option<(Instant, Counts<K>)>,
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
        let counters = counters.into_iter().map(|(key, count)| (key, at, count));
        self.update_each(at, counters, is_complete);
    }

    /// The same of counters that were asked for at times of their own.
    pub(crate) fn update_each(
        &mut self,
        at: Instant,
        counters: impl IntoIterator<Item = (K, Instant, u64)>,
        is_complete: bool,
    ) {
        let counters: Counts<K> =
            counters.into_iter().map(|(key, at, count)| (key, (at, count))).collect();
        self.per_second.clear();
        if let Some((before, last)) = &self.last {
            for (key, (at, now)) in &counters {
                let (then, count) = match last.get(key) {
                    // A daemon that was started anew counts from nothing.
                    Some((then, count)) if count <= now => (then, *count),
                    Some((then, _)) => (then, 0),
                    None if is_complete => (before, 0),
                    None => continue,
                };
                let elapsed = at.saturating_duration_since(*then);
                self.per_second.insert(key.clone(), per_second(now - count, elapsed));
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
    fn counters_have_their_own_times() {
        let mut rates = Rates::default();
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        rates.update_each(start, [("a", after(0), 0), ("b", after(400), 0)], false);
        let counters = [("a", after(1_000), 1_000), ("b", after(1_000), 600)];
        rates.update_each(after(1_000), counters, false);
        assert_eq!((rates.of("a"), rates.of("b")), (Some(1_000.0), Some(1_000.0)));
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
