//! Health and the collector's own metrics over HTTP, for whatever watches the watcher.
//!
//! `/-/healthy`: the process serves. `/-/ready`: what is sent becomes durable, and rules are evaluated. `/metrics`: Prometheus' text format. On loopback unless
//! configured otherwise. Queries are not served here yet.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use belfry_common::model::Raw;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{fleet::OwnCount, own_counts::own_counts, services::Services, state::Health};

/// Binds the address; port 0 means any free one.
pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until the token is cancelled.
pub(crate) async fn run(
    listener: TcpListener,
    services: Arc<Services>,
    token: CancellationToken,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/-/healthy", get(|| async { "healthy\n" }))
        .route("/-/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(services);
    axum::serve(listener, routes).with_graceful_shutdown(token.cancelled_owned()).await
}

async fn ready(State(services): State<Arc<Services>>) -> impl IntoResponse {
    use std::sync::atomic::Ordering::Relaxed;
    if services.writer.statistics.is_full.load(Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "the store cannot be written\n");
    }
    if !services.alerting.is_alive() {
        return (StatusCode::SERVICE_UNAVAILABLE, "rules are not evaluated: alerting is stuck\n");
    }
    match &*services.state.health().borrow() {
        Health::Good => (StatusCode::OK, "ready\n"),
        Health::Retrying(_) | Health::Failed(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "the database cannot be written\n")
        }
    }
}

async fn metrics(State(services): State<Arc<Services>>) -> impl IntoResponse {
    let body = exposition(&own_counts(&services));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], body)
}

/// Prometheus' text format, version 0.0.4.
fn exposition(counts: &[OwnCount]) -> String {
    let mut text = String::new();
    for &(name, kind, resolution, help, raw) in counts {
        let Ok(value) = Raw::value(raw, resolution) else { continue };
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {}\n{name} {value}\n", kind.prometheus_type()));
    }
    text
}
