//! The life of a client behind its handles: connect, serve the connection, and again, without end.
//!
//! Owns what outlives connections (subscriptions, the wish to end); lends it to one
//! [`Connection`] at a time. Invariant: however the task ends, even by a panic or with its runtime,
//! everybody who waits for it hears of it.

use std::future::{Future, poll_fn};
use std::hash::BuildHasher;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::connection::{Connection, Ended};
use crate::error::Error;
use crate::greeting::greet;
use crate::limits;
use crate::shared::{Command, Shared};
use crate::state::ConnectionState;
use crate::subscription_table::SubscriptionTable;

pub(crate) struct Task {
    pub(crate) shared: Arc<Shared>,
    pub(crate) subscriptions: SubscriptionTable,
    /// Set once the application wants the client to end.
    pub(crate) closing: Option<Closing>,
    /// Who waits for the first attempt to connect. If it fails, the client ends.
    first: Option<oneshot::Sender<Result<(), Error>>>,
    has_ended: bool,
}

/// The client is to end.
pub(crate) struct Closing {
    pub(crate) since: Instant,
    answers: Vec<oneshot::Sender<Result<(), Error>>>,
}

impl Task {
    pub(crate) fn new(
        shared: Arc<Shared>,
        first: Option<oneshot::Sender<Result<(), Error>>>,
        subscriptions: SubscriptionTable,
    ) -> Self {
        Self { shared, subscriptions, closing: None, first, has_ended: false }
    }

    /// Runs until the client is closed or has failed for good.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let options = &shared.options;
        let mut backoff = Backoff::new(options.reconnect_first, options.reconnect_longest);
        let mut attempt = 0;
        loop {
            let resume = self.subscriptions.any_identity().map(|identity| identity.id);
            let Some(greeted) = self.while_offline(greet(options, resume)).await else {
                return self.close_offline();
            };
            let cause = match greeted {
                Ok(greeted) => {
                    attempt = 0;
                    let since = Instant::now();
                    let mut connection = Connection::open(&mut self, greeted);
                    let ended = poll_fn(|cx| connection.poll(cx)).await;
                    connection.leave();
                    let cause = match ended {
                        Ended::Closed(result) => return self.end_closed(&result),
                        Ended::Lost(cause) => cause,
                    };
                    if self.closing.is_some() {
                        return self.close_offline();
                    }
                    if since.elapsed() >= limits::STABLE_AFTER {
                        backoff.reset();
                    }
                    shared.set_state(&ConnectionState::Disconnected { cause: Some(cause.clone()) });
                    cause
                }
                Err(cause) => cause,
            };
            if cause.is_final() || self.first.is_some() {
                return self.fail(&cause);
            }
            let random = std::hash::RandomState::new().hash_one(attempt);
            let delay = tokio::time::sleep(backoff.next_delay(random));
            attempt += 1;
            shared.set_state(&ConnectionState::Reconnecting { attempt, cause });
            if self.while_offline(delay).await.is_none() {
                return self.close_offline();
            }
        }
    }

    /// The daemon has welcomed the client.
    pub(crate) fn on_welcome(&mut self) {
        if let Some(first) = self.first.take() {
            // A caller that has gone away drops the client, which ends it.
            let _ = first.send(Ok(()));
        }
    }

    /// Waits for `future`, and does meanwhile what handles ask, as far as it needs no connection.
    /// `None` once the client is to end.
    async fn while_offline<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            self.shared.task.register(cx.waker());
            for command in self.shared.take_commands() {
                match command {
                    Command::Subscribe { request, entry } => {
                        self.subscriptions.insert(request, *entry);
                    }
                    Command::Unsubscribe { request, answer } => {
                        self.subscriptions.remove_later(request);
                        if let Some(answer) = answer {
                            let _ = answer.send(());
                        }
                    }
                    // The daemon has parked it with the connection.
                    Command::Pause { request, answer } => {
                        let paused = self.subscriptions.park(request, None);
                        let _ = answer.send(paused.ok_or_else(Error::not_running));
                    }
                    Command::Close { answer } => self.begin_closing(answer),
                }
            }
            if self.closing.is_some() {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Notes the wish to end; the outbox takes nothing in any more.
    pub(crate) fn begin_closing(&mut self, answer: Option<oneshot::Sender<Result<(), Error>>>) {
        self.shared.outbox().close(Error::Closed);
        self.shared.room.notify_waiters();
        let closing = self
            .closing
            .get_or_insert_with(|| Closing { since: Instant::now(), answers: Vec::new() });
        closing.answers.extend(answer);
    }

    /// Ends without a connection: fine if nothing had to be sent.
    fn close_offline(&mut self) {
        let unsent = self.shared.outbox().messages();
        let result = match unsent {
            0 => Ok(()),
            unsent => Err(Error::not_connected(
                &self.shared.options.address,
                io::Error::new(
                    io::ErrorKind::NotConnected,
                    format!("{unsent} messages were not sent"),
                ),
            )),
        };
        self.end_closed(&result);
    }

    fn end_closed(&mut self, result: &Result<(), Error>) {
        let closing = self.closing.take();
        self.end(&Error::Closed, &ConnectionState::Disconnected { cause: None });
        for answer in closing.into_iter().flat_map(|closing| closing.answers) {
            let _ = answer.send(result.clone());
        }
    }

    fn fail(&mut self, cause: &Error) {
        self.end(cause, &ConnectionState::Failed { cause: cause.clone() });
        if let Some(first) = self.first.take() {
            let _ = first.send(Err(cause.clone()));
        }
    }

    /// Tells everybody that this client does nothing any more.
    fn end(&mut self, why: &Error, state: &ConnectionState) {
        self.has_ended = true;
        for command in self.shared.end_commands(why) {
            match command {
                Command::Subscribe { request, entry } => self.subscriptions.insert(request, *entry),
                Command::Unsubscribe { answer, .. } => {
                    if let Some(answer) = answer {
                        let _ = answer.send(());
                    }
                }
                Command::Pause { answer, .. } => {
                    let _ = answer.send(Err(why.clone()));
                }
                Command::Close { answer } => {
                    if let Some(answer) = answer {
                        let _ = answer.send(Ok(()));
                    }
                }
            }
        }
        self.subscriptions.end_all(why);
        self.shared.outbox().abandon(why);
        self.shared.room.notify_waiters();
        self.shared.set_state(state);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.has_ended {
            let state = ConnectionState::Disconnected { cause: Some(Error::Closed) };
            self.end(&Error::Closed, &state);
        }
    }
}
