//! What a comparison of two revisions needs: the median of paired ratios and an interval for it.
//!
//! The interval is a percentile bootstrap of the median: it assumes nothing about the shape of the
//! distribution, and results here can be bimodal. The random numbers are fixed, so that the same
//! figures always give the same interval.

/// A median with the smallest and largest value and a 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Lower end of the 95 % interval of the median.
    pub(crate) low: f64,
    /// Upper end of the 95 % interval of the median.
    pub(crate) high: f64,
    pub(crate) count: usize,
}

const RESAMPLES: usize = 10_000;

impl Spread {
    /// Of finite values; `None` without any.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let mut random = SplitMix::new(0x5eed);
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                let mut sample: Vec<f64> =
                    sorted.iter().map(|_| sorted[random.below(sorted.len())]).collect();
                sample.sort_by(f64::total_cmp);
                median_of_sorted(&sample)
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        Some(Self {
            median: median_of_sorted(&sorted),
            min,
            max,
            low: medians[RESAMPLES * 25 / 1000],
            high: medians[RESAMPLES * 975 / 1000],
            count: sorted.len(),
        })
    }

    /// Whether the interval lies wholly on one side of `value`.
    pub(crate) fn excludes(&self, value: f64) -> bool {
        value < self.low || value > self.high
    }
}

/// The median; `None` without values.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (!sorted.is_empty()).then(|| median_of_sorted(&sorted))
}

fn median_of_sorted(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// The SplitMix64 generator (Steele, Lea, Flood 2014): enough for resampling, and for models.
#[derive(Debug)]
pub(crate) struct SplitMix(u64);

impl SplitMix {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed % bound as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[]), None);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn equal_values_leave_no_doubt() {
        let spread = Spread::of(&[1.25; 20]).expect("there are values");
        assert_eq!((spread.low, spread.median, spread.high), (1.25, 1.25, 1.25));
        assert!(spread.excludes(1.0));
        assert_eq!(spread.count, 20);
    }

    #[test]
    fn noise_around_one_does_not_exclude_one() {
        let noise: Vec<f64> =
            (0..20).map(|index| 1.0 + f64::from((index * 7) % 20 - 10) / 100.0).collect();
        let spread = Spread::of(&noise).expect("there are values");
        assert!(!spread.excludes(1.0), "{spread:?}");
        assert!(spread.min <= spread.low && spread.low <= spread.median, "{spread:?}");
        assert!(spread.median <= spread.high && spread.high <= spread.max, "{spread:?}");
    }

    #[test]
    fn a_clear_gain_is_seen_through_noise() {
        let gain: Vec<f64> =
            (0..20).map(|index| 1.1 + f64::from((index * 7) % 20 - 10) / 200.0).collect();
        assert!(Spread::of(&gain).expect("there are values").excludes(1.0));
    }

    #[test]
    fn the_same_figures_give_the_same_interval() {
        let values = [0.9, 1.0, 1.1, 1.3, 0.7];
        assert_eq!(Spread::of(&values), Spread::of(&values));
    }
}
