//! Ending threads that go on until they are told.

use std::sync::atomic::{AtomicBool, Ordering};

/// Clears a flag when dropped, so that threads that go on while it is set end with a test that fails
/// as well.
#[derive(Debug)]
pub struct TurnOff<'a>(pub &'a AtomicBool);

impl Drop for TurnOff<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
