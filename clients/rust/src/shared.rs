//! What a client's handles and its task share.
//!
//! Handles put messages into the outbox and commands into the queue, and wake the task; the task
//! answers through the waiters these carry. Lock order: none is held while another is taken.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use atomic_waker::AtomicWaker;
use tokio::sync::{Notify, oneshot, watch};

use crate::entry::Entry;
use crate::error::Error;
use crate::event::{Gap, Warning};
use crate::options::Options;
use crate::outbox::Outbox;
use crate::paused::Paused;
use crate::state::ConnectionState;

/// What handles ask of the task.
#[derive(Debug)]
pub(crate) enum Command {
    /// Begin a subscription.
    Subscribe {
        /// Names it.
        request: u64,
        entry: Box<Entry>,
    },
    /// End a subscription.
    Unsubscribe { request: u64, answer: Option<oneshot::Sender<()>> },
    /// Park a subscription at the daemon.
    Pause { request: u64, answer: oneshot::Sender<Result<Paused, Error>> },
    /// Send what is queued, then end.
    Close { answer: Option<oneshot::Sender<Result<(), Error>>> },
}

pub(crate) struct Shared {
    pub(crate) options: Options,
    outbox: Mutex<Outbox>,
    /// Tells publishers that wait for room to try again.
    pub(crate) room: Notify,
    commands: Mutex<Commands>,
    /// Wakes the task.
    pub(crate) task: AtomicWaker,
    state: watch::Sender<ConnectionState>,
    next_request: AtomicU64,
}

#[derive(Debug, Default)]
struct Commands {
    queue: Vec<Command>,
    /// The task is gone; why.
    ended: Option<Error>,
}

impl Shared {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            outbox: Mutex::new(Outbox::new(options.outbox_limits())),
            options,
            room: Notify::new(),
            commands: Mutex::default(),
            task: AtomicWaker::new(),
            state: watch::Sender::new(ConnectionState::Disconnected { cause: None }),
            next_request: AtomicU64::new(1),
        }
    }

    pub(crate) fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commands(&self) -> MutexGuard<'_, Commands> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a request, never 0 and never the same again.
    pub(crate) fn new_request(&self) -> u64 {
        self.next_request.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives the task something to do; fails once the task is gone.
    pub(crate) fn command(&self, command: Command) -> Result<(), Error> {
        let mut commands = self.commands();
        if let Some(why) = &commands.ended {
            return Err(why.clone());
        }
        commands.queue.push(command);
        drop(commands);
        self.task.wake();
        Ok(())
    }

    pub(crate) fn take_commands(&self) -> Vec<Command> {
        std::mem::take(&mut self.commands().queue)
    }

    /// The task is gone; commands are refused from now on, those that wait are returned.
    pub(crate) fn end_commands(&self, why: &Error) -> Vec<Command> {
        let mut commands = self.commands();
        commands.ended.get_or_insert_with(|| why.clone());
        std::mem::take(&mut commands.queue)
    }

    pub(crate) fn state(&self) -> ConnectionState {
        self.state.borrow().clone()
    }

    pub(crate) fn state_changes(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    pub(crate) fn set_state(&self, state: &ConnectionState) {
        self.state.send_replace(state.clone());
        if let Some(tell) = &self.options.callbacks.on_state {
            isolated(|| tell(state));
        }
    }

    pub(crate) fn tell_gap(&self, filters: &[String], gap: &Gap) {
        if let Some(tell) = &self.options.callbacks.on_gap {
            isolated(|| tell(filters, gap));
        }
    }

    pub(crate) fn tell_warning(&self, filters: &[String], warning: &Warning) {
        if let Some(tell) = &self.options.callbacks.on_warning {
            isolated(|| tell(filters, warning));
        }
    }

    pub(crate) fn tell_error(&self, error: &Error) {
        if let Some(tell) = &self.options.callbacks.on_error {
            isolated(|| tell(error));
        }
    }
}

/// A callback that panics has been reported by the panic hook and ends nothing else.
fn isolated(callback: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(callback));
}
