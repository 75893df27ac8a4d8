//! What a server costs, and who else was at work: CPU time and memory, as the kernel counts them in
//! `/proc`.

use std::fs;

use rustix::param::clock_ticks_per_second;

/// Whose cost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Account {
    /// A whole process.
    Process(u32),
    /// Some threads of this process: those of an embedded server.
    Threads(Vec<u32>),
    /// Nobody's: the server runs where we cannot look.
    Unknown,
}

/// CPU time used so far, in nanoseconds with the resolution of the kernel's clock tick (10 ms).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct CpuTime {
    /// In user space.
    pub(crate) user_ns: u64,
    /// In the kernel.
    pub(crate) system_ns: u64,
}

/// Memory, in KiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) resident_kb: u64,
    /// The most that was.
    pub(crate) peak_kb: u64,
}

impl CpuTime {
    /// The time used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            user_ns: self.user_ns.saturating_sub(earlier.user_ns),
            system_ns: self.system_ns.saturating_sub(earlier.system_ns),
        }
    }

    /// Both together, in nanoseconds.
    pub(crate) fn nanoseconds(self) -> u64 {
        self.user_ns + self.system_ns
    }

    /// Both together, in seconds.
    pub(crate) fn seconds(self) -> f64 {
        self.nanoseconds() as f64 / 1e9
    }
}

impl Account {
    /// CPU time used so far; `None` if it cannot be known.
    pub(crate) fn cpu(&self) -> Option<CpuTime> {
        match self {
            Self::Process(pid) => read_stat(&format!("/proc/{pid}/stat")),
            Self::Threads(threads) => {
                let mut sum = CpuTime::default();
                for thread in threads {
                    let of_thread = read_stat(&format!("/proc/self/task/{thread}/stat"))?;
                    sum.user_ns += of_thread.user_ns;
                    sum.system_ns += of_thread.system_ns;
                }
                Some(sum)
            }
            Self::Unknown => None,
        }
    }

    /// Memory; `None` if it cannot be known or is not the server's alone.
    pub(crate) fn memory(&self) -> Option<Memory> {
        let Self::Process(pid) = self else {
            return None;
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(Memory {
            resident_kb: kilobytes(&status, "VmRSS:")?,
            peak_kb: kilobytes(&status, "VmHWM:")?,
        })
    }

    /// Resident memory in bytes, counted page by page where the kernel lets us; `None` if it cannot
    /// be known or is not the server's alone.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        let Self::Process(pid) = self else {
            return None;
        };
        let counted = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .ok()
            .and_then(|rollup| kilobytes(&rollup, "Rss:"));
        counted.or_else(|| Some(self.memory()?.resident_kb)).map(|kilobytes| kilobytes << 10)
    }
}

/// CPU time spent so far on these cores by anybody, in nanoseconds: interrupts and what the host of a
/// virtual machine took included. `None` if it cannot be known.
pub(crate) fn busy_ns(cores: &[usize]) -> Option<u64> {
    parse_busy(&fs::read_to_string("/proc/stat").ok()?, cores, clock_ticks_per_second())
}

/// Adds up `user nice system - - irq softirq steal` of the cores' lines (proc_stat(5)).
fn parse_busy(stat: &str, cores: &[usize], ticks_per_second: u64) -> Option<u64> {
    let mut ticks = 0;
    for core in cores {
        let name = format!("cpu{core}");
        let line = stat.lines().find(|line| line.split_whitespace().next() == Some(&name))?;
        let fields: Vec<u64> =
            line.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0)).collect();
        ticks += [0, 1, 2, 5, 6, 7].iter().filter_map(|at| fields.get(*at)).sum::<u64>();
    }
    Some(ticks * 1_000_000_000 / ticks_per_second.max(1))
}

/// The threads of this process, by their ids.
pub(crate) fn own_threads() -> Vec<u32> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn read_stat(path: &str) -> Option<CpuTime> {
    parse_stat(&fs::read_to_string(path).ok()?, clock_ticks_per_second())
}

/// Reads `utime` and `stime`, the 14th and 15th field (proc_pid_stat(5)). The second field, the name,
/// may hold anything, so fields are counted from its closing bracket.
fn parse_stat(stat: &str, ticks_per_second: u64) -> Option<CpuTime> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let mut next = || {
        let ticks: u64 = fields.next()?.parse().ok()?;
        Some(ticks * 1_000_000_000 / ticks_per_second.max(1))
    };
    Some(CpuTime { user_ns: next()?, system_ns: next()? })
}

/// The value of a line such as `VmRSS:   1234 kB`.
pub(crate) fn kilobytes(status: &str, key: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(key))?.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_a_name_with_brackets_and_spaces() {
        let stat = "77 (a) b (c)) S 1 77 77 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 100 1 2 3";
        let expected = CpuTime { user_ns: 2_500_000_000, system_ns: 500_000_000 };
        assert_eq!(parse_stat(stat, 100), Some(expected));
        assert!((expected.seconds() - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_core_is_busy_with_everything_but_waiting() {
        let stat = "cpu  9 9 9 9\ncpu0 1 2 4 1000 1000 8 16 32 64 64\ncpu1 5 0 0 0\n\
                    cpu10 100 0 0 0\n";
        assert_eq!(parse_busy(stat, &[0], 1_000_000_000), Some(63));
        assert_eq!(parse_busy(stat, &[0, 1], 1_000_000_000), Some(68));
        assert_eq!(parse_busy(stat, &[2], 1_000_000_000), None);
    }

    #[test]
    fn a_cut_off_stat_is_nothing() {
        assert_eq!(parse_stat("77 (a) S 1 2 3", 100), None);
        assert_eq!(parse_stat("", 100), None);
    }

    #[test]
    fn this_process_can_be_accounted_for_and_a_missing_one_cannot() {
        let own = Account::Process(std::process::id());
        assert!(own.cpu().is_some());
        let memory = own.memory().expect("our own memory");
        assert!(memory.resident_kb > 0 && memory.peak_kb >= memory.resident_kb);
        assert_eq!(Account::Process(u32::MAX).cpu(), None);
        assert_eq!(Account::Unknown.cpu(), None);
    }

    #[test]
    fn threads_are_accounted_for_one_by_one() {
        let threads = own_threads();
        assert!(!threads.is_empty());
        assert!(Account::Threads(threads[..1].to_vec()).cpu().is_some());
    }
}
