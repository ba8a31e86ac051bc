//! Who was let in to the control service, and who was not.
#![forbid(unsafe_code)]

use std::fmt;

use super::Out;
use crate::control::{AccessCounts, Desk};

pub(super) fn access(desk: &Desk, out: &mut Out<'_>) -> fmt::Result {
    let AccessCounts { handshakes_failed, reloads_failed, refused, connections, expiries } = desk.access_counts();
    let doors = ["grpc", "grpc_tls"].into_iter().zip(connections);
    let samples = doors.map(|(door, count)| (vec![("address", door.to_owned())], count as u64));
    out.gauge("control_connections", "Open connections to the control service, by the key of its address", samples)?;
    let samples = refused.into_iter().map(|(reason, count)| (vec![("reason", reason.to_owned())], count));
    out.counter(
        "control_refused",
        "Calls of the control service that were refused before they began, or ended late",
        samples,
    )?;
    let help = "TLS handshakes with clients that failed or took too long";
    out.counter("tls_handshakes_failed", help, [(vec![], handshakes_failed)])?;
    let help = "Times that certificates or tokens changed and could not be used: the old ones are in force";
    out.counter("tls_reload_failures", help, [(vec![], reloads_failed)])?;
    let help = "When the first certificate of the file expires, since 1970 UTC";
    let samples = expiries.into_iter().map(|(file, at_s)| (vec![("file", file.to_owned())], at_s * 1_000_000_000));
    out.seconds("tls_certificate_expiry", help, samples)
}
