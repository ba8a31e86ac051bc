//! How `feedctl` reaches a handler, and what it makes of a call that failed.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rustls::pki_types::ServerName;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::tls::{self, Once};
use super::{Arguments, EXIT_DENIED, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, Failure};

pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// Who we are, and whom we believe.
#[derive(Args, Debug, Default)]
pub(super) struct Credentials {
    /// For https: certificates of the CA that the handler's certificate must be of, PEM
    #[arg(long, global = true, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// For https: our certificate, PEM, where the handler asks for one
    #[arg(long, global = true, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// For https: its private key, PEM
    #[arg(long, global = true, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// For https: the name that must be in the handler's certificate, if it is not the host of --endpoint
    #[arg(long, global = true, value_name = "NAME")]
    tls_server_name: Option<String>,
    /// File that holds our token (`feedctl token` makes one)
    #[arg(long, global = true, value_name = "FILE", env = "FEEDCTL_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// A connection that says who we are with every call.
pub(super) type Connection = InterceptedService<Channel, Bearer>;

/// Adds the token to a call, if there is one.
#[derive(Clone, Debug)]
pub(super) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// Connects to the handler that the arguments name.
pub(super) async fn connect(arguments: &Arguments) -> Result<Connection, Failure> {
    let Arguments { endpoint, credentials, .. } = arguments;
    let bearer = credentials.bearer(endpoint)?;
    let usable = ["unix:/", "http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme));
    let parsed = Endpoint::from_shared(endpoint.to_owned()).ok().filter(|_| usable).ok_or_else(|| {
        let text = format!("--endpoint {endpoint}: must be unix:/absolute/path, http://host:port or https://host:port");
        Failure(EXIT_USAGE, text)
    })?;
    let connected = match credentials.tls(endpoint)? {
        None => parsed.connect_timeout(TIMEOUT).timeout(arguments.patience()).connect().await,
        Some(tls) => {
            // The library would want TLS of its own for https.
            let address = Endpoint::from_shared(endpoint.replacen("https://", "http://", 1));
            let address = address.map_err(|error| Failure(EXIT_USAGE, format!("--endpoint {endpoint}: {error}")))?;
            address
                .origin(parsed.uri().clone())
                .timeout(arguments.patience())
                .connect_timeout(TIMEOUT)
                .connect_with_connector(tls)
                .await
        }
    };
    let channel = connected.map_err(|error| {
        let reason = innermost(&error);
        if is_alert(&reason) {
            return Failure(EXIT_DENIED, denied(endpoint, &reason));
        }
        let text = format!(
            "no handler answers at {endpoint}: {reason}; is it running, and is this its handler.grpc? (--endpoint){}",
            hint(endpoint)
        );
        Failure(EXIT_UNREACHABLE, text)
    })?;
    Ok(InterceptedService::new(channel, bearer))
}

impl Credentials {
    /// `None`: not over TLS.
    fn tls(&self, endpoint: &str) -> Result<Option<Once>, Failure> {
        let wrong = |text: String| Failure(EXIT_USAGE, text);
        let Some(rest) = endpoint.strip_prefix("https://") else {
            let given = self.tls_ca.is_some() || self.tls_cert.is_some() || self.tls_server_name.is_some();
            let text = "--tls-ca, --tls-cert, --tls-key and --tls-server-name go with --endpoint https://host:port";
            return if given { Err(wrong(text.to_owned())) } else { Ok(None) };
        };
        let Some(ca) = &self.tls_ca else {
            return Err(wrong("https needs --tls-ca FILE: the CA that the handler's certificate is of".to_owned()));
        };
        let ca = read("--tls-ca", ca)?;
        let identity = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some((read("--tls-cert", certificate)?, read("--tls-key", key)?)),
            _ => None,
        };
        let identity = identity.as_ref().map(|(certificate, key)| (&certificate[..], &key[..]));
        let config = tls::config(&ca, identity).map_err(wrong)?;
        let name = self.tls_server_name.as_deref().unwrap_or_else(|| host_of(rest)).to_owned();
        let name = ServerName::try_from(name).map_err(|error| wrong(format!("--tls-server-name: {error}")))?;
        Ok(Some(Once::new(config, name)))
    }

    fn bearer(&self, endpoint: &str) -> Result<Bearer, Failure> {
        let Some(path) = &self.token_file else { return Ok(Bearer(None)) };
        let shown = path.display();
        if endpoint.strip_prefix("http://").is_some_and(|rest| !is_this_host(rest)) {
            let text = format!("--endpoint {endpoint}: a token is not sent to another host without TLS; use https://");
            return Err(Failure(EXIT_USAGE, text));
        }
        let text = String::from_utf8(read("--token-file", path)?).unwrap_or_default();
        let token = text.trim();
        let value = format!("Bearer {token}").parse::<MetadataValue<Ascii>>().ok().filter(|_| !token.is_empty());
        let Some(mut value) = value else {
            return Err(Failure(EXIT_USAGE, format!("--token-file {shown}: must hold a token, and nothing else")));
        };
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
    }
}

/// The host of "host:port/path", without the brackets of IPv6.
fn host_of(rest: &str) -> &str {
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, _)) if !authority.ends_with(']') => host,
        _ => authority,
    };
    host.trim_start_matches('[').trim_end_matches(']')
}

fn is_this_host(rest: &str) -> bool {
    let host = host_of(rest);
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure(EXIT_USAGE, format!("{option} {}: cannot read it: {error}", path.display())))
}

/// What a call that failed means for whoever started us.
pub(super) fn refusal(endpoint: &str, status: &Status) -> Failure {
    // Only what failed on the way has a cause here.
    if let Some(error) = std::error::Error::source(status).filter(|_| status.code() != Code::Cancelled) {
        let reason = innermost(error);
        return if is_alert(&reason) {
            Failure(EXIT_DENIED, denied(endpoint, &reason))
        } else {
            let text = format!("the handler at {endpoint} closed the connection: {reason}{}", hint(endpoint));
            Failure(EXIT_UNREACHABLE, text)
        };
    }
    let message = || status.message().to_owned();
    match status.code() {
        Code::InvalidArgument => Failure(EXIT_USAGE, with_violations(status)),
        Code::PermissionDenied | Code::Unauthenticated => Failure(EXIT_DENIED, message()),
        Code::Cancelled | Code::DeadlineExceeded if status.message().is_empty() || is_ours(status) => {
            let text = format!("the handler at {endpoint} did not answer within {} s", TIMEOUT.as_secs());
            Failure(EXIT_UNREACHABLE, text)
        }
        _ => Failure(EXIT_REFUSED, message()),
    }
}

/// Whether the time was over here, not there: the handler gives a reason with everything.
fn is_ours(status: &Status) -> bool {
    status.get_error_details().error_info().is_none()
}

/// The message, and below it a line for every field that is wrong.
fn with_violations(status: &Status) -> String {
    let details = status.get_error_details();
    let Some(bad) = details.bad_request().filter(|bad| !bad.field_violations.is_empty()) else {
        return status.message().to_owned();
    };
    let count = bad.field_violations.len();
    let mut text = format!("the request is wrong in {count} field{}:", if count == 1 { "" } else { "s" });
    for violation in &bad.field_violations {
        let description = violation.description.replace('\n', " ");
        text.push_str(&format!("{VIOLATION}{}: {description}", violation.field));
    }
    text
}

/// Stands before every field that is wrong, and nowhere else in a [`Failure`].
const VIOLATION: &str = "\n  ";

impl Failure {
    /// For programs: exit status, message, and the fields that are wrong.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let mut parts = self.1.split(VIOLATION);
        let message = parts.next().unwrap_or_default();
        let violations: Vec<_> = parts
            .map(|part| part.split_once(": ").unwrap_or((part, "")))
            .map(|(field, description)| serde_json::json!({ "field": field, "description": description }))
            .collect();
        serde_json::json!({ "error": { "exit_status": self.0, "message": message, "violations": violations } })
    }
}

/// Whether the handler refused our certificate, or that we have none.
fn is_alert(reason: &str) -> bool {
    reason.contains("received fatal alert")
}

fn denied(endpoint: &str, reason: &str) -> String {
    format!(
        "the handler at {endpoint} refused our certificate: {reason}; it asks for another one (--tls-cert, --tls-key)"
    )
}

fn hint(endpoint: &str) -> &'static str {
    if endpoint.starts_with("http://") { "; does it want TLS? (https://, --tls-ca)" } else { "" }
}

/// tonic says "transport error"; what happened is at the end of the chain.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::refusal::violations;

    #[test]
    fn every_violation_is_a_line_and_an_element() {
        let status = violations([("edits[0].add_line.group", "no\ngroup: at all"), ("selector", "is empty")]);
        let failure = refusal("unix:/x", &status);
        let Failure(EXIT_USAGE, text) = &failure else { panic!("{failure:?}") };
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1..], ["  edits[0].add_line.group: no group: at all", "  selector: is empty"]);
        let json = failure.json();
        assert_eq!(json["error"]["violations"][0]["description"], "no group: at all");
        assert_eq!(
            (&json["error"]["violations"][1]["field"], &json["error"]["exit_status"]),
            (&"selector".into(), &2.into())
        );
        assert_eq!(Failure(EXIT_REFUSED, "a: b".into()).json()["error"]["violations"], serde_json::json!([]));
    }

    #[test]
    fn a_token_goes_to_another_host_with_tls_only() {
        assert!(is_this_host("127.0.0.1:1") && is_this_host("[::1]:1/x") && is_this_host("localhost"));
        assert!(!is_this_host("10.0.0.1:1") && !is_this_host("localhost.example.com:1"));
    }
}
