//! The small HTTP side: /healthz, /readyz, /metrics, /attempts.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::attempts::{self, Collector};
use crate::metrics::Metrics;
use crate::world::World;

/// Serves /healthz (always well while the process answers) and /readyz (well once every kind has been listed), until
/// `stop` turns true.
pub async fn serve_health(
    addr: SocketAddr,
    ready: watch::Receiver<bool>,
    stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(ready);
    serve(addr, app, stop).await
}

/// Serves /metrics and /attempts until `stop` turns true.
pub async fn serve_metrics(
    addr: SocketAddr,
    metrics: Arc<Metrics>,
    world: Arc<World>,
    collector: Collector,
    stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/metrics", get(render))
        .with_state((metrics, Arc::clone(&world)))
        .merge(
            Router::new()
                .route("/attempts", get(attempts))
                .with_state((collector, world)),
        );
    serve(addr, app, stop).await
}

async fn serve(addr: SocketAddr, app: Router, mut stop: watch::Receiver<bool>) -> std::io::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            // An error means that the sender is gone, which is an end as well.
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .await
}

async fn readyz(State(ready): State<watch::Receiver<bool>>) -> impl IntoResponse {
    if *ready.borrow() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not listed yet\n")
    }
}

/// One array; a header counts the agents that did not answer.
async fn attempts(
    State((collector, world)): State<(Collector, Arc<World>)>,
    Query(query): Query<attempts::Query>,
) -> impl IntoResponse {
    let collected = collector.collect(&world, &query).await;
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("larder-agents-unanswered", collected.unanswered.to_string()),
    ];
    match serde_json::to_string(&collected.attempts) {
        Ok(text) => (StatusCode::OK, headers, text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            headers,
            format!("cannot write: {error}\n"),
        ),
    }
}

async fn render(State((metrics, world)): State<(Arc<Metrics>, Arc<World>)>) -> impl IntoResponse {
    metrics.observe(&world.caches.all());
    metrics.observe_nodes(&world.objects.all(), &world.agents(jiff::Timestamp::now()));
    match metrics.render() {
        Ok(text) => (
            StatusCode::OK,
            [("content-type", "text/plain; version=0.0.4")],
            text,
        ),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [("content-type", "text/plain")],
            format!("cannot render: {error}\n"),
        ),
    }
}
