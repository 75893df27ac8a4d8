//! When beacons are due: the first at once, three more soon after, then one every second; and, when
//! the node stops, a few that say so.

use crate::limits::{BEACON_INTERVAL_US, FIRST_BEACON_INTERVAL_US, FIRST_BEACONS, GOODBYES};

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    Beacon,
    Goodbye,
}

/// Nothing is due before [`start`](Self::start).
#[derive(Debug, Default)]
pub(crate) struct BeaconSchedule {
    next_us: Option<u64>,
    beacons: u32,
    /// How many goodbyes are left, once the node stops.
    goodbyes_left: Option<u32>,
}

impl BeaconSchedule {
    pub(crate) fn start(&mut self, now_us: u64) {
        if self.next_us.is_none() && self.goodbyes_left.is_none() {
            self.next_us = Some(now_us);
        }
    }

    /// The node stops. One that never said anything says no goodbye either.
    pub(crate) fn stop(&mut self, now_us: u64) {
        if self.goodbyes_left.is_none() {
            self.goodbyes_left = Some(GOODBYES);
            self.next_us = self.next_us.map(|_| now_us);
        }
    }

    /// Takes what is due now, once: what was missed is not made up for.
    pub(crate) fn take_due(&mut self, now_us: u64) -> Option<Due> {
        let due_us = self.next_us.filter(|&next_us| next_us <= now_us)?;
        if let Some(left) = &mut self.goodbyes_left {
            *left -= 1;
            self.next_us = (*left > 0).then_some(now_us + FIRST_BEACON_INTERVAL_US);
            return Some(Due::Goodbye);
        }
        self.beacons = self.beacons.saturating_add(1);
        let interval_us = if self.beacons < FIRST_BEACONS {
            FIRST_BEACON_INTERVAL_US
        } else {
            BEACON_INTERVAL_US
        };
        let next_us = due_us + interval_us;
        self.next_us = Some(if next_us > now_us { next_us } else { now_us + interval_us });
        Some(Due::Beacon)
    }

    pub(crate) fn wake_at(&self) -> Option<u64> {
        self.next_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dues(schedule: &mut BeaconSchedule, until_us: u64) -> Vec<(u64, Due)> {
        let mut dues = Vec::new();
        while let Some(now_us) = schedule.wake_at().filter(|&us| us <= until_us) {
            let due = schedule.take_due(now_us).expect("it asked to be woken");
            dues.push((now_us / 1_000, due));
        }
        dues
    }

    #[test]
    fn the_first_beacon_goes_at_once_three_soon_after_then_one_a_second() {
        let mut schedule = BeaconSchedule::default();
        assert_eq!(schedule.take_due(u64::MAX), None, "nothing before the start");
        schedule.start(5_000_000);
        let times: Vec<u64> =
            dues(&mut schedule, 8_000_000).into_iter().map(|(ms, _)| ms).collect();
        assert_eq!(times, [5_000, 5_100, 5_200, 5_300, 6_300, 7_300]);
    }

    #[test]
    fn what_was_missed_is_not_made_up_for() {
        let mut schedule = BeaconSchedule::default();
        schedule.start(0);
        dues(&mut schedule, 1_000_000);
        assert_eq!(schedule.take_due(60_000_000), Some(Due::Beacon));
        assert_eq!(schedule.take_due(60_000_000), None);
        assert_eq!(schedule.wake_at(), Some(61_000_000));
    }

    #[test]
    fn a_node_that_stops_says_so_a_few_times_and_nothing_more() {
        let mut schedule = BeaconSchedule::default();
        schedule.start(0);
        dues(&mut schedule, 2_500_000);
        schedule.stop(2_600_000);
        schedule.stop(2_650_000);
        let goodbye = |ms| (ms, Due::Goodbye);
        assert_eq!(
            dues(&mut schedule, 90_000_000),
            [goodbye(2_600), goodbye(2_700), goodbye(2_800)]
        );
        schedule.start(99_000_000);
        assert_eq!(schedule.wake_at(), None);
    }
}
