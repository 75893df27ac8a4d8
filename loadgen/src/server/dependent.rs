//! A program of others that ends with the process that started it, however that ends.
//!
//! This program is started once more, asks the kernel to be killed when its parent dies, and becomes the other
//! one, under the same process id. So nothing has to be done between fork and exec, which would take unsafe code.
//! A program that takes another user's id loses the promise: it must be kept from that.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit,
};

use crate::error::LoadError;

/// The command that becomes `program`, which is looked for on the PATH; arguments are to be added.
pub(super) fn command(program: &str) -> io::Result<Command> {
    let program = on_path(program).ok_or(io::ErrorKind::NotFound)?;
    let mut command = Command::new(env::current_exe()?);
    command.args(["dependent", "--parent", &std::process::id().to_string(), "--"]).arg(program);
    Ok(command)
}

/// Becomes a program, given as a line of it and its arguments. Returns only if that fails.
pub(crate) fn become_program(parent: u32, line: &[OsString]) -> LoadError {
    let failed = |source| LoadError::System { what: "cannot become another program", source };
    let Some((program, arguments)) = line.split_first() else {
        return failed(io::ErrorKind::InvalidInput.into());
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return failed(error.into());
    }
    // It may have died before the kernel knew.
    if getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get().unsigned_abs()) != Some(parent) {
        return failed(io::Error::other("the process that wanted it has ended"));
    }
    // As many connections as may be. A refusal leaves the limit as it was.
    let most = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    failed(Command::new(program).args(arguments).exec())
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}
