//! Why a command failed, as one sentence that says what to do.

use std::error::Error;
use std::io;
use std::time::Duration;

use crate::format::duration;
use crate::target::Target;

/// What a command ends with instead of an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// Nobody listens there.
    #[error(
        "no daemon answers at {target} ({cause}): is nexusd running there? `nexusd-cli discover` finds daemons"
    )]
    Unreachable { target: Target, cause: String },
    /// Somebody listens there, but says nothing that makes sense.
    #[error(
        "{target} took the connection and closed it: another port than that for applications (5672; 5671 is the \
         mesh's, 8080 for health, 9090 for metrics), or a nexusd that ends or has as many connections as it may \
         (--max-connections), while the JSON interface on --health-port may still answer ({cause})"
    )]
    Closed { target: Target, cause: String },
    /// Whoever listens there speaks something else.
    #[error("{target} is no port for applications: {reason}")]
    Foreign { target: Target, reason: String },
    /// Nobody takes or refuses the connection.
    #[error(
        "nobody answered at {target} within {}: is that the address, and is the port open in between? \
         `nexusd-cli discover` finds daemons; --timeout waits longer",
        duration(*.time)
    )]
    Silent { target: Target, time: Duration },
    /// It is connected, but silent.
    #[error("the daemon at {target} did not answer within {ms} ms; --timeout gives it longer")]
    Timeout { target: Target, ms: u128 },
    /// The daemon knows no such question.
    #[error("the daemon at {target} does not answer this; it may be of an older version")]
    Unknown { target: Target },
    /// The daemon answers with an error.
    #[error("the daemon at {target} says: {reason}")]
    Refused { target: Target, reason: String },
    /// Publishing or subscribing failed.
    #[error("{0}")]
    Client(#[from] nexusd_client::Error),
    /// The prompt is not connected.
    #[error("not connected: CONNECT HOST:PORT, or CONNECT and a number that DISCOVER shows")]
    NotConnected,
    /// A command that means something in the prompt alone.
    #[error("{command} is for the prompt; here, {instead}")]
    PromptOnly { command: &'static str, instead: &'static str },
    /// `-n`, or CONNECT, names nobody.
    #[error("there is no daemon {index}: {found} found; DISCOVER lists them")]
    NoSuchIndex { index: usize, found: String },
    /// A client that is not there.
    #[error("there is no client {id} at {target}; CLIENT LIST shows those that are")]
    NoSuchClient { id: String, target: Target },
    /// A filter, or nothing, where a topic belongs.
    #[error("`{name}` is no topic: {reason}")]
    NoTopic { name: String, reason: String },
    /// What the daemon cannot do yet.
    #[error("{0}")]
    NotYet(&'static str),
    /// An argument, or a line of a script.
    #[error("what is no UTF-8 cannot be given as a word; pass bytes through `-`")]
    NoText,
    /// `-` where lines of the standard input are commands.
    #[error("the standard input holds commands here; `-` is for a command of its own")]
    InputTaken,
    /// Something that asks first has nobody to ask.
    #[error("{what} asks before it does anything; where nobody can answer, --yes does")]
    Unconfirmed { what: &'static str },
    /// `--host` that cannot be one.
    #[error("bad address `{text}`: {reason}")]
    BadAddress { text: String, reason: &'static str },
    /// Beacons cannot be listened to.
    #[error(
        "cannot listen for beacons at {group}: {source}; --mcast-addr and --mcast-port say where"
    )]
    Beacons { group: String, source: io::Error },
    /// TOP has no JSON.
    #[error("TOP draws for people and has no JSON; MONITOR --json writes documents")]
    NoDocument,
    /// TOP needs a terminal.
    #[error("TOP draws on a terminal, and this is none; MONITOR writes lines")]
    NoTerminal,
    /// A stream that ended by itself.
    #[error("the subscription has ended: {0}")]
    Ended(nexusd_client::Error),
    /// Reading or writing here.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl CliError {
    /// A connection that could not be had, or broke.
    pub(crate) fn no_connection(
        target: Target,
        timeout: Duration,
        error: &(dyn Error + 'static),
    ) -> Self {
        let kind_of = |error: &(dyn Error + 'static)| error.downcast_ref().map(io::Error::kind);
        let (mut innermost, mut kind) = (error, kind_of(error));
        while let Some(source) = innermost.source() {
            innermost = source;
            kind = kind_of(source).or(kind);
        }
        let cause = innermost.to_string();
        match kind {
            // It was there before it broke. What is no error of this system is one of HTTP.
            None
            | Some(
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::NotConnected
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::InvalidData,
            ) => Self::Closed { target, cause },
            Some(io::ErrorKind::TimedOut) => Self::Silent { target, time: timeout },
            Some(_) => Self::Unreachable { target, cause },
        }
    }

    /// What the program ends with: 2 if it was not understood.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NoText | Self::BadAddress { .. } => 2,
            _ => 1,
        }
    }

    /// The reader of our output has had enough, as `head` does.
    pub(crate) fn is_closed_output(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_of_the_network_is_told_with_address_and_time() {
        let target: Target = "10.0.0.7:7000".parse().expect("an address");
        let late = io::Error::new(io::ErrorKind::TimedOut, "deadline has elapsed");
        let told = CliError::no_connection(target, Duration::from_secs(2), &late).to_string();
        assert!(told.starts_with("nobody answered at 10.0.0.7:7000 within 2.0 s: "), "{told}");
        assert!(!told.contains("elapsed"), "{told}");
    }
}
