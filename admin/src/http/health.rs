//! The signs of life that orchestrators look at.
//!
//! `/livez`: the process runs; where this fails, restart it. `/healthz`: every shard answers. `/readyz`: that,
//! and the node takes connections: it does not drain. Each answers 200 or 503, with the same body.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use crate::{Health, Node};

pub(super) fn routes() -> Router<Arc<dyn Node>> {
    Router::new()
        .route("/livez", get(livez))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
}

/// That the process runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
pub(super) struct Alive {
    /// It answers, so it does.
    is_alive: bool,
}

/// Whether the process runs.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, body = Alive)))]
pub(super) async fn livez() -> Json<Alive> {
    Json(Alive { is_alive: true })
}

/// Whether every shard answers.
#[utoipa::path(get, path = "/healthz", tag = "health",
    responses((status = 200, body = Health), (status = 503, body = Health)))]
pub(super) async fn healthz(State(node): State<Arc<dyn Node>>) -> Response {
    let health = node.health().await;
    answer(health.is_healthy, health)
}

/// Whether the node takes connections.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, body = Health), (status = 503, body = Health)))]
pub(super) async fn readyz(State(node): State<Arc<dyn Node>>) -> Response {
    let health = node.health().await;
    answer(health.is_ready, health)
}

fn answer(is_well: bool, health: Health) -> Response {
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health)).into_response()
}
