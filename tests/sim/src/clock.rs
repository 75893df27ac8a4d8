//! Virtual time: goes on only when the run says so.

use nexusd_core::Now;

/// Both clocks a shard is told.
#[derive(Debug)]
pub struct Clock {
    now: Now,
}

impl Default for Clock {
    /// A clock that starts at an arbitrary time.
    fn default() -> Self {
        Self { now: Now { mono_us: 1_000_000, wall_us: 1_700_000_000_000_000 } }
    }
}

impl Clock {
    /// The time.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Lets both clocks run for a while.
    pub fn advance(&mut self, us: u64) {
        self.now.mono_us += us;
        self.now.wall_us += us;
    }

    /// Lets both clocks run until `mono_us`, if that lies ahead.
    pub fn advance_to(&mut self, mono_us: u64) {
        self.advance(mono_us.saturating_sub(self.now.mono_us));
    }

    /// Sets the wall clock, as an administrator or a time server would.
    pub fn jump_wall(&mut self, us: i64) {
        self.now.wall_us = self.now.wall_us.saturating_add_signed(us).max(1);
    }
}
