//! How a cost grows: the line, the power and the logarithm that lie closest to measured points.
//!
//! Costs spread over several powers of ten, and what is off by a tenth counts alike at each of them. So all fits
//! are least squares of *relative* errors: the power in the logarithms of both, line and logarithm with
//! each point weighted by the inverse square of its cost. The form is chosen by the residual in the logarithm of the
//! cost; where two are as good as the same, the simpler one is taken.
//! Pure: knows nothing of runs or files.

use std::fmt;

/// A measured point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    /// What grows; above 0.
    pub(crate) x: f64,
    /// What it costs; above 0.
    pub(crate) cost: f64,
}

/// A form of growth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `a`
    Constant,
    /// `a + b·x`
    Linear,
    /// `a·x^b`
    Power,
    /// `a + b·ln x`
    Logarithmic,
}

/// A form with its two numbers, and how far the points are from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Fit {
    pub(crate) form: Form,
    pub(crate) a: f64,
    pub(crate) b: f64,
    /// Root of the mean square of ln(fit ÷ cost), corrected for the numbers that were fitted.
    pub(crate) residual: f64,
    /// The largest of the points' relative errors.
    pub(crate) error_max: f64,
}

/// A form has to be this much closer than a simpler one.
const CLOSER: f64 = 0.9;

impl Fit {
    /// The best form for three points or more.
    pub(crate) fn of(points: &[Point]) -> Option<Self> {
        let forms = [Form::Constant, Form::Linear, Form::Power, Form::Logarithmic];
        let mut best: Option<Self> = None;
        for fit in forms.into_iter().filter_map(|form| Self::with(form, points)) {
            if best.is_none_or(|best| fit.residual < best.residual * CLOSER) {
                best = Some(fit);
            }
        }
        best
    }

    /// One form; `None` for too few points, or if it would cost nothing or less somewhere.
    pub(crate) fn with(form: Form, points: &[Point]) -> Option<Self> {
        let are_positive = points.iter().all(|point| point.x > 0.0 && point.cost > 0.0);
        if points.len() < 3 || !are_positive {
            return None;
        }
        let relative = |of: fn(f64) -> f64| {
            least_squares(points.iter().map(|point| (of(point.x), point.cost, point.cost.powi(-2))))
        };
        let (a, b) = match form {
            Form::Constant => {
                let logarithms = points.iter().map(|point| point.cost.ln());
                ((logarithms.sum::<f64>() / points.len() as f64).exp(), 0.0)
            }
            Form::Linear => relative(|x| x)?,
            Form::Logarithmic => relative(f64::ln)?,
            Form::Power => {
                let (a, b) =
                    least_squares(points.iter().map(|point| (point.x.ln(), point.cost.ln(), 1.0)))?;
                (a.exp(), b)
            }
        };
        // A line that falls ends below nothing.
        if b < 0.0 && form != Form::Power {
            return None;
        }
        let mut fit = Self { form, a, b, residual: 0.0, error_max: 0.0 };
        let mut squares = 0.0;
        for point in points {
            let ratio = fit.at(point.x) / point.cost;
            if ratio <= 0.0 {
                return None;
            }
            squares += ratio.ln().powi(2);
            fit.error_max = fit.error_max.max((ratio - 1.0).abs());
        }
        let fitted = if form == Form::Constant { 1 } else { 2 };
        fit.residual = (squares / (points.len() - fitted) as f64).sqrt();
        Some(fit)
    }

    /// The cost at `x`.
    pub(crate) fn at(&self, x: f64) -> f64 {
        match self.form {
            Form::Constant => self.a,
            Form::Linear => self.a + self.b * x,
            Form::Power => self.a * x.powf(self.b),
            Form::Logarithmic => self.a + self.b * x.ln(),
        }
    }

    /// The relative error that one standard deviation of the residual amounts to.
    pub(crate) fn error(&self) -> f64 {
        self.residual.exp() - 1.0
    }
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (a, b) = (significant(self.a), significant(self.b.abs()));
        let sign = if self.b < 0.0 { '−' } else { '+' };
        match self.form {
            Form::Constant => write!(f, "{a}"),
            Form::Linear => write!(f, "{a} {sign} {b}·x"),
            Form::Power => write!(f, "{a}·x^{:.3}", self.b),
            Form::Logarithmic => write!(f, "{a} {sign} {b}·ln x"),
        }
    }
}

/// Three significant digits.
fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let digits = 2 - value.abs().log10().floor() as i32;
    format!("{value:.*}", digits.max(0) as usize)
}

/// The line `a + b·x` through points `(x, y, weight)`; `None` if they all have the same `x`.
fn least_squares(points: impl Iterator<Item = (f64, f64, f64)> + Clone) -> Option<(f64, f64)> {
    let weights: f64 = points.clone().map(|(_, _, weight)| weight).sum();
    let mean_x = points.clone().map(|(x, _, weight)| x * weight).sum::<f64>() / weights;
    let mean_y = points.clone().map(|(_, y, weight)| y * weight).sum::<f64>() / weights;
    let mut spread = 0.0;
    let mut together = 0.0;
    for (x, y, weight) in points {
        spread += weight * (x - mean_x).powi(2);
        together += weight * (x - mean_x) * (y - mean_y);
    }
    let b = together / spread;
    (spread > 0.0 && b.is_finite()).then_some((mean_y - b * mean_x, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(cost: impl Fn(f64) -> f64) -> Vec<Point> {
        // Off by up to two parts in a hundred, here above and there below.
        let noise = [1.0, 1.02, 0.98, 1.01, 0.99, 1.02, 0.98, 1.0];
        let xs = (0..8).map(|step| f64::from(1 << (2 * step)));
        xs.zip(noise).map(|(x, noise)| Point { x, cost: cost(x) * noise }).collect()
    }

    fn assert_near(value: f64, wanted: f64, share: f64) {
        assert!((value / wanted - 1.0).abs() < share, "{value} instead of {wanted}");
    }

    #[test]
    fn a_line_is_found_with_both_its_numbers_though_one_end_is_a_thousand_times_the_other() {
        let fit = Fit::of(&points(|x| 50.0 + 0.25 * x)).expect("points");
        assert_eq!(fit.form, Form::Linear);
        assert_near(fit.a, 50.0, 0.02);
        assert_near(fit.b, 0.25, 0.02);
        assert!(fit.error() < 0.03 && fit.error_max < 0.04, "{fit:?}");
        assert_near(fit.at(1000.0), 300.0, 0.02);
    }

    #[test]
    fn a_power_is_found_with_its_exponent() {
        let fit = Fit::of(&points(|x| 3.0 * x.powf(0.7))).expect("points");
        assert_eq!(fit.form, Form::Power);
        assert_near(fit.a, 3.0, 0.03);
        assert_near(fit.b, 0.7, 0.02);
    }

    #[test]
    fn a_logarithm_is_told_from_a_small_power() {
        let fit = Fit::of(&points(|x| 20.0 + 12.0 * x.ln())).expect("points");
        assert_eq!(fit.form, Form::Logarithmic);
        assert_near(fit.a, 20.0, 0.03);
        assert_near(fit.b, 12.0, 0.03);
    }

    #[test]
    fn what_does_not_grow_is_called_constant() {
        let fit = Fit::of(&points(|_| 60.0)).expect("points");
        assert_eq!(fit.form, Form::Constant);
        assert_near(fit.a, 60.0, 0.01);
        assert_eq!(fit.to_string(), "60.0");
    }

    #[test]
    fn a_form_that_fits_badly_says_so() {
        let fit = Fit::with(Form::Constant, &points(|x| x)).expect("points");
        assert!(fit.error() > 10.0, "{fit:?}");
        assert!(fit.error_max > 100.0, "{fit:?}");
    }

    #[test]
    fn two_points_and_points_on_one_x_are_too_few() {
        let point = |x, cost| Point { x, cost };
        assert_eq!(Fit::of(&[point(1.0, 1.0), point(2.0, 2.0)]), None);
        assert_eq!(Fit::with(Form::Linear, &[point(1.0, 1.0); 3]), None);
        assert_eq!(Fit::of(&[point(0.0, 1.0), point(1.0, 1.0), point(2.0, 1.0)]), None);
    }

    #[test]
    fn fits_are_printed_with_three_digits() {
        let fit = |form, a, b| Fit { form, a, b, residual: 0.0, error_max: 0.0 }.to_string();
        assert_eq!(fit(Form::Linear, 55.06, 0.2451), "55.1 + 0.245·x");
        assert_eq!(fit(Form::Logarithmic, 1234.4, -0.001), "1234 − 0.00100·ln x");
        assert_eq!(fit(Form::Power, 3.0, 0.5), "3.00·x^0.500");
    }
}
