//! Which core a thread runs on, and before whom.
//!
//! A thread that is pinned passes its core on to every thread it starts.

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

use crate::error::LoadError;

/// The lowest priority of the ordinary ones.
const NICEST: i32 = 19;

/// Pins the calling thread to these cores. Fails if this process may not run on one of them.
pub(crate) fn pin_to(cores: &[usize]) -> Result<(), LoadError> {
    let mut set = CpuSet::new();
    for &core in cores {
        if core >= CpuSet::MAX_CPU {
            return Err(LoadError::NoSuchCore { core });
        }
        set.set(core);
    }
    let refused = || cores.first().copied().unwrap_or(0);
    sched_setaffinity(None, &set).map_err(|_| LoadError::NoSuchCore { core: refused() })?;
    // The kernel leaves cores that may not be had out, as long as there is another one.
    let had = allowed_cores();
    match cores.iter().find(|core| !had.contains(core)) {
        Some(&core) => Err(LoadError::NoSuchCore { core }),
        None => Ok(()),
    }
}

/// Lets every other thread of the core go before the calling one, as far as the scheduler does that.
pub(crate) fn give_way() {
    // Being nicer is never refused.
    let _ = rustix::process::setpriority_process(None, NICEST);
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
