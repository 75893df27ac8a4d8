//! The TOML file: flags' names without their dashes are its keys, all at the top level.
//!
//! Values are strings as on the command line, numbers, or for lists arrays of those.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::Given;
use super::error::{ConfigError, Origin, most_like};
use super::setting::{SETTINGS, named};

/// Longest configuration file, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Takes the settings out of the text of the file at `path`.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Given>, ConfigError> {
    let not_toml = |line, reason: &str| ConfigError::NotToml {
        path: path.to_owned(),
        line,
        reason: reason.to_owned(),
    };
    if text.len() > FILE_BYTES_MAX {
        return Err(not_toml(1, "the file is longer than 1M"));
    }
    let document = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let reason = error.message().replace('\n', ", ");
        not_toml(line_of(text, at), &reason)
    })?;
    // The parser sorts by name; faults are reported from the top of the file.
    let mut entries: Vec<_> = document.into_inner().into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);

    let mut values = Vec::new();
    for (key, value) in entries {
        let origin = Origin::Key {
            path: path.to_owned(),
            line: line_of(text, key.span().start),
            key: key.get_ref().to_string(),
        };
        let Some(setting) = named(key.get_ref()) else {
            let names = SETTINGS.iter().map(|setting| setting.name);
            return Err(ConfigError::Unknown {
                origin,
                suggestion: most_like(key.get_ref(), names).map(str::to_owned),
            });
        };
        let value = plain_value(value.get_ref()).map_err(|kind| {
            let value = text.get(value.span()).unwrap_or_default().to_owned();
            let reason = format!("is {kind}; write a string or a number");
            ConfigError::bad_value(setting, origin.clone(), value, reason)
        })?;
        values.push(Given { setting, origin, value });
    }
    Ok(values)
}

/// The value as it would stand on the command line, or what kind of thing it is instead.
fn plain_value(value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| "out of range"),
        DeValue::Array(items) => {
            let items: Result<Vec<_>, _> = items
                .iter()
                .map(|item| match item.get_ref() {
                    DeValue::Array(_) => Err("a list in a list"),
                    item => plain_value(item),
                })
                .collect();
            Ok(items?.join(","))
        }
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(is_so) => Ok(is_so.to_string()),
        DeValue::Datetime(_) => Err("a date"),
        DeValue::Table(_) => Err("a table"),
    }
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}
