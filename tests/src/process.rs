//! What a process uses, as the kernel counts it.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Length of the kernel's clock tick in `/proc/PID/stat`, fixed for user space.
const TICK: Duration = Duration::from_millis(10);

/// CPU time and memory of a process.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// User and system time of all its threads, to 10 ms.
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub rss: u64,
    /// The most it ever had resident, in bytes.
    pub peak_rss: u64,
    /// Pages of the program and its libraries that are resident now, in bytes.
    pub program: u64,
    /// Files it has open.
    pub open_files: usize,
}

/// What the process `pid` has used so far; `None` if there is no such process.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command may hold spaces and parentheses; fields are counted from its end.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    let cpu = TICK * (ticks()? + ticks()?);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kilobytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    Some(Usage {
        cpu,
        rss: kilobytes("VmRSS")? << 10,
        peak_rss: kilobytes("VmHWM")? << 10,
        program: kilobytes("RssFile")? << 10,
        open_files: std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
    })
}

/// How many files this process may open; raised as far as its user may.
pub fn open_files_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let reached = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    reached.unwrap_or(u64::MAX)
}
