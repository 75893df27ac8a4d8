//! Whether this node and a peer have the same retained values, by the digests in their beacons.
//!
//! What changes on one node is on its way to all others, and digests differ until it is there. So they
//! count once both have stood still for a while; and where comparing cures nothing, as on a node that has no
//! room for what the other has, it is tried ever less often.

use crate::limits::{COMPARE_AGAIN_MAX_US, COMPARE_AGAIN_US, RETAINED_STILL_US};

/// This node's digest.
#[derive(Debug, Default)]
pub(crate) struct OwnDigest {
    digest: u64,
    changed_us: u64,
}

impl OwnDigest {
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn change(&mut self, change: u64, now_us: u64) {
        self.digest ^= change;
        self.changed_us = now_us;
    }

    fn is_still(&self, now_us: u64) -> bool {
        now_us.saturating_sub(self.changed_us) >= RETAINED_STILL_US
    }
}

/// A peer's, as its beacons say it.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeersDigest {
    digest: Option<u64>,
    changed_us: u64,
    /// Not before that time are they compared again.
    next_us: u64,
    pause_us: u64,
}

impl PeersDigest {
    /// A beacon says what the peer has; whether it is time to compare all of it.
    pub(crate) fn on_beacon(&mut self, digest: u64, own: &OwnDigest, now_us: u64) -> bool {
        if self.digest != Some(digest) {
            (self.digest, self.changed_us) = (Some(digest), now_us);
        }
        if digest == own.digest {
            (self.next_us, self.pause_us) = (0, 0);
            return false;
        }
        let is_still = now_us.saturating_sub(self.changed_us) >= RETAINED_STILL_US;
        let is_time = is_still && own.is_still(now_us) && now_us >= self.next_us;
        if is_time {
            self.pause_us = (self.pause_us * 2).clamp(COMPARE_AGAIN_US, COMPARE_AGAIN_MAX_US);
            self.next_us = now_us + self.pause_us;
        }
        is_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    #[test]
    fn digests_that_differ_count_once_both_stand_still() {
        let (mut own, mut peers) = (OwnDigest::default(), PeersDigest::default());
        own.change(5, 10 * SECOND_US);
        assert!(!peers.on_beacon(5, &own, 11 * SECOND_US), "the same");
        assert!(!peers.on_beacon(7, &own, 12 * SECOND_US), "it has just changed");
        assert!(peers.on_beacon(7, &own, 15 * SECOND_US));
        own.change(1, 16 * SECOND_US);
        assert!(!peers.on_beacon(7, &own, 17 * SECOND_US), "this one has just changed");
    }

    #[test]
    fn where_comparing_cures_nothing_it_is_done_ever_less_often() {
        let (own, mut peers) = (OwnDigest::default(), PeersDigest::default());
        let compared = (0..3_600).filter(|s| peers.on_beacon(9, &own, s * SECOND_US)).count();
        assert!((10..25).contains(&compared), "{compared}");
        assert!(!peers.on_beacon(0, &own, 3_600 * SECOND_US));
        assert!(!peers.on_beacon(9, &own, 3_601 * SECOND_US));
        assert!(peers.on_beacon(9, &own, 3_604 * SECOND_US), "it began anew");
    }
}
