//! How a shard talks to the kernel: what was asked for, and what this host grants.

use std::fmt;

use nexusd_core::io::ring::{UringOptions, UringQueues};
use nexusd_core::io::setup_error::SetupError;
use tracing::{info, warn};

use crate::config::IoEngine;

/// What is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Engine {
    /// io_uring.
    Uring,
    /// epoll.
    Epoll,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        })
    }
}

/// What a shard's driver can be made on.
pub(crate) enum Granted {
    /// The kernel's queues, which are the calling thread's.
    Uring(UringQueues),
    /// epoll needs nothing in advance.
    Epoll,
}

impl Granted {
    /// Asks the kernel for what `asked` says, and logs what an operator should know of the answer.
    pub(crate) fn ask(asked: IoEngine, options: &UringOptions) -> Result<Self, SetupError> {
        if asked == IoEngine::Epoll {
            info!("this node runs on epoll, as --io says");
            return Ok(Self::Epoll);
        }
        match UringQueues::set_up(options) {
            Ok(queues) => Ok(Self::Uring(queues)),
            Err(refusal) if asked == IoEngine::Auto => {
                warn!(
                    "{refusal}; this node runs on epoll instead, which takes more CPU time per \
                     message (--io epoll chooses that without a warning)"
                );
                Ok(Self::Epoll)
            }
            Err(refusal) => Err(refusal),
        }
    }
}
