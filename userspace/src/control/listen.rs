//! The addresses that the control service and the metrics listen on.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::{fs, net};

use crate::config::plan::{Endpoint, Plan};

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
    pub(super) grpc: GrpcListener,
    pub(super) metrics: Option<net::TcpListener>,
}

#[derive(Debug)]
pub(super) enum GrpcListener {
    Unix(UnixListener, SocketFile),
    Tcp(net::TcpListener),
}

/// A socket's file, removed when dropped if it is still the one we made.
#[derive(Debug)]
pub(super) struct SocketFile {
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
