//! A daemon that is asked: its admin service over gRPC, and clients of it for messages.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use nexusd_admin::proto::admin_service_client::AdminServiceClient;
use nexusd_admin::proto::{
    Clients, DrainRequest, DrainResponse, GetGossipRequest, GetInfoRequest, GetLogLevelRequest,
    GetTopologyRequest, Gossip, Info, KillClientRequest, KillClientResponse, ListClientsRequest,
    ListPeersRequest, ListRetainedRequest, ListSubscriptionsRequest, ListTopicsRequest, LogLevel,
    Peers, PingRequest, PingResponse, ReloadRequest, ReloadResponse, RetainedValues,
    SetClientNameRequest, SetClientNameResponse, SetLogLevelRequest, Subscriptions, Topics,
    Topology,
};
use nexusd_client::{Client, ConnectionState};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Response, Status};
use tower_service::Service;

use crate::error::CliError;
use crate::target::Target;

/// Longest answer: 10,000 entries with the longest names fit.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A connection to a daemon, which is made anew when it breaks. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    target: Target,
    timeout: Duration,
    admin: AdminServiceClient<Channel>,
}

/// Makes a method of a question.
macro_rules! questions {
    ($($name:ident: $request:ty => $answer:ty;)*) => {
        $(
            pub(crate) async fn $name(&self, request: $request) -> Result<$answer, CliError> {
                let mut admin = self.admin.clone();
                self.answer(admin.$name(request)).await
            }
        )*
    };
}

impl Remote {
    /// Connects; fails if nobody listens there.
    pub(crate) async fn connect(target: Target, timeout: Duration) -> Result<Self, CliError> {
        let failed = |error: tonic::transport::Error| {
            CliError::no_connection(target.clone(), timeout, &error)
        };
        let url = format!("http://{}", target.authority());
        let endpoint = Endpoint::from_shared(url).map_err(failed)?.connect_timeout(timeout);
        let way = Way { target: target.clone() };
        let channel = endpoint.connect_with_connector(way).await.map_err(failed)?;
        let admin = AdminServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        Ok(Self { target, timeout, admin })
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// A client for messages.
    pub(crate) async fn client(&self) -> Result<Client, CliError> {
        self.client_that_tells(|_| {}).await
    }

    /// The same; it tells what becomes of its connection.
    pub(crate) async fn client_that_tells(
        &self,
        tell: impl Fn(&ConnectionState) + Send + Sync + 'static,
    ) -> Result<Client, CliError> {
        let client = Client::builder(&self.target.to_string())
            .name("nexusd-cli")
            .connect_timeout(self.timeout)
            .request_timeout(self.timeout)
            .on_state(tell)
            .connect()
            .await;
        client.map_err(|error| match error {
            nexusd_client::Error::NotConnected { source, .. } => {
                CliError::no_connection(self.target.clone(), self.timeout, &*source)
            }
            nexusd_client::Error::Protocol { reason } => {
                CliError::Foreign { target: self.target.clone(), reason }
            }
            error => error.into(),
        })
    }

    questions! {
        ping: PingRequest => PingResponse;
        get_info: GetInfoRequest => Info;
        list_peers: ListPeersRequest => Peers;
        get_topology: GetTopologyRequest => Topology;
        get_gossip: GetGossipRequest => Gossip;
        list_topics: ListTopicsRequest => Topics;
        list_subscriptions: ListSubscriptionsRequest => Subscriptions;
        list_retained: ListRetainedRequest => RetainedValues;
        list_clients: ListClientsRequest => Clients;
        kill_client: KillClientRequest => KillClientResponse;
        set_client_name: SetClientNameRequest => SetClientNameResponse;
        get_log_level: GetLogLevelRequest => LogLevel;
        set_log_level: SetLogLevelRequest => LogLevel;
        reload: ReloadRequest => ReloadResponse;
        drain: DrainRequest => DrainResponse;
    }

    async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CliError> {
        let target = || self.target.clone();
        match timeout(self.timeout, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.refusal(&status)),
            Err(_) => Err(CliError::Timeout { target: target(), ms: self.timeout.as_millis() }),
        }
    }

    fn refusal(&self, status: &Status) -> CliError {
        let target = self.target.clone();
        match (status.code(), std::error::Error::source(status)) {
            (Code::Unimplemented, _) => CliError::Unknown { target },
            // What the daemon says has no source; a connection that broke has.
            (
                Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal,
                Some(source),
            ) => CliError::no_connection(target, self.timeout, source),
            (code, _) if status.message().is_empty() => {
                CliError::Refused { target, reason: code.description().to_owned() }
            }
            _ => CliError::Refused { target, reason: status.message().to_owned() },
        }
    }
}

/// How a connection is made: addresses of an interface (`fe80::1%eth0`) have no place in a URL.
#[derive(Clone, Debug)]
struct Way {
    target: Target,
}

impl Service<Uri> for Way {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Target { host, port } = self.target.clone();
        Box::pin(async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}
