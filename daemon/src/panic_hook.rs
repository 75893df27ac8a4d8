//! A panic ends the process: a daemon that lost one of its threads is worse than one that is started
//! again, since applications would stay connected to something that no longer answers. Of the edge thread it
//! ends the task that it happened in, which serves one connection.

use std::any::Any;
use std::io::Write;
use std::panic::{self, PanicHookInfo};
use std::{io, process, thread};

use crate::edge;

/// The exit code after a panic: `EX_SOFTWARE` of sysexits.h.
pub const EXIT_CODE: u8 = 70;

/// From now on a panic in any thread is logged with the thread's name, and ends the process with
/// [`EXIT_CODE`].
pub fn end_process_on_panic() {
    panic::set_hook(Box::new(|info| {
        let is_of_edge = thread::current().name() == Some(edge::NAME);
        report(info, if is_of_edge { "its connection ends" } else { "the daemon ends" });
        if is_of_edge {
            return;
        }
        process::exit(i32::from(EXIT_CODE));
    }));
}

fn report(info: &PanicHookInfo<'_>, consequence: &str) {
    let current = thread::current();
    let thread = current.name().unwrap_or("a thread without a name");
    let reason = reason(info.payload());
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    if tracing::enabled!(tracing::Level::ERROR) {
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(place, %backtrace, "{thread} panicked: {reason}; {consequence}");
    } else {
        // Whoever turned the log off still learns why the daemon is gone.
        let _ = writeln!(io::stderr(), "nexusd: {thread} panicked at {place}: {reason}");
    }
}

/// What a panic said.
pub(crate) fn reason(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "for a reason that is not text".to_owned())
}
