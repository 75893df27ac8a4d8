//! The cores this process may run on, and which of them the daemon and the load get.

/// The daemon's core and the load's: the first and the last that we may use. On a machine with one
/// core they are the same.
pub(crate) fn for_daemon_and_load() -> (usize, usize) {
    let allowed = allowed();
    (allowed.first().copied().unwrap_or(0), allowed.last().copied().unwrap_or(0))
}

/// All that we may use.
pub(crate) fn allowed() -> Vec<usize> {
    allowed_in(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// Reads the line `Cpus_allowed_list: 0-3,8`.
fn allowed_in(status: &str) -> Vec<usize> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let mut cores = Vec::new();
    for range in list.unwrap_or_default().trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            cores.extend(first..=last);
        }
    }
    cores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_single_cores_are_read() {
        let status = "Name:\txtask\nCpus_allowed_list:\t0-2,5,8-9\nMems_allowed_list:\t0\n";
        assert_eq!(allowed_in(status), [0, 1, 2, 5, 8, 9]);
        assert_eq!(allowed_in(""), [0_usize; 0]);
    }
}
