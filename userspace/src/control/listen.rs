//! The addresses that the control service and the metrics listen on.
#![forbid(unsafe_code)]

pub(super) mod accept;
pub(super) mod connection;
mod unix;

use std::io::{self, ErrorKind};
use std::net::{self, SocketAddr};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::CredentialError;
use super::access::credentials::Credentials;
use super::access::keep::Keeper;
use crate::config::plan::{Endpoint, Plan};
pub(super) use unix::SocketFile;

/// How long an address in use is tried again: a killed process keeps its sockets a little longer than its pid.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

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
    #[error("handler.{key}: cannot listen on {address}: {source}; {remedy}")]
    Listen {
        /// The key of the configuration.
        key: &'static str,
        /// The address.
        address: String,
        /// The system's reason.
        source: io::Error,
        /// What to do about it.
        remedy: String,
    },
    /// Certificates or tokens that cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The server stopped by itself.
    #[error("the {what} server failed: {reason}")]
    Failed {
        /// Which.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

/// The listening sockets of a plan, and what callers are known by. Bound and read before anything else starts, so that an
/// address in use or a bad certificate costs nothing.
#[derive(Debug)]
pub struct Listeners {
    pub(super) grpc: GrpcListener,
    pub(super) grpc_tls: Option<net::TcpListener>,
    pub(super) credentials: Credentials,
    /// Whoever looks after the files of the credentials; `None`: there are none.
    pub(super) keeper: Option<Keeper>,
    pub(super) metrics: Option<net::TcpListener>,
}

#[derive(Debug)]
pub(super) enum GrpcListener {
    Unix(UnixListener, SocketFile),
    Tcp(net::TcpListener),
}

impl Listeners {
    /// Binds the addresses of a plan.
    ///
    /// # Errors
    /// An address in use, a path that cannot be used, a certificate, key or token that cannot, or the system's refusal.
    pub fn bind(plan: &Plan) -> Result<Self, ServeError> {
        // Before the files are read: what changes meanwhile is seen then.
        let keeper = Keeper::new(&plan.access);
        let credentials = Credentials::load(&plan.access)?;
        let grpc = match &plan.grpc {
            Endpoint::Unix(path) => {
                let (listener, file) = patiently(|| unix::bind(path))?;
                GrpcListener::Unix(listener, file)
            }
            Endpoint::Tcp(address) => GrpcListener::Tcp(patiently(|| bind_tcp("grpc", *address))?),
        };
        let metrics = plan.metrics.map(|address| patiently(|| bind_tcp("metrics", address))).transpose()?;
        let tls = plan.access.tls.as_ref();
        let grpc_tls = tls.map(|tls| patiently(|| bind_tcp("grpc_tls", tls.address))).transpose()?;
        Ok(Self { grpc, grpc_tls, credentials, keeper, metrics })
    }

    /// Where the metrics are served; with port 0 configured, the one that the kernel chose.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Where gRPC is served with TLS.
    #[must_use]
    pub fn grpc_tls_address(&self) -> Option<SocketAddr> {
        self.grpc_tls.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Where gRPC is served over TCP without it; `None` for a Unix socket.
    #[must_use]
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        match &self.grpc {
            GrpcListener::Tcp(listener) => listener.local_addr().ok(),
            GrpcListener::Unix(..) => None,
        }
    }
}

/// Tries again for a while as long as the address is in use.
fn patiently<T>(bind: impl Fn() -> Result<T, ServeError>) -> Result<T, ServeError> {
    let give_up = Instant::now() + BUSY_PATIENCE;
    loop {
        match bind() {
            Err(ServeError::InUse { .. }) if Instant::now() < give_up => thread::sleep(RETRY_INTERVAL),
            result => return result,
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
        kind => {
            let remedy = match kind {
                ErrorKind::PermissionDenied => "start as root, or take a port above 1023",
                ErrorKind::AddrNotAvailable => "`ip addr` lists the addresses of this host",
                _ => "configure another address",
            };
            ServeError::Listen { key, address: address.to_string(), source, remedy: remedy.to_owned() }
        }
    })
}
