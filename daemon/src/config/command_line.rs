//! Flags: `--name VALUE` or `--name=VALUE`, and the help that teaches them.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, value_parser};

use super::error::{ConfigError, Origin, most_like};
use super::setting::SETTINGS;
use super::{Config, Given, profile};

const CONFIG_HELP: &str = "\
TOML file with the same settings: a flag's name without its dashes is a key, as in app-port = 5672";

const ABOUT: &str = "\
NexusD: a publish/subscribe daemon. Applications on this host connect to it, publish messages to \
topics and subscribe to filters; daemons of a cluster find each other and form a mesh.";

const PROFILES: &str = "\
Profiles, the defaults that --profile chooses:
";

const AFTER_HELP: &str = "\
Where settings come from:
  A flag beats an environment variable, that beats the file, and that beats the profile. The
  variable of a flag is NEXUSD_ and its name in capitals with underscores: --app-port is
  NEXUSD_APP_PORT. A setting that is unknown or has a bad value ends the start with exit code 2.

Values:
  SIZE      bytes, or with K, M or G (powers of 1024): 65536, 64K, 384M
  DURATION  milliseconds, or with ms, s, m or h: 500, 500ms, 10s, 5m

Examples:
  nexusd                                  listen on port 5672 of every IPv4 address, and find the
                                          other nodes of the network by multicast
  nexusd --bind 127.0.0.1 --app-port 0    this host alone, on a free port
  nexusd --peers node-1:5671,node-2:5671  where there is no multicast; one of them is enough
  nexusd --discovery off                  a node on its own
  nexusd --config /etc/nexusd.toml --log-format json

SIGTERM or SIGINT ends the daemon once subscribers have what is queued; a second one ends it at
once. Exit codes: 0 ended as asked, 1 could not start or go on, 2 bad settings, 70 internal fault.";

/// A command line, taken apart.
pub(super) enum Parsed {
    /// The settings it gives.
    Flags(Flags),
    /// Text it asks for.
    Print(String),
}

/// The settings a command line gives.
pub(super) struct Flags {
    pub(super) config_file: Option<(Origin, OsString)>,
    pub(super) values: Vec<Given>,
}

/// Takes a command line apart; the first argument is the program's name.
pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Parsed, ConfigError> {
    let mut matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                return Ok(Parsed::Print(error.render().to_string()));
            }
            _ => return Err(refusal(&error)),
        },
    };
    let config_file =
        matches.remove_one::<OsString>("config").map(|path| (Origin::flag("config"), path));
    let mut values = Vec::new();
    for setting in SETTINGS {
        let Some(value) = matches.remove_one::<OsString>(setting.name) else {
            continue;
        };
        let origin = Origin::flag(setting.name);
        let value = value.into_string().map_err(|value| {
            let value = value.to_string_lossy().into_owned();
            ConfigError::bad_value(setting, origin.clone(), value, "is not UTF-8".to_owned())
        })?;
        values.push(Given { setting, origin, value });
    }
    Ok(Parsed::Flags(Flags { config_file, values }))
}

fn command() -> Command {
    let defaults = Config::default();
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help(format!("{CONFIG_HELP} [env: NEXUSD_CONFIG]"))
        .help_heading(SETTINGS[0].heading);
    let settings = SETTINGS.iter().map(|setting| {
        Arg::new(setting.name)
            .long(setting.name)
            .value_name(setting.value)
            .help(format!("{} [default: {}]", setting.help, (setting.show)(&defaults)))
            .help_heading(setting.heading)
    });
    Command::new("nexusd")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(format!("{PROFILES}{}\n{AFTER_HELP}", profile::table()))
        .max_term_width(100)
        .args(
            std::iter::once(config)
                .chain(settings)
                .map(|arg| arg.action(ArgAction::Set).value_parser(value_parser!(OsString))),
        )
}

/// The parser's complaint, which is several lines long, as one sentence.
fn refusal(error: &clap::Error) -> ConfigError {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let argument = context(ContextKind::InvalidArg).unwrap_or_default();
    // The name alone: the parser writes `--app-port <PORT>`.
    let name = argument.split_whitespace().next().unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument if argument.starts_with('-') => ConfigError::Unknown {
            suggestion: context(ContextKind::SuggestedArg).or_else(|| {
                let names = SETTINGS.iter().map(|setting| setting.name);
                Some(format!("--{}", most_like(name.strip_prefix("--")?, names)?))
            }),
            origin: Origin::Flag(argument.clone()),
        },
        ErrorKind::UnknownArgument => ConfigError::CommandLine {
            reason: format!("{argument:?} is not a flag; flags begin with two dashes"),
        },
        ErrorKind::InvalidValue | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => {
            ConfigError::CommandLine { reason: format!("flag {name} needs a value") }
        }
        ErrorKind::ArgumentConflict => {
            ConfigError::CommandLine { reason: format!("flag {name} is given twice") }
        }
        _ => ConfigError::CommandLine { reason: error.kind().to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parser_accepts_its_own_description() {
        command().debug_assert();
    }
}
