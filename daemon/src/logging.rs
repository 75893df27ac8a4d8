//! Where events go: lines on stderr, for people or for programs.
//!
//! The daemon's own events are logged from `--log-level` on; those of libraries only from `warn` on,
//! unless everything is asked for.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{LogFormat, LogLevel};

/// Sends the events of this process to stderr from now on. Does nothing if somebody receives them
/// already.
pub fn start(level: LogLevel, format: LogFormat) {
    let stderr = match format {
        LogFormat::Text => fmt::layer()
            .compact()
            .with_target(false)
            .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            .with_writer(io::stderr)
            .boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(io::stderr)
            .boxed(),
    };
    // An error means that somebody receives events already.
    let _ = tracing_subscriber::registry().with(stderr.with_filter(filter(level))).try_init();
}

fn filter(level: LogLevel) -> Targets {
    let (own, libraries) = match level {
        LogLevel::Off => (LevelFilter::OFF, LevelFilter::OFF),
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::WARN),
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    Targets::new().with_default(libraries).with_target("nexusd", own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn libraries_are_quiet_until_everything_is_asked_for() {
        let debug = filter(LogLevel::Debug);
        assert!(debug.would_enable("nexusd::node", &Level::DEBUG));
        assert!(debug.would_enable("nexusd_core::io::ring", &Level::DEBUG));
        assert!(!debug.would_enable("glommio", &Level::INFO));
        assert!(filter(LogLevel::Trace).would_enable("glommio", &Level::TRACE));
    }

    #[test]
    fn off_is_off() {
        assert!(!filter(LogLevel::Off).would_enable("nexusd", &Level::ERROR));
    }
}
