//! The configuration: as written in the file (module [`mod@file`]), checked ([`ConfigError`] says all that is wrong with
//! it), and as a [`Plan`] that can be run.
//!
//! Nothing here looks at the network: whether an interface exists and has a carrier is found out at start.
#![forbid(unsafe_code)]

use std::path::Path;

mod check;
mod error;
pub mod file;
mod locate;
mod midnights;
pub mod plan;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

pub use error::{ConfigError, Problem};
pub use file::Config;
pub use midnights::{TimeZoneError, midnights};

use plan::Plan;

/// What the checks have to know of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Cores that this process may run on.
    pub cores: Vec<usize>,
}

impl Host {
    /// The host that we run on. Without an answer from the kernel, cores are not checked against anything: the list is
    /// empty.
    #[must_use]
    pub fn this() -> Self {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        Self { cores: cores.into_iter().map(|core| core.id).collect() }
    }
}

impl Config {
    /// Reads, parses and checks a configuration file.
    ///
    /// # Errors
    /// Everything that is wrong with it, each in one line: file, line, key, value and what is legal.
    pub fn load(path: impl AsRef<Path>) -> Result<Plan, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { file: path.display().to_string(), source })?;
        Self::parse(&text, &path.display().to_string(), &Host::this())
    }

    /// Parses and checks a configuration; `file` is the name that errors give.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(text: &str, file: &str, host: &Host) -> Result<Plan, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::syntax(file, text, &error))?;
        check::plan(&config, host).map_err(|problems| {
            let lines = locate::Lines::new(text);
            let problems =
                problems.into_iter().map(|problem| Problem { line: lines.of(&problem.key), ..problem }).collect();
            ConfigError::Invalid { file: file.to_owned(), problems }
        })
    }
}
