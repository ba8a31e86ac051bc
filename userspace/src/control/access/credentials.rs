//! What callers are compared with: the TLS settings, the names in certificates, the tokens. TLS and tokens are read
//! apart, each as a whole or not at all.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use tonic::Status;

use super::certificate::Certificate;
use super::tokens::Tokens;
use super::{CredentialError, Identity, Role};
use crate::config::plan::{AccessPlan, TlsPlan};
use crate::control::refusal::Reason;

const CERTIFICATE: &str = "tls.certificate";
const KEY: &str = "tls.key";
const CLIENT_CA: &str = "tls.client_ca";
const TOKENS: &str = "tokens_file";

/// What a connection tells of its other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) enum Origin {
    /// The Unix socket; who it is, as the kernel says.
    Local(String),
    /// TCP without TLS, which is on this host.
    Plain(String),
    /// TCP with TLS, and the names in the client's certificate; none without one.
    Tls(String, Vec<String>),
}

/// What is read at a time, so that a token can be revoked whatever a certificate is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Certificates and the key.
    Tls,
    /// The tokens file.
    Tokens,
}

impl Part {
    /// In log lines.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Tls => "certificates",
            Self::Tokens => "tokens",
        }
    }
}

/// What is in force. The default is that of a handler that is reached by its Unix socket.
#[derive(Debug, Default)]
pub(in crate::control) struct Credentials {
    tls: Option<Arc<Tls>>,
    tokens: Option<Arc<Tokens>>,
}

#[derive(Debug)]
struct Tls {
    config: Arc<ServerConfig>,
    operators: Vec<String>,
    viewers: Vec<String>,
    has_ca: bool,
    expiries: Vec<(&'static str, u64)>,
}

impl Credentials {
    /// Reads all files that the plan names.
    ///
    /// # Errors
    /// The first one that cannot be used, and why.
    pub(in crate::control) fn load(plan: &AccessPlan) -> Result<Self, CredentialError> {
        Self::default().with(plan, Part::Tls)?.with(plan, Part::Tokens)
    }

    /// The same with one part read again.
    ///
    /// # Errors
    /// The first of its files that cannot be used, and why.
    pub(super) fn with(&self, plan: &AccessPlan, part: Part) -> Result<Self, CredentialError> {
        let (mut tls, mut tokens) = (self.tls.clone(), self.tokens.clone());
        match part {
            Part::Tls => tls = plan.tls.as_ref().map(Tls::load).transpose()?.map(Arc::new),
            Part::Tokens => {
                let read = plan.tokens_file.as_deref().map(|path| {
                    let text = String::from_utf8_lossy(&read(TOKENS, path)?).into_owned();
                    Tokens::parse(&text).map_err(|source| CredentialError::Tokens { path: path.to_owned(), source })
                });
                tokens = read.transpose()?.map(Arc::new);
            }
        }
        Ok(Self { tls, tokens })
    }

    /// Settings for the next handshake.
    pub(in crate::control) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.as_ref().map(|tls| Arc::clone(&tls.config))
    }

    /// When certificates expire, seconds since 1970: the earliest of each file.
    pub(super) fn expiries(&self) -> Vec<(&'static str, u64)> {
        self.tls.as_ref().map(|tls| tls.expiries.clone()).unwrap_or_default()
    }

    /// Who calls: by the token if the call has one, else by the connection.
    ///
    /// # Errors
    /// UNAUTHENTICATED: nobody we know. PERMISSION_DENIED: somebody who has no role here.
    pub(super) fn identify(&self, origin: &Origin, authorization: Option<&[u8]>) -> Result<Identity, Status> {
        let (address, names) = match origin {
            Origin::Local(by) => return Ok(Identity { by: by.clone(), role: Role::Operator }),
            Origin::Plain(address) if self.tokens.is_none() => {
                return Ok(Identity { by: address.clone(), role: Role::Operator });
            }
            Origin::Plain(address) => (address, &[][..]),
            Origin::Tls(address, names) => (address, &names[..]),
        };
        match authorization {
            Some(value) => self.by_token(address, value),
            None => self.by_names(address, names),
        }
    }

    fn by_token(&self, address: &str, value: &[u8]) -> Result<Identity, Status> {
        let refused = |why: &str| Reason::Unauthenticated.says(why);
        let Some(tokens) = &self.tokens else {
            return Err(refused("this handler takes no tokens: handler.tokens_file is not configured"));
        };
        // The scheme's case does not matter (RFC 9110, 11.1).
        let token = match value.split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token.trim_ascii(),
            _ => return Err(refused("metadata authorization must be `Bearer TOKEN`")),
        };
        let (role, name) = tokens.find(token).ok_or_else(|| refused("the token is not one of this handler's"))?;
        Ok(Identity { by: format!("{address} (token {name})"), role })
    }

    fn by_names(&self, address: &str, names: &[String]) -> Result<Identity, Status> {
        let Some(shown) = names.first() else {
            let wanted = match &self.tls {
                Some(tls) if tls.has_ca => "the client certificate has no name; say who you are",
                _ => "say who you are",
            };
            let message = format!("{wanted}: metadata `authorization: Bearer TOKEN` (feedctl --token-file)");
            return Err(Reason::Unauthenticated.says(message));
        };
        let is_in = |list: &[String]| list.iter().any(|listed| listed == "*" || names.contains(listed));
        let role = match &self.tls {
            // Who is named is that first; `*` is for all others.
            Some(tls) if names.iter().any(|name| tls.operators.contains(name)) => Role::Operator,
            Some(tls) if names.iter().any(|name| tls.viewers.contains(name)) => Role::Viewer,
            Some(tls) if is_in(&tls.operators) => Role::Operator,
            Some(tls) if is_in(&tls.viewers) => Role::Viewer,
            _ => {
                let message = format!(
                    "certificate `{}` has no role here: none of its names is in operators or viewers of [handler.tls]",
                    names.join("`, `")
                );
                return Err(Reason::RoleRequired.says(message));
            }
        };
        Ok(Identity { by: format!("{address} (certificate {shown})"), role })
    }
}

impl Tls {
    fn load(plan: &TlsPlan) -> Result<Self, CredentialError> {
        let now = Timestamp::now().as_second();
        let chain = certificates(CERTIFICATE, &plan.certificate)?;
        let (_, leaf) = &chain[0];
        in_time(CERTIFICATE, &plan.certificate, leaf, now)?;
        let pem = read(KEY, &plan.key)?;
        let unusable = |reason: String| CredentialError::Pem {
            key: KEY,
            path: plan.key.clone(),
            what: "private key (PKCS#8, PKCS#1 or SEC1, not encrypted)",
            reason,
        };
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| unusable(error.to_string()))?;
        let mut expiries = vec![("certificate", earliest(&chain))];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| CredentialError::Tls(error.to_string()))?;
        let builder = match &plan.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut authorities = certificates(CLIENT_CA, path)?;
                let is_over = |(_, authority): &(_, Certificate)| authority.valid.1 < now;
                if authorities.iter().all(is_over) {
                    in_time(CLIENT_CA, path, &authorities[0].1, now)?;
                }
                authorities.retain(|authority| !is_over(authority));
                expiries.push(("client_ca", earliest(&authorities)));
                builder.with_client_cert_verifier(verifier(path, authorities, provider)?)
            }
        };
        let chain = chain.into_iter().map(|(der, _)| der).collect();
        let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                CredentialError::Mismatch { key: plan.key.clone(), certificate: plan.certificate.clone() }
            }
            error => unusable(error.to_string()),
        })?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session is one whose certificate nobody looks at again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            operators: plan.operators.clone(),
            viewers: plan.viewers.clone(),
            has_ca: plan.client_ca.is_some(),
            expiries,
        })
    }
}

/// Asks every client for a certificate of these.
fn verifier(
    path: &Path,
    authorities: Vec<(CertificateDer<'static>, Certificate)>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, CredentialError> {
    let unusable = |reason: String| CredentialError::Pem {
        key: CLIENT_CA,
        path: path.to_owned(),
        what: "certificate of a CA",
        reason,
    };
    let mut roots = RootCertStore::empty();
    for (der, _) in authorities {
        roots.add(der).map_err(|error| unusable(error.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map_err(|error| unusable(error.to_string()))
}

/// All of a file, at least one.
fn certificates(
    key: &'static str,
    path: &Path,
) -> Result<Vec<(CertificateDer<'static>, Certificate)>, CredentialError> {
    let unusable = |reason: String| CredentialError::Pem { key, path: path.to_owned(), what: "certificate", reason };
    let pem = read(key, path)?;
    let mut all = Vec::new();
    for der in CertificateDer::pem_slice_iter(&pem) {
        let der = der.map_err(|error| unusable(error.to_string()))?;
        let read =
            Certificate::from_der(&der).ok_or_else(|| unusable("what is in it is no X.509 certificate".into()))?;
        all.push((der, read));
    }
    if all.is_empty() { Err(unusable("there is none in it".to_owned())) } else { Ok(all) }
}

fn in_time(key: &'static str, path: &Path, certificate: &Certificate, now: i64) -> Result<(), CredentialError> {
    let (from, until) = certificate.valid;
    let at = |second| Timestamp::from_second(second).unwrap_or_default();
    if until < now {
        return Err(CredentialError::Expired { key, path: path.to_owned(), at: at(until) });
    }
    if from > now {
        return Err(CredentialError::NotYet { key, path: path.to_owned(), at: at(from) });
    }
    Ok(())
}

fn earliest(certificates: &[(CertificateDer<'static>, Certificate)]) -> u64 {
    let until = certificates.iter().map(|(_, certificate)| certificate.valid.1).min();
    until.and_then(|second| u64::try_from(second).ok()).unwrap_or_default()
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, CredentialError> {
    fs::read(path).map_err(|source| CredentialError::Read { key, path: path.to_owned(), source })
}

/// The names in the certificate that a client showed.
pub(in crate::control) fn names(shown: Option<&[CertificateDer<'_>]>) -> Vec<String> {
    let leaf = shown.and_then(<[_]>::first);
    leaf.and_then(|der| Certificate::from_der(der)).map(|certificate| certificate.names).unwrap_or_default()
}
