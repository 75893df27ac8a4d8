//! Where events go: lines on stderr, for people or for programs.
//!
//! The daemon's own events are logged from `--log-level` on; those of libraries only from `warn` on,
//! unless everything is asked for.

use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{LogFormat, LogLevel};

/// Changes what is logged while the process runs.
#[derive(Clone, Debug)]
pub struct LevelHandle {
    level: Arc<Mutex<LogLevel>>,
    filter: reload::Handle<Targets, Registry>,
}

impl LevelHandle {
    /// What is logged now.
    pub fn level(&self) -> LogLevel {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs from this level on.
    pub fn set(&self, level: LogLevel) {
        let mut current = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        // It fails when nobody receives events any more.
        if self.filter.reload(filter(level)).is_ok() {
            *current = level;
        }
    }
}

/// Sends the events of this process to stderr from now on; what is sent can be changed. Does nothing, and
/// returns nothing, if somebody receives them already.
pub fn start(level: LogLevel, format: LogFormat) -> Option<LevelHandle> {
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
    let (filter, handle) = reload::Layer::new(filter(level));
    // An error means that somebody receives events already.
    tracing_subscriber::registry().with(stderr.with_filter(filter)).try_init().ok()?;
    Some(LevelHandle { level: Arc::new(Mutex::new(level)), filter: handle })
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
