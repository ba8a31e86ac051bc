//! Certificates for tests, and handlers that use them.
#![forbid(unsafe_code)]

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::*;

/// A CA.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(super) struct Issued {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Valid until the first day of a year.
    pub(super) fn issue(&self, name: &str, until: i32) -> Issued {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        if name != "localhost" {
            params.subject_alt_names.clear();
        }
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// Files of a handler with TLS.
pub(super) struct Files {
    pub(super) folder: tempfile::TempDir,
    pub(super) servers: Authority,
    pub(super) clients: Authority,
    pub(super) operator_token: String,
    pub(super) viewer_token: String,
}

impl Files {
    pub(super) fn new() -> Self {
        let [operator, viewer] = [("ops-token", Role::Operator), ("eyes-token", Role::Viewer)]
            .map(|(name, role)| NewToken::make(name, role).unwrap());
        let files = Self {
            folder: tempfile::tempdir().unwrap(),
            servers: Authority::new("servers"),
            clients: Authority::new("clients"),
            operator_token: operator.token,
            viewer_token: viewer.token,
        };
        files.serve_with(&files.servers.issue("localhost", 2090));
        files.write("clients.pem", &files.clients.pem());
        files.write("tokens", &format!("# for tests\n{}\n{}\n", operator.line, viewer.line));
        files
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub(super) fn serve_with(&self, issued: &Issued) {
        self.write("server.pem", &issued.certificate);
        self.write("server.key", &issued.key);
    }

    /// A handler that asks for certificates, and takes tokens.
    pub(super) fn mutual(&self) -> Bench {
        self.bench("client_ca = \"{}/clients.pem\"\noperators = [\"ops\"]\nviewers = [\"eyes\"]")
    }

    /// One that takes tokens only.
    pub(super) fn with_tokens(&self) -> Bench {
        self.bench("")
    }

    fn bench(&self, more: &str) -> Bench {
        let keys = "grpc_tls = \"127.0.0.1:0\"\ntokens_file = \"{}/tokens\"\n[handler.tls]\n\
                    certificate = \"{}/server.pem\"\nkey = \"{}/server.key\"\n";
        let keys = format!("{keys}{more}").replace("{}", &self.folder.path().display().to_string());
        Bench::with_handler(Mode::Socket, &keys)
    }

    /// What a client has to know.
    pub(super) fn client(&self, identity: Option<&Issued>) -> ClientTlsConfig {
        client(&self.servers, identity)
    }
}

pub(super) fn client(servers: &Authority, identity: Option<&Issued>) -> ClientTlsConfig {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(servers.pem())).domain_name("localhost");
    match identity {
        Some(issued) => tls.identity(Identity::from_pem(&issued.certificate, &issued.key)),
        None => tls,
    }
}
