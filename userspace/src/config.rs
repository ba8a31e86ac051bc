//! The configuration: as written in the file (module [`mod@file`]), checked ([`ConfigError`] says all that is wrong with
//! it), and as a [`Plan`] that can be run.
//!
//! Nothing here looks at the network: whether an interface exists and has a carrier is found out at start.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

mod check;
mod differ;
mod error;
pub mod file;
mod locate;
mod midnights;
pub mod plan;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

pub use differ::{Differing, differing};
pub use error::{ConfigError, Problem};
pub use file::Config;
pub use midnights::{TimeZoneError, midnights};

use check::For;
use plan::Plan;

/// A configuration, and what will run of it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// As written.
    pub config: Config,
    /// As checked.
    pub plan: Plan,
    /// Where it was read.
    pub file: PathBuf,
}

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
        Self::load_whole(path).map(|loaded| loaded.plan)
    }

    /// The same, with the configuration as it is written.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_whole(path: impl AsRef<Path>) -> Result<Loaded, ConfigError> {
        let (config, plan, file) = Self::read(path.as_ref(), For::Start)?;
        Ok(Loaded { config, plan, file })
    }

    /// The same for a handler that runs already: what nothing uses is no mistake.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn reload(path: impl AsRef<Path>) -> Result<Loaded, ConfigError> {
        let (config, plan, file) = Self::read(path.as_ref(), For::Running)?;
        Ok(Loaded { config, plan, file })
    }

    fn read(path: &Path, purpose: For) -> Result<(Self, Plan, PathBuf), ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { file: file.clone(), source })?;
        let (config, plan) = Self::whole(&text, &file, &Host::this(), purpose)?;
        Ok((config, plan, path.to_owned()))
    }

    /// Parses and checks a configuration; `file` is the name that errors give.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(text: &str, file: &str, host: &Host) -> Result<Plan, ConfigError> {
        Self::whole(text, file, host, For::Start).map(|(_, plan)| plan)
    }

    fn whole(text: &str, file: &str, host: &Host, purpose: For) -> Result<(Self, Plan), ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::syntax(file, text, &error))?;
        let checked = check::plan(&config, host, purpose).map_err(|problems| {
            let lines = locate::Lines::new(text);
            let problems =
                problems.into_iter().map(|problem| Problem { line: lines.of(&problem.key), ..problem }).collect();
            ConfigError::Invalid { file: file.to_owned(), problems }
        });
        checked.map(|plan| (config, plan))
    }

    /// Checks a configuration that is to replace one that runs: what nothing uses is no mistake.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check_running(&self, host: &Host) -> Result<Plan, Vec<Problem>> {
        check::plan(self, host, For::Running)
    }
}
