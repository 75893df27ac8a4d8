//! One unit for all times of a table, so that a glance tells which is longer: the one with more digits.

use crate::workload::grouped;

/// The unit of all times of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    Microseconds,
    Milliseconds,
    Seconds,
}

impl Unit {
    /// The largest one in which the least of these, in microseconds, still has three digits.
    pub(super) fn of(times_us: impl Iterator<Item = f64>) -> Self {
        match times_us.fold(f64::INFINITY, f64::min) {
            least if !least.is_finite() || least < 100e3 => Self::Microseconds,
            least if least < 100e6 => Self::Milliseconds,
            _ => Self::Seconds,
        }
    }

    pub(super) fn of_seconds(times_s: impl Iterator<Item = Option<f64>>) -> Self {
        Self::of(times_s.flatten().map(|time| time * 1e6))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Microseconds => "µs",
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
        }
    }

    /// Whole, of more than three digits the first three, in groups.
    pub(super) fn show(self, time_us: f64) -> String {
        let value = time_us
            / match self {
                Self::Microseconds => 1.0,
                Self::Milliseconds => 1e3,
                Self::Seconds => 1e6,
            };
        let mut step = 1.0;
        while (value / step).round() >= 1e3 {
            step *= 10.0;
        }
        grouped(((value / step).round() * step) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_times_of_a_table_have_one_unit() {
        let shown = |times: [f64; 4]| {
            let unit = Unit::of(times.into_iter());
            (unit.name(), times.map(|time| unit.show(time)))
        };
        let texts = |texts: [&str; 4]| texts.map(str::to_owned);
        let of_latencies = shown([83.4, 999.6, 12_345.0, 250_000.0]);
        assert_eq!(of_latencies, ("µs", texts(["83", "1,000", "12,300", "250,000"])));
        let of_connects = shown([480_000.0, 1_384_000.0, 99_960_000.0, 0.1e9]);
        assert_eq!(of_connects, ("ms", texts(["480", "1,380", "100,000", "100,000"])));
        let of_hours = shown([100e6, 3_600e6, 100e6, 100e6]);
        assert_eq!(of_hours, ("s", texts(["100", "3,600", "100", "100"])));
        assert_eq!(Unit::of([].into_iter()), Unit::Microseconds);
    }
}
