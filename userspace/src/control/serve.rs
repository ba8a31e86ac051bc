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
use tonic::transport::Server;
use tonic_health::server::HealthReporter;

use super::Desk;
use super::access::gate::GateLayer;
use super::access::keep::{Keeper, LOOK_INTERVAL};
use super::access::places::MOST_CALLS_OF_CONNECTION;
use super::grpc::ControlService;
use super::latency_log;
use super::listen::accept::Incoming;
use super::listen::{GrpcListener, Listeners, ServeError};
use crate::metrics::http;

/// Requests are a few names; nothing legal comes near this.
const REQUEST_BYTES: usize = 64 * 1024;
/// Headers of a request, as HTTP/2 counts them.
const HEADER_BYTES: u32 = 16 * 1024;
/// A client that has gone without a word is found so.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_PATIENCE: Duration = Duration::from_secs(10);
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
    let Listeners { grpc, grpc_tls, credentials, keeper, metrics } = listeners;
    desk.access.install(credentials);
    if let Some(keeper) = keeper {
        servers.spawn(keep_credentials(Arc::clone(&desk), keeper, stopped.clone()));
    }
    servers.spawn(serve_grpc(Arc::clone(&desk), grpc, grpc_tls, stopped.clone()));
    if let Some(listener) = metrics {
        servers.spawn(serve_metrics(Arc::clone(&desk), listener, stopped.clone()));
    }
    let ended_desk = Arc::clone(&desk);
    let logging = tokio::spawn(latency_log::run(Arc::clone(&desk), stopped.clone()));
    servers.spawn(poll(desk, stopped));
    let early = tokio::select! {
        () = shutdown => None,
        ended = servers.join_next() => ended,
    };
    drop(stop);
    ended_desk.watch.end();
    let rest = async {
        while servers.join_next().await.is_some() {}
        let _ = logging.await;
    };
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

async fn serve_grpc(
    desk: Arc<Desk>,
    grpc: GrpcListener,
    grpc_tls: Option<net::TcpListener>,
    stopped: watch::Receiver<()>,
) -> Result<(), ServeError> {
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
        .max_concurrent_streams(MOST_CALLS_OF_CONNECTION)
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_PATIENCE))
        .http2_max_header_list_size(HEADER_BYTES)
        .layer(GateLayer(Arc::clone(&desk)))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(reflection_alpha)
        .add_service(control);
    let mut incoming = Incoming::new(Arc::clone(&desk));
    let _file = match grpc {
        GrpcListener::Unix(listener, file) => incoming.unix(listener).map(|()| Some(file)),
        GrpcListener::Tcp(listener) => incoming.plain(listener).map(|()| None),
    }
    .map_err(|error| failed(error.to_string()))?;
    if let Some(listener) = grpc_tls {
        incoming.tls(listener).map_err(|error| failed(error.to_string()))?;
    }
    let watcher = watch_health(desk, health, stopped.clone());
    let serving = server.serve_with_incoming_shutdown(incoming, ended(stopped));
    tokio::join!(serving, watcher).0.map_err(|error| failed(error.to_string()))
}

/// Reads certificates and tokens again when they change.
async fn keep_credentials(desk: Arc<Desk>, mut keeper: Keeper, stopped: watch::Receiver<()>) -> Result<(), ServeError> {
    let keeping = async {
        loop {
            let desk = Arc::clone(&desk);
            let look = tokio::task::spawn_blocking(move || {
                keeper.look(&desk.access);
                keeper
            });
            match look.await {
                Ok(back) => keeper = back,
                Err(error) => {
                    tracing::error!(%error, "certificates and tokens are not looked after any more");
                    return std::future::pending().await;
                }
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    tokio::select! {
        () = ended(stopped) => Ok(()),
        () = keeping => Ok(()),
    }
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
    http::serve(listener, desk, ended(stopped)).await;
    Ok(())
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
