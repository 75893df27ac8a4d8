//! An application that speaks gRPC, as any library of the language makes it: blocking, call by call.

use std::sync::Arc;

use nexusd_grpc::proto::message_event::Event;
use nexusd_grpc::proto::sidecar_service_client::SidecarServiceClient;
use nexusd_grpc::proto::{
    Message, MessageEvent, PublishRequest, PublishResponse, ResumeSubscribeRequest,
    SubscribeRequest, SubscriptionInfo, UnsubscribeRequest, UnsubscribeResponse,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::SOON;
use crate::address::Address;
use crate::daemon::Daemon;

/// Asks for the services by one version of reflection. Both are the same but for their names.
macro_rules! services {
    ($grpc:expr, $($version:ident)::+) => {{
        use $($version)::+::server_reflection_client::ServerReflectionClient;
        use $($version)::+::server_reflection_request::MessageRequest;
        use $($version)::+::server_reflection_response::MessageResponse;
        let mut client = ServerReflectionClient::new($grpc.channel.clone());
        let request = $($version)::+::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let answer = $grpc.ask(async move {
            let stream = client.server_reflection_info(tokio_stream::iter([request])).await?;
            stream.into_inner().message().await
        });
        match answer.and_then(|answer| answer.message_response) {
            Some(MessageResponse::ListServicesResponse(list)) => {
                list.service.into_iter().map(|service| service.name).collect()
            }
            other => panic!("no services but {other:?}"),
        }
    }};
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Grpc {
    runtime: Arc<Runtime>,
    channel: Channel,
    client: SidecarServiceClient<Channel>,
}

impl Grpc {
    /// Connects to a daemon.
    ///
    /// # Panics
    /// If there is no way.
    pub fn connect(daemon: &Daemon) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let Address::Tcp(address) = daemon.v4() else { panic!("an address of TCP") };
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let channel = runtime.block_on(endpoint.connect()).expect("a daemon");
        let client =
            SidecarServiceClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
        Self { runtime: Arc::new(runtime), channel, client }
    }

    /// Makes one call.
    ///
    /// # Panics
    /// If it is not answered [`SOON`].
    pub fn call<T, F>(&self, call: impl FnOnce(SidecarServiceClient<Channel>) -> F) -> T
    where
        F: Future<Output = T>,
    {
        let answer = call(self.client.clone());
        self.runtime.block_on(async { timeout(SOON, answer).await }).expect("an answer")
    }

    /// How the daemon is, as the health service says.
    pub fn health(&self) -> ServingStatus {
        let mut client = HealthClient::new(self.channel.clone());
        let request = HealthCheckRequest { service: String::new() };
        let answer = self.runtime.block_on(async { timeout(SOON, client.check(request)).await });
        answer.expect("in time").expect("an answer").into_inner().status()
    }

    /// The services that there are, as reflection says.
    pub fn services(&self) -> Vec<String> {
        services!(self, tonic_reflection::pb::v1)
    }

    /// The same, as the version of reflection before says.
    pub fn services_v1alpha(&self) -> Vec<String> {
        services!(self, tonic_reflection::pb::v1alpha)
    }

    fn ask<T>(&self, answer: impl Future<Output = Result<T, Status>>) -> T {
        let answer = self.runtime.block_on(async { timeout(SOON, answer).await });
        answer.expect("in time").expect("an answer")
    }

    /// Publishes a message.
    pub fn publish(&self, topic: &str, payload: &[u8]) -> PublishResponse {
        self.try_publish(request(topic, payload)).expect("it is accepted")
    }

    /// The same, which may fail.
    pub fn try_publish(&self, request: PublishRequest) -> Result<PublishResponse, Status> {
        self.call(|mut client| async move { client.publish(request).await })
            .map(tonic::Response::into_inner)
    }

    /// Publishes many messages through one stream.
    pub fn publish_all(&self, requests: Vec<PublishRequest>) -> Vec<PublishResponse> {
        self.call(|mut client| async move {
            let stream = client.publish_stream(tokio_stream::iter(requests)).await;
            let mut stream = stream.expect("a stream").into_inner();
            let mut responses = Vec::new();
            while let Some(response) = stream.message().await.expect("an answer") {
                responses.push(response);
            }
            responses
        })
    }

    /// Subscribes.
    pub fn subscribe(&self, topics: &[&str]) -> Events {
        let topics = topics.iter().map(|&topic| topic.to_owned()).collect();
        self.subscribe_with(SubscribeRequest { topics, ..SubscribeRequest::default() })
            .expect("it is confirmed")
    }

    /// The same with options, which may fail.
    pub fn subscribe_with(&self, request: SubscribeRequest) -> Result<Events, Status> {
        let stream = self.call(|mut client| async move { client.subscribe(request).await })?;
        Ok(Events::begin(self, stream.into_inner()))
    }

    /// Goes on with a subscription.
    pub fn resume(&self, request: ResumeSubscribeRequest) -> Result<Events, Status> {
        let stream =
            self.call(|mut client| async move { client.resume_subscribe(request).await })?;
        Ok(Events::begin(self, stream.into_inner()))
    }

    /// Ends a subscription, or lets it wait.
    pub fn unsubscribe(&self, id: &str, pause: bool) -> UnsubscribeResponse {
        let request = UnsubscribeRequest { subscription_id: id.to_owned(), pause };
        let answer = self.call(|mut client| async move { client.unsubscribe(request).await });
        answer.expect("an answer").into_inner()
    }
}

/// A message to publish.
pub(crate) fn request(topic: &str, payload: &[u8]) -> PublishRequest {
    PublishRequest {
        topic: topic.to_owned(),
        payload: payload.to_vec().into(),
        ..PublishRequest::default()
    }
}

/// What comes of a subscription.
#[derive(Debug)]
pub struct Events {
    runtime: Arc<Runtime>,
    stream: Streaming<MessageEvent>,
    /// The first event.
    pub info: SubscriptionInfo,
}

impl Events {
    fn begin(grpc: &Grpc, stream: Streaming<MessageEvent>) -> Self {
        let runtime = Arc::clone(&grpc.runtime);
        let mut events = Self { runtime, stream, info: SubscriptionInfo::default() };
        match events.hear() {
            Ok(Some(Event::SubscriptionInfo(info))) => events.info = info,
            other => panic!("no subscription but {other:?}"),
        }
        events
    }

    /// The next event, `None` at the end.
    ///
    /// # Panics
    /// If nothing comes [`SOON`].
    pub fn hear(&mut self) -> Result<Option<Event>, Status> {
        let next = self.stream.message();
        let event = self.runtime.block_on(async { timeout(SOON, next).await });
        Ok(event
            .expect("an event")?
            .map(|event| event.event.expect("an event that says something")))
    }

    /// The next event, which has to come.
    pub fn event(&mut self) -> Event {
        self.hear().expect("no failure").expect("no end")
    }

    /// The next event, which has to be a live message.
    pub fn message(&mut self) -> Message {
        match self.event() {
            Event::Message(message) => message,
            other => panic!("no message but {other:?}"),
        }
    }

    /// Why the stream ends, behind whatever still comes.
    pub fn end(&mut self) -> Code {
        loop {
            match self.hear() {
                Ok(Some(_)) => {}
                Ok(None) => return Code::Ok,
                Err(status) => return status.code(),
            }
        }
    }
}
