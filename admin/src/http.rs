//! The same over HTTP: `/api/v1/…` with JSON, the signs of life that orchestrators look at, and metrics.
//!
//! `api.rs` holds the routes and their description, `health.rs` the signs of life, `guard.rs` who may ask and who
//! may change something, `connections.rs` and `places.rs` the sockets and what bounds them, `answers.rs` what waits
//! in them, `refusals.rs` how refusals are described. No route answers with anything but JSON, except for the metrics.

mod answers;
mod api;
mod connections;
mod guard;
mod health;
mod places;
mod refusals;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
pub use connections::serve;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::{OpenApi, ToSchema};

use crate::limits::{HTTP_BODY_BYTES_MAX, HTTP_REQUEST_TIMEOUT};
use crate::{Fault, Node, exposition};

/// Why a request is not answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
struct Failure {
    /// A sentence for people.
    error: String,
}

impl Failure {
    fn of(status: StatusCode, error: impl Into<String>) -> Response {
        (status, Json(Self { error: error.into() })).into_response()
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::Unsupported(_) => StatusCode::CONFLICT,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Failure::of(status, self.to_string())
    }
}

/// How metrics are served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpMetrics {
    /// Where.
    pub path: String,
    /// For how long a page is served before it is made anew; 0: each is new.
    pub update_interval: Duration,
}

/// What the health port serves: the JSON interface, its description, and the signs of life.
pub fn health_router(node: Arc<dyn Node>) -> Router {
    let router = Router::new()
        .merge(api::routes().layer(middleware::from_fn(guard::only_askers)))
        .merge(health::routes())
        .route("/openapi.json", get(async || Json(api::Description::openapi())));
    bounded(router).with_state(node)
}

/// What the metrics port serves.
pub fn metrics_router(node: Arc<dyn Node>, metrics: &HttpMetrics) -> Router {
    let page = Arc::new(Page::new(metrics.update_interval));
    let serve = async move |State(node): State<Arc<dyn Node>>| page.get(&*node).await;
    bounded(Router::new().route(&metrics.path, get(serve))).with_state(node)
}

/// The page of metrics, and when it was made.
struct Page {
    update_interval: Duration,
    made: tokio::sync::Mutex<Option<(tokio::time::Instant, String)>>,
}

impl Page {
    fn new(update_interval: Duration) -> Self {
        Self { update_interval, made: tokio::sync::Mutex::new(None) }
    }

    async fn get(&self, node: &dyn Node) -> Response {
        let mut made = self.made.lock().await;
        let is_old = |at: &tokio::time::Instant| at.elapsed() >= self.update_interval;
        if made.as_ref().is_none_or(|(at, _)| is_old(at)) {
            match node.metrics().await {
                Ok(families) => {
                    *made = Some((tokio::time::Instant::now(), exposition::render(&families)));
                }
                Err(fault) => return fault.into_response(),
            }
        }
        let page = made.as_ref().map(|(_, page)| page.clone()).unwrap_or_default();
        ([(header::CONTENT_TYPE, exposition::CONTENT_TYPE)], page).into_response()
    }
}

/// What holds for every route.
fn bounded(router: Router<Arc<dyn Node>>) -> Router<Arc<dyn Node>> {
    let nothing = async || {
        Failure::of(
            StatusCode::NOT_FOUND,
            "there is nothing here; /openapi.json on the health port says what there is, metrics are on the metrics port",
        )
    };
    let other = async || {
        Failure::of(StatusCode::METHOD_NOT_ALLOWED, "this is asked for in another way (GET, POST)")
    };
    let room = answers::room();
    router
        .fallback(nothing)
        .method_not_allowed_fallback(other)
        .layer(DefaultBodyLimit::max(HTTP_BODY_BYTES_MAX))
        .layer(middleware::from_fn(within_time))
        .layer(middleware::map_response(move |answer| answers::held(answer, Arc::clone(&room))))
}

/// A request that takes too long ends. What browsers may make of answers is said with each.
async fn within_time(request: Request, next: Next) -> Response {
    let answer = timeout(HTTP_REQUEST_TIMEOUT, next.run(request)).await;
    let mut answer = answer.unwrap_or_else(|_| {
        Failure::of(StatusCode::SERVICE_UNAVAILABLE, "this took too long; the node is overloaded")
    });
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
