//! What the collector answers over HTTP: queries as Prometheus answers them, health, and its own metrics.
//!
//! Grafana, promtool, vmalert and a Prometheus that federates are clients of this. On loopback it answers everybody; beyond, it speaks TLS
//! and answers who shows a token (`guard`). `/-/healthy`: the process serves. `/-/ready`: what is
//! sent becomes durable, and rules are evaluated.

mod door;
mod envelope;
mod exposition;
mod federate;
mod guard;
mod number;
mod parameters;
mod query;
mod results;
mod rules;
mod series;
mod stall;
mod status;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    middleware::from_fn_with_state,
    response::IntoResponse,
    routing::get,
};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;

use crate::{own_counts::own_counts, services::Services, state::Health};
use envelope::{ApiError, ErrorType};
use guard::Accesses;

/// What handlers share.
#[derive(Debug, Clone)]
struct App {
    services: Arc<Services>,
    accesses: Arc<Accesses>,
}

/// Binds the address; port 0 means any free one.
pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until the token is cancelled; with TLS, only who shows a token.
pub(crate) async fn run(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    services: Arc<Services>,
    token: CancellationToken,
) {
    let app = router(App { services, accesses: Arc::default() });
    door::serve(listener, tls.map(TlsAcceptor::from), app, token).await;
}

fn router(app: App) -> Router {
    let api = Router::new()
        .route("/query", get(query::instant).post(query::instant))
        .route("/query_range", get(query::range).post(query::range))
        .route("/series", get(series::series).post(series::series))
        .route("/labels", get(series::names).post(series::names))
        .route("/label/{name}/values", get(series::values))
        .route("/metadata", get(series::metadata))
        .route("/rules", get(rules::rules))
        .route("/alerts", get(rules::alerts))
        .route("/format_query", get(status::format_query).post(status::format_query))
        .route("/status/buildinfo", get(status::build))
        .route("/query_exemplars", get(status::exemplars).post(status::exemplars))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method);
    Router::new()
        .nest("/api/v1", api)
        .route("/federate", get(federate::federate))
        .route("/metrics", get(metrics))
        .layer(CompressionLayer::new())
        .layer(from_fn_with_state(app.clone(), guard::guard))
        .route("/-/healthy", get(|| async { "healthy\n" }))
        .route("/-/ready", get(ready))
        .with_state(app)
}

async fn unknown() -> ApiError {
    ApiError::new(ErrorType::NotFound, "there is no such endpoint")
}

async fn wrong_method() -> impl IntoResponse {
    (StatusCode::METHOD_NOT_ALLOWED, "this endpoint takes no such method\n")
}

async fn ready(State(App { services, .. }): State<App>) -> impl IntoResponse {
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

async fn metrics(State(App { services, .. }): State<App>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, exposition::CONTENT_TYPE)], exposition::own(&own_counts(&services)))
}
