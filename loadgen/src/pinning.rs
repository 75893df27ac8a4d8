//! Which core a thread runs on.
//!
//! A thread that is pinned passes its core on to every thread it starts.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::error::LoadError;

/// Pins the calling thread to `core`. Fails if this process may not run there.
pub(crate) fn pin_to(core: usize) -> Result<(), LoadError> {
    if core >= CpuSet::MAX_CPU {
        return Err(LoadError::NoSuchCore { core });
    }
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).map_err(|_| LoadError::NoSuchCore { core })
}

/// The cores this thread may run on, lowest first.
pub(crate) fn allowed_cores() -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(None) else {
        return Vec::new();
    };
    (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect()
}
