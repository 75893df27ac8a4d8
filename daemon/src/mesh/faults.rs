//! Errors of sockets that come again and again: each kind is logged when it comes first, all are
//! counted.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;

use tracing::{debug, warn};

/// What went wrong so far.
#[derive(Default, Debug)]
pub(super) struct Faults {
    /// By what was tried and the number of the error. Bounded: there are some hundred numbers.
    counts: BTreeMap<(&'static str, Option<i32>), u64>,
}

impl Faults {
    /// Counts an error, and warns if it is the first of its kind. `tried` ends the sentence "cannot …",
    /// `place` says where.
    pub(super) fn warn(&mut self, tried: &'static str, place: impl Display, error: &io::Error) {
        if self.count(tried, error) {
            warn!("cannot {tried} {place}: {error}; further errors of this kind are only counted");
        }
    }

    /// The same where nobody has to do anything about it.
    pub(super) fn note(&mut self, tried: &'static str, place: impl Display, error: &io::Error) {
        if self.count(tried, error) {
            debug!("cannot {tried} {place}: {error}");
        }
    }

    fn count(&mut self, tried: &'static str, error: &io::Error) -> bool {
        let count = self.counts.entry((tried, error.raw_os_error())).or_insert(0);
        *count += 1;
        *count == 1
    }

    /// How many there were.
    pub(super) fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_errors_are_counted_and_the_first_of_a_kind_is_told() {
        let mut faults = Faults::default();
        let unreachable = io::Error::from_raw_os_error(101);
        assert!(faults.count("send", &unreachable));
        assert!(!faults.count("send", &unreachable));
        assert!(faults.count("receive", &unreachable));
        assert!(faults.count("send", &io::Error::from_raw_os_error(105)));
        assert_eq!(faults.total(), 4);
    }
}
