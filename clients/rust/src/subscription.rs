//! A subscription as the application holds it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use nexusd_wire::{NodeId, SubscriptionId};
use tokio::sync::oneshot;

use crate::client::Client;
use crate::entry::Wanted;
use crate::error::Error;
use crate::event::Event;
use crate::filters::Filters;
use crate::inbox::Inbox;
use crate::message::Message;
use crate::paused::Paused;
use crate::shared::Command;
use crate::subscribe_options::SubscribeOptions;

/// A running subscription: a stream of [`Event`]s, messages and the losses between them.
///
/// It goes on over reconnections. The daemon queues its messages meanwhile, so nothing is missing
/// afterwards but what a [`Gap`](crate::Gap) tells; see [coming back](crate#coming-back). Dropping it
/// ends it. The stream ends (`None`) when it is paused, the client is closed, or the daemon refuses
/// the subscription after a reconnection; [`Subscription::end_reason`] tells which.
///
/// **An application that is slow.** At most what [`SubscribeOptions::buffer`] says waits here. Then
/// the client stops reading the connection, until the application has taken some: the daemon's queue
/// for this subscription fills, and its [`OverflowPolicy`](crate::OverflowPolicy) decides what is lost
/// or who is held back. A connection has one stream, so its other subscriptions and its
/// acknowledgements wait as well, and after 60 s without progress the daemon closes it. Subscriptions
/// that must not wait for each other belong to different clients.
#[derive(Debug)]
pub struct Subscription {
    client: Client,
    request: u64,
    filters: Arc<[String]>,
    inbox: Arc<Inbox>,
    /// Taken from the inbox, not yet given to the application.
    taken: VecDeque<Event>,
    is_ended: bool,
}

impl Subscription {
    /// Checks what is asked for and begins a subscription that nobody has asked the daemon for yet.
    pub(crate) fn prepare(
        client: &Client,
        filters: Filters,
        options: &SubscribeOptions,
    ) -> Result<(Self, Wanted), Error> {
        let filters: Arc<[String]> = filters.checked()?.into();
        let wanted = Wanted { filters: Arc::clone(&filters), options: options.clone() };
        let subscription = Self {
            client: client.clone(),
            request: client.shared().new_request(),
            filters,
            inbox: Arc::new(Inbox::new(options.buffer_messages, options.buffer_bytes)),
            taken: VecDeque::new(),
            is_ended: false,
        };
        Ok((subscription, wanted))
    }

    pub(crate) fn request(&self) -> u64 {
        self.request
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Begins with what had come before.
    pub(crate) fn begin_with(&mut self, unread: &[Event]) {
        self.taken.extend(unread.iter().cloned());
    }

    /// The filters it was made with.
    pub fn filters(&self) -> &[String] {
        &self.filters
    }

    /// The daemon's name for it, as lists of subscriptions show it and [`Paused`] keeps it. It is another one
    /// when the client had to subscribe anew; see [coming back](crate#coming-back).
    pub fn id(&self) -> SubscriptionId {
        // Nobody has a subscription that was not confirmed.
        self.inbox.identity().map_or(SubscriptionId(0), |identity| identity.id)
    }

    /// The daemon that knows it by this name: the one that the client is connected to, or was when it last was.
    pub fn node(&self) -> NodeId {
        self.inbox.identity().map_or(NodeId(0), |identity| identity.node)
    }

    /// The next message, gap, warning or end of a replay; `None` when the subscription has ended. Dropping the future loses
    /// nothing.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// The next message, passing over all other events: for applications to which a loss is no matter,
    /// or that hear of it by [`ClientBuilder::on_gap`](crate::ClientBuilder::on_gap).
    pub async fn next_message(&mut self) -> Option<Message> {
        loop {
            if let Event::Message(message) = self.next().await? {
                return Some(message);
            }
        }
    }

    /// What is there now, without waiting.
    pub fn try_next(&mut self) -> Option<Event> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match self.poll_event(&mut cx) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }

    /// Why the stream has ended, once it has: [`Error::Closed`], or what the daemon said.
    pub fn end_reason(&self) -> Option<Error> {
        self.inbox.ended()
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.taken.is_empty() {
            let client = &self.client;
            let wake = || client.shared().task.wake();
            if !ready!(self.inbox.poll_take(cx, &mut self.taken, wake)) {
                return Poll::Ready(None);
            }
        }
        Poll::Ready(self.taken.pop_front())
    }

    /// Parks the subscription at the daemon, which goes on queueing its messages for a while (five
    /// minutes unless it was told otherwise), and ends this stream.
    ///
    /// What had come and was not taken yet is in [`Paused::unread`]. Where there is no connection, or
    /// it breaks meanwhile, the daemon parks the subscription for that reason. Fails with
    /// [`Error::NotFound`] if the daemon does not know the subscription, [`Error::Timeout`] if it does
    /// not answer within the request timeout: then the stream goes on, unless the daemon parks it
    /// later, which ends it. [`Error::Closed`] if the client has ended.
    pub async fn pause(&mut self) -> Result<Paused, Error> {
        let (sender, mut receiver) = oneshot::channel();
        let shared = self.client.shared();
        shared.command(Command::Pause { request: self.request, answer: sender })?;
        // The answer may stand behind more messages than the inbox holds.
        let inbox = Arc::clone(&self.inbox);
        let unread = &mut self.taken;
        let mut batch = VecDeque::new();
        let answered = poll_fn(|cx| {
            let answer = Pin::new(&mut receiver).poll(cx);
            while inbox.poll_take(cx, &mut batch, || shared.task.wake()) == Poll::Ready(true) {
                unread.append(&mut batch);
            }
            answer
        });
        let mut paused = match tokio::time::timeout(shared.options.request_timeout, answered).await
        {
            Ok(answer) => answer.map_err(|_| Error::Closed)??,
            Err(_) => return Err(Error::Timeout { what: "pausing a subscription" }),
        };
        self.is_ended = true;
        paused.unread = std::mem::take(&mut self.taken).into();
        Ok(paused)
    }

    /// Ends the subscription and waits until the daemon has ended it too.
    pub async fn unsubscribe(mut self) -> Result<(), Error> {
        self.is_ended = true;
        self.inbox.abandon();
        let (sender, receiver) = oneshot::channel();
        let command = Command::Unsubscribe { request: self.request, answer: Some(sender) };
        let shared = self.client.shared();
        shared.command(command)?;
        match tokio::time::timeout(shared.options.request_timeout, receiver).await {
            Ok(answered) => answered.map_err(|_| Error::Closed),
            Err(_) => Err(Error::Timeout { what: "ending a subscription" }),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if !self.is_ended {
            self.inbox.abandon();
            // A client that is closed has ended it already.
            let _ = self
                .client
                .shared()
                .command(Command::Unsubscribe { request: self.request, answer: None });
        }
    }
}

impl Stream for Subscription {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll_event(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.taken.len(), None)
    }
}
