//! Numbers as people write them on a command line: `128`, `16K`, `20k`, `5s`, `max`.

use std::time::Duration;

/// Offered rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rate {
    /// As fast as one window of undelivered messages allows.
    Max,
    /// This many messages per second over all publishers, on an open-loop schedule.
    PerSecond(u64),
}

/// Reads `max` or a number of messages per second, with `k` or `M`.
pub(crate) fn parse_rate(text: &str) -> Result<Rate, String> {
    if text.eq_ignore_ascii_case("max") {
        return Ok(Rate::Max);
    }
    match scaled(text, 1_000) {
        Some(rate) if rate > 0 => Ok(Rate::PerSecond(rate)),
        _ => Err("give messages per second, such as 20k or 1M, or max".into()),
    }
}

/// Reads a count of messages, with `k` or `M`.
pub(crate) fn parse_count(text: &str) -> Result<u64, String> {
    match scaled(text, 1_000) {
        Some(count) if count > 0 => Ok(count),
        _ => Err("give a number above 0, such as 8192".into()),
    }
}

/// Reads a size in bytes, with `K` or `M` (of 1,024).
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    scaled(text, 1_024)
        .and_then(|size| usize::try_from(size).ok())
        .ok_or_else(|| "give a number of bytes, such as 128 or 16K".into())
}

/// Reads a duration: `5s`, `500ms`, `2m`; a bare number is milliseconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, milliseconds) = if let Some(number) = text.strip_suffix("ms") {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1_000.0)
    } else if let Some(number) = text.strip_suffix('m') {
        (number, 60_000.0)
    } else {
        (text, 1.0)
    };
    number
        .parse::<f64>()
        .ok()
        .filter(|number| number.is_finite() && *number >= 0.0)
        .and_then(|number| Duration::try_from_secs_f64(number * milliseconds / 1_000.0).ok())
        .ok_or_else(|| "give a duration, such as 5s or 500ms".into())
}

/// Reads a time between two events: a bare number is seconds.
pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(_) => parse_duration(&format!("{text}s")),
        Err(_) => parse_duration(text),
    }
    .map_err(|_| "give seconds, such as 2 or 0.1, or a duration, such as 100ms".into())
}

/// A whole number with an optional `k`, `M` or `G`.
fn scaled(text: &str, thousand: u64) -> Option<u64> {
    let scale = match text.bytes().last()? {
        b'k' | b'K' => thousand,
        b'm' | b'M' => thousand.pow(2),
        b'g' | b'G' => thousand.pow(3),
        _ => return text.replace('_', "").parse().ok(),
    };
    text[..text.len() - 1].parse::<u64>().ok()?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_decimal_and_sizes_binary() {
        assert_eq!(parse_rate("20k"), Ok(Rate::PerSecond(20_000)));
        assert_eq!(parse_rate("1M"), Ok(Rate::PerSecond(1_000_000)));
        assert_eq!(parse_rate("max"), Ok(Rate::Max));
        assert_eq!(parse_size("16K"), Ok(16_384));
        assert_eq!(parse_size("128"), Ok(128));
    }

    #[test]
    fn durations_take_a_unit_and_default_to_milliseconds() {
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("0.5s"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("250"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
    }

    #[test]
    fn a_bare_number_of_seconds_is_seconds() {
        assert_eq!(parse_seconds("2"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_seconds("0.1"), Ok(Duration::from_millis(100)));
        assert_eq!(parse_seconds("100ms"), Ok(Duration::from_millis(100)));
        for text in ["", "-1", "NaN", "inf", "soon"] {
            assert!(parse_seconds(text).is_err_and(|e| e.contains("100ms")), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in ["", "k", "-1", "fast", "0"] {
            assert!(parse_rate(text).is_err_and(|e| e.contains("20k")), "{text}");
        }
        for text in ["", "s", "-1s", "NaN", "1h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(parse_size("99999999999G").is_err());
    }
}
