//! Whether this node holds what a peer wants, and when to ask for the whole of it.
//!
//! A peer sends its NodeState by itself when a link comes up, and deltas from then on. What is asked
//! for is the repair: nothing came, what came does not fit together, or the peer's beacons go on to
//! speak of another set than the one that is stored. A beacon overtakes a delta, and it may be lost;
//! so it only counts against what was stored before it, and only when a later one says so too.

use crate::backoff::interval_us;
use crate::config::Retry;
use crate::limits::{STATE_DEADLINE_US, STATE_DIFFERS_US, STATE_RETRY_MAX_US};
use crate::plant::{Plant, is_planted};

/// Between two requests.
const RETRY: Retry = Retry {
    count: u32::MAX,
    interval_us: STATE_DEADLINE_US,
    interval_max_us: STATE_RETRY_MAX_US,
    factor: 2.0,
    jitter: 0.2,
};

#[derive(Clone, Debug, Default)]
pub(crate) struct Sync {
    /// What the peer calls the set that is stored.
    stored: Option<u64>,
    /// When the whole is asked for, unless it is stored until then.
    ask_at_us: Option<u64>,
    /// Requests since what is stored was last known to be right.
    asked: u32,
    /// Since when the peer's beacons speak of another set.
    differs_since_us: Option<u64>,
}

impl Sync {
    /// A link stands: the peer's NodeState is on its way.
    pub(crate) fn on_up(&mut self, now_us: u64) {
        *self = Self { ask_at_us: Some(now_us + STATE_DEADLINE_US), ..Self::default() };
    }

    /// There is no link to ask over.
    pub(crate) fn on_down(&mut self) {
        *self = Self::default();
    }

    /// Something was stored, or did not fit.
    pub(crate) fn on_stored(&mut self, hash: Option<u64>, now_us: u64) {
        self.stored = hash;
        self.differs_since_us = None;
        match hash {
            Some(_) => self.ask_at_us = None,
            // What is on its way may well be what is missing, unless nothing was asked for yet.
            None if self.asked == 0 => self.ask_at_us = Some(now_us),
            None => self.ask_at_us = self.ask_at_us.or(Some(now_us)),
        }
    }

    /// The peer's beacon speaks of this set.
    pub(crate) fn on_beacon(&mut self, hash: u64, now_us: u64) {
        let Some(stored) = self.stored else { return };
        if is_planted(Plant::DeltaNotTold) {
            return;
        }
        if stored == hash {
            self.differs_since_us = None;
            self.ask_at_us = None;
            self.asked = 0;
            return;
        }
        let since_us = *self.differs_since_us.get_or_insert(now_us);
        // A peer whose beacons never fit is asked ever less often.
        let patience_us = STATE_DIFFERS_US.saturating_mul(1 << self.asked.min(5));
        if self.ask_at_us.is_none() && now_us - since_us >= patience_us {
            self.ask_at_us = Some(now_us);
        }
    }

    /// Whether the whole is to be asked for now; the next time is then set.
    pub(crate) fn take_request(&mut self, now_us: u64, dice: &mut fastrand::Rng) -> bool {
        if self.ask_at_us.is_none_or(|ask_at_us| ask_at_us > now_us) {
            return false;
        }
        self.asked = self.asked.saturating_add(1);
        let wait_us = interval_us(&RETRY, self.asked, dice).max(STATE_DEADLINE_US);
        self.ask_at_us = Some(now_us + wait_us);
        true
    }

    pub(crate) fn stored(&self) -> Option<u64> {
        self.stored
    }

    pub(crate) fn wake_at(&self) -> Option<u64> {
        self.ask_at_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    fn up() -> Sync {
        let mut sync = Sync::default();
        sync.on_up(0);
        sync
    }

    fn asks(sync: &mut Sync, now_us: u64) -> bool {
        sync.take_request(now_us, &mut fastrand::Rng::with_seed(1))
    }

    #[test]
    fn a_state_that_comes_by_itself_is_not_asked_for() {
        let mut sync = up();
        assert!(!asks(&mut sync, SECOND_US));
        sync.on_stored(Some(7), SECOND_US);
        assert_eq!(sync.wake_at(), None);
    }

    #[test]
    fn a_state_that_does_not_come_is_asked_for_ever_less_often() {
        let mut sync = up();
        let mut times = Vec::new();
        while times.len() < 7 {
            let now_us = sync.wake_at().expect("it waits");
            assert!(asks(&mut sync, now_us));
            times.push(now_us / SECOND_US);
        }
        assert_eq!(times[0], 5);
        assert!((5..=6).contains(&(times[1] - times[0])), "{times:?}");
        assert!((8..=12).contains(&(times[2] - times[1])), "{times:?}");
        assert!((48..=72).contains(&(times[6] - times[5])), "{times:?}");
    }

    #[test]
    fn what_does_not_fit_is_asked_for_at_once_and_once() {
        let mut sync = up();
        sync.on_stored(Some(7), SECOND_US);
        sync.on_stored(None, 2 * SECOND_US);
        assert!(asks(&mut sync, 2 * SECOND_US));
        sync.on_stored(None, 2 * SECOND_US);
        assert!(!asks(&mut sync, 3 * SECOND_US), "the answer is on its way");
        sync.on_stored(Some(8), 3 * SECOND_US);
        assert_eq!(sync.wake_at(), None);
    }

    #[test]
    fn a_beacon_that_overtakes_its_delta_asks_for_nothing() {
        let mut sync = up();
        sync.on_stored(Some(7), SECOND_US);
        sync.on_beacon(8, 2 * SECOND_US);
        sync.on_stored(Some(8), 2 * SECOND_US + 500);
        sync.on_beacon(8, 3 * SECOND_US);
        sync.on_beacon(8, 9 * SECOND_US);
        assert_eq!(sync.wake_at(), None);
    }

    #[test]
    fn lost_beacons_ask_for_nothing() {
        let mut sync = up();
        sync.on_stored(Some(7), SECOND_US);
        sync.on_beacon(7, 2 * SECOND_US);
        sync.on_stored(Some(8), 3 * SECOND_US);
        // None came since that spoke of 8.
        assert_eq!(sync.wake_at(), None);
    }

    #[test]
    fn beacons_that_go_on_to_differ_ask_for_the_whole() {
        let mut sync = up();
        sync.on_stored(Some(7), SECOND_US);
        for second in 2..=3 {
            sync.on_beacon(8, second * SECOND_US);
            assert!(!asks(&mut sync, second * SECOND_US));
        }
        sync.on_beacon(8, 4 * SECOND_US);
        assert!(asks(&mut sync, 4 * SECOND_US));
        sync.on_stored(Some(8), 4 * SECOND_US);
        sync.on_beacon(8, 5 * SECOND_US);
        assert_eq!(sync.wake_at(), None);
    }

    #[test]
    fn a_peer_whose_beacons_never_fit_is_asked_ever_less_often() {
        let mut sync = up();
        sync.on_stored(Some(7), 0);
        let mut requests = 0;
        for second in 1..=600 {
            sync.on_beacon(8, second * SECOND_US);
            if asks(&mut sync, second * SECOND_US) {
                requests += 1;
                sync.on_stored(Some(7), second * SECOND_US);
            }
        }
        assert!((5..=20).contains(&requests), "{requests}");
    }
}
