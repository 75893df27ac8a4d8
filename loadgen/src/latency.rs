//! Histograms of latency.
//!
//! Latency is recorded in nanoseconds with three significant digits, up to a minute; anything longer
//! counts as a minute. What is printed and written is microseconds.

use std::io::{self, Write};

use hdrhistogram::Histogram;
use serde::Serialize;

/// The shortest latency told apart from 0, in nanoseconds.
const SHORTEST_NS: u64 = 100;
/// The longest latency recorded, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;
/// Lines of a `.hgrm` file per halving of the distance to 100 %.
const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// The latencies of one run.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    histogram: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(SHORTEST_NS, LONGEST_NS, SIGNIFICANT_DIGITS)
            .expect("the constant bounds are valid");
        Self { histogram }
    }
}

/// A distribution in microseconds, as it stands in the JSON.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct LatencySummary {
    /// Median.
    pub(crate) p50: f64,
    /// 90th percentile.
    pub(crate) p90: f64,
    /// 99th percentile.
    pub(crate) p99: f64,
    /// 99.9th percentile.
    pub(crate) p999: f64,
    /// 99.99th percentile.
    pub(crate) p9999: f64,
    /// The longest.
    pub(crate) max: f64,
    /// Messages recorded.
    pub(crate) count: u64,
}

impl Latencies {
    /// Records one message's latency in nanoseconds.
    #[inline]
    pub(crate) fn record(&mut self, latency_ns: u64) {
        self.histogram.saturating_record(latency_ns);
    }

    /// Adds what somebody else recorded.
    pub(crate) fn add(&mut self, other: &Self) {
        // Both have the same bounds, so that every value fits.
        let _ = self.histogram.add(&other.histogram);
    }

    /// Messages recorded.
    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The summary; `None` if nothing was recorded.
    pub(crate) fn summary(&self) -> Option<LatencySummary> {
        if self.count() == 0 {
            return None;
        }
        let at = |quantile| microseconds(self.histogram.value_at_quantile(quantile));
        Some(LatencySummary {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: microseconds(self.histogram.max()),
            count: self.count(),
        })
    }

    /// Writes the distribution in HdrHistogram's text format (`.hgrm`), values in microseconds, as
    /// its plotter reads it.
    pub(crate) fn write_hgrm(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{:>12} {:>14} {:>10} {:>14}\n",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        )?;
        let mut total = 0;
        for step in self.histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
            total += step.count_since_last_iteration();
            let value = microseconds(step.value_iterated_to());
            let quantile = step.quantile_iterated_to();
            if quantile < 1.0 {
                let distance = 1.0 / (1.0 - quantile);
                writeln!(out, "{value:>12.3} {quantile:>14.12} {total:>10} {distance:>14.2}")?;
            } else {
                writeln!(out, "{value:>12.3} {quantile:>14.12} {total:>10}")?;
            }
        }
        writeln!(
            out,
            "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]",
            self.histogram.mean() / 1_000.0,
            self.histogram.stdev() / 1_000.0
        )?;
        writeln!(
            out,
            "#[Max     = {:>12.3}, Total count    = {:>12}]",
            microseconds(self.histogram.max()),
            self.count()
        )?;
        writeln!(
            out,
            "#[Buckets = {:>12}, SubBuckets     = {:>12}]",
            self.histogram.buckets(),
            2_u32.pow(11)
        )
    }
}

/// Microseconds with the three decimals that nanoseconds give.
fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_in_microseconds_within_a_thousandth() {
        let mut latencies = Latencies::default();
        for n in 1..=10_000 {
            latencies.record(n * 1_000);
        }
        let summary = latencies.summary().expect("messages were recorded");
        let near = |value: f64, wanted: f64| (value - wanted).abs() <= wanted / 500.0;
        assert!(near(summary.p50, 5_000.0), "{summary:?}");
        assert!(near(summary.p99, 9_900.0), "{summary:?}");
        assert!(near(summary.p9999, 9_999.0), "{summary:?}");
        assert!(near(summary.max, 10_000.0), "{summary:?}");
        assert_eq!(summary.count, 10_000);
    }

    #[test]
    fn nothing_recorded_is_no_summary() {
        assert_eq!(Latencies::default().summary(), None);
    }

    #[test]
    fn longer_than_a_minute_counts_as_a_minute() {
        let mut latencies = Latencies::default();
        latencies.record(u64::MAX);
        let summary = latencies.summary().expect("a message was recorded");
        assert!((summary.max - 60_000_000.0).abs() < 60_000.0, "{summary:?}");
    }

    #[test]
    fn a_hgrm_file_ends_at_all_messages() {
        let mut latencies = Latencies::default();
        for n in 1..=1_000 {
            latencies.record(n * 500);
        }
        let mut out = Vec::new();
        latencies.write_hgrm(&mut out).expect("a vector takes it");
        let text = String::from_utf8(out).expect("text");
        let last = text.lines().rfind(|line| !line.starts_with('#')).expect("a line of values");
        let columns: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(columns[1..], ["1.000000000000", "1000"], "{text}");
        assert!(text.contains("Total count    =         1000"), "{text}");
    }
}
