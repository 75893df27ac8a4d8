//! Counts, sizes, durations and fractions as operators write them, and back.
//!
//! A count is a whole number, a fraction has up to three decimal places. A size is a number of bytes with an optional K, M or G (powers of
//! 1,024). A duration is a number with an optional unit; a bare number counts milliseconds. The errors
//! are the second half of a sentence that began with the value.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

const SIZE_UNITS: [(char, u64); 3] = [('G', 1 << 30), ('M', 1 << 20), ('K', 1 << 10)];
/// Names, and milliseconds.
const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a whole number without sign or unit, if it is one.
pub(super) fn digits(text: &str) -> Option<u64> {
    let only_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    only_digits.then(|| text.parse().ok()).flatten()
}

/// Reads a count within that range.
pub(super) fn read_count(text: &str, min: usize, max: usize) -> Result<usize, String> {
    digits(text)
        .and_then(|count| usize::try_from(count).ok())
        .filter(|count| (min..=max).contains(count))
        .ok_or_else(|| format!("is not a whole number from {min} to {max}"))
}

/// Reads a size within that range of bytes.
pub(super) fn read_size_within(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    within(read_size(text)?, range, show_size)
}

/// Reads a duration within that range.
pub(super) fn read_duration_within(
    text: &str,
    range: RangeInclusive<Duration>,
) -> Result<Duration, String> {
    within(read_duration(text)?, range, show_duration)
}

fn within<Q: PartialOrd + Copy>(
    quantity: Q,
    range: RangeInclusive<Q>,
    show: fn(Q) -> String,
) -> Result<Q, String> {
    if quantity < *range.start() {
        Err(format!("is too small; the least is {}", show(*range.start())))
    } else if quantity > *range.end() {
        Err(format!("is too large; the most is {}", show(*range.end())))
    } else {
        Ok(quantity)
    }
}

/// Reads a size; `4M` is 4,194,304.
fn read_size(text: &str) -> Result<u64, String> {
    const EXPECTED: &str =
        "is not a size; write a whole number of bytes, or one with K, M or G such as 64M";
    let (number, unit) = split_unit(text);
    let factor = match unit.chars().collect::<Vec<_>>().as_slice() {
        [] => 1,
        [letter] => SIZE_UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(letter))
            .map(|(_, factor)| *factor)
            .ok_or(EXPECTED)?,
        _ => return Err(EXPECTED.to_owned()),
    };
    multiply(number, factor, EXPECTED)
}

/// Writes a size in the largest unit that needs no fraction.
pub(super) fn show_size(bytes: u64) -> String {
    match SIZE_UNITS.iter().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => bytes.to_string(),
    }
}

/// Reads a duration; `500`, `500ms`, `10s`, `5m`, `1h`.
fn read_duration(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str =
        "is not a duration; write milliseconds, or a whole number with ms, s, m or h such as 10s";
    let (number, unit) = split_unit(text);
    let factor = match unit {
        "" => 1,
        unit => DURATION_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, factor)| *factor)
            .ok_or(EXPECTED)?,
    };
    multiply(number, factor, EXPECTED).map(Duration::from_millis)
}

/// Writes a duration in the largest unit that needs no fraction.
pub(super) fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match DURATION_UNITS.iter().find(|(_, factor)| ms != 0 && ms.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", ms / factor),
        None => format!("{ms}ms"),
    }
}

/// A fraction, such as a factor or a share: this many thousandths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Thousandths(pub u32);

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, places) = (self.0 / 1_000, format!("{:03}", self.0 % 1_000));
        // One place always, as in 2.0.
        let (first, rest) = places.split_at(1);
        write!(f, "{whole}.{first}{}", rest.trim_end_matches('0'))
    }
}

/// Reads a fraction within that range of thousandths; `2`, `2.0`, `0.125`.
pub(super) fn read_thousandths(text: &str, min: u32, max: u32) -> Result<Thousandths, String> {
    let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
    let fraction = if places.len() <= 3 { digits(&format!("{places:0<3}")) } else { None };
    let thousandths = digits(whole)
        .zip(fraction.filter(|_| !places.is_empty()))
        .and_then(|(whole, fraction)| whole.checked_mul(1_000)?.checked_add(fraction))
        .and_then(|thousandths| u32::try_from(thousandths).ok())
        .filter(|thousandths| (min..=max).contains(thousandths));
    thousandths.map(Thousandths).ok_or_else(|| {
        let (min, max) = (Thousandths(min), Thousandths(max));
        format!("is not a number from {min} to {max} with up to three decimal places")
    })
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(digits)
}

fn multiply(number: &str, factor: u64, expected: &str) -> Result<u64, String> {
    if number.is_empty() {
        return Err(expected.to_owned());
    }
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| "is more than 64 bits can hold".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_take_k_m_and_g_of_either_case() {
        assert_eq!(read_size("0"), Ok(0));
        assert_eq!(read_size("4096"), Ok(4096));
        assert_eq!(read_size("64K"), Ok(64 << 10));
        assert_eq!(read_size("384M"), Ok(384 << 20));
        assert_eq!(read_size("2g"), Ok(2 << 30));
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "M", "-1", "+1", "1.5G", "4MB", "4 M", "4T", "0x10", "４", "é"] {
            assert!(read_size(text).is_err(), "{text:?}");
        }
        for text in ["99999999999999999999", "99999999999G"] {
            assert_eq!(read_size(text), Err("is more than 64 bits can hold".to_owned()));
        }
    }

    #[test]
    fn a_bare_duration_counts_milliseconds() {
        assert_eq!(read_duration("5000"), Ok(Duration::from_secs(5)));
        assert_eq!(read_duration("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn durations_take_units() {
        assert_eq!(read_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(read_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(read_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(read_duration("1h"), Ok(Duration::from_secs(3600)));
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in ["", "s", "-5", "1.5s", "10 s", "10S", "10d", "10us", "ten"] {
            assert!(read_duration(text).is_err(), "{text:?}");
        }
        assert!(read_duration("99999999999999999999h").is_err());
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_the_bound_as_one_would_write_it() {
        let kilobytes = 1 << 10..=64 << 10;
        assert_eq!(read_size_within("64K", kilobytes.clone()), Ok(64 << 10));
        let refusal = read_size_within("1", kilobytes.clone()).expect_err("too small");
        assert_eq!(refusal, "is too small; the least is 1K");
        let refusal = read_size_within("1M", kilobytes).expect_err("too large");
        assert_eq!(refusal, "is too large; the most is 64K");
        let seconds = Duration::from_millis(500)..=Duration::from_secs(60);
        assert_eq!(read_duration_within("500", seconds.clone()), Ok(Duration::from_millis(500)));
        let refusal = read_duration_within("499ms", seconds.clone()).expect_err("too short");
        assert_eq!(refusal, "is too small; the least is 500ms");
        let refusal = read_duration_within("60001ms", seconds).expect_err("too long");
        assert_eq!(refusal, "is too large; the most is 1m");
    }

    #[test]
    fn fractions_have_up_to_three_places() {
        let read = |text| read_thousandths(text, 0, 10_000).map(|read| read.0);
        assert_eq!(read("2"), Ok(2_000));
        assert_eq!(read("2.0"), Ok(2_000));
        assert_eq!(read("0.2"), Ok(200));
        assert_eq!(read("0.005"), Ok(5));
        let refusal = "is not a number from 0.0 to 10.0 with up to three decimal places";
        for text in
            ["", ".", ".5", "2.", "-1", "+1", "1e1", "0.0005", "10.001", "1,5", "inf", "1.2.3"]
        {
            assert_eq!(read(text), Err(refusal.to_owned()), "{text:?}");
        }
        assert_eq!(Thousandths(1_250).to_string(), "1.25");
        assert_eq!(Thousandths(1_005).to_string(), "1.005");
    }

    proptest! {
        #[test]
        fn a_fraction_reads_back_as_it_was_shown(thousandths: u32) {
            let fraction = Thousandths(thousandths);
            prop_assert_eq!(read_thousandths(&fraction.to_string(), 0, u32::MAX), Ok(fraction));
        }

        #[test]
        fn a_size_reads_back_as_it_was_shown(bytes: u64) {
            prop_assert_eq!(read_size(&show_size(bytes)), Ok(bytes));
        }

        #[test]
        fn a_duration_reads_back_as_it_was_shown(ms: u64) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(read_duration(&show_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_a_reader_panic(text: String) {
            let _ = read_size(&text);
            let _ = read_duration(&text);
            let _ = read_thousandths(&text, 0, u32::MAX);
        }
    }
}
