//! What a certificate says: its names, and for how long it is valid.
#![forbid(unsafe_code)]

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

/// A certificate, as far as we look into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Certificate {
    /// Subject CN first, then DNS, e-mail and URI alternative names; none twice.
    pub(super) names: Vec<String>,
    /// Seconds since 1970, both inclusive.
    pub(super) valid: (i64, i64),
}

impl Certificate {
    /// `None`: not a certificate.
    pub(super) fn from_der(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut names: Vec<String> = Vec::new();
        let mut add = |name: &str| {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        };
        certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).for_each(&mut add);
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
            if let GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) = name {
                add(name);
            }
        }
        let validity = certificate.validity();
        Some(Self { names, valid: (validity.not_before.timestamp(), validity.not_after.timestamp()) })
    }
}
