//! Where the control service listens, and whom it lets in.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;

use super::values::{Checker, quoted};
use crate::config::file::{Handler, Tls};
use crate::config::plan::{AccessPlan, Endpoint, TlsPlan};

/// `sockaddr_un` holds 108 bytes with the terminating zero (unix(7)).
const SOCKET_PATH_BYTES: usize = 107;
/// Names in one list; more than a site has people.
const MOST_NAMES: usize = 256;

/// `handler.grpc`.
pub(super) fn grpc(check: &mut Checker, value: &str) -> Endpoint {
    const KEY: &str = "handler.grpc";
    if let Some(path) = value.strip_prefix("unix:") {
        if !path.starts_with('/') || path.ends_with('/') {
            check.problem(
                KEY,
                quoted(value),
                "the path after `unix:` must be absolute, as in \"unix:/run/feedhandler/control.sock\"",
            );
        } else if path.len() > SOCKET_PATH_BYTES {
            check.problem(KEY, quoted(value), format!("a socket's path has at most {SOCKET_PATH_BYTES} bytes"));
        }
        return Endpoint::Unix(PathBuf::from(path));
    }
    match value.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Endpoint::Tcp(address),
        Ok(address) => {
            check.problem(
                KEY,
                quoted(value),
                "control without TLS is served on this host only: write a Unix socket (\"unix:/path\") or a loopback \
                 address (\"127.0.0.1:50051\") here, and the address for other hosts in grpc_tls, with [handler.tls]; or \
                 reach it through ssh",
            );
            Endpoint::Tcp(address)
        }
        Err(_) => {
            check.problem(
                KEY,
                quoted(value),
                "must be \"unix:/absolute/path\" or a loopback \"ip:port\" such as \"127.0.0.1:50051\"",
            );
            Endpoint::Unix(PathBuf::new())
        }
    }
}

/// `handler.grpc_tls`, `handler.tokens_file` and `[handler.tls]`.
pub(super) fn check(check: &mut Checker, handler: &Handler) -> AccessPlan {
    let tokens_file = handler.tokens_file.as_deref().map(|value| file(check, "handler.tokens_file", value));
    let address = handler.grpc_tls.as_deref().and_then(|value| address(check, value));
    let tls = match (&handler.grpc_tls, &handler.tls) {
        (None, None) => None,
        (Some(value), None) => {
            let reason = "needs the table [handler.tls] with certificate and key";
            check.problem("handler.grpc_tls", quoted(value), reason);
            None
        }
        (None, Some(_)) => {
            let reason = "nothing is served with it: grpc_tls is missing, the address, such as \"0.0.0.0:50052\"";
            check.problem("handler.tls", "", reason);
            None
        }
        (Some(_), Some(tls)) => {
            let plan = self::tls(check, tls, tokens_file.is_some());
            address.map(|address| TlsPlan { address, ..plan })
        }
    };
    AccessPlan { tls, tokens_file }
}

fn address(check: &mut Checker, value: &str) -> Option<SocketAddr> {
    let address = value.parse().ok();
    if address.is_none() {
        let reason = "must be \"ip:port\", such as \"0.0.0.0:50052\" or \"10.0.0.5:50052\"";
        check.problem("handler.grpc_tls", quoted(value), reason);
    }
    address
}

fn tls(check: &mut Checker, written: &Tls, has_tokens: bool) -> TlsPlan {
    let client_ca = written.client_ca.as_deref().map(|value| file(check, "handler.tls.client_ca", value));
    let operators = names(check, "handler.tls.operators", written.operators.as_deref(), client_ca.is_some());
    let viewers = names(check, "handler.tls.viewers", written.viewers.as_deref(), client_ca.is_some());
    if let Some(both) = viewers.iter().find(|name| operators.contains(name)) {
        check.problem("handler.tls.viewers", quoted(both), "is among the operators, too: name it in one of the lists");
    }
    if !has_tokens && operators.is_empty() && viewers.is_empty() {
        let reason = "nobody could do anything here: name certificates in operators or viewers (with client_ca), or \
                      handler.tokens_file";
        check.problem("handler.tls", "", reason);
    }
    TlsPlan {
        address: SocketAddr::from(([0; 4], 0)),
        certificate: file(check, "handler.tls.certificate", &written.certificate),
        key: file(check, "handler.tls.key", &written.key),
        client_ca,
        operators,
        viewers,
    }
}

fn names(check: &mut Checker, key: &str, written: Option<&[String]>, has_ca: bool) -> Vec<String> {
    let Some(names) = written else { return Vec::new() };
    if !has_ca {
        check.problem(key, "", "needs client_ca: without it no client shows a certificate");
    } else if names.len() > MOST_NAMES {
        check.problem(key, format!("{} of them", names.len()), format!("must be at most {MOST_NAMES} names"));
    }
    for (i, name) in names.iter().enumerate().filter(|(_, name)| name.trim().is_empty()) {
        let reason = "must be a name in a client certificate (subject CN or alternative name), or \"*\" for all";
        check.problem(format!("{key}[{i}]"), quoted(name), reason);
    }
    names.to_vec()
}

fn file(check: &mut Checker, key: &str, value: &str) -> PathBuf {
    if !value.starts_with('/') || value.ends_with('/') {
        check.problem(
            key,
            quoted(value),
            "must be an absolute path of a file, such as \"/etc/feedhandler/tls/key.pem\"",
        );
    }
    PathBuf::from(value)
}
