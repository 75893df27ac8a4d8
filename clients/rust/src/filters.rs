//! The filters of a subscription, as applications write them.

use nexusd_wire::{NameError, check_filter};

use crate::error::Error;
use crate::limits;

/// The filters of a subscription: one, or several of which a message must match at least one.
///
/// Made from a string, an array, a slice or a vector of strings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filters(Vec<String>);

impl From<&str> for Filters {
    fn from(filter: &str) -> Self {
        Self(vec![filter.to_owned()])
    }
}

impl From<String> for Filters {
    fn from(filter: String) -> Self {
        Self(vec![filter])
    }
}

impl From<&String> for Filters {
    fn from(filter: &String) -> Self {
        Self(vec![filter.clone()])
    }
}

impl<T: AsRef<str>> From<&[T]> for Filters {
    fn from(filters: &[T]) -> Self {
        Self(filters.iter().map(|it| it.as_ref().to_owned()).collect())
    }
}

impl<T: AsRef<str>> From<&Vec<T>> for Filters {
    fn from(filters: &Vec<T>) -> Self {
        filters.as_slice().into()
    }
}

impl<T: AsRef<str>> From<Vec<T>> for Filters {
    fn from(filters: Vec<T>) -> Self {
        filters.as_slice().into()
    }
}

impl<T: AsRef<str>, const N: usize> From<[T; N]> for Filters {
    fn from(filters: [T; N]) -> Self {
        filters.as_slice().into()
    }
}

impl<T: AsRef<str>, const N: usize> From<&[T; N]> for Filters {
    fn from(filters: &[T; N]) -> Self {
        filters.as_slice().into()
    }
}

/// Bytes of a Subscribe frame for each filter beside its text, at most.
const BYTES_BESIDE_FILTER: usize = 16;

impl Filters {
    pub(crate) fn checked(self) -> Result<Vec<String>, Error> {
        if self.0.is_empty() {
            return Err(Error::invalid_topic("", NameError::Empty));
        }
        for filter in &self.0 {
            check_filter(filter).map_err(|rule| Error::invalid_topic(filter, rule))?;
        }
        let is_within = self.0.len() <= limits::FILTERS_PER_SUBSCRIPTION_MAX
            && encoded_bytes(&self.0) <= limits::SUBSCRIBE_BYTES_MAX;
        if is_within {
            Ok(self.0)
        } else {
            Err(Error::LimitReached {
                reason: format!(
                    "a subscription holds {} filters and {} bytes of them",
                    limits::FILTERS_PER_SUBSCRIPTION_MAX,
                    limits::SUBSCRIBE_BYTES_MAX
                ),
            })
        }
    }
}

/// Bytes that filters take of a Subscribe frame, at most.
pub(crate) fn encoded_bytes(filters: &[String]) -> usize {
    filters.iter().map(|filter| filter.len() + BYTES_BESIDE_FILTER).sum()
}

/// Whether a filter matches one topic alone: its own name.
pub(crate) fn is_topic(filter: &str) -> bool {
    !filter.contains(['+', '#'])
}
