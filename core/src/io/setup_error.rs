//! Why io_uring could not be set up, in one sentence that names the cause and the remedy.
//!
//! The kernel answers with an error number alone; the rest of the sentence is read from `/proc`.

use std::fs;

/// The oldest kernel that has what the driver needs (`IORING_SETUP_DEFER_TASKRUN`).
pub const KERNEL_MIN: (u32, u32) = (6, 1);

/// Why a driver could not be set up.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SetupError {
    /// The kernel is too old. Upgrade it.
    #[error(
        "io_uring cannot be used: this host runs Linux {running}, and NexusD needs 6.1 or later; \
         upgrade the kernel"
    )]
    KernelTooOld {
        /// The version that runs.
        running: String,
    },
    /// There is no io_uring at all. Use another kernel, or another container runtime.
    #[error(
        "io_uring cannot be used: this kernel (Linux {running}) does not know the system call \
         io_uring_setup; use a kernel from 6.1 built with CONFIG_IO_URING, and a container runtime \
         or sandbox that passes the call on"
    )]
    NotThere {
        /// The version that runs.
        running: String,
    },
    /// The administrator switched io_uring off.
    #[error(
        "io_uring cannot be used: kernel.io_uring_disabled is {value} on this host{}; allow it with \
         `sysctl -w kernel.io_uring_disabled=0`",
        who_may(*.value)
    )]
    SwitchedOff {
        /// The setting: 1 restricts io_uring to a group, 2 forbids it to everybody.
        value: u32,
    },
    /// A sandbox refuses the system call although the kernel's own switch allows it.
    #[error(
        "io_uring cannot be used: permission denied, though kernel.io_uring_disabled does not \
         forbid it; the seccomp profile of a container or service refuses it, so run with one that \
         allows io_uring_setup, io_uring_enter and io_uring_register (such as Docker's \
         `--security-opt seccomp=PROFILE`)"
    )]
    Sandboxed,
    /// The ring or its buffers do not fit in the memory that may be locked, or there is none left.
    #[error(
        "io_uring cannot be used: no memory for {what}, and this process may lock {memlock}; raise \
         the limit (`ulimit -l`, LimitMEMLOCK= in systemd, `--ulimit memlock` in Docker) or free \
         memory"
    )]
    NoMemory {
        /// What was to be set up.
        what: &'static str,
        /// The limit on locked memory, with its unit.
        memlock: String,
    },
    /// No file descriptor is free.
    #[error(
        "io_uring cannot be used: no file descriptor is free; raise the limit on open files \
         (`ulimit -n`, LimitNOFILE= in systemd)"
    )]
    NoDescriptors,
    /// The kernel refused something that it should have.
    #[error("io_uring cannot be used: Linux {running} refused {what}: {cause}")]
    Refused {
        /// The version that runs.
        running: String,
        /// What was to be set up.
        what: &'static str,
        /// The text of the error number.
        cause: String,
    },
}

/// The second half of the sentence about the switch.
fn who_may(value: u32) -> &'static str {
    match value {
        1 => ", so only the group kernel.io_uring_group and privileged processes may use it",
        _ => ", so nobody may use it",
    }
}

impl SetupError {
    /// The error for `errno`, which setting up `what` ended with, on this host.
    pub(super) fn from_errno(what: &'static str, errno: i32) -> Self {
        Self::on_host(what, errno, &Host::read())
    }

    /// The error for a kernel that set up the ring but lacks a feature.
    pub(super) fn too_old() -> Self {
        Self::KernelTooOld { running: Host::read().kernel }
    }

    fn on_host(what: &'static str, errno: i32, host: &Host) -> Self {
        let running = host.kernel.clone();
        match errno {
            libc::EPERM | libc::EACCES => match host.io_uring_disabled {
                Some(value @ 1..) => Self::SwitchedOff { value },
                _ => Self::Sandboxed,
            },
            libc::ENOSYS => Self::NotThere { running },
            libc::EINVAL if host.is_too_old() => Self::KernelTooOld { running },
            libc::ENOMEM => Self::NoMemory { what, memlock: host.memlock.clone() },
            libc::EMFILE | libc::ENFILE => Self::NoDescriptors,
            _ => Self::Refused {
                running,
                what,
                cause: std::io::Error::from_raw_os_error(errno).to_string(),
            },
        }
    }
}

/// What decides about io_uring on a host.
struct Host {
    /// The kernel's release, such as `6.1.0-18-amd64`.
    kernel: String,
    /// `kernel.io_uring_disabled`; kernels before 6.6 have no such setting.
    io_uring_disabled: Option<u32>,
    /// The limit on locked memory, with its unit.
    memlock: String,
}

impl Host {
    fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let kernel = text("/proc/sys/kernel/osrelease").trim().to_owned();
        Self {
            kernel: if kernel.is_empty() { "of unknown version".to_owned() } else { kernel },
            io_uring_disabled: text("/proc/sys/kernel/io_uring_disabled").trim().parse().ok(),
            memlock: memlock(&text("/proc/self/limits")),
        }
    }

    fn is_too_old(&self) -> bool {
        let mut numbers = self.kernel.split(['.', '-']).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < KERNEL_MIN,
            _ => false,
        }
    }
}

/// The soft limit on locked memory, out of `/proc/self/limits`.
fn memlock(limits: &str) -> String {
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))
        .and_then(|rest| rest.split_whitespace().next());
    match soft.map(str::parse::<u64>) {
        Some(Ok(bytes)) => format!("{} KiB", bytes / 1024),
        Some(Err(_)) => "any amount".to_owned(),
        None => "an unknown amount".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(kernel: &str, io_uring_disabled: Option<u32>) -> Host {
        Host { kernel: kernel.to_owned(), io_uring_disabled, memlock: "64 KiB".to_owned() }
    }

    fn sentence(errno: i32, host: &Host) -> String {
        let text = SetupError::on_host("the ring", errno, host).to_string();
        assert!(text.starts_with("io_uring cannot be used: "), "{text}");
        assert!(!text.contains('\n') && !text.contains("  "), "{text}");
        text
    }

    #[test]
    fn an_old_kernel_is_named_with_its_version() {
        let text = sentence(libc::EINVAL, &host("5.15.0-91-generic", None));
        assert!(text.contains("Linux 5.15.0-91-generic"), "{text}");
        assert!(text.contains("6.1 or later"), "{text}");
    }

    #[test]
    fn an_invalid_argument_on_a_new_kernel_does_not_blame_its_age() {
        for kernel in ["6.1.0", "6.10.3", "7.0.0-rc1"] {
            let text = sentence(libc::EINVAL, &host(kernel, Some(0)));
            assert!(text.contains("refused the ring"), "{text}");
            assert!(text.contains(kernel), "{text}");
        }
    }

    #[test]
    fn a_missing_system_call_names_kernel_configuration_and_sandbox() {
        let text = sentence(libc::ENOSYS, &host("6.6.0", None));
        assert!(text.contains("CONFIG_IO_URING"), "{text}");
        assert!(text.contains("sandbox"), "{text}");
    }

    #[test]
    fn the_switch_is_named_with_its_value_and_the_command_that_opens_it() {
        let everybody = sentence(libc::EPERM, &host("6.6.0", Some(2)));
        assert!(everybody.contains("kernel.io_uring_disabled is 2"), "{everybody}");
        assert!(everybody.contains("sysctl -w kernel.io_uring_disabled=0"), "{everybody}");
        let group = sentence(libc::EPERM, &host("6.6.0", Some(1)));
        assert!(group.contains("kernel.io_uring_group"), "{group}");
    }

    #[test]
    fn a_refusal_without_the_switch_is_put_down_to_seccomp() {
        for value in [None, Some(0)] {
            let text = sentence(libc::EPERM, &host("6.6.0", value));
            assert!(text.contains("seccomp"), "{text}");
            assert!(text.contains("io_uring_enter"), "{text}");
        }
    }

    #[test]
    fn want_of_memory_names_the_limit_and_how_to_raise_it() {
        let text = sentence(libc::ENOMEM, &host("6.6.0", Some(0)));
        assert!(text.contains("64 KiB"), "{text}");
        assert!(text.contains("ulimit -l"), "{text}");
        assert!(text.contains("LimitMEMLOCK"), "{text}");
    }

    #[test]
    fn want_of_descriptors_names_the_limit() {
        let text = sentence(libc::EMFILE, &host("6.6.0", Some(0)));
        assert!(text.contains("ulimit -n"), "{text}");
    }

    #[test]
    fn the_limit_on_locked_memory_is_read_from_proc() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max locked memory         8388608              8388608              bytes     \n";
        assert_eq!(memlock(limits), "8192 KiB");
        assert_eq!(
            memlock("Max locked memory         unlimited            unlimited            bytes"),
            "any amount"
        );
        assert_eq!(memlock(""), "an unknown amount");
    }

    #[test]
    fn this_host_can_be_read() {
        let host = Host::read();
        assert!(host.kernel.starts_with(|c: char| c.is_ascii_digit()));
        assert!(host.memlock.contains("KiB") || host.memlock == "any amount");
    }
}
