//! How long a call may take until its answer begins: as long as its client waits, and no longer than any may.

use std::time::Duration;

use http::HeaderMap;

use crate::limits::REQUEST_TIMEOUT;

/// How long a client waits, by gRPC's rules.
const HEADER: &str = "grpc-timeout";
/// Digits that such a time may have.
const DIGITS_MAX: usize = 8;

/// The time for a call with these headers. A time that cannot be read is none.
pub(crate) fn time_for(headers: &HeaderMap) -> Duration {
    let told = headers.get(HEADER).and_then(|told| parse(told.to_str().ok()?));
    told.map_or(REQUEST_TIMEOUT, |told| told.min(REQUEST_TIMEOUT))
}

fn parse(told: &str) -> Option<Duration> {
    let (number, unit) = told.split_at_checked(told.len().checked_sub(1)?)?;
    let is_number = number.len() <= DIGITS_MAX && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|_| is_number)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 60 * 60)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(told: &str) -> Duration {
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static(HEADER),
            http::HeaderValue::from_str(told).expect("a value"),
        )]);
        time_for(&headers)
    }

    #[test]
    fn a_call_has_the_time_that_its_client_waits_and_no_more_than_any() {
        assert_eq!(time("5S"), Duration::from_secs(5));
        assert_eq!(time("250m"), Duration::from_millis(250));
        assert_eq!(time("7u"), Duration::from_micros(7));
        assert_eq!(time("99999999n"), Duration::from_nanos(99_999_999));
        for none in ["99999999H", "", "S", "5", "5x", "+5S", "123456789n", "-1S"] {
            assert_eq!(time(none), REQUEST_TIMEOUT, "{none}");
        }
        assert_eq!(time_for(&HeaderMap::new()), REQUEST_TIMEOUT);
    }
}
