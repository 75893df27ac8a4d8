//! What this node wants of the others: a set of filters, each counted as often as it is wanted, and
//! what the others were told of it.
//!
//! The set has a name that goes with everything that is said about it. That is its hash, CRC-64/WE
//! over the sorted filters, each followed by `\n`, where it was computed; it takes a look at all of
//! them, so that is done once per beacon at most. A set that comes about in between is named by a
//! number that was never used before, until the next beacon gives it its hash. The empty set is 0, and
//! no other one is. Its size is bounded by what clients may subscribe to.
//!
//! Invariant: what the others were told, and what changed since, make what is wanted now.

use std::collections::BTreeMap;

use crate::plant::{Plant, is_planted};
use crc::{CRC_64_WE, Crc, Table};

static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_WE);

/// What names are apart: odd, so that it takes 2^64 of them before one comes again.
const NAME_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A change of the set, to be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Change {
    /// What the set was called before.
    pub(crate) before: u64,
    /// What it is called now.
    pub(crate) after: u64,
    pub(crate) added: Vec<Box<str>>,
    pub(crate) removed: Vec<Box<str>>,
}

#[derive(Debug)]
pub(crate) struct Interest {
    wanted: BTreeMap<Box<str>, u32>,
    /// Filters that are in one of the two, what is wanted and what was told; and whether in the first.
    changed: BTreeMap<Box<str>, bool>,
    /// What the set is called that the others were told.
    told: u64,
    /// Its hash, as far as it was computed.
    hash: Option<u64>,
    /// The newest hash there is, for beacons and for operators.
    last_hash: u64,
    /// A hash was computed since the last beacon.
    is_computed: bool,
    last_name: u64,
    hashes_computed: u64,
}

impl Interest {
    /// The empty set; `first_name` is any number.
    pub(crate) fn new(first_name: u64) -> Self {
        Self {
            wanted: BTreeMap::new(),
            changed: BTreeMap::new(),
            told: 0,
            hash: Some(0),
            last_hash: 0,
            is_computed: false,
            last_name: first_name,
            hashes_computed: 0,
        }
    }

    /// One subscription more, or one less, wants `filter`.
    pub(crate) fn count(&mut self, filter: &str, is_wanted: bool) {
        if is_wanted {
            if let Some(count) = self.wanted.get_mut(filter) {
                *count += 1;
                return;
            }
            self.wanted.insert(filter.into(), 1);
        } else {
            let Some(count) = self.wanted.get_mut(filter) else {
                debug_assert!(false, "{filter} was wanted before it no longer is");
                return;
            };
            *count -= 1;
            if *count > 0 && !is_planted(Plant::InterestMiscounted) {
                return;
            }
            self.wanted.remove(filter);
        }
        // What changed twice did not change.
        if self.changed.remove(filter).is_none() {
            self.changed.insert(filter.into(), is_wanted);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.wanted.len()
    }

    pub(crate) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// What the set is called that the others were told.
    pub(crate) fn told(&self) -> u64 {
        self.told
    }

    /// The hash, as of the last time it was computed.
    pub(crate) fn last_hash(&self) -> u64 {
        self.last_hash
    }

    pub(crate) fn hashes_computed(&self) -> u64 {
        self.hashes_computed
    }

    /// What is wanted, sorted.
    pub(crate) fn filters(&self) -> impl Iterator<Item = &str> {
        self.wanted.keys().map(|filter| &**filter)
    }

    /// What the others have to be told, if anything; from now on they were.
    pub(crate) fn take_change(&mut self) -> Option<Change> {
        if self.changed.is_empty() {
            return None;
        }
        let before = self.told;
        self.hash = self.wanted.is_empty().then_some(0);
        if self.hash.is_none() && !self.is_computed {
            self.is_computed = true;
            self.compute();
        }
        self.told = self.hash.unwrap_or_else(|| self.new_name());
        self.last_hash = self.hash.unwrap_or(self.last_hash);
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for (filter, is_wanted) in std::mem::take(&mut self.changed) {
            if is_wanted { &mut added } else { &mut removed }.push(filter);
        }
        Some(Change { before, after: self.told, added, removed })
    }

    /// A beacon is due: what the others have to be told so that they call the set by its hash.
    pub(crate) fn take_change_for_beacon(&mut self) -> Option<Change> {
        // Computing it now counts for the time up to the next beacon.
        self.is_computed = false;
        if let Some(change) = self.take_change() {
            return Some(change);
        }
        if self.hash.is_some() {
            return None;
        }
        self.is_computed = true;
        let (before, after) = (self.told, self.compute());
        self.told = after;
        Some(Change { before, after, added: Vec::new(), removed: Vec::new() })
    }

    /// A name that no set had.
    pub(crate) fn new_name(&mut self) -> u64 {
        self.last_name = self.last_name.wrapping_add(NAME_STEP);
        if self.last_name == 0 {
            self.last_name = NAME_STEP;
        }
        self.last_name
    }

    fn compute(&mut self) -> u64 {
        let mut digest = CRC.digest();
        for filter in self.wanted.keys() {
            digest.update(filter.as_bytes());
            digest.update(b"\n");
        }
        self.hashes_computed += 1;
        // 0 is the empty set alone; who has it so is as good as unnamed.
        let hash = match digest.finalize() {
            0 => self.new_name(),
            hash => hash,
        };
        self.hash = Some(hash);
        self.last_hash = hash;
        hash
    }

    pub(crate) fn assert_invariants(&self) {
        for (filter, is_wanted) in &self.changed {
            assert_eq!(self.wanted.contains_key(filter), *is_wanted, "{filter} changed so");
        }
        assert!(self.wanted.values().all(|&count| count > 0), "only what is wanted is counted");
        if self.changed.is_empty() {
            assert_eq!(self.told == 0, self.wanted.is_empty(), "0 is the empty set");
            assert!(self.hash.is_none_or(|hash| hash == self.told), "a hash is a name");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn interest() -> Interest {
        Interest::new(77)
    }

    fn hash_of(filters: &[&str]) -> u64 {
        let mut interest = interest();
        for filter in filters {
            interest.count(filter, true);
        }
        interest.take_change_for_beacon();
        interest.last_hash()
    }

    #[test]
    fn the_hash_is_crc_64_we() {
        assert_eq!(CRC.checksum(b"123456789"), 0x62ec_59e3_f1a4_f00a);
        assert_eq!(CRC.checksum(b""), 0);
    }

    #[test]
    fn the_hash_covers_the_sorted_filters_each_with_an_end() {
        assert_eq!(hash_of(&[]), 0);
        assert_eq!(hash_of(&["b", "a/#", "b"]), CRC.checksum(b"a/#\nb\n"));
        assert_ne!(hash_of(&["ab"]), hash_of(&["a", "b"]));
    }

    #[test]
    fn a_filter_is_told_when_the_first_wants_it_and_when_the_last_does_not() {
        let mut interest = interest();
        interest.count("a", true);
        interest.count("a", true);
        let change = interest.take_change().expect("it is new");
        assert_eq!((change.before, &*change.added), (0, &["a".into()][..]));
        interest.count("a", false);
        assert_eq!(interest.take_change(), None);
        interest.count("a", false);
        let change = interest.take_change().expect("it is gone");
        assert_eq!((change.after, &*change.removed), (0, &["a".into()][..]));
        interest.assert_invariants();
    }

    #[test]
    fn what_comes_and_goes_at_once_is_not_told() {
        let mut interest = interest();
        interest.count("a", true);
        interest.count("a", false);
        assert_eq!(interest.take_change(), None);
    }

    #[test]
    fn a_single_change_is_told_with_its_hash() {
        let mut interest = interest();
        interest.count("a", true);
        assert_eq!(interest.take_change().expect("a change").after, hash_of(&["a"]));
        assert_eq!(interest.take_change_for_beacon(), None, "they call it so already");
    }

    #[test]
    fn the_hash_is_computed_once_per_beacon_whatever_changes() {
        let mut interest = interest();
        let mut names = BTreeSet::new();
        for beacon in 1..=10 {
            for number in 0..50 {
                interest.count(&format!("{beacon}/{number}"), true);
                let change = interest.take_change().expect("a change");
                assert!(names.insert(change.after), "no name comes twice");
            }
            let change = interest.take_change_for_beacon().expect("its hash");
            assert_eq!(change.after, interest.last_hash());
            assert_eq!(interest.told(), interest.last_hash());
            assert!(interest.hashes_computed() <= beacon + 1);
        }
    }

    #[test]
    fn nothing_is_computed_while_nothing_changes() {
        let mut interest = interest();
        interest.count("a", true);
        interest.take_change();
        for _ in 0..10 {
            assert_eq!(interest.take_change_for_beacon(), None);
        }
        assert_eq!(interest.hashes_computed(), 1);
    }

    proptest! {
        #[test]
        fn who_follows_the_changes_has_the_set(
            steps in prop::collection::vec((0..6_u8, any::<bool>(), 0..4_u8), 1..200),
        ) {
            let mut interest = interest();
            let (mut counts, mut followed, mut name) = ([0; 6], BTreeSet::new(), 0);
            for (filter, is_wanted, then) in steps {
                let count = &mut counts[usize::from(filter)];
                if is_wanted || *count > 0 {
                    *count += if is_wanted { 1 } else { -1 };
                    interest.count(&filter.to_string(), is_wanted);
                }
                let change = match then {
                    0 => interest.take_change(),
                    1 => interest.take_change_for_beacon(),
                    _ => None,
                };
                if let Some(change) = change {
                    prop_assert_eq!(change.before, name);
                    name = change.after;
                    for filter in &change.removed {
                        prop_assert!(followed.remove(filter));
                    }
                    for filter in change.added {
                        prop_assert!(followed.insert(filter));
                    }
                }
                interest.assert_invariants();
                if !interest.has_changed() {
                    let filters: Vec<&str> = interest.filters().collect();
                    prop_assert!(followed.iter().map(|filter| &**filter).eq(filters));
                    prop_assert_eq!(interest.told(), name);
                }
            }
        }
    }
}
