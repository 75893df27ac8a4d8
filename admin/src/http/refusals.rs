//! What calls may be answered with instead of what was asked for, as the description of the routes tells it. The
//! answers themselves are made of a [`Fault`](crate::Fault).
#![expect(dead_code, reason = "these describe, and are never made")]

use utoipa::IntoResponses;

use super::Failure;

/// What any call may be answered with instead.
#[derive(IntoResponses)]
pub(super) enum Refused {
    /// It changes something and comes from elsewhere, or is asked over the loopback address under a public name
    #[response(status = 403)]
    Forbidden(Failure),
    /// The node drains, or does not answer in time
    #[response(status = 503)]
    Unavailable(Failure),
    /// Everything else: 404, no such path; 405, GET for POST or the other way round
    #[response(status = "default")]
    Other(Failure),
}

/// Of what is asked with something that can be wrong.
#[derive(IntoResponses)]
pub(super) enum Invalid {
    /// A filter, number, id or body that cannot be understood
    #[response(status = 400)]
    Invalid(Failure),
}

/// Of what names a client.
#[derive(IntoResponses)]
pub(super) enum Unknown {
    /// There is no such client
    #[response(status = 404)]
    Unknown(Failure),
}

/// Of what a program with a node in it does itself.
#[derive(IntoResponses)]
pub(super) enum Unsupported {
    /// This node cannot: it runs inside another program
    #[response(status = 409)]
    Unsupported(Failure),
}

/// Of what has a body.
#[derive(IntoResponses)]
pub(super) enum Unreadable {
    /// A body of more than 64 KiB
    #[response(status = 413)]
    TooLong(Failure),
    /// A body without Content-Type: application/json
    #[response(status = 415)]
    NoJson(Failure),
}
