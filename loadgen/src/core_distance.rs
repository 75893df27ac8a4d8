//! How far apart two cores lie: the time in which one hands a line of the cache to the other.
//!
//! Where two cores have a cache in common that is some 40 ns, where they have none four times that. What
//! goes from one to the other then takes twice as long too: a server that mostly copies is half as fast.
//! A host may move the cores of a virtual machine at any time, so this is measured around every run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::clock;
use crate::pinning;

/// Exchanges between two looks at the clock, which may take longer than one of them.
const EXCHANGES: u64 = 50;
const ROUNDS: usize = 40;
/// It takes less than a millisecond, unless a core is taken away meanwhile.
const TIME_MAX_NS: u64 = 200_000_000;
/// Looks at the line between two looks at the clock, and those of them that follow at once: on some
/// processors a pause is longer than an exchange.
const LOOKS: u32 = 4_096;
const LOOKS_WITHOUT_PAUSE: u32 = 256;
/// From here on the cores have no cache in common.
pub(crate) const APART_NS: f64 = 100.0;

/// A number alone in its lines of the cache: processors fetch two at a time.
#[repr(align(128))]
struct Line(AtomicU64);

impl Line {
    /// Waits for `number`; whether it came before the time was up.
    fn await_number(&self, number: u64, deadline_ns: u64) -> bool {
        loop {
            for look in 0..LOOKS {
                if self.0.load(Ordering::Acquire) == number {
                    return true;
                }
                if look > LOOKS_WITHOUT_PAUSE {
                    std::hint::spin_loop();
                }
            }
            if clock::now_ns() > deadline_ns {
                return false;
            }
        }
    }
}

/// Nanoseconds from one core to the other, the median of many; `None` if one may not be had, or is not for a fifth of a second.
pub(crate) fn core_distance_ns([from, to]: [usize; 2]) -> Option<f64> {
    let line = Line(AtomicU64::new(0));
    let deadline_ns = clock::now_ns() + TIME_MAX_NS;
    thread::scope(|scope| {
        let answering = scope.spawn(|| {
            pinning::pin_to(&[to]).is_ok()
                && (0..EXCHANGES * ROUNDS as u64).all(|at| {
                    let has_come = line.await_number(2 * at + 1, deadline_ns);
                    line.0.store(2 * at + 2, Ordering::Release);
                    has_come
                })
        });
        let asking = scope.spawn(|| {
            pinning::pin_to(&[from]).ok()?;
            let mut number = 0;
            let mut exchange = || {
                line.0.store(number + 1, Ordering::Release);
                number += 2;
                line.await_number(number, deadline_ns)
            };
            let mut took_ns = [0; ROUNDS];
            for took_ns in &mut took_ns {
                let from_ns = clock::now_ns();
                if !(0..EXCHANGES).all(|_| exchange()) {
                    return None;
                }
                *took_ns = clock::now_ns() - from_ns;
            }
            took_ns.sort_unstable();
            Some(took_ns[ROUNDS / 2] as f64 / (2 * EXCHANGES) as f64)
        });
        let distance_ns = asking.join().ok().flatten();
        distance_ns.filter(|_| answering.join().is_ok_and(|has_answered| has_answered))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_are_some_way_apart() {
        let [one, other, ..] = *pinning::allowed_cores() else { return };
        // Other tests may keep a core for all of the time it may take.
        let distance_ns = (0..50).find_map(|_| core_distance_ns([one, other]));
        let distance_ns = distance_ns.expect("both are free for a moment");
        assert!((1.0..100_000.0).contains(&distance_ns), "{distance_ns} ns");
    }

    #[test]
    fn a_core_that_may_not_be_had_is_no_distance_away() {
        assert_eq!(core_distance_ns([0, 1_000_000]), None);
    }
}
