//! The one clock of a run: nanoseconds of the kernel's monotonic clock.
//!
//! Every thread reads the same clock, so times stamped by a publisher and read by a subscriber of
//! this process compare directly. Sleeping is to an absolute time, so being woken late once does
//! not push later messages back, and it gives the core away: nothing here spins.

use std::num::NonZeroU64;
use std::time::Duration;

use rustix::thread::{clock_nanosleep_absolute, set_current_timer_slack};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds since an arbitrary start.
#[inline]
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Gives the core away until `deadline_ns`. Returns at once if that has passed.
pub(crate) fn sleep_until(deadline_ns: u64) {
    let deadline = Timespec {
        tv_sec: (deadline_ns / 1_000_000_000) as i64,
        tv_nsec: (deadline_ns % 1_000_000_000) as i64,
    };
    // A signal may end the sleep early; the deadline is absolute, so sleeping again is enough.
    while clock_nanosleep_absolute(ClockId::Monotonic, &deadline) == Err(rustix::io::Errno::INTR) {}
}

/// Asks the kernel to wake this thread at the time it asked for instead of up to 50 µs later.
pub(crate) fn wake_on_time() {
    // Refused only by kernels that have no timer slack at all: then there is nothing to lower.
    let _ = set_current_timer_slack(NonZeroU64::new(1));
}

/// A duration in nanoseconds; more than 584 years count as that.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
