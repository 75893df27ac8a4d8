//! Why a configuration is refused: always one sentence that names the source and the value, unless
//! that is a secret.

use std::fmt;
use std::path::PathBuf;

use super::setting::Setting;

/// Longest value repeated in a sentence, in characters.
const VALUE_SHOWN_MAX: usize = 80;

/// Why a configuration is refused. The text is one sentence for the operator.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// The value does not suit the setting.
    #[error("{origin}: {} {reason}", quoted(.value))]
    BadValue {
        /// Where the value stands.
        origin: Origin,
        /// The value.
        value: String,
        /// What is wrong with it, as the rest of a sentence.
        reason: String,
    },
    /// The value of a secret does not suit; it is not repeated.
    #[error("{origin}: the secret {reason}")]
    BadSecret {
        /// Where the value stands.
        origin: Origin,
        /// What is wrong with it, as the rest of a sentence.
        reason: String,
    },
    /// A flag, variable or key that no setting has.
    #[error("{origin} is unknown; {}", what_is_known(.suggestion))]
    Unknown {
        /// The name and where it stands.
        origin: Origin,
        /// The known name most like it, if any is.
        suggestion: Option<String>,
    },
    /// The command line is not made of flags with values.
    #[error("command line: {reason}")]
    CommandLine {
        /// What is wrong.
        reason: String,
    },
    /// The file is not TOML.
    #[error("{path} line {line}: {reason}", path = plain(&.path.to_string_lossy()))]
    NotToml {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The file cannot be read.
    #[error("{origin}: cannot read {path}: {reason}", path = quoted(&.path.to_string_lossy()))]
    UnreadableFile {
        /// Who named the file.
        origin: Origin,
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// Settings that do not suit each other.
    #[error("{sentence}")]
    Conflict {
        /// Names them and says why.
        sentence: String,
    },
}

impl ConfigError {
    /// The value of that setting does not suit it.
    pub(super) fn bad_value(
        setting: &Setting,
        origin: Origin,
        value: String,
        reason: String,
    ) -> Self {
        if setting.is_secret() {
            Self::BadSecret { origin, reason }
        } else {
            Self::BadValue { origin, value, reason }
        }
    }
}

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A flag, by its name with dashes.
    Flag(String),
    /// A variable of the environment, by its name.
    Variable(String),
    /// A key of the configuration file.
    Key {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
    },
}

impl Origin {
    /// The flag of that setting.
    pub(super) fn flag(name: &str) -> Self {
        Self::Flag(format!("--{name}"))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag {}", plain(name)),
            Self::Variable(name) => write!(f, "environment variable {}", plain(name)),
            Self::Key { path, line, key } => {
                let path = plain(&path.to_string_lossy());
                write!(f, "{path} line {line}: key {}", quoted(key))
            }
        }
    }
}

/// A name or value as it may stand in one line of a terminal.
fn plain(text: &str) -> String {
    let mut shown: String = text.chars().take(VALUE_SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown.escape_debug().to_string()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", plain(text))
}

fn what_is_known(suggestion: &Option<String>) -> String {
    match suggestion {
        Some(name) => format!("did you mean {name}?"),
        None => "`nexusd --help` lists what can be set".to_owned(),
    }
}

/// The candidate most like `name`, if one is like it enough to be what was meant; else the first that `name` is the
/// last word of, as `port` is of `app-port`.
pub(super) fn most_like<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    const ALIKE_MIN: f64 = 0.8;
    // The comparison takes time in proportion to the product of the lengths.
    if name.len() > VALUE_SHOWN_MAX {
        return None;
    }
    let last_word = candidates.clone().find(|candidate| {
        candidate.strip_suffix(name).is_some_and(|begin| begin.ends_with(['-', '_']))
    });
    candidates
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(alike, _)| *alike >= ALIKE_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
        .or(last_word)
}
