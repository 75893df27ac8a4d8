//! Wakes a parked loop from another thread: an eventfd that the loop watches.
//!
//! Rung many times before the loop looks, it costs one system call: only the first ring writes.
//! Invariant: whoever changes what the loop should see does so before [`Doorbell::ring`], and the
//! loop calls [`Doorbell::answer`] before it looks; so nothing is overlooked.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// An eventfd, and whether it was rung since the loop last answered.
#[derive(Debug)]
pub(super) struct Doorbell {
    event: File,
    rung: AtomicBool,
}

impl Doorbell {
    /// A doorbell nobody rang. Fails when file descriptors or memory run out.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
            event: unsafe { File::from_raw_fd(descriptor) },
            rung: AtomicBool::new(false),
        })
    }

    /// Wakes the loop. Called by any thread.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            // The counter is never read, only watched; it would take 2⁶⁴ rings to fill it. A failed
            // write could only mean a closed descriptor, which `self` rules out.
            let _ = (&self.event).write_all(&1u64.to_ne_bytes());
        }
    }

    /// From now on another ring wakes the loop again. Called by the loop before it looks.
    pub(super) fn answer(&self) {
        self.rung.swap(false, Ordering::SeqCst);
    }

    /// What the loop watches.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
