//! `/api/v1/…`: what the admin service answers, as JSON; and the description of all routes, which is made of
//! the very types and functions that answer.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use utoipa::OpenApi;

use super::guard::Changer;
use super::{Failure, health};
use crate::proto::{
    Clients, DrainResponse, Gossip, Info, KillClientRequest, KillClientResponse,
    ListClientsRequest, ListRetainedRequest, ListSubscriptionsRequest, ListTopicsRequest, LogLevel,
    Peers, PingResponse, ReloadResponse, RetainedValues, SetClientNameRequest,
    SetClientNameResponse, SetLogLevelRequest, Subscriptions, Topics, Topology,
};
use crate::service::entries;
use crate::{Fault, Node, topology};

type Asked = State<Arc<dyn Node>>;

/// All routes, as OpenAPI tells them.
#[derive(OpenApi)]
#[openapi(
    info(title = "NexusD", description = "What operators ask a node, and tell it."),
    paths(
        ping,
        info,
        peers,
        topology_of,
        gossip,
        topics,
        subscriptions,
        retained,
        clients,
        log_level,
        kill_client,
        set_client_name,
        set_log_level,
        reload,
        drain,
        health::livez,
        health::healthz,
        health::readyz,
    )
)]
pub(super) struct Description;

pub(super) fn routes() -> Router<Arc<dyn Node>> {
    Router::new()
        .route("/api/v1/ping", get(ping))
        .route("/api/v1/info", get(info))
        .route("/api/v1/peers", get(peers))
        .route("/api/v1/topology", get(topology_of))
        .route("/api/v1/gossip", get(gossip))
        .route("/api/v1/topics", get(topics))
        .route("/api/v1/subscriptions", get(subscriptions))
        .route("/api/v1/retained", get(retained))
        .route("/api/v1/clients", get(clients))
        .route("/api/v1/clients/{id}/kill", post(kill_client))
        .route("/api/v1/clients/{id}/name", post(set_client_name))
        .route("/api/v1/log-level", get(log_level).post(set_log_level))
        .route("/api/v1/reload", post(reload))
        .route("/api/v1/drain", post(drain))
}

/// What stands behind the path, after `?`.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Unreadable))]
struct Query<T>(T);

/// A body of JSON.
#[derive(FromRequest)]
#[from_request(via(Json), rejection(Unreadable))]
struct Body<T>(T);

/// A question that cannot be read.
struct Unreadable(StatusCode, String);

impl From<QueryRejection> for Unreadable {
    fn from(cause: QueryRejection) -> Self {
        Self(cause.status(), cause.body_text())
    }
}

impl From<JsonRejection> for Unreadable {
    fn from(cause: JsonRejection) -> Self {
        Self(cause.status(), cause.body_text())
    }
}

impl IntoResponse for Unreadable {
    fn into_response(self) -> Response {
        Failure::of(self.0, self.1)
    }
}

/// Who the node is, and what time it is there.
#[utoipa::path(get, path = "/api/v1/ping", tag = "node",
    responses((status = 200, body = PingResponse), (status = 403, body = Failure)))]
async fn ping(State(node): Asked) -> Json<PingResponse> {
    Json(node.ping())
}

/// What the node is, what it counted and how it is set.
#[utoipa::path(get, path = "/api/v1/info", tag = "node",
    responses((status = 200, body = Info), (status = 403, body = Failure), (status = 503, body = Failure)))]
async fn info(State(node): Asked) -> Result<Json<Info>, Fault> {
    node.info().await.map(Json)
}

/// The other nodes, as this one sees them.
#[utoipa::path(get, path = "/api/v1/peers", tag = "mesh",
    responses((status = 200, body = Peers), (status = 403, body = Failure), (status = 503, body = Failure)))]
async fn peers(State(node): Asked) -> Result<Json<Peers>, Fault> {
    node.peers().await.map(Json)
}

/// All nodes, as each of them sees the others: this node asks them.
#[utoipa::path(get, path = "/api/v1/topology", tag = "mesh",
    responses((status = 200, body = Topology), (status = 403, body = Failure), (status = 503, body = Failure)))]
async fn topology_of(State(node): Asked) -> Result<Json<Topology>, Fault> {
    topology::of(&*node).await.map(Json)
}

/// How far this node and its peers know what the other wants.
#[utoipa::path(get, path = "/api/v1/gossip", tag = "mesh",
    responses((status = 200, body = Gossip), (status = 403, body = Failure), (status = 503, body = Failure)))]
async fn gossip(State(node): Asked) -> Result<Json<Gossip>, Fault> {
    node.gossip().await.map(Json)
}

/// Topics of the node, all or those that match a filter.
#[utoipa::path(get, path = "/api/v1/topics", tag = "messages", params(ListTopicsRequest),
    responses((status = 200, body = Topics), (status = 403, body = Failure), (status = 400, body = Failure),
              (status = 503, body = Failure)))]
async fn topics(
    State(node): Asked,
    Query(asked): Query<ListTopicsRequest>,
) -> Result<Json<Topics>, Fault> {
    let limit = entries(asked.limit)?;
    node.topics(ListTopicsRequest { limit, ..asked }).await.map(Json)
}

/// Subscriptions of the node's clients, and their queues.
#[utoipa::path(get, path = "/api/v1/subscriptions", tag = "messages",
    params(ListSubscriptionsRequest),
    responses((status = 200, body = Subscriptions), (status = 403, body = Failure), (status = 400, body = Failure),
              (status = 503, body = Failure)))]
async fn subscriptions(
    State(node): Asked,
    Query(asked): Query<ListSubscriptionsRequest>,
) -> Result<Json<Subscriptions>, Fault> {
    let limit = entries(asked.limit)?;
    node.subscriptions(ListSubscriptionsRequest { limit }).await.map(Json)
}

/// Retained values, all or those of topics that match a filter.
#[utoipa::path(get, path = "/api/v1/retained", tag = "messages", params(ListRetainedRequest),
    responses((status = 200, body = RetainedValues), (status = 403, body = Failure), (status = 400, body = Failure),
              (status = 503, body = Failure)))]
async fn retained(
    State(node): Asked,
    Query(asked): Query<ListRetainedRequest>,
) -> Result<Json<RetainedValues>, Fault> {
    let limit = entries(asked.limit)?;
    node.retained(ListRetainedRequest { limit, ..asked }).await.map(Json)
}

/// Clients of the node, all or one.
#[utoipa::path(get, path = "/api/v1/clients", tag = "clients", params(ListClientsRequest),
    responses((status = 200, body = Clients), (status = 403, body = Failure), (status = 400, body = Failure),
              (status = 503, body = Failure)))]
async fn clients(
    State(node): Asked,
    Query(asked): Query<ListClientsRequest>,
) -> Result<Json<Clients>, Fault> {
    let limit = entries(asked.limit)?;
    node.clients(ListClientsRequest { limit, ..asked }).await.map(Json)
}

/// Ends a client's connection; its subscriptions wait for it as if that had broken.
#[utoipa::path(post, path = "/api/v1/clients/{id}/kill", tag = "clients",
    params(("id" = String, Path, description = "SHARD-SLOT-GENERATION")),
    responses((status = 200, body = KillClientResponse), (status = 400, body = Failure),
              (status = 403, body = Failure), (status = 503, body = Failure)))]
async fn kill_client(
    _: Changer,
    State(node): Asked,
    Path(client_id): Path<String>,
) -> Result<Json<KillClientResponse>, Fault> {
    node.kill_client(KillClientRequest { client_id }).await.map(Json)
}

/// Gives a client another name.
#[utoipa::path(post, path = "/api/v1/clients/{id}/name", tag = "clients",
    params(("id" = String, Path, description = "SHARD-SLOT-GENERATION")),
    request_body = SetClientNameRequest,
    responses((status = 200, body = SetClientNameResponse), (status = 400, body = Failure),
              (status = 403, body = Failure), (status = 503, body = Failure)))]
async fn set_client_name(
    _: Changer,
    State(node): Asked,
    Path(client_id): Path<String>,
    Body(asked): Body<SetClientNameRequest>,
) -> Result<Json<SetClientNameResponse>, Fault> {
    node.set_client_name(SetClientNameRequest { client_id, ..asked }).await.map(Json)
}

/// What is logged.
#[utoipa::path(get, path = "/api/v1/log-level", tag = "node",
    responses((status = 200, body = LogLevel), (status = 403, body = Failure), (status = 409, body = Failure)))]
async fn log_level(State(node): Asked) -> Result<Json<LogLevel>, Fault> {
    node.log_level().map(Json)
}

/// Changes what is logged, until the node ends or reads another level from its configuration.
#[utoipa::path(post, path = "/api/v1/log-level", tag = "node", request_body = SetLogLevelRequest,
    responses((status = 200, body = LogLevel), (status = 400, body = Failure),
              (status = 403, body = Failure), (status = 409, body = Failure)))]
async fn set_log_level(
    _: Changer,
    State(node): Asked,
    Body(asked): Body<SetLogLevelRequest>,
) -> Result<Json<LogLevel>, Fault> {
    node.set_log_level(asked).map(Json)
}

/// Reads the configuration again, and takes on what can change while the node runs.
#[utoipa::path(post, path = "/api/v1/reload", tag = "node",
    responses((status = 200, body = ReloadResponse), (status = 400, body = Failure),
              (status = 403, body = Failure), (status = 409, body = Failure), (status = 503, body = Failure)))]
async fn reload(_: Changer, State(node): Asked) -> Result<Json<ReloadResponse>, Fault> {
    node.reload().await.map(Json)
}

/// Ends the node in good order, as SIGTERM does.
#[utoipa::path(post, path = "/api/v1/drain", tag = "node",
    responses((status = 200, body = DrainResponse), (status = 403, body = Failure)))]
async fn drain(_: Changer, State(node): Asked) -> Json<DrainResponse> {
    Json(node.drain())
}
