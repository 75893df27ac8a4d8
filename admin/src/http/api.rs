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
use super::refusals::{Invalid, Refused, Unknown, Unreadable, Unsupported};
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
    ),
    components(schemas(Failure))
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
#[from_request(via(axum::extract::Query), rejection(Unread))]
struct Query<T>(T);

/// A body of JSON.
#[derive(FromRequest)]
#[from_request(via(Json), rejection(Unread))]
struct Body<T>(T);

/// A question that cannot be read.
struct Unread(StatusCode, String);

impl From<QueryRejection> for Unread {
    fn from(cause: QueryRejection) -> Self {
        Self(StatusCode::BAD_REQUEST, format!("what stands behind `?`: {}", innermost(&cause)))
    }
}

impl From<JsonRejection> for Unread {
    fn from(cause: JsonRejection) -> Self {
        let status = match &cause {
            JsonRejection::MissingJsonContentType(_) | JsonRejection::BytesRejection(_) => {
                cause.status()
            }
            _ => StatusCode::BAD_REQUEST,
        };
        let text = match status {
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                "a body is JSON, and comes with `Content-Type: application/json`".to_owned()
            }
            StatusCode::PAYLOAD_TOO_LARGE => "a body has at most 64 KiB".to_owned(),
            _ => format!("the body: {}", innermost(&cause)),
        };
        Self(status, text)
    }
}

impl IntoResponse for Unread {
    fn into_response(self) -> Response {
        Failure::of(self.0, self.1)
    }
}

/// What is wrong, without what those through whose hands it went said of it.
fn innermost(error: &dyn std::error::Error) -> &dyn std::error::Error {
    error.source().map_or(error, innermost)
}

/// Who the node is, and what time it is there.
#[utoipa::path(get, path = "/api/v1/ping", tag = "node",
    responses((status = 200, body = PingResponse, description = "Its id and its time"), Refused))]
async fn ping(State(node): Asked) -> Json<PingResponse> {
    Json(node.ping())
}

/// What the node is, what it counted and how it is set.
#[utoipa::path(get, path = "/api/v1/info", tag = "node",
    responses((status = 200, body = Info, description = "What it is"), Refused))]
async fn info(State(node): Asked) -> Result<Json<Info>, Fault> {
    node.info().await.map(Json)
}

/// The other nodes, as this one sees them.
#[utoipa::path(get, path = "/api/v1/peers", tag = "mesh",
    responses((status = 200, body = Peers, description = "The peers"), Refused))]
async fn peers(State(node): Asked) -> Result<Json<Peers>, Fault> {
    node.peers().await.map(Json)
}

/// All nodes, as each of them sees the others: this node asks them.
#[utoipa::path(get, path = "/api/v1/topology", tag = "mesh",
    responses((status = 200, body = Topology, description = "All nodes"), Refused))]
async fn topology_of(State(node): Asked) -> Result<Json<Topology>, Fault> {
    topology::of(&*node).await.map(Json)
}

/// How far this node and its peers know what the other wants.
#[utoipa::path(get, path = "/api/v1/gossip", tag = "mesh",
    responses((status = 200, body = Gossip, description = "What is known"), Refused))]
async fn gossip(State(node): Asked) -> Result<Json<Gossip>, Fault> {
    node.gossip().await.map(Json)
}

/// Topics of the node, all or those that match a filter.
#[utoipa::path(get, path = "/api/v1/topics", tag = "messages", params(ListTopicsRequest),
    responses((status = 200, body = Topics, description = "The topics"), Refused, Invalid))]
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
    responses((status = 200, body = Subscriptions, description = "The subscriptions"), Refused, Invalid))]
async fn subscriptions(
    State(node): Asked,
    Query(asked): Query<ListSubscriptionsRequest>,
) -> Result<Json<Subscriptions>, Fault> {
    let limit = entries(asked.limit)?;
    node.subscriptions(ListSubscriptionsRequest { limit }).await.map(Json)
}

/// Retained values, all or those of topics that match a filter.
#[utoipa::path(get, path = "/api/v1/retained", tag = "messages", params(ListRetainedRequest),
    responses((status = 200, body = RetainedValues, description = "The values"), Refused, Invalid))]
async fn retained(
    State(node): Asked,
    Query(asked): Query<ListRetainedRequest>,
) -> Result<Json<RetainedValues>, Fault> {
    let limit = entries(asked.limit)?;
    node.retained(ListRetainedRequest { limit, ..asked }).await.map(Json)
}

/// Clients of the node, all or one.
#[utoipa::path(get, path = "/api/v1/clients", tag = "clients", params(ListClientsRequest),
    responses((status = 200, body = Clients, description = "The clients"), Refused, Invalid))]
async fn clients(
    State(node): Asked,
    Query(asked): Query<ListClientsRequest>,
) -> Result<Json<Clients>, Fault> {
    let limit = entries(asked.limit)?;
    node.clients(ListClientsRequest { limit, ..asked }).await.map(Json)
}

/// For programs that look at the status alone.
fn nobody(client_id: &str) -> Fault {
    Fault::Unknown(format!("there is no client {client_id}"))
}

/// Ends a client's connection; its subscriptions wait for it as if that had broken.
#[utoipa::path(post, path = "/api/v1/clients/{id}/kill", tag = "clients",
    params(("id" = String, Path, description = "SHARD-SLOT-GENERATION")),
    responses((status = 200, body = KillClientResponse, description = "Its connection ends"), Refused, Invalid, Unknown))]
async fn kill_client(
    _: Changer,
    State(node): Asked,
    Path(client_id): Path<String>,
) -> Result<Json<KillClientResponse>, Fault> {
    let nobody = nobody(&client_id);
    let answer = node.kill_client(KillClientRequest { client_id }).await?;
    if answer.is_killed { Ok(Json(answer)) } else { Err(nobody) }
}

/// Gives a client another name.
#[utoipa::path(post, path = "/api/v1/clients/{id}/name", tag = "clients",
    params(("id" = String, Path, description = "SHARD-SLOT-GENERATION")),
    request_body = SetClientNameRequest,
    responses((status = 200, body = SetClientNameResponse, description = "It has that name"), Refused, Invalid, Unknown, Unreadable))]
async fn set_client_name(
    _: Changer,
    State(node): Asked,
    Path(client_id): Path<String>,
    Body(asked): Body<SetClientNameRequest>,
) -> Result<Json<SetClientNameResponse>, Fault> {
    let nobody = nobody(&client_id);
    let answer = node.set_client_name(SetClientNameRequest { client_id, ..asked }).await?;
    if answer.is_renamed { Ok(Json(answer)) } else { Err(nobody) }
}

/// What is logged.
#[utoipa::path(get, path = "/api/v1/log-level", tag = "node",
    responses((status = 200, body = LogLevel, description = "The level that holds"), Refused, Unsupported))]
async fn log_level(State(node): Asked) -> Result<Json<LogLevel>, Fault> {
    node.log_level().map(Json)
}

/// Changes what is logged, until the node ends or reads another level from its configuration.
#[utoipa::path(post, path = "/api/v1/log-level", tag = "node", request_body = SetLogLevelRequest,
    responses((status = 200, body = LogLevel, description = "The level that holds"), Refused, Invalid, Unsupported, Unreadable))]
async fn set_log_level(
    _: Changer,
    State(node): Asked,
    Body(asked): Body<SetLogLevelRequest>,
) -> Result<Json<LogLevel>, Fault> {
    node.set_log_level(asked).map(Json)
}

/// Reads the configuration again, and takes on what can change while the node runs.
#[utoipa::path(post, path = "/api/v1/reload", tag = "node",
    responses((status = 200, body = ReloadResponse, description = "What has changed, and what would with the next start"), Refused, Invalid, Unsupported))]
async fn reload(_: Changer, State(node): Asked) -> Result<Json<ReloadResponse>, Fault> {
    node.reload().await.map(Json)
}

/// Ends the node in good order, as SIGTERM does.
#[utoipa::path(post, path = "/api/v1/drain", tag = "node",
    responses((status = 200, body = DrainResponse, description = "The node drains"), Refused))]
async fn drain(_: Changer, State(node): Asked) -> Json<DrainResponse> {
    Json(node.drain())
}
