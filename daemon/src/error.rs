//! Why a node does not start, or does not go on. Each text is one sentence for the operator.

use std::io;
use std::net::SocketAddr;

use nexusd_core::io::listener::ListenError;
use nexusd_core::io::setup_error::SetupError;

use crate::config::ConfigError;

/// Why a node does not start. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Settings that do not suit each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address cannot be listened on.
    #[error("{}", why_not_listening(.source, .setting))]
    Listen {
        /// The flag that chooses another address.
        setting: &'static str,
        /// Why.
        source: ListenError,
    },
    /// An HTTP port cannot be listened on.
    #[error("cannot listen on {address}: {}", why_not_bound(.source, .setting))]
    Http {
        /// The address asked for.
        address: SocketAddr,
        /// The flag that chooses another port.
        setting: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Beacons of other nodes cannot be received.
    #[error("cannot receive beacons on UDP {address}: {}", why_not_bound(.source, .setting))]
    Beacons {
        /// The address asked for.
        address: SocketAddr,
        /// The flag that chooses another port.
        setting: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Several of the above, each in use by another program.
    #[error(
        "cannot listen on {}: these addresses are already in use; stop the program that uses them or choose others",
        places(.0)
    )]
    Taken(Vec<StartError>),
    /// The kernel refuses what the shards need.
    #[error(transparent)]
    Io(#[from] SetupError),
    /// The control thread cannot be set up.
    #[error(
        "the control thread cannot be set up: {reason}; it needs io_uring, and a limit on locked \
         memory of at least 512 KiB (`ulimit -l`, LimitMEMLOCK= in systemd, `--ulimit memlock` in \
         Docker)"
    )]
    Control {
        /// What glommio says.
        reason: String,
    },
    /// The services of gRPC cannot be described.
    #[error("gRPC cannot be served: {reason}")]
    Grpc {
        /// What is wrong with the description.
        reason: String,
    },
    /// The CPU of `--pin` cannot be had.
    #[error("--pin {cpu}: this process may not run on that CPU")]
    Pin {
        /// The CPU asked for.
        cpu: usize,
    },
    /// This process may open too few files.
    #[error(
        "this process may open {limit} files, and needs {needed} for itself and --max-connections; \
         raise the limit (`ulimit -n`, LimitNOFILE= in systemd)"
    )]
    Files {
        /// Files it may open.
        limit: u64,
        /// Files it needs.
        needed: u64,
    },
    /// The system refuses a thread, an eventfd or random numbers.
    #[error("cannot get {what} from the system: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// The addresses that could not be had, each with the flag that chooses another.
fn places(taken: &[StartError]) -> String {
    let place = |error: &StartError| match error {
        StartError::Listen { setting, source: ListenError::InUse { address } } => {
            format!("{address} ({setting})")
        }
        StartError::Http { address, setting, .. } => format!("{address} ({setting})"),
        StartError::Beacons { address, setting, .. } => format!("UDP {address} ({setting})"),
        other => other.to_string(),
    };
    taken.iter().map(place).collect::<Vec<_>>().join(", ")
}

fn why_not_listening(error: &ListenError, setting: &str) -> String {
    match error {
        ListenError::InUse { address } => {
            let cause = why_not_bound(&io::ErrorKind::AddrInUse.into(), setting);
            format!("cannot listen on {address}: {cause}")
        }
        _ => error.to_string(),
    }
}

fn why_not_bound(error: &io::Error, setting: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "the address is already in use; stop the program that uses it or choose another {setting}"
        ),
        io::ErrorKind::PermissionDenied => {
            "permission denied; choose a port from 1024 up".to_owned()
        }
        _ => error.to_string(),
    }
}

impl StartError {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// Why a node ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The kernel refuses to go on with the ring of this thread.
    #[error("{thread} cannot go on: {source}")]
    Failed {
        /// The thread.
        thread: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A fault in the program itself. Report it with the reason.
    #[error("{thread} panicked: {reason}")]
    Panicked {
        /// The thread.
        thread: String,
        /// What it said.
        reason: String,
    },
}
