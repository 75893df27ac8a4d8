//! TOP: a live view of a daemon on the whole terminal.
//!
//! [`sample`] asks the daemon at every interval, [`state`] holds what was answered and what the user looks
//! at, [`draw`] puts that on the terminal, [`input`] says what keys do. What is drawn depends on the state
//! alone.

mod draw;
mod input;
mod sample;
mod slow;
mod state;
mod view;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::event::{Event, EventStream};
use futures_core::Stream as _;
use ratatui::DefaultTerminal;
use tokio::sync::mpsc;

use self::input::Wish;
use self::state::State;
use crate::console::Console;
use crate::error::CliError;
use crate::remote::Remote;
use crate::stops::Stops;

/// The terminal is ours.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Shows the daemon until the user has seen enough.
pub(crate) async fn run(
    remote: &Remote,
    interval: Duration,
    console: Console,
    stops: &Stops,
) -> Result<(), CliError> {
    if console.is_json() {
        return Err(CliError::NoDocument);
    }
    if !console.is_terminal() {
        return Err(CliError::NoTerminal);
    }
    // Fails before the terminal is taken if nobody answers.
    let (samples, mut answers) = mpsc::channel(1);
    let first = sample::Asker::new(remote.clone());
    let asking = tokio::spawn(first.run(interval, samples));
    let Some(Some(first)) = stops.unless_stopped(answers.recv()).await else { return Ok(()) };
    let mut state = State::new(remote.target().to_string(), console.is_coloured());
    state.take(first?);

    let mut taken = Taken::new()?;
    let ended = show(&mut taken.terminal, &mut state, &mut answers, stops).await;
    asking.abort();
    drop(taken);
    ended
}

async fn show(
    terminal: &mut DefaultTerminal,
    state: &mut State,
    answers: &mut mpsc::Receiver<Result<sample::Sample, CliError>>,
    stops: &Stops,
) -> Result<(), CliError> {
    let mut keys = EventStream::new();
    loop {
        terminal.draw(|frame| draw::draw(frame, state))?;
        tokio::select! {
            event = next(&mut keys) => {
                match event? {
                    Some(Event::Key(key)) => {
                        if input::on_key(key, state) == Wish::Leave {
                            return Ok(());
                        }
                    }
                    // Whatever else happens to a terminal is a reason to draw it anew.
                    Some(_) => {}
                    None => return Ok(()),
                }
            }
            answer = answers.recv() => match answer {
                Some(Ok(sample)) => state.take(sample),
                // It may come back; what was known last stays until then.
                Some(Err(error)) => state.fail(&error),
                None => return Ok(()),
            },
            _ = stops.wait() => return Ok(()),
        }
    }
}

/// The next thing that happens to the terminal; `None` if it is gone.
async fn next(events: &mut EventStream) -> io::Result<Option<Event>> {
    poll_fn(|context| Pin::new(&mut *events).poll_next(context)).await.transpose()
}

/// The terminal while it is ours; given back when dropped, and by ratatui's hook in a panic.
struct Taken {
    terminal: DefaultTerminal,
}

impl Taken {
    fn new() -> io::Result<Self> {
        IS_TAKEN.store(true, Ordering::Relaxed);
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back if it is taken.
pub(crate) fn give_back() {
    if IS_TAKEN.swap(false, Ordering::Relaxed) {
        ratatui::restore();
    }
}
