//! The handle applications hold: publish, subscribe, and ask about the connection.
//!
//! Handles are cheap to clone. They put what is published straight into the outbox; everything else
//! goes to the client's task as a command. The last handle to be dropped closes the client.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use tokio::runtime::Handle as Runtime;
use tokio::sync::{oneshot, watch};

use crate::awaited::{AckBatch, Waiter};
use crate::entry::Entry;
use crate::error::Error;
use crate::filters::Filters;
use crate::options::{ClientBuilder, Options};
use crate::outbox::Refusal;
use crate::paused::Paused;
use crate::publication::{BatchError, Publication, PublishAck};
use crate::publisher::Publisher;
use crate::shared::{Command, Shared};
use crate::state::ConnectionState;
use crate::subscribe_options::SubscribeOptions;
use crate::subscription::Subscription;
use crate::subscription_table::SubscriptionTable;
use crate::task::Task;

/// Messages of a batch that are put into the outbox at once, before the connection gets its turn.
const BATCH_STEP: usize = 256;

/// The answer to what a subscription asked the daemon.
type Confirmation = oneshot::Receiver<Result<(), Error>>;

/// A client of one daemon.
///
/// ```no_run
/// # async fn example() -> Result<(), nexusd_client::Error> {
/// use nexusd_client::Client;
///
/// let client = Client::connect("localhost:5672").await?;
/// let mut readings = client.subscribe("plant/+/temperature").await?;
/// client.publish("plant/boiler/temperature", "71").await?;
/// while let Some(message) = readings.next_message().await {
///     println!("{}: {:?}", message.topic(), message.payload());
/// }
/// # Ok(())
/// # }
/// ```
///
/// Clones are handles of the same client and connection. When the last of them, of its
/// [`Publisher`]s and its [`Subscription`]s is dropped, what is queued is still sent if that is
/// possible at once; [`Client::close`] waits for it and tells.
#[derive(Clone, Debug)]
pub struct Client {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Fails only if the client has ended already.
        let _ = self.shared.command(Command::Close { answer: None });
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.shared.options.address)
            .field("state", &self.shared.state())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to the daemon at `HOST`, `HOST:PORT`, `[IPV6]:PORT`, `unix:PATH` or `unix:@NAME`,
    /// with the defaults of [`ClientBuilder`]. The port's default is 5672.
    ///
    /// Fails if the first attempt does; from then on the client reconnects by itself.
    pub async fn connect(address: &str) -> Result<Self, Error> {
        Self::builder(address).connect().await
    }

    /// Sets up a client with options.
    pub fn builder(address: &str) -> ClientBuilder {
        ClientBuilder::new(address)
    }

    pub(crate) async fn start(options: Options) -> Result<Self, Error> {
        let (sender, first) = oneshot::channel();
        let client = Self::spawn(options, Some(sender))?;
        match first.await {
            Ok(connected) => connected.map(|()| client),
            Err(_) => Err(Error::Closed),
        }
    }

    pub(crate) fn start_in_background(options: Options) -> Result<Self, Error> {
        Self::spawn(options, None)
    }

    fn spawn(
        options: Options,
        first: Option<oneshot::Sender<Result<(), Error>>>,
    ) -> Result<Self, Error> {
        let client = Self::idle(options);
        client.run(first, SubscriptionTable::default())?;
        Ok(client)
    }

    /// A client without a task.
    fn idle(options: Options) -> Self {
        Self { handle: Arc::new(Handle { shared: Arc::new(Shared::new(options)) }) }
    }

    /// Starts its task, with these subscriptions. Called once.
    fn run(
        &self,
        first: Option<oneshot::Sender<Result<(), Error>>>,
        subscriptions: SubscriptionTable,
    ) -> Result<(), Error> {
        // Nothing else of the client works without a runtime either.
        let runtime = Runtime::try_current().map_err(|_| Error::Closed)?;
        runtime.spawn(Task::new(Arc::clone(&self.handle.shared), first, subscriptions).run());
        Ok(())
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// Publishes without asking for an answer: done when the message is in the outbox.
    ///
    /// Waits while the outbox is full and there is a connection that empties it; so a publisher that
    /// is faster than the daemon is slowed down. While there is none, a full outbox is
    /// [`Error::OutboxFull`]. A message that the daemon refuses is told to
    /// [`ClientBuilder::on_error`]; one that was sent just before the connection broke may be lost.
    pub async fn publish(&self, topic: &str, payload: impl AsRef<[u8]>) -> Result<(), Error> {
        let publication = Publication::new(topic, payload.as_ref());
        self.enqueue(&publication, None, &mut None).await
    }

    /// As [`publish`](Self::publish), but never waits: a full outbox is [`Error::OutboxFull`].
    pub fn try_publish(&self, topic: &str, payload: impl AsRef<[u8]>) -> Result<(), Error> {
        self.try_enqueue(&Publication::new(topic, payload.as_ref()), None)
    }

    /// Publishes and waits for the daemon's acknowledgement.
    ///
    /// Queued while there is no connection, within the request timeout. If the connection breaks
    /// before the answer: [`Error::OutcomeUnknown`].
    pub async fn publish_acked(
        &self,
        topic: &str,
        payload: impl AsRef<[u8]>,
    ) -> Result<PublishAck, Error> {
        let publication = Publication::new(topic, payload.as_ref());
        self.enqueue_acked(&publication, None).await
    }

    /// As [`publish`](Self::publish), with headers and the like.
    pub async fn send(&self, publication: &Publication<'_>) -> Result<(), Error> {
        self.enqueue(publication, None, &mut None).await
    }

    /// As [`try_publish`](Self::try_publish), with headers and the like.
    pub fn try_send(&self, publication: &Publication<'_>) -> Result<(), Error> {
        self.try_enqueue(publication, None)
    }

    /// As [`publish_acked`](Self::publish_acked), with headers and the like.
    pub async fn send_acked(&self, publication: &Publication<'_>) -> Result<PublishAck, Error> {
        self.enqueue_acked(publication, None).await
    }

    /// Leaves a topic without a retained value, and waits for the daemon's acknowledgement: publishes
    /// an empty payload to be [retained](Publication::retain), which subscribers also see as a message.
    pub async fn clear_retained(&self, topic: &str) -> Result<PublishAck, Error> {
        self.enqueue_acked(&Publication::new(topic, "").retain(true), None).await
    }

    /// Publishes many messages in their order, waiting for room as [`publish`](Self::publish) does.
    /// Stops at the first that is refused, and tells which.
    pub async fn send_batch(&self, publications: &[Publication<'_>]) -> Result<(), BatchError> {
        let mut next = 0;
        while next < publications.len() {
            match self.offer_some(publications, &mut next, None) {
                None => {}
                Some(Refusal::Error(cause)) => {
                    return Err(BatchError { accepted: next, cause });
                }
                Some(Refusal::Wait) => {
                    let refused = self.enqueue(&publications[next], None, &mut None).await;
                    refused.map_err(|cause| BatchError { accepted: next, cause })?;
                    next += 1;
                }
            }
        }
        Ok(())
    }

    /// Publishes many messages in their order and waits for all acknowledgements, within one request
    /// timeout. The results stand in the order of the messages; one that is refused does not keep
    /// those behind it from being published.
    pub async fn send_batch_acked(
        &self,
        publications: &[Publication<'_>],
    ) -> Vec<Result<PublishAck, Error>> {
        let batch = AckBatch::new(publications.len());
        let publish_all = async {
            let mut next = 0;
            while next < publications.len() {
                match self.offer_some(publications, &mut next, Some(&batch)) {
                    None => {}
                    Some(Refusal::Error(error)) => {
                        batch.resolve(next, Err(error));
                        next += 1;
                    }
                    Some(Refusal::Wait) => {
                        let mut waiter = Some(Waiter::Batch(Arc::clone(&batch), next));
                        let refused = self.enqueue(&publications[next], None, &mut waiter).await;
                        if let Err(error) = refused {
                            batch.resolve(next, Err(error));
                        }
                        next += 1;
                    }
                }
            }
            batch.completed().await;
        };
        let timeout = self.shared().options.request_timeout;
        // Whatever is missing when the time is over has the timeout as its result.
        let _ = tokio::time::timeout(timeout, publish_all).await;
        batch.take(&Error::Timeout { what: "an acknowledged publish" })
    }

    /// A publisher of one topic, whose name is checked now.
    pub fn publisher(&self, topic: &str) -> Result<Publisher, Error> {
        let topic = self.shared().outbox().intern(topic)?;
        Ok(Publisher::new(self.clone(), topic))
    }

    /// Subscribes to topics by one or several filters; done when the daemon has confirmed.
    ///
    /// A filter is a topic in which `+` stands for one level and a final `#` for the rest.
    pub async fn subscribe(&self, filters: impl Into<Filters>) -> Result<Subscription, Error> {
        self.subscribe_with(filters, SubscribeOptions::new()).await
    }

    /// As [`subscribe`](Self::subscribe), with options.
    pub async fn subscribe_with(
        &self,
        filters: impl Into<Filters>,
        mut options: SubscribeOptions,
    ) -> Result<Subscription, Error> {
        let behind = std::mem::take(&mut options.behind);
        // Dropping the subscription, should the caller or the time give up, ends it.
        let (subscription, wanted) = Subscription::prepare(self, filters.into(), &options)?;
        let (sender, confirmed) = oneshot::channel();
        let entry = Entry::new(wanted, Arc::clone(subscription.inbox()), sender).behind(&behind);
        self.begin(&subscription, entry)?;
        self.confirmation(confirmed).await.map(|()| subscription)
    }

    /// Goes on with a paused subscription, which begins with what was [`Paused::unread`]; done when the
    /// daemon has confirmed.
    ///
    /// A daemon keeps a paused subscription on one of its threads, and this client's connection may be
    /// served by another one: then the subscription gets a connection of its own, to the same address,
    /// which lives as long as it does and which [`Client::close`] of this client does not end. Gaps,
    /// warnings and errors are told to the same callbacks, but not that connection's states.
    ///
    /// One that has expired, or that another daemon had (such as this one before a restart), is
    /// subscribed anew from its [`positions`](Paused::positions), with a
    /// [`Gap`](crate::Gap) where something may be missing; an expired one on a connection of its own,
    /// because only that could tell that it is not kept elsewhere. `paused` is left as it is; use it
    /// again only if this fails. After [`Error::Timeout`] the daemon may have ended it, and resuming it
    /// again subscribes anew. [`Error::Rejected`]: it runs already on this connection, or has never had so
    /// many messages.
    pub async fn resume(&self, paused: &Paused) -> Result<Subscription, Error> {
        let (subscription, entry, confirmed) = self.prepare_resume(paused, true)?;
        self.begin(&subscription, entry)?;
        match self.confirmation(confirmed).await {
            Ok(()) => Ok(subscription),
            Err(Error::NotFound { .. }) => self.resume_apart(paused).await,
            Err(error) => Err(error),
        }
    }

    /// Resumes on a connection that names the subscription in its Hello.
    async fn resume_apart(&self, paused: &Paused) -> Result<Subscription, Error> {
        let mut options = self.shared().options.clone();
        options.callbacks.on_state = None;
        let client = Self::idle(options);
        let (subscription, entry, confirmed) = client.prepare_resume(paused, false)?;
        let mut subscriptions = SubscriptionTable::default();
        subscriptions.insert(subscription.request(), entry);
        // With somebody who waits for it, a first attempt that fails is the end. The confirmation
        // tells both.
        let (first, _) = oneshot::channel();
        client.run(Some(first), subscriptions)?;
        client.confirmation(confirmed).await.map(|()| subscription)
    }

    fn prepare_resume(
        &self,
        paused: &Paused,
        may_be_elsewhere: bool,
    ) -> Result<(Subscription, Entry, Confirmation), Error> {
        let filters = Filters::from(&paused.filters);
        let (mut subscription, wanted) = Subscription::prepare(self, filters, &paused.options)?;
        subscription.begin_with(&paused.unread);
        let (sender, confirmed) = oneshot::channel();
        let entry = Entry::new(wanted, Arc::clone(subscription.inbox()), sender)
            .going_on(paused, may_be_elsewhere);
        Ok((subscription, entry, confirmed))
    }

    fn begin(&self, subscription: &Subscription, entry: Entry) -> Result<(), Error> {
        self.shared()
            .command(Command::Subscribe { request: subscription.request(), entry: Box::new(entry) })
    }

    async fn confirmation(&self, confirmed: Confirmation) -> Result<(), Error> {
        match tokio::time::timeout(self.shared().options.request_timeout, confirmed).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::Timeout { what: "a subscription" }),
        }
    }

    /// Waits until the daemon has dealt with everything published before, within the request
    /// timeout.
    pub async fn flush(&self) -> Result<(), Error> {
        let (sender, flushed) = oneshot::channel();
        let shared = self.shared();
        let wake = shared.outbox().offer_flush(Waiter::Flush(sender))?;
        if wake {
            shared.task.wake();
        }
        match tokio::time::timeout(shared.options.request_timeout, flushed).await {
            Ok(answer) => answer.unwrap_or(Err(Error::Closed)),
            Err(_) => Err(Error::Timeout { what: "a flush" }),
        }
    }

    /// Sends what is queued, takes leave of the daemon and ends the client, all its handles and its
    /// subscriptions. Fails if something could not be sent, or not within the time allowed.
    pub async fn close(self) -> Result<(), Error> {
        let (sender, closed) = oneshot::channel();
        let command = Command::Close { answer: Some(sender) };
        match self.shared().command(command) {
            Ok(()) => closed.await.unwrap_or(Err(Error::Closed)),
            Err(Error::Closed) => Ok(()),
            Err(why) => Err(why),
        }
    }

    /// The state of the connection now.
    pub fn state(&self) -> ConnectionState {
        self.shared().state()
    }

    /// A channel that follows the state of the connection. States that follow each other quickly
    /// may be passed over; [`ClientBuilder::on_state`] is told each.
    pub fn state_changes(&self) -> watch::Receiver<ConnectionState> {
        self.shared().state_changes()
    }

    fn offer(
        &self,
        publication: &Publication<'_>,
        publisher: Option<&Publisher>,
        waiter: &mut Option<Waiter>,
    ) -> Result<(), Refusal> {
        let known = publisher.map(Publisher::known);
        let (topic, wake) = self.shared().outbox().offer(publication, known, waiter)?;
        if let Some(publisher) = publisher {
            publisher.learn(topic);
        }
        if wake {
            self.shared().task.wake();
        }
        Ok(())
    }

    /// Puts the next step of a batch into the outbox, from `next` on, which is moved.
    fn offer_some(
        &self,
        publications: &[Publication<'_>],
        next: &mut usize,
        batch: Option<&Arc<AckBatch>>,
    ) -> Option<Refusal> {
        let shared = self.shared();
        let mut outbox = shared.outbox();
        let mut wake = false;
        let mut refusal = None;
        for publication in publications.iter().skip(*next).take(BATCH_STEP) {
            let mut waiter = batch.map(|batch| Waiter::Batch(Arc::clone(batch), *next));
            match outbox.offer(publication, None, &mut waiter) {
                Ok((_, wakes)) => wake |= wakes,
                Err(refused) => {
                    refusal = Some(refused);
                    break;
                }
            }
            *next += 1;
        }
        drop(outbox);
        if wake {
            shared.task.wake();
        }
        refusal
    }

    pub(crate) fn try_enqueue(
        &self,
        publication: &Publication<'_>,
        publisher: Option<&Publisher>,
    ) -> Result<(), Error> {
        self.offer(publication, publisher, &mut None).map_err(|refusal| match refusal {
            Refusal::Wait => Error::OutboxFull,
            Refusal::Error(error) => error,
        })
    }

    pub(crate) async fn enqueue(
        &self,
        publication: &Publication<'_>,
        publisher: Option<&Publisher>,
        waiter: &mut Option<Waiter>,
    ) -> Result<(), Error> {
        match self.offer(publication, publisher, waiter) {
            Ok(()) => return Ok(()),
            Err(Refusal::Error(error)) => return Err(error),
            Err(Refusal::Wait) => {}
        }
        loop {
            // Registered before the next try, so that room made in between is not missed.
            let mut room = pin!(self.shared().room.notified());
            room.as_mut().enable();
            match self.offer(publication, publisher, waiter) {
                Ok(()) => return Ok(()),
                Err(Refusal::Error(error)) => return Err(error),
                Err(Refusal::Wait) => room.await,
            }
        }
    }

    pub(crate) async fn enqueue_acked(
        &self,
        publication: &Publication<'_>,
        publisher: Option<&Publisher>,
    ) -> Result<PublishAck, Error> {
        let (sender, acked) = oneshot::channel();
        let mut waiter = Some(Waiter::Ack(sender));
        let published = async {
            self.enqueue(publication, publisher, &mut waiter).await?;
            acked.await.unwrap_or(Err(Error::Closed))
        };
        let timeout = self.shared().options.request_timeout;
        match tokio::time::timeout(timeout, published).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout { what: "an acknowledged publish" }),
        }
    }
}
