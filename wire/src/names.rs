//! Topic names and filters: what is well formed, and which filter matches which topic.
//!
//! The rules are MQTT 3.1.1 §4.7 with our bounds: 1–255 bytes of UTF-8, levels separated by `/`,
//! no control characters; `+` stands for one level, a final `#` for the rest including the parent
//! level; neither matches a first level that starts with `$`.

/// Longest topic name or filter, in bytes.
pub const TOPIC_BYTES_MAX: usize = 255;

/// Why a topic name or filter is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// Names have at least one byte.
    #[error("the name is empty")]
    Empty,
    /// Names have at most [`TOPIC_BYTES_MAX`] bytes.
    #[error("the name has {0} bytes; the limit is 255")]
    TooLong(usize),
    /// NUL and other control characters are not allowed.
    #[error("the name holds a control character at byte {0}")]
    ControlCharacter(usize),
    /// `+` and `#` belong in filters only.
    #[error("a topic to publish to may not hold '{0}'; wildcards belong in filters")]
    Wildcard(char),
    /// A wildcard must be a whole level.
    #[error("'{0}' must stand alone between slashes")]
    WildcardInsideLevel(char),
    /// `#` must be the last level.
    #[error("'#' must be the last level of a filter")]
    HashNotLast,
}

/// Checks a name to publish to.
pub fn check_topic(name: &str) -> Result<(), NameError> {
    check_characters(name)?;
    match name.bytes().find(|byte| matches!(byte, b'+' | b'#')) {
        Some(wildcard) => Err(NameError::Wildcard(char::from(wildcard))),
        None => Ok(()),
    }
}

/// Checks a filter to subscribe with.
pub fn check_filter(filter: &str) -> Result<(), NameError> {
    check_characters(filter)?;
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        for wildcard in ['+', '#'] {
            if level.contains(wildcard) && level.len() != 1 {
                return Err(NameError::WildcardInsideLevel(wildcard));
            }
        }
        if level == "#" && levels.peek().is_some() {
            return Err(NameError::HashNotLast);
        }
    }
    Ok(())
}

fn check_characters(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > TOPIC_BYTES_MAX {
        return Err(NameError::TooLong(name.len()));
    }
    match name.char_indices().find(|(_, character)| character.is_control()) {
        Some((at, _)) => Err(NameError::ControlCharacter(at)),
        None => Ok(()),
    }
}

/// Whether a well-formed filter matches a well-formed topic. The plain statement of the rule;
/// the daemon's index must agree with it.
pub fn filter_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut wanted = filter.split('/');
    let mut levels = topic.split('/');
    loop {
        match (wanted.next(), levels.next()) {
            // Also when the topic has no level left: "a/#" matches "a".
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}
