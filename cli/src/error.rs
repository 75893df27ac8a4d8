//! Why a command failed, as one sentence that says what to do.

use std::io;

use crate::target::Target;

/// What a command ends with instead of an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// Nobody listens there, or nobody that speaks HTTP/2.
    #[error(
        "no daemon answers at {target}: is nexusd running there? `nexusd-cli discover` finds daemons"
    )]
    Unreachable { target: Target },
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
