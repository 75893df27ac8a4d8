//! What the daemon implements: the answers, in the words of `proto/admin.proto`.

use serde::{Deserialize, Serialize};
use tonic::{Code, Status};
use utoipa::ToSchema;

use crate::exposition::Family;
use crate::proto::{
    Clients, DrainResponse, Gossip, Info, KillClientRequest, KillClientResponse,
    ListClientsRequest, ListRetainedRequest, ListSubscriptionsRequest, ListTopicsRequest, LogLevel,
    Peers, PingResponse, ReloadResponse, RetainedValues, SetClientNameRequest,
    SetClientNameResponse, SetLogLevelRequest, Subscriptions, Topics,
};

/// A running node, as operators see it. What of it changes something is called for callers of this host alone;
/// limits of lists are between 1 and [`crate::limits::ENTRIES_MAX`].
#[tonic::async_trait]
pub trait Node: Send + Sync + 'static {
    /// Who it is, and what time it is there.
    fn ping(&self) -> PingResponse;

    /// How it is: asks every shard for a sign of life.
    async fn health(&self) -> Health;

    /// What of it is stuck, so that only a restart helps. Waits for nothing.
    fn stuck(&self) -> Option<String>;

    /// What it is, what it counted and how it is set.
    async fn info(&self) -> Result<Info, Fault>;

    /// The other nodes, as this one sees them.
    async fn peers(&self) -> Result<Peers, Fault>;

    /// How far this node and its peers know what the other wants.
    async fn gossip(&self) -> Result<Gossip, Fault>;

    /// Its topics.
    async fn topics(&self, request: ListTopicsRequest) -> Result<Topics, Fault>;

    /// Its subscriptions and their queues.
    async fn subscriptions(
        &self,
        request: ListSubscriptionsRequest,
    ) -> Result<Subscriptions, Fault>;

    /// Its retained values.
    async fn retained(&self, request: ListRetainedRequest) -> Result<RetainedValues, Fault>;

    /// Its clients, or one of them.
    async fn clients(&self, request: ListClientsRequest) -> Result<Clients, Fault>;

    /// Ends a client's connection.
    async fn kill_client(&self, request: KillClientRequest) -> Result<KillClientResponse, Fault>;

    /// Gives a client another name.
    async fn set_client_name(
        &self,
        request: SetClientNameRequest,
    ) -> Result<SetClientNameResponse, Fault>;

    /// What is logged.
    fn log_level(&self) -> Result<LogLevel, Fault>;

    /// Changes that.
    fn set_log_level(&self, request: SetLogLevelRequest) -> Result<LogLevel, Fault>;

    /// Reads the configuration again.
    async fn reload(&self) -> Result<ReloadResponse, Fault>;

    /// Begins to end the node.
    fn drain(&self) -> DrainResponse;

    /// Everything it counts, for Prometheus.
    async fn metrics(&self) -> Result<Vec<Family>, Fault>;
}

/// How a node is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `running` or `draining`.
    pub state: String,
    /// Every shard answers.
    pub is_healthy: bool,
    /// It takes connections.
    pub is_ready: bool,
    /// What is wrong; empty: nothing.
    pub reason: String,
}

/// Why there is no answer. Each text is a sentence for the operator.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// The question makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The caller may not.
    #[error("{0}")]
    Forbidden(String),
    /// There is nothing of that name.
    #[error("{0}")]
    Unknown(String),
    /// The node cannot do that as it was started.
    #[error("{0}")]
    Unsupported(String),
    /// Something of the node does not answer in time, or is stopping.
    #[error("{0}")]
    Unavailable(String),
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let code = match fault {
            Fault::Invalid(_) => Code::InvalidArgument,
            Fault::Forbidden(_) => Code::PermissionDenied,
            Fault::Unknown(_) => Code::NotFound,
            Fault::Unsupported(_) => Code::FailedPrecondition,
            Fault::Unavailable(_) => Code::Unavailable,
        };
        Self::new(code, fault.to_string())
    }
}
