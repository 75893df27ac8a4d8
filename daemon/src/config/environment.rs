//! Variables of the environment: `NEXUSD_` and a flag's name in capitals with underscores.
//!
//! A variable with that prefix and no flag of its name is a fault, as a misspelt limit must not be
//! ignored. The one exception are the variables that container platforms set for a service called
//! `nexusd`, such as `NEXUSD_SERVICE_HOST` or `NEXUSD_PORT=tcp://10.0.0.7:5672`: nobody wrote
//! those for us, and nobody could take them away.

use std::ffi::{OsStr, OsString};

use super::Given;
use super::error::{ConfigError, Origin, most_like};
use super::setting::{SETTINGS, Setting};

const PREFIX: &str = "NEXUSD_";

/// The settings an environment gives.
pub(super) struct Variables {
    pub(super) config_file: Option<(Origin, OsString)>,
    pub(super) values: Vec<Given>,
}

/// The variable of a flag.
pub(super) fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// Takes what is ours out of an environment.
pub(super) fn parse(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Variables, ConfigError> {
    let known: Vec<(String, &'static Setting)> =
        SETTINGS.iter().map(|setting| (variable(setting.name), setting)).collect();
    let mut variables = Variables { config_file: None, values: Vec::new() };
    for (name, value) in environment {
        let name = name.to_string_lossy();
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if is_service_link(rest, &value) {
            continue;
        }
        let origin = Origin::Variable(name.clone().into_owned());
        if rest == "CONFIG" {
            variables.config_file = Some((origin, value));
            continue;
        }
        let Some((_, setting)) = known.iter().find(|(variable, _)| *variable == name) else {
            // The prefix they share would make all names seem alike.
            let names = known.iter().map(|(variable, _)| &variable[PREFIX.len()..]);
            return Err(ConfigError::Unknown {
                suggestion: most_like(rest, names).map(|name| format!("{PREFIX}{name}")),
                origin,
            });
        };
        let value = value.into_string().map_err(|value| {
            let value = value.to_string_lossy().into_owned();
            ConfigError::bad_value(setting, origin.clone(), value, "is not UTF-8".to_owned())
        })?;
        variables.values.push(Given { setting, origin, value });
    }
    Ok(variables)
}

/// Whether a platform set this variable (less our prefix) to tell where a service is: the form of
/// Kubernetes service environment variables and of Docker links.
fn is_service_link(name: &str, value: &OsStr) -> bool {
    let ends_with = |end: &str| {
        name.strip_suffix(end).is_some_and(|start| start.is_empty() || start.ends_with('_'))
    };
    let is_url = value.to_string_lossy().contains("://");
    ends_with("SERVICE_HOST")
        || ends_with("SERVICE_PORT")
        || name.contains("SERVICE_PORT_")
        || (ends_with("PORT") && is_url)
        || ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| {
            name.split_once(protocol).is_some_and(|(port, rest)| {
                let number = port.rsplit('_').next().unwrap_or_default();
                let is_port = port.contains("PORT_") && number.bytes().all(|b| b.is_ascii_digit());
                is_port && matches!(rest, "" | "_PROTO" | "_PORT" | "_ADDR")
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_platforms_set_for_a_service_of_our_name_is_not_taken_for_settings() {
        for (name, value) in [
            ("NEXUSD_SERVICE_HOST", "10.0.0.7"),
            ("NEXUSD_SERVICE_PORT", "5672"),
            ("NEXUSD_SERVICE_PORT_APP", "5672"),
            ("NEXUSD_PORT", "tcp://10.0.0.7:5672"),
            ("NEXUSD_PORT_5672_TCP", "tcp://10.0.0.7:5672"),
            ("NEXUSD_PORT_5672_TCP_PROTO", "tcp"),
            ("NEXUSD_PORT_5672_TCP_PORT", "5672"),
            ("NEXUSD_PORT_5670_UDP_ADDR", "10.0.0.7"),
            ("NEXUSD_APP_SERVICE_HOST", "10.0.0.7"),
            ("NEXUSD_APP_PORT", "tcp://10.0.0.7:5672"),
            ("NEXUSD_APP_PORT_5672_TCP", "tcp://10.0.0.7:5672"),
        ] {
            let variables = parse([(name.into(), value.into())]);
            assert!(variables.is_ok_and(|v| v.values.is_empty()), "{name}");
        }
    }

    #[test]
    fn a_port_that_is_a_number_is_a_setting() {
        let variables = parse([("NEXUSD_APP_PORT".into(), "7000".into())]);
        assert_eq!(variables.map(|v| v.values.len()).ok(), Some(1));
        assert!(parse([("NEXUSD_PORT".into(), "7000".into())]).is_err());
    }
}
