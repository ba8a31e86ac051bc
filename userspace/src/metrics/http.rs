//! `/metrics`, `/healthz` and `/readyz`.
#![forbid(unsafe_code)]

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;

use super::classic;
use super::export::Exporter;
use crate::control::Desk;

/// OpenMetrics 1.0 text, as prometheus-client writes it; Prometheus reads it since 2.5.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes.
///
/// - `/metrics`: all metrics, OpenMetrics text; the older text format for clients that accept only that.
/// - `/healthz`: 200 as long as the process answers; restart it if not.
/// - `/readyz`: 200 when every worker is alive, every desired line is in force and no channel is stale, else 503 with the
///   reasons, one a line.
pub fn router(desk: Arc<Desk>) -> Router {
    let exporter = Arc::new(Exporter::new(Arc::clone(&desk)));
    Router::new()
        .route("/metrics", get(metrics).with_state(exporter))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready).with_state(desk))
}

async fn metrics(State(exporter): State<Arc<Exporter>>, headers: HeaderMap) -> impl IntoResponse {
    let wants_classic = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(classic::is_wanted);
    // Reading the BPF maps is a few system calls, and histograms take a millisecond: not on the I/O threads.
    match tokio::task::spawn_blocking(move || exporter.encode()).await {
        Ok(Ok(text)) if wants_classic => {
            ([(CONTENT_TYPE, classic::CONTENT_TYPE)], classic::from_open_metrics(&text)).into_response()
        }
        Ok(Ok(text)) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode: {error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot collect: {error}\n")).into_response(),
    }
}

async fn ready(State(desk): State<Arc<Desk>>) -> impl IntoResponse {
    let reasons = desk.not_ready_reasons();
    if reasons.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
    }
}
