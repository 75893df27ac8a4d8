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

/// Bytes the filters of one Subscribe frame may have together, with what the frame adds to each:
/// control frames are bounded.
const FILTER_BYTES_MAX: usize = limits::CONTROL_BYTES_MAX as usize - 1024;
const BYTES_BESIDE_FILTER: usize = 16;

impl Filters {
    pub(crate) fn checked(self) -> Result<Vec<String>, Error> {
        if self.0.is_empty() {
            return Err(Error::invalid_topic("", NameError::Empty));
        }
        for filter in &self.0 {
            check_filter(filter).map_err(|rule| Error::invalid_topic(filter, rule))?;
        }
        let bytes = self.0.iter().map(|it| it.len() + BYTES_BESIDE_FILTER);
        let is_within = self.0.len() <= limits::FILTERS_PER_SUBSCRIPTION_MAX
            && bytes.sum::<usize>() <= FILTER_BYTES_MAX;
        if is_within {
            Ok(self.0)
        } else {
            Err(Error::LimitReached {
                reason: format!(
                    "a subscription holds {} filters and {FILTER_BYTES_MAX} bytes of them",
                    limits::FILTERS_PER_SUBSCRIPTION_MAX
                ),
            })
        }
    }
}
