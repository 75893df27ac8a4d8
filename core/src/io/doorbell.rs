//! Wakes a parked loop from another thread: an eventfd that the loop watches.
//!
//! Only a loop that says that it sleeps is rung for, so a busy one costs its neighbours no system
//! call, and a sleeping one costs them one. Invariant: whoever changes what the loop should see does
//! so before [`Doorbell::ring`], and the loop looks once more behind [`Doorbell::fall_asleep`] before
//! it sleeps; so nothing is overlooked.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd};

use super::sleeper::Sleeper;

/// An eventfd, and whether the loop has to be woken.
#[derive(Debug)]
pub(super) struct Doorbell {
    event: File,
    sleeper: Sleeper,
}

impl Doorbell {
    /// The doorbell of a loop that is awake. Fails when file descriptors or memory run out.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
            event: unsafe { File::from_raw_fd(descriptor) },
            sleeper: Sleeper::default(),
        })
    }

    /// Wakes the loop if it sleeps. Called by any thread.
    pub(super) fn ring(&self) {
        if self.sleeper.is_to_be_woken() {
            // The counter is never read, only watched; it would take 2⁶⁴ rings to fill it. A failed
            // write could only mean a closed descriptor, which `self` rules out.
            let _ = (&self.event).write_all(&1u64.to_ne_bytes());
        }
    }

    /// The loop is about to sleep: from now on it is rung for.
    pub(super) fn fall_asleep(&self) {
        self.sleeper.fall_asleep();
    }

    /// The loop looks by itself again.
    pub(super) fn wake_up(&self) {
        self.sleeper.wake_up();
    }

    /// What the loop watches.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
