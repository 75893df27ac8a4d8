//! The clocks a driver reads, once per turn.
//!
//! [`Now::mono_us`] is the kernel's `CLOCK_MONOTONIC`, so every thread of the process means the same
//! instant by it; a drain deadline for [`crate::Command::Drain`] is made from [`now`] on any thread.
#![allow(unsafe_code)]

use crate::shard::event::Now;

/// Both clocks, now.
pub fn now() -> Now {
    Now {
        mono_us: microseconds(libc::CLOCK_MONOTONIC),
        wall_us: microseconds(libc::CLOCK_REALTIME),
    }
}

/// The monotonic clock alone, in microseconds.
pub(super) fn mono_us() -> u64 {
    microseconds(libc::CLOCK_MONOTONIC)
}

fn microseconds(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to for the length of the call. The call cannot
    // fail for these two clocks; if it did, `time` would stay zero.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    // A wall clock before 1970 counts as 1970.
    u64::try_from(time.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000)
        .saturating_add(u64::try_from(time.tv_nsec / 1_000).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_does_not_go_back_and_the_wall_clock_is_past_2020() {
        let first = now();
        let second = now();
        assert!(second.mono_us >= first.mono_us);
        assert!(first.wall_us > 1_577_836_800_000_000);
    }
}
