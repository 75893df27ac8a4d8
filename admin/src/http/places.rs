//! How many connections each source has: none takes all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::HTTP_CONNECTIONS_PER_SOURCE_MAX;

/// The connections of each source that has one.
#[derive(Default, Debug)]
pub(super) struct Places {
    taken: Mutex<HashMap<u128, usize>>,
}

/// That of one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    source: u128,
}

impl Places {
    /// One more for this address; `None`: it has its share.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let source = source_of(address);
        let mut taken = self.lock();
        let count = taken.entry(source).or_default();
        if *count >= HTTP_CONNECTIONS_PER_SOURCE_MAX {
            return None;
        }
        *count += 1;
        Some(Place { places: Arc::clone(self), source })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u128, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(count) = taken.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.source);
            }
        }
    }
}

/// An IPv4 address, or an IPv6 network of 64 bits, which is the least that one customer has.
fn source_of(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_share_and_gets_it_back() {
        let places = Arc::new(Places::default());
        let take = |address: &str| places.take(address.parse().expect("an address"));
        let mut held: Vec<_> = std::iter::from_fn(|| take("192.0.2.1")).collect();
        assert_eq!(held.len(), HTTP_CONNECTIONS_PER_SOURCE_MAX);
        assert!(take("::ffff:192.0.2.1").is_none(), "that is the same one");
        assert!(take("192.0.2.2").is_some());
        held.pop();
        assert!(take("192.0.2.1").is_some());
        held.clear();
        assert!(places.lock().is_empty());
        let network: Vec<_> =
            (1..100).map_while(|host| take(&format!("2001:db8::{host}"))).collect();
        assert_eq!(network.len(), HTTP_CONNECTIONS_PER_SOURCE_MAX, "a network is one source");
    }
}
