//! The calls of `SidecarService`, one function for each.

use std::collections::HashMap;
use std::sync::Arc;

use nexusd_client::Client;
use nexusd_wire::control::{GapMode, OverflowPolicy};
use nexusd_wire::{Position, Sequence, SubscribeRequest, SubscriptionId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::answers::BoundsItself;
use crate::batches::{Batches, batches};
use crate::connection::Caller;
use crate::daemon::{Daemon, Filters};
use crate::feed::{Feed, end_parked};
use crate::fetch::fetch;
use crate::limits::{ANSWER_TIMEOUT, POSITIONS_MAX};
use crate::message_id::MessageId;
use crate::native::Native;
use crate::progress::{Had, unknown};
use crate::proto::sidecar_service_server::SidecarService;
use crate::proto::{
    self, GetPeersRequest, GetPeersResponse, GetTopicsRequest, GetTopicsResponse, MessageEvent,
    PublishRequest, PublishResponse, ResumeSubscribeRequest, UnsubscribeRequest,
    UnsubscribeResponse,
};
use crate::publishing;
use crate::registry::{Known, ORDERS, Order, Registry, Returning, not_found};

/// The name of connections whose application gave none.
const NAME: &str = "grpc";
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 255;

pub(crate) struct Sidecar<D> {
    daemon: Arc<D>,
    registry: Arc<Registry>,
    /// Becomes true when the daemon ends.
    ending: watch::Receiver<bool>,
}

impl<D: Daemon> Sidecar<D> {
    pub(crate) fn new(daemon: Arc<D>, ending: watch::Receiver<bool>) -> Self {
        let registry = Registry::new(daemon.parked_ttl());
        Self { daemon, registry, ending }
    }

    /// What the calls of a connection publish with.
    async fn publisher(&self, caller: &Caller) -> Result<Client, Status> {
        let (daemon, peer) = (Arc::clone(&self.daemon), caller.peer);
        let software = || caller.software();
        caller.publisher.client(NAME, software, move || daemon.connect(peer)).await
    }

    /// A connection to the daemon for one subscription.
    async fn connect(
        &self,
        caller: &Caller,
        name: &str,
        resume: Option<SubscriptionId>,
    ) -> Result<Native, Status> {
        let name = match name {
            "" => NAME,
            name if name.len() > NAME_BYTES_MAX => {
                return Err(Status::invalid_argument("client_id has more than 255 bytes"));
            }
            name => name,
        };
        let stream = self.daemon.connect(caller.peer);
        let stream = stream.map_err(|error| Status::unavailable(error.to_string()))?;
        in_time(Native::open(stream, name, &caller.software(), resume)).await
    }

    /// Lets a subscription run to its client.
    fn begin(&self, feed: Feed) -> Response<Batches<MessageEvent>> {
        let (sender, stream) = batches();
        let (orders, ordered) = mpsc::channel(ORDERS);
        self.registry.begin(feed.subscription(), feed.filters(), orders);
        tokio::spawn(feed.run(sender, ordered, Arc::clone(&self.registry)));
        let mut answer = Response::new(stream);
        answer.extensions_mut().insert(BoundsItself);
        answer
    }

    async fn subscribe_anew(
        &self,
        caller: &Caller,
        client_id: &str,
        topics: Vec<String>,
        request: SubscribeRequest<'_>,
        gap: Option<proto::Gap>,
    ) -> Result<Response<Batches<MessageEvent>>, Status> {
        if topics.is_empty() {
            return Err(Status::invalid_argument("a subscription needs at least one topic"));
        }
        let native = self.connect(caller, client_id, None).await?;
        let request = SubscribeRequest {
            queue_messages: request.queue_messages.or(Some(self.daemon.queue_messages())),
            ..request
        };
        let feed = Feed::subscribe(native, topics.into(), request, gap, &caller.source);
        let feed = in_time(feed).await?;
        Ok(self.begin(feed))
    }

    /// A subscription whose stream has ended, or ends for this.
    async fn take_over(&self, id: SubscriptionId) -> Result<(Arc<[String]>, Returning), Status> {
        loop {
            let (filters, orders) = match self.registry.find(id)? {
                (filters, Known::Parked(returning)) => return Ok((filters, returning)),
                (filters, Known::Streaming(orders)) => (filters, orders),
            };
            let (heir, returning) = oneshot::channel();
            let order = orders.send(Order::Leave(heir)).await;
            if let (Ok(()), Ok(returning)) = (order, returning.await) {
                return Ok((filters, returning));
            }
            // It has ended by itself just now.
        }
    }

    async fn resume(
        &self,
        caller: &Caller,
        id: SubscriptionId,
        request: &ResumeSubscribeRequest,
    ) -> Result<Feed, Status> {
        let had = had(request)?;
        let mode = gap_mode(request)?;
        let (filters, returning) = in_time(self.take_over(id)).await?;
        let mut progress = returning.progress();
        let mut comeback = progress.come_back(had);
        if mode == GapMode::ReplayBuffer
            && let Some(gap) = comeback.gap.take_if(|gap| gap.missed > 0 && gap.elsewhere == 0)
        {
            let native = self.connect(caller, &request.client_id, None).await?;
            let fetched = in_time(fetch(native, gap, &caller.source)).await?;
            (comeback.found, comeback.room) = (fetched.messages, fetched.room);
            comeback.gap = fetched.left;
        }
        let attempt = async {
            let native = self.connect(caller, &request.client_id, Some(id)).await?;
            let resumed =
                Feed::resume(native, id, filters, progress, comeback, mode, &caller.source);
            in_time(resumed).await
        };
        match attempt.await {
            Ok(feed) => {
                returning.goes_on();
                Ok(feed)
            }
            Err(status) => {
                if status.code() == Code::NotFound {
                    returning.has_ended();
                }
                Err(status)
            }
        }
    }
}

#[tonic::async_trait]
impl<D: Daemon> SidecarService for Sidecar<D> {
    type PublishStreamStream = Batches<PublishResponse>;
    type SubscribeStream = Batches<MessageEvent>;
    type ResumeSubscribeStream = Batches<MessageEvent>;

    async fn publish(
        &self,
        request: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        let client = self.publisher(caller(&request)?).await?;
        let published = publishing::publish(&client, self.daemon.node(), request.get_ref()).await;
        published.map(Response::new)
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Batches<PublishResponse>>, Status> {
        let caller = caller(&request)?;
        let client = self.publisher(caller).await?;
        let source = Arc::clone(&caller.source);
        let (sender, stream) = batches();
        let requests = request.into_inner();
        let (node, ending) = (self.daemon.node(), self.ending.clone());
        tokio::spawn(publishing::publish_all(client, node, source, requests, sender, ending));
        Ok(Response::new(stream))
    }

    async fn subscribe(
        &self,
        request: Request<proto::SubscribeRequest>,
    ) -> Result<Response<Batches<MessageEvent>>, Status> {
        let caller = caller(&request)?.clone();
        let asked = request.into_inner();
        let wanted = SubscribeRequest {
            policy: policy(asked.overflow_policy)?,
            queue_messages: queue_messages(asked.max_buffer_size)?,
            receive_retained: asked.receive_retained,
            wait_mesh: asked.wait_mesh,
            ..SubscribeRequest::default()
        };
        self.subscribe_anew(&caller, &asked.client_id, asked.topics, wanted, None).await
    }

    async fn resume_subscribe(
        &self,
        request: Request<ResumeSubscribeRequest>,
    ) -> Result<Response<Batches<MessageEvent>>, Status> {
        let caller = caller(&request)?.clone();
        let asked = request.into_inner();
        if !asked.subscription_id.is_empty() {
            let id = subscription_id(&asked.subscription_id).ok_or_else(not_found)?;
            return self.resume(&caller, id, &asked).await.map(|feed| self.begin(feed));
        }
        let mode = gap_mode(&asked)?;
        let had = had(&asked)?;
        let mut positions = positions(&asked, &had)?;
        let is_told = !positions.is_empty() && mode != GapMode::ReplayBuffer;
        let gap = is_told.then(unknown);
        if is_told {
            positions.clear();
        }
        let wanted = SubscribeRequest {
            policy: policy(asked.overflow_policy)?,
            queue_messages: queue_messages(asked.max_buffer_size)?,
            receive_retained: asked.receive_retained || mode == GapMode::RetainedOnly,
            positions: &positions,
            ..SubscribeRequest::default()
        };
        self.subscribe_anew(&caller, &asked.client_id, asked.topics.clone(), wanted, gap).await
    }

    async fn unsubscribe(
        &self,
        request: Request<UnsubscribeRequest>,
    ) -> Result<Response<UnsubscribeResponse>, Status> {
        let caller = caller(&request)?.clone();
        let UnsubscribeRequest { subscription_id: id, pause } = request.into_inner();
        let Some(id) = subscription_id(&id) else { return Ok(Response::new(not_known())) };
        let returning = loop {
            let orders = match self.registry.find(id) {
                Ok((_, Known::Parked(returning))) => break returning,
                Ok((_, Known::Streaming(orders))) => orders,
                Err(status) if status.code() == Code::NotFound => {
                    return Ok(Response::new(not_known()));
                }
                Err(status) => return Err(status),
            };
            let (answer, answered) = oneshot::channel();
            let order = Order::Unsubscribe { pause, answer };
            let asked = async { Ok((orders.send(order).await, answered.await)) };
            if let (Ok(()), Ok(response)) = in_time(asked).await? {
                return Ok(Response::new(response));
            }
            // Its stream has ended just now.
        };
        let ended = async {
            let native = self.connect(&caller, NAME, Some(id)).await?;
            in_time(end_parked(native, id, pause)).await
        };
        let response = ended.await?;
        if !(response.success && pause) {
            returning.has_ended();
        }
        Ok(Response::new(response))
    }

    async fn get_topics(
        &self,
        request: Request<GetTopicsRequest>,
    ) -> Result<Response<GetTopicsResponse>, Status> {
        let counts = request.into_inner().include_counts;
        let Filters { subscriptions, is_truncated } = self.daemon.filters().await?;
        let count =
            |number: u64| if counts { i32::try_from(number).unwrap_or(i32::MAX) } else { 0 };
        let topics =
            subscriptions.into_iter().map(|(filter, number)| (filter, count(number))).collect();
        Ok(Response::new(GetTopicsResponse { topics, is_truncated }))
    }

    async fn get_peers(
        &self,
        request: Request<GetPeersRequest>,
    ) -> Result<Response<GetPeersResponse>, Status> {
        let peers = self.daemon.peers(request.into_inner().include_state).await?;
        Ok(Response::new(GetPeersResponse { peers }))
    }
}

/// The connection that a call came on.
fn caller<T>(request: &Request<T>) -> Result<&Caller, Status> {
    let caller = request.extensions().get::<Caller>();
    caller.ok_or_else(|| Status::internal("a call that came from nowhere"))
}

/// What is said of the end of a subscription that nobody knows.
fn not_known() -> UnsubscribeResponse {
    UnsubscribeResponse {
        success: false,
        error_message: not_found().message().to_owned(),
        pause_ttl_ms: 0,
    }
}

/// The daemon beside us answers at once or not at all.
async fn in_time<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Status::unavailable("the daemon does not answer in time");
    timeout(ANSWER_TIMEOUT, answer).await.map_err(late)?
}

fn subscription_id(text: &str) -> Option<SubscriptionId> {
    let number = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?;
    Some(SubscriptionId(number))
}

/// How far the client of one that is subscribed anew has come.
fn positions<'a>(
    request: &'a ResumeSubscribeRequest,
    had: &'a Had,
) -> Result<Vec<Position<'a>>, Status> {
    let ids = &request.last_message_ids;
    if ids.len() > POSITIONS_MAX {
        let text = format!("last_message_ids has more than {POSITIONS_MAX} messages");
        return Err(Status::invalid_argument(text));
    }
    let of = |topic, number, origin| Position { topic, sequence: Sequence(number), origin };
    if !ids.is_empty() {
        let named = ids.iter().map(|id| message_id("last_message_ids", id));
        return named.map(|id| id.map(|id| of(id.topic, id.number, Some(id.origin)))).collect();
    }
    Ok(match had {
        Had::Untold => Vec::new(),
        Had::UpTo { origin, number, topic } => vec![of(topic, *number, Some(*origin))],
        Had::Positions(numbers) => {
            numbers.iter().map(|(topic, number)| of(topic, *number, None)).collect()
        }
    })
}

fn message_id<'a>(field: &str, text: &'a str) -> Result<MessageId<'a>, Status> {
    let refused = || {
        let text = format!("{field} names no message (ORIGIN/NUMBER/TOPIC)");
        Status::invalid_argument(text)
    };
    MessageId::parse(text).ok_or_else(refused)
}

fn gap_mode(request: &ResumeSubscribeRequest) -> Result<GapMode, Status> {
    match proto::GapRecoveryMode::try_from(request.gap_recovery_mode) {
        Ok(proto::GapRecoveryMode::GapRecoveryNone) => Ok(GapMode::None),
        Ok(proto::GapRecoveryMode::GapRecoveryRetainedOnly) => Ok(GapMode::RetainedOnly),
        Ok(proto::GapRecoveryMode::GapRecoveryReplayBuffer) => Ok(GapMode::ReplayBuffer),
        Err(_) => Err(Status::invalid_argument("gap_recovery_mode has no such value")),
    }
}

fn had(request: &ResumeSubscribeRequest) -> Result<Had, Status> {
    let positions = &request.last_sequence_per_topic;
    if positions.len() > POSITIONS_MAX {
        let text = format!("last_sequence_per_topic has more than {POSITIONS_MAX} topics");
        return Err(Status::invalid_argument(text));
    }
    if positions.is_empty() {
        if request.last_message_id.is_empty() {
            return Ok(Had::Untold);
        }
        return message_id("last_message_id", &request.last_message_id).map(|id| Had::up_to(&id));
    }
    let mut had = HashMap::with_capacity(positions.len());
    for (topic, number) in positions {
        nexusd_wire::check_topic(topic).map_err(|rule| {
            Status::invalid_argument(format!("`{}`: {rule}", topic.escape_debug()))
        })?;
        let number = u64::try_from(*number).map_err(|_| {
            Status::invalid_argument("last_sequence_per_topic has a number below 0")
        })?;
        had.insert(topic.clone(), number);
    }
    Ok(Had::Positions(had))
}

fn queue_messages(max_buffer_size: i32) -> Result<Option<u32>, Status> {
    match u32::try_from(max_buffer_size) {
        Ok(0) => Ok(None),
        Ok(messages) => Ok(Some(messages)),
        Err(_) => Err(Status::invalid_argument("max_buffer_size is less than nothing")),
    }
}

fn policy(policy: i32) -> Result<Option<OverflowPolicy>, Status> {
    match proto::OverflowPolicy::try_from(policy) {
        Ok(proto::OverflowPolicy::OverflowDefault) => Ok(None),
        Ok(proto::OverflowPolicy::OverflowDropOldest) => Ok(Some(OverflowPolicy::DropOldest)),
        Ok(proto::OverflowPolicy::OverflowDropNewest) => Ok(Some(OverflowPolicy::DropNewest)),
        Ok(proto::OverflowPolicy::OverflowBlock) => Ok(Some(OverflowPolicy::Block)),
        Ok(proto::OverflowPolicy::OverflowDisconnect) => Ok(Some(OverflowPolicy::Disconnect)),
        Err(_) => Err(Status::invalid_argument("overflow_policy has no such value")),
    }
}
