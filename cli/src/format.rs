//! Numbers, sizes and times as people read them.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

/// A number with a comma between thousands.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size: `512 B`, `1.5 KiB`, `384 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1_024.0;
    let mut unit = 0;
    // What would be rounded up to the next unit is told in it.
    while size >= 1_023.95 && unit + 1 < UNITS.len() {
        size /= 1_024.0;
        unit += 1;
    }
    let text = format!("{size:.1}");
    format!("{} {}", text.strip_suffix(".0").unwrap_or(&text), UNITS[unit])
}

/// How often a second: whole from 10 on.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second >= 9.95 {
        format!("{}/s", number(per_second.round() as u64))
    } else if per_second > 0.0 {
        format!("{per_second:.1}/s")
    } else {
        "0/s".to_owned()
    }
}

/// The same in few characters: `999/s`, `1.2 k/s`, `12 k/s`, `1.2 M/s`.
pub(crate) fn rate_in_short(per_second: u64) -> String {
    let (value, unit) = match per_second {
        0..1_000 => return format!("{per_second}/s"),
        // What would be rounded up to the next unit is told in it.
        1_000..999_500 => (per_second as f64 / 1e3, "k"),
        _ => (per_second as f64 / 1e6, "M"),
    };
    if value < 9.95 { format!("{value:.1} {unit}/s") } else { format!("{value:.0} {unit}/s") }
}

/// A time in its two largest units: `3d 4h`, `5m 12s`, `1.2 s`, `250 ms`, `312 µs`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match seconds {
        86_400.. => format!("{days}d {hours}h"),
        3_600.. => format!("{hours}h {minutes}m"),
        60.. => format!("{minutes}m {}s", seconds % 60),
        10.. => format!("{seconds} s"),
        1.. => format!("{:.1} s", duration.as_secs_f64()),
        0 if duration.as_millis() >= 10 => format!("{} ms", duration.as_millis()),
        0 if duration.as_millis() >= 1 => format!("{:.1} ms", duration.as_secs_f64() * 1e3),
        0 => format!("{} µs", duration.as_micros()),
    }
}

/// The same, of milliseconds that a daemon gives.
pub(crate) fn milliseconds(ms: i64) -> String {
    duration(Duration::from_millis(ms.max(0).unsigned_abs()))
}

/// How long ago a time since 1970 was, by this host's clock.
pub(crate) fn ago(timestamp_ms: i64) -> String {
    let then = SystemTime::UNIX_EPOCH + Duration::from_millis(timestamp_ms.max(0).unsigned_abs());
    let age = SystemTime::now().duration_since(then).unwrap_or_default();
    format!("{} ago", duration(age))
}

/// A time since 1970 as UTC: `2026-01-31 23:59:59 UTC`.
pub(crate) fn utc(timestamp_ms: i64) -> String {
    let seconds = timestamp_ms.div_euclid(1_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Year, month and day of a number of days since 1970 (Howard Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms", civil_from_days).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months counted from March.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// `yes` or `no`.
pub(crate) fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// One of these, or several: `1 topic`, `2 topics`.
pub(crate) fn count(count: u64, one: &str) -> String {
    format!("{} {one}{}", number(count), if count == 1 { "" } else { "s" })
}

/// A payload as text on one line: what is no text, and what a terminal would obey, is escaped.
pub(crate) fn payload(payload: &[u8]) -> String {
    let mut text = String::with_capacity(payload.len());
    for chunk in payload.utf8_chunks() {
        text.push_str(&printable(chunk.valid()));
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// A text of somebody else on one line: what a terminal would obey is escaped.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut printable = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_obeyed(character) {
            printable.extend(character.escape_default());
        } else {
            printable.push(character);
        }
    }
    Cow::Owned(printable)
}

/// A document in which a terminal finds nothing to obey. What JSON does not escape by itself stands in strings
/// alone.
pub(crate) fn document(json: String) -> String {
    let is_left = |character: char| !character.is_ascii_control() && is_obeyed(character);
    if !json.contains(|character| is_left(character) || character == '\u{7f}') {
        return json;
    }
    let mut text = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if is_left(character) || character == '\u{7f}' {
            // All of them are within the first 65,536.
            text.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            text.push(character);
        }
    }
    text
}

/// Whether a terminal may do something else than to show this: controls of both sets, and those that change the
/// direction of what stands around them.
fn is_obeyed(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        let texts = [0, 999, 1_000, 12_345, 1_234_567].map(number);
        assert_eq!(texts, ["0", "999", "1,000", "12,345", "1,234,567"]);
        assert_eq!(number(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn sizes_have_the_unit_that_fits() {
        let texts = [0, 1_023, 1_024, 1_536, 384 << 20, (1 << 20) - 1].map(bytes);
        assert_eq!(texts, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "384 MiB", "1 MiB"]);
        assert_eq!(bytes(u64::MAX), "16 EiB");
    }

    #[test]
    fn short_rates_have_two_digits_and_more() {
        let rates = [0, 999, 1_000, 9_949, 9_950, 12_345, 999_499, 999_500, 12_000_000];
        let texts = rates.map(rate_in_short);
        let expected = [
            "0/s", "999/s", "1.0 k/s", "9.9 k/s", "10 k/s", "12 k/s", "999 k/s", "1.0 M/s",
            "12 M/s",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn durations_have_their_largest_units() {
        let texts = [
            Duration::from_micros(312),
            Duration::from_micros(1_250),
            Duration::from_millis(250),
            Duration::from_millis(1_200),
            Duration::from_secs(59),
            Duration::from_secs(312),
            Duration::from_secs(7_260),
            Duration::from_secs(100 * 3_600),
        ]
        .map(duration);
        let expected = ["312 µs", "1.2 ms", "250 ms", "1.2 s", "59 s", "5m 12s", "2h 1m", "4d 4h"];
        assert_eq!(texts, expected);
    }

    #[test]
    fn rates_are_whole_when_they_are_high() {
        assert_eq!(
            [0.0, 0.54, 9.94, 9.96, 12_345.6].map(rate),
            ["0/s", "0.5/s", "9.9/s", "10/s", "12,346/s"]
        );
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_825_600_000), "2000-02-29 12:00:00 UTC");
        assert_eq!(utc(1_798_761_599_999), "2026-12-31 23:59:59 UTC");
    }

    #[test]
    fn a_payload_cannot_move_the_cursor() {
        assert_eq!(payload(b"21.5 \xc2\xb0C"), "21.5 °C");
        assert_eq!(payload(b"a\x1b[2J\n\xff"), "a\\u{1b}[2J\\n\\xff");
        assert_eq!(payload("\u{9b}2J\u{202e}".as_bytes()), r"\u{9b}2J\u{202e}");
        assert_eq!(printable("a\u{2066}\u{2069}\u{7f}°"), r"a\u{2066}\u{2069}\u{7f}°");
    }

    #[test]
    fn a_document_holds_nothing_that_a_terminal_obeys() {
        let text = "\u{1b}\u{7f}\u{85}\u{9b}2J\u{202e}\u{2069}°\n";
        let json = serde_json::to_string_pretty(&[text]).expect("JSON");
        let json = document(json);
        let expected = "[\n  \"\\u001b\\u007f\\u0085\\u009b2J\\u202e\\u2069°\\n\"\n]";
        assert_eq!(json, expected);
        let [read]: [String; 1] = serde_json::from_str(&json).expect("JSON");
        assert_eq!(read, text);
    }
}
