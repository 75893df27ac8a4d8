//! Applications that a command starts: the examples of the Rust client.

use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::daemon::Daemon;
use crate::invocation::Invocation;
use crate::repository;

/// A running example of the client. Dropping it ends it.
pub(crate) struct Example {
    name: &'static str,
    pub(crate) child: Child,
}

/// What becomes of its standard streams.
pub(crate) struct Streams {
    pub(crate) input: Stdio,
    pub(crate) output: Stdio,
    /// Where it tells of its connection.
    pub(crate) errors: Stdio,
}

impl Streams {
    /// Nobody sees it.
    pub(crate) fn unseen() -> Self {
        Self { input: Stdio::null(), output: Stdio::null(), errors: Stdio::null() }
    }

    /// It has the terminal, for what it prints.
    pub(crate) fn shown() -> Self {
        Self { output: Stdio::inherit(), errors: Stdio::inherit(), ..Self::unseen() }
    }
}

impl Example {
    pub(crate) fn start(
        name: &'static str,
        daemon: &Daemon,
        arguments: &[&str],
        streams: Streams,
    ) -> Result<Self> {
        let child = Self::invocation(name, daemon, arguments)
            .into_command()
            .stdin(streams.input)
            .stdout(streams.output)
            .stderr(streams.errors)
            .spawn()
            .with_context(|| format!("the example `{name}` could not be started"))?;
        Ok(Self { name, child })
    }

    /// The command line, to be shown.
    pub(crate) fn line(name: &str, daemon: &Daemon, arguments: &[&str]) -> String {
        Self::invocation(name, daemon, arguments).line()
    }

    fn invocation(name: &str, daemon: &Daemon, arguments: &[&str]) -> Invocation {
        Invocation::new(repository::release_binary("examples").join(name))
            .args(["--daemon", &daemon.address])
            .args(arguments)
    }

    pub(crate) fn has_ended_well(&mut self) -> Result<bool> {
        let name = self.name;
        match self.child.try_wait().with_context(|| format!("cannot ask after `{name}`"))? {
            Some(status) if status.success() => Ok(true),
            Some(status) => bail!("the example `{name}` ended badly: {status}"),
            None => Ok(false),
        }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // It may read or print for ever; nothing more can be done if this fails, too.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
