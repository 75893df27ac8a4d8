//! The admin service over gRPC.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::limits::{ENTRIES_DEFAULT, ENTRIES_MAX};
use crate::proto::admin_service_server::AdminService;
use crate::proto::{
    Clients, DrainRequest, DrainResponse, GetGossipRequest, GetInfoRequest, GetLogLevelRequest,
    GetTopologyRequest, Gossip, Info, KillClientRequest, KillClientResponse, ListClientsRequest,
    ListPeersRequest, ListRetainedRequest, ListSubscriptionsRequest, ListTopicsRequest, LogLevel,
    Peers, PingRequest, PingResponse, ReloadRequest, ReloadResponse, RetainedValues,
    SetClientNameRequest, SetClientNameResponse, SetLogLevelRequest, Subscriptions, Topics,
    Topology,
};
use crate::{Caller, Fault, Node, topology};

/// Answers for a node. Whoever serves it puts a [`Caller`] among the extensions of each request.
#[derive(Clone)]
pub struct Service {
    node: Arc<dyn Node>,
}

impl Service {
    /// The service of one node.
    pub fn new(node: Arc<dyn Node>) -> Self {
        Self { node }
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

/// The limit of a list, as it is asked for.
pub(crate) fn entries(limit: u32) -> Result<u32, Fault> {
    match limit {
        0 => Ok(ENTRIES_DEFAULT),
        1..=ENTRIES_MAX => Ok(limit),
        _ => Err(Fault::Invalid(format!("limit {limit} is too high; the most is {ENTRIES_MAX}"))),
    }
}

/// What a call that changes something asks for, if its caller may.
fn change<T>(request: Request<T>) -> Result<T, Status> {
    let caller = request.extensions().get::<Caller>().copied().unwrap_or_default();
    caller.may_change()?;
    Ok(request.into_inner())
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl AdminService for Service {
    async fn ping(&self, _: Request<PingRequest>) -> Answer<PingResponse> {
        Ok(Response::new(self.node.ping()))
    }

    async fn get_info(&self, _: Request<GetInfoRequest>) -> Answer<Info> {
        Ok(Response::new(self.node.info().await?))
    }

    async fn list_peers(&self, _: Request<ListPeersRequest>) -> Answer<Peers> {
        Ok(Response::new(self.node.peers().await?))
    }

    async fn get_topology(&self, _: Request<GetTopologyRequest>) -> Answer<Topology> {
        Ok(Response::new(topology::of(&*self.node).await?))
    }

    async fn get_gossip(&self, _: Request<GetGossipRequest>) -> Answer<Gossip> {
        Ok(Response::new(self.node.gossip().await?))
    }

    async fn list_topics(&self, request: Request<ListTopicsRequest>) -> Answer<Topics> {
        let ListTopicsRequest { filter, limit } = request.into_inner();
        let request = ListTopicsRequest { filter, limit: entries(limit)? };
        Ok(Response::new(self.node.topics(request).await?))
    }

    async fn list_subscriptions(
        &self,
        request: Request<ListSubscriptionsRequest>,
    ) -> Answer<Subscriptions> {
        let ListSubscriptionsRequest { limit } = request.into_inner();
        let request = ListSubscriptionsRequest { limit: entries(limit)? };
        Ok(Response::new(self.node.subscriptions(request).await?))
    }

    async fn list_retained(&self, request: Request<ListRetainedRequest>) -> Answer<RetainedValues> {
        let ListRetainedRequest { filter, limit } = request.into_inner();
        let request = ListRetainedRequest { filter, limit: entries(limit)? };
        Ok(Response::new(self.node.retained(request).await?))
    }

    async fn list_clients(&self, request: Request<ListClientsRequest>) -> Answer<Clients> {
        let ListClientsRequest { client_id, limit } = request.into_inner();
        let request = ListClientsRequest { client_id, limit: entries(limit)? };
        Ok(Response::new(self.node.clients(request).await?))
    }

    async fn kill_client(&self, request: Request<KillClientRequest>) -> Answer<KillClientResponse> {
        Ok(Response::new(self.node.kill_client(change(request)?).await?))
    }

    async fn set_client_name(
        &self,
        request: Request<SetClientNameRequest>,
    ) -> Answer<SetClientNameResponse> {
        Ok(Response::new(self.node.set_client_name(change(request)?).await?))
    }

    async fn get_log_level(&self, _: Request<GetLogLevelRequest>) -> Answer<LogLevel> {
        Ok(Response::new(self.node.log_level()?))
    }

    async fn set_log_level(&self, request: Request<SetLogLevelRequest>) -> Answer<LogLevel> {
        Ok(Response::new(self.node.set_log_level(change(request)?)?))
    }

    async fn reload(&self, request: Request<ReloadRequest>) -> Answer<ReloadResponse> {
        change(request)?;
        Ok(Response::new(self.node.reload().await?))
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Answer<DrainResponse> {
        change(request)?;
        Ok(Response::new(self.node.drain()))
    }
}
