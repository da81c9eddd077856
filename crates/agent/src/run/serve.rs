//! The small HTTP side: /healthz, /readyz, /metrics, /attempts.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::attempts::Attempts;
use super::metrics::Metrics;
use super::watch::Health;

/// What is served.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) health: Arc<Health>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) attempts: Arc<Attempts>,
}

/// Serves until dropped: /healthz is well while the process answers, /readyz while changes of the node's object are
/// heard of. A dead runtime does not make the agent unready: the kubelet, which would take over, has no other.
pub(super) async fn serve(listener: TcpListener, serving: Serving) -> io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/attempts", get(attempts))
        .with_state(serving);
    axum::serve(listener, app).await
}

async fn readyz(State(serving): State<Serving>) -> impl IntoResponse {
    if serving.health.ready() {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the node's object is not watched\n",
        )
    }
}

async fn metrics(State(serving): State<Serving>) -> Response {
    match serving.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn attempts(State(serving): State<Serving>) -> Response {
    match serde_json::to_string(&serving.attempts.all()) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
