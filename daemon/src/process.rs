//! What the node asks of, or tells about, its process: limits, memory, CPU time, random numbers.

use std::time::Duration;
use std::{fs, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Raises the limit on open files as far as this user may, and returns it; `None` is no limit.
pub(crate) fn raise_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // A refusal leaves the limit as it was, and the caller looks at what it is.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current
}

/// Memory of the process in RAM, in KiB.
pub(crate) fn rss_kb() -> Option<u64> {
    kib("/proc/self/status", "VmRSS:")
}

/// Memory that the process can have, in KiB: the host's, or that of its container where that is less.
pub(crate) fn memory_kib() -> Option<u64> {
    let host = kib("/proc/meminfo", "MemTotal:")?;
    // Of a container's process it is the container's; elsewhere there is none.
    let own = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let own = own.and_then(|bytes| bytes.trim().parse::<u64>().ok());
    Some(own.map_or(host, |bytes| host.min(bytes / 1_024)))
}

/// A number of the kernel's, which stands behind its name.
fn kib(path: &str, name: &str) -> Option<u64> {
    let numbers = fs::read_to_string(path).ok()?;
    let line = numbers.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// CPU time of all threads so far, of the program and of the kernel for it.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// 128 bits nobody can guess.
pub(crate) fn random() -> io::Result<u128> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(u128::from_ne_bytes(bytes))
}

/// Keeps the calling thread on that CPU; fails if this process may not run there.
pub(crate) fn stay_on(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_used_time() {
        assert!(rss_kb().is_some_and(|kb| kb > 100));
        assert!(memory_kib() > rss_kb());
        assert!(cpu_time() > Duration::ZERO);
    }

    #[test]
    fn the_file_limit_ends_at_its_maximum() {
        assert_eq!(raise_file_limit(), getrlimit(Resource::Nofile).maximum);
    }

    #[test]
    fn a_thread_cannot_stay_on_a_cpu_that_does_not_exist() {
        assert!(stay_on(1_023).is_err());
        assert!(stay_on(usize::MAX).is_err());
    }

    #[test]
    fn two_random_numbers_differ() {
        assert_ne!(random().expect("a number"), random().expect("a number"));
    }
}
