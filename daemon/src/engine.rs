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

/// Asks the kernel for what `asked` says, and logs what an operator should know of the answer: the
/// queues of io_uring, which are the calling thread's, or nothing, which is all that epoll needs.
pub(crate) fn grant(
    asked: IoEngine,
    options: &UringOptions,
) -> Result<Option<UringQueues>, SetupError> {
    if asked == IoEngine::Epoll {
        info!("this node runs on epoll, as --io says");
        return Ok(None);
    }
    match UringQueues::set_up(options) {
        Err(refusal) if asked == IoEngine::Auto => {
            warn!(
                "{refusal}; this node runs on epoll instead, which takes some 15 % more CPU time \
                 where subscribers are many (--io epoll chooses it without a warning)"
            );
            Ok(None)
        }
        answer => answer.map(Some),
    }
}
