//! `/metrics`, `/healthz` and `/readyz`.
#![forbid(unsafe_code)]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::classic;
use super::export::Exporter;
use crate::control::Desk;

/// OpenMetrics 1.0 text, as prometheus-client writes it; Prometheus reads it since 2.5.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Connections at a time; who comes then waits in the kernel.
const MOST_CONNECTIONS: usize = 64;
/// Collections at a time: one goes on when its client has left, so it has its place until it is done. Others wait.
const MOST_COLLECTIONS: usize = 2;
/// How long a request may take to come.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may take in all: one request, one answer.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(20);
/// After an accept that failed.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Serves the routes until `stopped` completes, and what is under way then to its end.
pub async fn serve(listener: TcpListener, desk: Arc<Desk>, stopped: impl Future<Output = ()>) {
    let router = router(desk);
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut open = JoinSet::new();
    let accepting = async {
        loop {
            // It is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(RETRY_INTERVAL).await;
                    continue;
                }
            };
            while open.try_join_next().is_some() {}
            let service = TowerToHyperService::new(router.clone());
            open.spawn(async move {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(REQUEST_PATIENCE)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                // Who was too slow, or is gone, is nobody's concern.
                let _ = tokio::time::timeout(CONNECTION_PATIENCE, connection).await;
                drop(place);
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        () = stopped => {}
    }
    while open.join_next().await.is_some() {}
}

/// The routes.
///
/// - `/metrics`: all metrics, OpenMetrics text; the older text format for clients that accept only that.
/// - `/healthz`: 200 as long as the process answers; restart it if not.
/// - `/readyz`: 200 when every worker is alive, every desired line is in force and no channel is stale, else 503 with the
///   reasons, one a line.
pub fn router(desk: Arc<Desk>) -> Router {
    let collector = Collector {
        exporter: Arc::new(Exporter::new(Arc::clone(&desk))),
        places: Arc::new(Semaphore::new(MOST_COLLECTIONS)),
    };
    Router::new()
        .route("/metrics", get(metrics).with_state(collector))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready).with_state(desk))
}

/// What `/metrics` is collected with.
#[derive(Clone)]
struct Collector {
    exporter: Arc<Exporter>,
    places: Arc<Semaphore>,
}

async fn metrics(State(collector): State<Collector>, headers: HeaderMap) -> impl IntoResponse {
    let wants_classic = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(classic::is_wanted);
    let Collector { exporter, places } = collector;
    // It is never closed. Who waits here and leaves has begun nothing.
    let place = places.acquire_owned().await;
    // Reading the BPF maps is a few system calls, and histograms take a millisecond: not on the I/O threads.
    let collected = tokio::task::spawn_blocking(move || {
        let text = exporter.encode();
        let text = if wants_classic { text.map(|text| classic::from_open_metrics(&text)) } else { text };
        drop(place);
        text
    });
    match collected.await {
        Ok(Ok(text)) => {
            let content_type = if wants_classic { classic::CONTENT_TYPE } else { OPEN_METRICS };
            ([(CONTENT_TYPE, content_type)], text).into_response()
        }
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
