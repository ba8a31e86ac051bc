//! What is wrong with certificates, keys and tokens.
#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;

use jiff::Timestamp;

use super::tokens::TokenError;

/// Why a file of `[handler.tls]`, or the tokens file, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// It cannot be read.
    #[error("handler.{key}: cannot read {}: {source}; the handler's user must be able to read it, after the start, too", path.display())]
    Read {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It does not hold what it should.
    #[error("handler.{key}: {} holds no usable {what} in PEM: {reason}", path.display())]
    Pem {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why it does not.
        reason: String,
    },
    /// Its time is over.
    #[error("handler.{key}: the certificate in {} has expired: it was valid until {at}; renew it", path.display())]
    Expired {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// When it did.
        at: Timestamp,
    },
    /// Its time has not come.
    #[error("handler.{key}: the certificate in {} is not valid before {at}; is this host's clock right?", path.display())]
    NotYet {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// When it will be.
        at: Timestamp,
    },
    /// They do not belong together.
    #[error("handler.tls.key: {} is not the key of the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// File of the key.
        key: PathBuf,
        /// File of the certificate.
        certificate: PathBuf,
    },
    /// A line of the tokens file.
    #[error("handler.tokens_file: {}: {source}", path.display())]
    Tokens {
        /// The file.
        path: PathBuf,
        /// Which, and why.
        source: TokenError,
    },
    /// The TLS library wants none of it.
    #[error("handler.tls: {0}")]
    Tls(String),
}
