//! The signals that ask for an end: Ctrl-C, SIGTERM, and the hang-up of the terminal.
//!
//! The first one is told to whoever works, so that a subscription can take leave and a terminal be given back. A
//! second one ends the process at once, whatever it is about, even a write that nobody reads.

use std::future::{Future, pending};
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::top;

/// A group and its member may be sent the same signal; so close to the first one, another is the same wish.
const SAME_WISH: Duration = Duration::from_millis(250);

/// What asked for an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// Ctrl-C: of what is done now.
    Interrupt,
    /// Of the program.
    Terminate,
    /// Of the program, whose terminal has gone.
    HangUp,
}

impl Stop {
    /// The exit code of what a signal ended, as shells tell it.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::HangUp => 128 + 1,
            Self::Interrupt => 128 + 2,
            Self::Terminate => 128 + 15,
        }
    }
}

/// The first stop since this was made. While it is there, signals do not end the process by themselves.
#[derive(Debug)]
pub(crate) struct Stops {
    first: watch::Receiver<Option<Stop>>,
    listening: Option<JoinHandle<()>>,
}

impl Stops {
    /// Listens from here on; to be called where a runtime is.
    pub(crate) fn new() -> io::Result<Self> {
        let (told, first) = watch::channel(None);
        let mut signals = Signals::new()?;
        let listening = tokio::spawn(async move {
            told.send_replace(Some(signals.next().await));
            sleep(SAME_WISH).await;
            let Ok(mut signals) = Signals::new() else { return pending().await };
            let stop = signals.next().await;
            top::give_back();
            std::process::exit(stop.exit_code().into());
        });
        Ok(Self { first, listening: Some(listening) })
    }

    /// Listens to nothing: signals end the process.
    pub(crate) fn none() -> Self {
        let (_, first) = watch::channel(None);
        Self { first, listening: None }
    }

    /// The first stop, if it has come.
    pub(crate) fn first(&self) -> Option<Stop> {
        *self.first.borrow()
    }

    /// Waits for the first stop.
    pub(crate) async fn wait(&self) -> Stop {
        let mut first = self.first.clone();
        let stop = first.wait_for(Option::is_some).await.ok().and_then(|stop| *stop);
        match stop {
            Some(stop) => stop,
            // Nobody listens.
            None => pending().await,
        }
    }

    /// Works until this is done; `None` if it was stopped before.
    pub(crate) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            _ = self.wait() => None,
            done = work => Some(done),
        }
    }
}

impl Drop for Stops {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
    }
}

/// All three.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupted: Signal,
    terminated: Signal,
    hung_up: Signal,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupted: signal(SignalKind::interrupt())?,
            terminated: signal(SignalKind::terminate())?,
            hung_up: signal(SignalKind::hangup())?,
        })
    }

    pub(crate) async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupted.recv() => Stop::Interrupt,
            _ = self.terminated.recv() => Stop::Terminate,
            _ = self.hung_up.recv() => Stop::HangUp,
        }
    }
}
