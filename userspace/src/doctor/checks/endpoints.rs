//! Where the plan wants to listen: whether somebody is there, and whether we may.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{Access, access};

use crate::config::plan::{Endpoint, Plan};
use crate::doctor::files::{self, Files};
use crate::doctor::{Finding, Findings};

pub(in crate::doctor) fn endpoints(plan: &Plan, files: &Files) -> Vec<Finding> {
    let mut findings = Findings::about("configuration");
    findings.ok(
        "plan",
        format!(
            "{}: {} interfaces, {} workers, {} channels, {} lines, {} destinations",
            plan.name,
            plan.interfaces.len(),
            plan.workers.len(),
            plan.channels.len(),
            plan.lines.len(),
            plan.destinations.len()
        ),
    );
    match &plan.grpc {
        Endpoint::Unix(path) => unix(&mut findings, path),
        Endpoint::Tcp(address) => tcp(&mut findings, "control", *address, files),
    }
    if let Some(tls) = &plan.access.tls {
        tcp(&mut findings, "control with TLS", tls.address, files);
    }
    if let Some(address) = plan.metrics {
        tcp(&mut findings, "metrics", address, files);
    }
    findings.list
}

fn unix(findings: &mut Findings, path: &Path) {
    const CHECK: &str = "control";
    let shown = path.display();
    // The handler makes the last folder if it is not there.
    let folder = path.parent().unwrap_or(Path::new("/"));
    let folder = if folder.exists() { folder } else { folder.parent().unwrap_or(Path::new("/")) };
    if UnixStream::connect(path).is_ok() {
        let remedy = "stop it before another is started with this file (`feedctl status` asks it how it is)";
        findings.warning(CHECK, format!("{shown} answers: this handler runs already"), remedy);
    } else if access(folder, Access::WRITE_OK).is_err() {
        let remedy = "run it as the owner, let the unit make the folder (RuntimeDirectory=feedhandler), or set grpc";
        findings.problem(CHECK, format!("{shown}: this user may not write to {}", folder.display()), remedy);
    } else {
        findings.ok(CHECK, format!("{shown} is free"));
    }
}

fn tcp(findings: &mut Findings, check: &'static str, address: SocketAddr, files: &Files) {
    let tables = ["tcp", "tcp6"].map(|name| files::text(&files.proc.join("net").join(name)).unwrap_or_default());
    if address.port() != 0 && tables.iter().any(|table| listens(table, address.port())) {
        let remedy = format!("`ss -ltnp sport = :{}` tells which; stop it, or configure another port", address.port());
        findings.warning(check, format!("port {} is in use by a process, maybe this handler", address.port()), remedy);
    } else {
        findings.ok(check, format!("{address} is free"));
    }
}

/// Whether a table of /proc/net/tcp has a listening socket (state 0A) on a port.
fn listens(table: &str, port: u16) -> bool {
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().and_then(|local| local.rsplit_once(':')).map(|(_, port)| port);
        local.and_then(|hex| u16::from_str_radix(hex, 16).ok()) == Some(port) && fields.nth(1) == Some("0A")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_by_its_port() {
        let table = "  sl  local_address rem_address   st tx_queue\n   0: 0100007F:23E0 00000000:0000 0A 00000000\n   \
                     1: 0100007F:1F90 0100007F:9999 01 00000000\n";
        assert!(listens(table, 9184));
        assert!(!listens(table, 8080), "a connection, not a listener");
        assert!(!listens("garbage\nmore: x", 1));
    }
}
