//! The binary `nexusd`: one node, and what belongs to a process around it.
//!
//! Exit codes: 0 ended as asked, 1 could not start or go on, 2 bad settings, 70 a fault in the
//! program itself.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use nexusd::config::LogFormat;
use nexusd::logging::LevelHandle;
use nexusd::{
    Config, ConfigError, Drainer, Invocation, Node, Process, Reloader, logging, panic_hook,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use tracing::{Level, enabled, error, info, warn};

const BAD_SETTINGS: u8 = 2;
/// What shells add to a signal's number in the exit code of what it ended.
const ENDED_BY_SIGNAL: i32 = 128;

pub(crate) fn main() -> ExitCode {
    let config = match read_settings() {
        Ok(Invocation::Run(config)) => *config,
        Ok(Invocation::Print(text)) => {
            // A reader that has gone away has read enough.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(fault) => {
            complain(&fault);
            return ExitCode::from(BAD_SETTINGS);
        }
    };
    let log = logging::start(config.log_level, config.log_format);
    panic_hook::end_process_on_panic();
    let log_format = config.log_format;
    match run(config, log) {
        Ok(()) => ExitCode::SUCCESS,
        // Programs that read the log want to read the fault there.
        Err(fault) if log_format == LogFormat::Json && enabled!(Level::ERROR) => {
            error!("{fault}");
            ExitCode::FAILURE
        }
        Err(fault) => {
            complain(&*fault);
            ExitCode::FAILURE
        }
    }
}

fn read_settings() -> Result<Invocation, ConfigError> {
    Config::from_sources(std::env::args_os(), std::env::vars_os(), |path| {
        std::fs::read_to_string(path)
    })
}

/// The settings as they would be with the next start.
fn reread() -> Result<Config, ConfigError> {
    match read_settings()? {
        Invocation::Run(config) => Ok(*config),
        // A command line that asked for text would not have started a node.
        Invocation::Print(_) => Ok(Config::default()),
    }
}

fn run(config: Config, log: Option<LevelHandle>) -> Result<(), Box<dyn std::error::Error>> {
    // Before the node, so that a signal that comes while it starts is not lost.
    let signals = catch_signals().map_err(|error| format!("cannot wait for signals: {error}"))?;
    for caution in config.sources.cautions() {
        warn!("{caution}");
    }
    let process = Process { log, reread: Some(Arc::new(reread)) };
    let node = Node::start_in(config, process)?;
    obey(signals, node.drainer(), node.reloader())?;
    warn_of_strangers(&node);
    announce(&node);
    let stopped = node.wait()?;
    if stopped.unflushed_messages > 0 {
        warn!(messages = stopped.unflushed_messages, "subscribers did not take everything in time");
    }
    info!(
        messages_in = stopped.metrics.messages_in,
        messages_out = stopped.metrics.messages_out,
        "NexusD has ended"
    );
    Ok(())
}

/// Applications need no password yet, so whoever listens beyond this host should know that.
fn warn_of_strangers(node: &Node) {
    let mut addresses = node.tcp_addresses().iter();
    if let Some(address) = addresses.find(|address| !address.ip().to_canonical().is_loopback()) {
        warn!(
            "no authentication yet: whoever reaches port {} may publish and subscribe; --bind 127.0.0.1 keeps it to \
             this host",
            address.port()
        );
    }
}

/// The line goes to stdout whatever is logged, for scripts that start a daemon and wait for it.
fn announce(node: &Node) {
    let line = node.ready_line().to_string();
    // On a terminal it would stand there twice.
    if !(io::stdout().is_terminal() && io::stderr().is_terminal()) {
        info!("{line}");
    }
    // Whoever closed stdout does not want to know.
    let _ = writeln!(io::stdout(), "{line}");
}

/// SIGHUP and the first of the others are left to [`obey`]; the second of these ends the process where it
/// stands, even if that is stuck.
fn catch_signals() -> io::Result<Signals> {
    let caught = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        let exit_code = ENDED_BY_SIGNAL + signal;
        flag::register_conditional_shutdown(signal, exit_code, Arc::clone(&caught))?;
        flag::register(signal, Arc::clone(&caught))?;
    }
    Signals::new([SIGTERM, SIGINT, SIGHUP])
}

fn obey(mut signals: Signals, drainer: Drainer, reloader: Reloader) -> io::Result<()> {
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in &mut signals {
            match signal {
                SIGHUP => reloader.reload(),
                _ => drop(drainer.drain()),
            }
        }
    })?;
    Ok(())
}

/// One sentence on stderr, whatever the log level.
fn complain(fault: &(impl Display + ?Sized)) {
    let _ = writeln!(io::stderr(), "nexusd: {fault}");
}
