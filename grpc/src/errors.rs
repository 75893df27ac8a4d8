//! What went wrong, as gRPC says it.

use nexusd_client::Error;
use nexusd_wire::control::{self, ErrorCode};
use nexusd_wire::{CLOSED_BY_OPERATOR, DecodeError};
use tonic::{Code, Status};

/// A failed publish.
pub(crate) fn status_of(error: &Error) -> Status {
    Status::new(code_of(error), error.to_string())
}

fn code_of(error: &Error) -> Code {
    match error {
        Error::InvalidTopic { .. } | Error::TooLarge { .. } => Code::InvalidArgument,
        Error::Rejected { .. } => Code::PermissionDenied,
        Error::LimitReached { .. } | Error::OutboxFull => Code::ResourceExhausted,
        Error::NotFound { .. } => Code::NotFound,
        Error::Unsupported { .. } => Code::Unimplemented,
        Error::Timeout { .. } => Code::DeadlineExceeded,
        Error::Draining | Error::NotConnected { .. } | Error::Closed => Code::Unavailable,
        // The message may have been accepted: who tries again may publish it twice.
        Error::OutcomeUnknown => Code::Unknown,
        _ => Code::Internal,
    }
}

/// What the daemon says is wrong.
pub(crate) fn reported(body: &control::Error<'_>) -> Status {
    let code = match body.code() {
        ErrorCode::InvalidTopic | ErrorCode::TooLarge => Code::InvalidArgument,
        ErrorCode::Rejected => Code::InvalidArgument,
        ErrorCode::LimitReached if body.message() == Some(CLOSED_BY_OPERATOR) => Code::Aborted,
        ErrorCode::LimitReached => Code::ResourceExhausted,
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::Unsupported => Code::Unimplemented,
        ErrorCode::Draining | ErrorCode::Timeout => Code::Unavailable,
        _ => Code::Internal,
    };
    Status::new(code, body.message().unwrap_or("no reason given"))
}

/// The daemon beside us cannot be understood.
pub(crate) fn unreadable(error: &DecodeError) -> Status {
    Status::internal(format!("the daemon sent what cannot be read: {error}"))
}

/// There is no way to the daemon beside us.
pub(crate) fn cut_off(error: &std::io::Error) -> Status {
    Status::unavailable(format!("the connection to the daemon broke: {error}"))
}
