//! What can go wrong, as one enum that callers match.
//!
//! Every failure of the client is an [`Error`], whether the client found it, the daemon reported it
//! or the connection caused it. Errors are cheap to clone, because one broken connection may have to
//! be told to many waiting callers.

use std::io;
use std::sync::Arc;

use nexusd_wire::control::{self, ErrorCode, PublishStatus};
use nexusd_wire::{DecodeError, NameError};

/// Why an operation failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No answer within the time allowed. An acknowledged message may still be accepted later.
    #[error("{what} was not answered in time")]
    Timeout {
        /// What was waited for.
        what: &'static str,
    },
    /// Nobody answers requests on this topic. Reserved for request/reply.
    #[error("nobody is there to respond")]
    NoResponders,
    /// Payload or metadata beyond the daemon's limit. Send less, or raise `--max-payload`.
    #[error("too large: {reason}")]
    TooLarge {
        /// What is too large, and the limit.
        reason: String,
    },
    /// A topic or filter against the rules.
    #[error("invalid topic or filter: {reason}")]
    InvalidTopic {
        /// The name and the rule it breaks.
        reason: String,
    },
    /// Not for clients: publishing to `$SYS`.
    #[error("rejected: {reason}")]
    Rejected {
        /// What the daemon does not do for clients.
        reason: String,
    },
    /// A bound of the client or the daemon: connections, subscriptions, filters, topics, memory.
    #[error("limit reached: {reason}")]
    LimitReached {
        /// Which bound.
        reason: String,
    },
    /// A subscription that the daemon does not know: it has expired, or was ended.
    #[error("not found: {reason}")]
    NotFound {
        /// What was not found.
        reason: String,
    },
    /// The daemon does not do this in its version.
    #[error("not supported by the daemon: {reason}")]
    Unsupported {
        /// What it does not support.
        reason: String,
    },
    /// The daemon is stopping and did not accept the message. Sending it again cannot duplicate it.
    #[error("the daemon is stopping and did not accept it")]
    Draining,
    /// There is no connection. The client goes on trying unless its state is `Failed`.
    #[error("not connected to {address}: {source}")]
    NotConnected {
        /// The daemon's address, as it was given.
        address: Arc<str>,
        /// What the last attempt or the last connection ended with.
        source: Arc<io::Error>,
    },
    /// As many messages as the outbox holds wait to be sent. Try again later, or use `publish`,
    /// which waits while there is a connection.
    #[error("the outbox is full")]
    OutboxFull,
    /// The connection broke between the sending of a message and its acknowledgement: the daemon
    /// may or may not have accepted it. Sending it again may duplicate it.
    #[error("the connection broke before the answer: unknown whether the daemon accepted it")]
    OutcomeUnknown,
    /// Client and daemon have no protocol version in common. Update one of them.
    #[error("no common protocol version: {reason}")]
    VersionMismatch {
        /// Both versions.
        reason: String,
    },
    /// An address that cannot be understood.
    #[error("bad address `{address}`: {reason}")]
    BadAddress {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The client was closed, or the tokio runtime it lived in has ended.
    #[error("the client is closed")]
    Closed,
    /// One side does not follow the protocol. The connection is given up and made anew.
    #[error("protocol fault: {reason}")]
    Protocol {
        /// Who did what.
        reason: String,
    },
}

impl Error {
    /// Whether trying again with the same daemon is pointless.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::VersionMismatch { .. } | Self::Rejected { .. } | Self::Unsupported { .. }
        )
    }

    pub(crate) fn invalid_topic(name: &str, rule: NameError) -> Self {
        Self::InvalidTopic { reason: format!("`{}`: {rule}", name.escape_debug()) }
    }

    pub(crate) fn not_running() -> Self {
        Self::NotFound { reason: "the subscription does not run any more".to_owned() }
    }

    pub(crate) fn not_connected(address: &Arc<str>, source: io::Error) -> Self {
        Self::NotConnected { address: Arc::clone(address), source: Arc::new(source) }
    }

    /// What an Error frame says.
    pub(crate) fn reported(body: &control::Error<'_>) -> Self {
        let reason = body.message().unwrap_or("no reason given").to_owned();
        match body.code() {
            ErrorCode::VersionMismatch => Self::VersionMismatch { reason },
            ErrorCode::InvalidTopic => Self::InvalidTopic { reason },
            ErrorCode::TooLarge => Self::TooLarge { reason },
            ErrorCode::Rejected => Self::Rejected { reason },
            ErrorCode::LimitReached => Self::LimitReached { reason },
            ErrorCode::NotFound => Self::NotFound { reason },
            ErrorCode::Unsupported => Self::Unsupported { reason },
            ErrorCode::Draining => Self::Draining,
            code => Self::Protocol {
                reason: format!(
                    "the daemon reports {}: {reason}",
                    code.variant_name().unwrap_or("an error")
                ),
            },
        }
    }

    /// Why a publish was not accepted, from its acknowledgement.
    pub(crate) fn refused(status: PublishStatus) -> Self {
        match status {
            PublishStatus::Rejected => Self::Rejected {
                reason: "the daemon does not let clients publish to this topic".to_owned(),
            },
            PublishStatus::TooLarge => Self::TooLarge {
                reason: "payload or metadata is beyond the daemon's limit".to_owned(),
            },
            PublishStatus::Draining => Self::Draining,
            PublishStatus::LimitReached => {
                let reason = "the daemon has no memory for the message now (--memory-limit), or this address \
                              publishes faster than it may (--publish-rate-per-source)";
                Self::LimitReached { reason: reason.to_owned() }
            }
            PublishStatus::Unsupported => {
                Self::Unsupported { reason: "an option of the message".to_owned() }
            }
            other => Self::Protocol { reason: format!("a publish was answered with {other:?}") },
        }
    }
}

impl Error {
    /// What answers there speaks HTTP.
    pub(crate) fn http_port() -> Self {
        let reason = "it is a port for HTTP (--health-port, --metrics-port); that for applications is \
                      --app-port, 5672 unless told otherwise";
        Self::Protocol { reason: reason.to_owned() }
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::Protocol { reason: format!("the daemon sent what cannot be read: {error}") }
    }
}
