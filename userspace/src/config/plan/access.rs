//! Who may reach the control service, and how.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;

/// What lets callers in beyond the Unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessPlan {
    /// The address with TLS; `None` = there is none.
    pub tls: Option<TlsPlan>,
    /// File of the bearer tokens that are taken over TCP, with TLS or without; `None` = none are.
    pub tokens_file: Option<PathBuf>,
}

/// An address with TLS. Files are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPlan {
    /// Where it listens; any address of this host.
    pub address: SocketAddr,
    /// The server's certificate, and those between it and the CA, in this order.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Certificates of the CAs of which every client must have one; `None` = clients need none.
    pub client_ca: Option<PathBuf>,
    /// Names in client certificates that are operators; `*` = all.
    pub operators: Vec<String>,
    /// Names in client certificates that are viewers; `*` = all.
    pub viewers: Vec<String>,
}
