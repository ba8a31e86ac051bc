//! Puts the desk on the network: gRPC with health and reflection, and the metrics over HTTP.
#![forbid(unsafe_code)]

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, net};

use feedhandler_proto::FILE_DESCRIPTOR_SET;
use feedhandler_proto::v1::control_server::ControlServer;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::Server;
use tonic_health::server::HealthReporter;

use super::Desk;
use super::grpc::ControlService;
use crate::config::plan::{Endpoint, Plan};
use crate::metrics::http;

/// Requests are a few names; nothing legal comes near this.
const REQUEST_BYTES: usize = 64 * 1024;
/// Per connection; a person and a dashboard need a handful.
const CONCURRENT_REQUESTS: usize = 32;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long open connections may keep the shutdown waiting.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Why the control service or the metrics are not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody listens there.
    #[error(
        "handler.{key}: {address} is in use by another process ({hint} tells which); stop it, or configure another address"
    )]
    InUse {
        /// The key of the configuration.
        key: &'static str,
        /// The address.
        address: String,
        /// The command that shows who it is.
        hint: String,
    },
    /// A file that is no socket is in the way.
    #[error("handler.grpc: {0} exists and is not a socket; remove it, or configure another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Any other refusal by the system.
    #[error("handler.{key}: cannot listen on {address}: {source}")]
    Listen {
        /// The key of the configuration.
        key: &'static str,
        /// The address.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The server stopped by itself.
    #[error("the {what} server failed: {reason}")]
    Failed {
        /// Which.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

/// The listening sockets of a plan. Bound before anything else starts, so that an address in use costs nothing.
#[derive(Debug)]
pub struct Listeners {
    grpc: GrpcListener,
    metrics: Option<net::TcpListener>,
}

#[derive(Debug)]
enum GrpcListener {
    Unix(UnixListener, SocketFile),
    Tcp(net::TcpListener),
}

/// A socket's file, removed when dropped if it is still the one we made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Listeners {
    /// Binds the addresses of a plan.
    ///
    /// # Errors
    /// An address in use, a path that cannot be used, or the system's refusal.
    pub fn bind(plan: &Plan) -> Result<Self, ServeError> {
        let grpc = match &plan.grpc {
            Endpoint::Unix(path) => bind_unix(path)?,
            Endpoint::Tcp(address) => GrpcListener::Tcp(bind_tcp("grpc", *address)?),
        };
        let metrics = plan.metrics.map(|address| bind_tcp("metrics", address)).transpose()?;
        Ok(Self { grpc, metrics })
    }

    /// Where the metrics are served; with port 0 configured, the one that the kernel chose.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Where gRPC is served over TCP; `None` for a Unix socket.
    #[must_use]
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        match &self.grpc {
            GrpcListener::Tcp(listener) => listener.local_addr().ok(),
            GrpcListener::Unix(..) => None,
        }
    }
}

fn bind_tcp(key: &'static str, address: SocketAddr) -> Result<net::TcpListener, ServeError> {
    let listen = || -> io::Result<net::TcpListener> {
        let listener = net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source| match source.kind() {
        ErrorKind::AddrInUse => ServeError::InUse {
            key,
            address: address.to_string(),
            hint: format!("`ss -ltnp sport = :{}`", address.port()),
        },
        _ => ServeError::Listen { key, address: address.to_string(), source },
    })
}

/// Binds a Unix socket. A file that a killed process left is replaced; one that somebody listens on is not.
fn bind_unix(path: &Path) -> Result<GrpcListener, ServeError> {
    let failed = |source| ServeError::Listen { key: "grpc", address: format!("unix:{}", path.display()), source };
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => return Err(ServeError::NotASocket { path: path.to_owned() }),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed)?,
            // Gone in the meantime.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(_) => {
                return Err(ServeError::InUse {
                    key: "grpc",
                    address: format!("unix:{}", path.display()),
                    hint: format!("`ss -lxp src {}`", path.display()),
                });
            }
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
                fs::create_dir(directory).map_err(failed)?;
            }
        }
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    let inode = fs::metadata(path).map_err(failed)?.ino();
    Ok(GrpcListener::Unix(listener, SocketFile { path: path.to_owned(), inode }))
}

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
    servers.spawn(poll(desk, stopped));
    let early = tokio::select! {
        () = shutdown => None,
        ended = servers.join_next() => ended,
    };
    drop(stop);
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
            desk.poll();
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    tokio::select! {
        () = ended(stopped) => Ok(()),
        () = polling => Ok(()),
    }
}
