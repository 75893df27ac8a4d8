//! Which core a thread runs on.
//!
//! A thread that is pinned passes its core on to every thread it starts.

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

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
    cores_of(None)
}

/// The core that another process is pinned to, if it is one alone.
pub(crate) fn pinned_core(pid: u32) -> Option<usize> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    match cores_of(Some(pid)).as_slice() {
        [core] => Some(*core),
        _ => None,
    }
}

fn cores_of(pid: Option<Pid>) -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(pid) else {
        return Vec::new();
    };
    (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect()
}
