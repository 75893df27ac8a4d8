//! A subscription as the application holds it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use nexusd_wire::control;
use nexusd_wire::{NameError, check_filter};
use tokio::sync::oneshot;

use crate::client::Client;
use crate::error::Error;
use crate::event::Event;
use crate::inbox::Inbox;
use crate::limits;
use crate::message::Message;
use crate::shared::Command;
use crate::subscription_table::Wanted;

/// The filters of a subscription: one, or several of which a message must match at least one.
///
/// Made from a string, an array, a slice or a vector of strings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filters(Vec<String>);

impl From<&str> for Filters {
    fn from(filter: &str) -> Self {
        Self(vec![filter.to_owned()])
    }
}

impl From<String> for Filters {
    fn from(filter: String) -> Self {
        Self(vec![filter])
    }
}

impl From<&String> for Filters {
    fn from(filter: &String) -> Self {
        Self(vec![filter.clone()])
    }
}

impl<T: AsRef<str>> From<&[T]> for Filters {
    fn from(filters: &[T]) -> Self {
        Self(filters.iter().map(|it| it.as_ref().to_owned()).collect())
    }
}

impl<T: AsRef<str>> From<&Vec<T>> for Filters {
    fn from(filters: &Vec<T>) -> Self {
        filters.as_slice().into()
    }
}

impl<T: AsRef<str>> From<Vec<T>> for Filters {
    fn from(filters: Vec<T>) -> Self {
        filters.as_slice().into()
    }
}

impl<T: AsRef<str>, const N: usize> From<[T; N]> for Filters {
    fn from(filters: [T; N]) -> Self {
        filters.as_slice().into()
    }
}

impl<T: AsRef<str>, const N: usize> From<&[T; N]> for Filters {
    fn from(filters: &[T; N]) -> Self {
        filters.as_slice().into()
    }
}

/// Bytes the filters of one Subscribe frame may have together, with what the frame adds to each:
/// control frames are bounded.
const FILTER_BYTES_MAX: usize = limits::CONTROL_BYTES_MAX as usize - 1024;
const BYTES_BESIDE_FILTER: usize = 16;

impl Filters {
    fn checked(self) -> Result<Vec<String>, Error> {
        if self.0.is_empty() {
            return Err(Error::invalid_topic("", NameError::Empty));
        }
        for filter in &self.0 {
            check_filter(filter).map_err(|rule| Error::invalid_topic(filter, rule))?;
        }
        let bytes = self.0.iter().map(|it| it.len() + BYTES_BESIDE_FILTER);
        let is_within = self.0.len() <= limits::FILTERS_PER_SUBSCRIPTION_MAX
            && bytes.sum::<usize>() <= FILTER_BYTES_MAX;
        if is_within {
            Ok(self.0)
        } else {
            Err(Error::LimitReached {
                reason: format!(
                    "a subscription holds {} filters and {FILTER_BYTES_MAX} bytes of them",
                    limits::FILTERS_PER_SUBSCRIPTION_MAX
                ),
            })
        }
    }
}

/// What the daemon does when a subscription's queue is full.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum OverflowPolicy {
    /// Drop the oldest messages.
    DropOldest,
    /// Drop those that come.
    DropNewest,
    /// Hold publishers back for a while, then drop the oldest.
    Block,
    /// Close the connection.
    Disconnect,
}

/// How a subscription is served. What is not set is the daemon's default.
#[derive(Clone, Debug)]
#[must_use = "options do nothing until they are given to a subscription"]
pub struct SubscribeOptions {
    policy: Option<OverflowPolicy>,
    queue_messages: Option<u32>,
    queue_bytes: Option<u64>,
    buffer_messages: usize,
    buffer_bytes: usize,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            policy: None,
            queue_messages: None,
            queue_bytes: None,
            buffer_messages: limits::BUFFER_MESSAGES,
            buffer_bytes: limits::BUFFER_BYTES,
        }
    }
}

impl SubscribeOptions {
    /// The daemon's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the daemon does when its queue for this subscription is full.
    pub fn policy(mut self, policy: OverflowPolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// How many messages the daemon queues; 0 leaves bytes as the only bound.
    pub fn queue_messages(mut self, messages: u32) -> Self {
        self.queue_messages = Some(messages);
        self
    }

    /// How many bytes the daemon queues.
    pub fn queue_bytes(mut self, bytes: u64) -> Self {
        self.queue_bytes = Some(bytes);
        self
    }

    /// How much waits on this side for the application: messages, and bytes as encoded. When either
    /// is reached the client stops reading from the daemon, up to one read (128 KiB or one larger
    /// message) later. Default: 4,096 and 8 MiB.
    pub fn buffer(mut self, messages: usize, bytes: usize) -> Self {
        self.buffer_messages = messages;
        self.buffer_bytes = bytes;
        self
    }
}

/// A running subscription: a stream of [`Event`]s, messages and the losses between them.
///
/// It goes on over reconnections, with a [`Gap`](crate::Gap) at the place of each. Dropping it ends
/// it. The stream ends (`None`) when the client is closed or the daemon refuses the subscription
/// after a reconnection; [`Subscription::end_reason`] tells which.
///
/// **An application that is slow.** At most what [`SubscribeOptions::buffer`] says waits here. Then
/// the client stops reading the connection, until the application has taken some: the daemon's queue
/// for this subscription fills, and its [`OverflowPolicy`] decides what is lost or who is held back.
/// A connection has one stream, so its other subscriptions and its acknowledgements wait as well,
/// and after 60 s without progress the daemon closes it. Subscriptions that must not wait for each
/// other belong to different clients.
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
        let wanted = Wanted {
            filters: Arc::clone(&filters),
            policy: options.policy.map(|policy| match policy {
                OverflowPolicy::DropOldest => control::OverflowPolicy::DropOldest,
                OverflowPolicy::DropNewest => control::OverflowPolicy::DropNewest,
                OverflowPolicy::Block => control::OverflowPolicy::Block,
                OverflowPolicy::Disconnect => control::OverflowPolicy::Disconnect,
            }),
            queue_messages: options.queue_messages,
            queue_bytes: options.queue_bytes,
        };
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

    /// The filters it was made with.
    pub fn filters(&self) -> &[String] {
        &self.filters
    }

    /// The next message or gap; `None` when the subscription has ended. Dropping the future loses
    /// nothing.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// The next message, passing over gaps: for applications to which a loss is no matter, or that
    /// hear of it by [`ClientBuilder::on_gap`](crate::ClientBuilder::on_gap).
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
