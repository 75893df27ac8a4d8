//! `nexusd-cli`: the operator's tool. One command, or a prompt for many.
//!
//! The way of a command: [`arguments`] says what can be asked, [`words`] lets it be written in any case,
//! [`session`] finds the daemon it is for, `commands/` asks through [`remote`] and shows the answer on
//! the [`console`], as a table or as the JSON document it came as. [`prompt`] does that line by line,
//! [`top`] once a second on the whole terminal.

mod arguments;
mod commands;
mod completion;
mod console;
mod error;
mod format;
mod input;
mod manual;
mod prompt;
mod rates;
mod remote;
mod session;
mod stops;
mod table;
mod target;
mod top;
mod words;

use std::process::ExitCode;

use arguments::Invocation;
use error::CliError;

fn main() -> ExitCode {
    let words: Result<_, _> = std::env::args_os().map(std::ffi::OsString::into_string).collect();
    let Ok(words) = words else {
        console::tell(&CliError::NoText);
        return ExitCode::from(CliError::NoText.exit_code());
    };
    let invocation = match arguments::parse(arguments::command(), words) {
        Ok(invocation) => invocation,
        // Also help and version, which go to stdout and are no failures.
        Err(error) => error.exit(),
    };
    match run(invocation) {
        Ok(code) => code,
        Err(error) if error.is_closed_output() => ExitCode::SUCCESS,
        Err(error) => {
            console::tell(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(invocation: Invocation) -> Result<ExitCode, CliError> {
    // The prompt blocks this thread; connections live on in another one.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let code = if invocation.command.is_some() {
        runtime.block_on(session::run_once(invocation)).map(|()| ExitCode::SUCCESS)
    } else {
        prompt::run(invocation.options, &runtime)
    };
    // A name that is still being looked up, or a read of the standard input, is not waited for.
    runtime.shutdown_background();
    code
}
