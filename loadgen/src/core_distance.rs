//! How far apart two cores lie: the time in which one hands a line of the cache to the other.
//!
//! Where two cores have a cache in common that is some 50 ns, where they have none three times that, and
//! what goes through memory from one to the other takes twice as long: a server that mostly copies is half as fast.
//! A host may move the cores of a virtual machine at any time, so this is measured around every run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::clock;
use crate::pinning;

const EXCHANGES: u64 = 2_000;
/// It takes less than a millisecond, unless a core is taken away meanwhile.
const TIME_MAX_NS: u64 = 200_000_000;
/// Looks at the line between two looks at the clock.
const LOOKS: u32 = 4_096;
/// From here on the cores have no cache in common.
pub(crate) const APART_NS: f64 = 100.0;

/// A number alone in its lines of the cache: processors fetch two at a time.
#[repr(align(128))]
struct Line(AtomicU64);

impl Line {
    /// Waits for `number`; whether it came before the time was up.
    fn await_number(&self, number: u64, deadline_ns: u64) -> bool {
        loop {
            for _ in 0..LOOKS {
                if self.0.load(Ordering::Acquire) == number {
                    return true;
                }
                std::hint::spin_loop();
            }
            if clock::now_ns() > deadline_ns {
                return false;
            }
        }
    }
}

/// Nanoseconds from the first of these cores to the last, the median of many; `None` if they are one, or one may not be had.
pub(crate) fn core_distance_ns(cores: &[usize]) -> Option<f64> {
    let [first, .., last] = *cores else { return None };
    let line = Line(AtomicU64::new(0));
    let deadline_ns = clock::now_ns() + TIME_MAX_NS;
    thread::scope(|scope| {
        let answering = scope.spawn(|| {
            pinning::pin_to(&[last]).is_ok()
                && (0..EXCHANGES).all(|at| {
                    let has_come = line.await_number(2 * at + 1, deadline_ns);
                    line.0.store(2 * at + 2, Ordering::Release);
                    has_come
                })
        });
        let asking = scope.spawn(|| {
            pinning::pin_to(&[first]).ok()?;
            let mut took_ns = Vec::with_capacity(EXCHANGES as usize);
            for at in 0..EXCHANGES {
                let from_ns = clock::now_ns();
                line.0.store(2 * at + 1, Ordering::Release);
                if !line.await_number(2 * at + 2, deadline_ns) {
                    return None;
                }
                took_ns.push(clock::now_ns() - from_ns);
            }
            took_ns.sort_unstable();
            Some(took_ns[took_ns.len() / 2] as f64 / 2.0)
        });
        let distance_ns = asking.join().ok().flatten();
        distance_ns.filter(|_| answering.join().is_ok_and(|has_answered| has_answered))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_are_some_way_apart_and_one_is_not() {
        let cores = pinning::allowed_cores();
        assert_eq!(core_distance_ns(&cores[..1]), None);
        if cores.len() > 1 {
            let distance_ns = core_distance_ns(&cores).expect("both may be had");
            assert!((1.0..100_000.0).contains(&distance_ns), "{distance_ns} ns");
        }
    }

    #[test]
    fn a_core_that_may_not_be_had_is_no_distance_away() {
        assert_eq!(core_distance_ns(&[0, 1_000_000]), None);
    }
}
