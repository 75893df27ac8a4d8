//! The signs of life that orchestrators look at.
//!
//! `/livez`: the process runs and nothing of it is stuck; where this fails, restart it. `/healthz`: every shard
//! answers. `/readyz`: that, and the node takes connections: it does not drain. Each answers 200 or 503, with the
//! same body.

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

/// Whether the process runs.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
pub(super) struct Alive {
    /// Nothing of it is stuck.
    is_alive: bool,
    /// What is; empty: nothing.
    reason: String,
}

/// Whether the process runs, and nothing of it is stuck.
#[utoipa::path(get, path = "/livez", tag = "health",
    responses((status = 200, body = Alive, description = "It runs"),
              (status = 503, body = Alive, description = "A shard has not answered for a minute")))]
pub(super) async fn livez(State(node): State<Arc<dyn Node>>) -> Response {
    let reason = node.stuck().unwrap_or_default();
    let is_alive = reason.is_empty();
    answer(is_alive, Alive { is_alive, reason })
}

/// Whether every shard answers.
#[utoipa::path(get, path = "/healthz", tag = "health",
    responses((status = 200, body = Health, description = "Every shard answers"),
              (status = 503, body = Health, description = "One does not, within two seconds")))]
pub(super) async fn healthz(State(node): State<Arc<dyn Node>>) -> Response {
    let health = node.health().await;
    answer(health.is_healthy, health)
}

/// Whether the node takes connections.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, body = Health, description = "It takes connections"),
              (status = 503, body = Health, description = "It does not")))]
pub(super) async fn readyz(State(node): State<Arc<dyn Node>>) -> Response {
    let health = node.health().await;
    answer(health.is_ready, health)
}

fn answer(is_well: bool, body: impl serde::Serialize) -> Response {
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}
