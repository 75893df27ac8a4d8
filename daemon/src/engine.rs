//! How the shards of a node talk to the kernel: what was asked for, and what this host grants.

use std::fmt;

use tracing::{info, warn};

use crate::config::IoEngine;
use crate::error::StartError;

/// What is in use, or may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Engine {
    /// io_uring.
    Uring,
    /// epoll.
    Epoll,
}

impl Engine {
    /// What the kernel is to be asked for first.
    pub(crate) fn wanted(asked: IoEngine) -> Self {
        match asked {
            IoEngine::Auto | IoEngine::Uring => Self::Uring,
            IoEngine::Epoll => Self::Epoll,
        }
    }

    /// Decides for all shards of a node, and logs what an operator should know of it. `answers` is
    /// what became of [`Self::wanted`] on each shard's thread: what only some have, none takes.
    pub(crate) fn decide(
        asked: IoEngine,
        answers: impl Iterator<Item = Result<(), StartError>>,
    ) -> Result<Self, StartError> {
        let mut refusal = None;
        for answer in answers {
            match answer {
                Err(StartError::Io(error)) if asked == IoEngine::Auto => refusal = Some(error),
                _ => answer?,
            }
        }
        if let Some(refusal) = refusal {
            warn!(
                "{refusal}; this node runs on epoll instead, which takes some 15 % more CPU time \
                 where subscribers are many (--io epoll chooses it without a warning)"
            );
            return Ok(Self::Epoll);
        }
        if asked == IoEngine::Epoll {
            info!("this node runs on epoll, as --io says");
        }
        Ok(Self::wanted(asked))
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        })
    }
}

#[cfg(test)]
mod tests {
    use nexusd_core::io::setup_error::SetupError;

    use super::*;

    fn refused() -> Result<(), StartError> {
        Err(SetupError::Sandboxed.into())
    }

    #[test]
    fn one_refused_shard_takes_all_of_the_node_to_epoll() {
        let decide = |asked| Engine::decide(asked, [Ok(()), refused(), Ok(())].into_iter());
        assert_eq!(decide(IoEngine::Auto).expect("a choice"), Engine::Epoll);
        assert!(matches!(decide(IoEngine::Uring), Err(StartError::Io(_))));
    }

    #[test]
    fn what_epoll_cannot_cure_is_no_start() {
        let answers = [refused(), Err(StartError::Pin { cpu: 9 })];
        let error = Engine::decide(IoEngine::Auto, answers.into_iter()).expect_err("no such CPU");
        assert!(matches!(error, StartError::Pin { cpu: 9 }));
    }
}
