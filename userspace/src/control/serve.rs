//! Puts the desk on the network: gRPC with health and reflection, and the metrics over HTTP.
#![forbid(unsafe_code)]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use std::{io, net};

use feedhandler_proto::FILE_DESCRIPTOR_SET;
use feedhandler_proto::v1::control_server::ControlServer;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::Server;
use tonic_health::server::HealthReporter;

use super::Desk;
use super::grpc::ControlService;
use super::listen::{GrpcListener, Listeners, ServeError};
use crate::metrics::http;

/// Requests are a few names; nothing legal comes near this.
const REQUEST_BYTES: usize = 64 * 1024;
/// Per connection; a person and a dashboard need a handful.
const CONCURRENT_REQUESTS: usize = 32;
/// Longer than the longest that a drain may be asked to wait.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(70);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long open connections may keep the shutdown waiting.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Serves until `shutdown` completes, then lets open requests end (two seconds at most).
///
/// Runs on the caller's tokio runtime, which needs I/O and time. Polls the desk for the workers' events meanwhile.
///
/// # Errors
/// A server that stopped by itself, which takes the others with it.
pub async fn serve(
    desk: Arc<Desk>,
    listeners: Listeners,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let (stop, stopped) = watch::channel(());
    let mut servers = JoinSet::new();
    servers.spawn(serve_grpc(Arc::clone(&desk), listeners.grpc, stopped.clone()));
    if let Some(listener) = listeners.metrics {
        servers.spawn(serve_metrics(Arc::clone(&desk), listener, stopped.clone()));
    }
    let ended_desk = Arc::clone(&desk);
    servers.spawn(poll(desk, stopped));
    let early = tokio::select! {
        () = shutdown => None,
        ended = servers.join_next() => ended,
    };
    drop(stop);
    ended_desk.watch.end();
    let rest = async { while servers.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_GRACE, rest).await.is_err() {
        tracing::warn!("connections were still open at shutdown; they are cut");
    }
    match early {
        None | Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(error))) => Err(error),
        Some(Err(error)) => Err(ServeError::Failed { what: "control", reason: error.to_string() }),
    }
}

/// Completes when the other end is dropped.
async fn ended(mut stopped: watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}

async fn serve_grpc(desk: Arc<Desk>, listener: GrpcListener, stopped: watch::Receiver<()>) -> Result<(), ServeError> {
    let failed = |reason: String| ServeError::Failed { what: "gRPC", reason };
    let (health, health_service) = tonic_health::server::health_reporter();
    report_health(&desk, &health).await;
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let reflection = described().build_v1().map_err(|error| failed(error.to_string()))?;
    // grpcurl before 1.8.8 and other older tools ask for v1alpha only.
    let reflection_alpha = described().build_v1alpha().map_err(|error| failed(error.to_string()))?;
    let control = ControlServer::new(ControlService::new(Arc::clone(&desk))).max_decoding_message_size(REQUEST_BYTES);
    let server = Server::builder()
        .concurrency_limit_per_connection(CONCURRENT_REQUESTS)
        .timeout(REQUEST_TIMEOUT)
        .add_service(health_service)
        .add_service(reflection)
        .add_service(reflection_alpha)
        .add_service(control);
    let watcher = watch_health(desk, health, stopped.clone());
    let serving = async {
        match listener {
            GrpcListener::Unix(listener, _file) => {
                let listener =
                    tokio::net::UnixListener::from_std(listener).map_err(|error| failed(error.to_string()))?;
                server.serve_with_incoming_shutdown(UnixListenerStream::new(listener), ended(stopped)).await
            }
            GrpcListener::Tcp(listener) => {
                let listener =
                    tokio::net::TcpListener::from_std(listener).map_err(|error| failed(error.to_string()))?;
                server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), ended(stopped)).await
            }
        }
        .map_err(|error| failed(error.to_string()))
    };
    tokio::join!(serving, watcher).0
}

async fn watch_health(desk: Arc<Desk>, health: HealthReporter, stopped: watch::Receiver<()>) {
    let report = async {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            report_health(&desk, &health).await;
        }
    };
    tokio::select! {
        () = ended(stopped) => {}
        () = report => {}
    }
}

/// The service is SERVING when the handler is ready; the server itself (the empty name) always is.
async fn report_health(desk: &Desk, health: &HealthReporter) {
    if desk.not_ready_reasons().is_empty() {
        health.set_serving::<ControlServer<ControlService>>().await;
    } else {
        health.set_not_serving::<ControlServer<ControlService>>().await;
    }
}

async fn serve_metrics(
    desk: Arc<Desk>,
    listener: net::TcpListener,
    stopped: watch::Receiver<()>,
) -> Result<(), ServeError> {
    let failed = |error: io::Error| ServeError::Failed { what: "metrics", reason: error.to_string() };
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    axum::serve(listener, http::router(desk)).with_graceful_shutdown(ended(stopped)).await.map_err(failed)
}

async fn poll(desk: Arc<Desk>, stopped: watch::Receiver<()>) -> Result<(), ServeError> {
    let polling = async {
        loop {
            // It writes the log, which waits for whoever reads standard error.
            let desk = Arc::clone(&desk);
            if let Err(error) = tokio::task::spawn_blocking(move || desk.poll()).await {
                tracing::error!(%error, "events could not be taken");
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    tokio::select! {
        () = ended(stopped) => Ok(()),
        () = polling => Ok(()),
    }
}
