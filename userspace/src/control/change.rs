//! Changing what runs: from the configuration that runs to another, as a whole or not at all.
#![forbid(unsafe_code)]

pub(super) mod describe;
mod edits;
mod specs;

use std::path::PathBuf;

use feedhandler_proto::v1::event::What;
use feedhandler_proto::v1::{Change, ChangeRequest, ChangeResponse, GetConfigResponse, OperatorAction};
use tonic::Status;

use super::refusal::{Reason, violations};
use super::state::Changed;
use super::{ControlError, Desk, locked};
use crate::config::plan::{RebaseError, Rebased, rebase};
use crate::config::{Config, ConfigError, Host, Loaded, Problem, differing};
pub(super) use edits::Origins;

/// The configuration that runs. Its lock is held for as long as a change takes.
#[derive(Debug)]
pub(super) struct Running {
    /// What runs.
    pub(super) config: Config,
    /// The file as it was at the start, or at the newest reload.
    pub(super) written: Config,
    /// Where it is.
    pub(super) file: PathBuf,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Fields of the request, or keys of the file, and what is wrong with each.
    #[error("{}", sentences(.0))]
    Invalid(Vec<(String, String)>),
    /// The file cannot be read, or is no configuration.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// The name is taken by something else.
    #[error("{0}")]
    AlreadyExists(String),
    /// Only a restart can do it.
    #[error("{0}")]
    NeedsRestart(String),
    /// No slots.
    #[error("{0}")]
    NoRoom(String),
    /// The kernel refused something that is needed; nothing was changed.
    #[error("{0}; nothing was changed")]
    Kernel(String),
    /// A worker did not take the change.
    #[error("{0}")]
    Worker(String),
    /// Lines could not be switched.
    #[error(transparent)]
    Lines(#[from] ControlError),
    /// It failed late, and was taken back.
    #[error("{cause}; undone{}", made_anew(.anew))]
    Undone {
        /// What failed.
        cause: Box<Self>,
        /// What went and came back: channels, whose books begin anew, and destinations.
        anew: Vec<String>,
    },
}

fn made_anew(anew: &[String]) -> String {
    if anew.is_empty() { String::new() } else { format!("; made anew: {}", anew.join(", ")) }
}

impl ChangeError {
    /// For programs; `None` with errors that are of fields.
    fn reason(&self) -> Option<Reason> {
        match self {
            Self::Invalid(_) | Self::File(_) => None,
            Self::AlreadyExists(_) => Some(Reason::AlreadyExists),
            Self::NeedsRestart(_) => Some(Reason::NeedsRestart),
            Self::NoRoom(_) => Some(Reason::NoRoom),
            Self::Kernel(_) => Some(Reason::KernelRefused),
            Self::Worker(_) => Some(Reason::WorkerUnavailable),
            Self::Lines(error) => Some(super::refusal::control_reason(error)),
            Self::Undone { cause, .. } => cause.reason(),
        }
    }
}

fn sentences(fields: &[(String, String)]) -> String {
    fields.iter().map(|(_, reason)| reason.as_str()).collect::<Vec<_>>().join("; ")
}

impl From<RebaseError> for ChangeError {
    fn from(error: RebaseError) -> Self {
        match error {
            RebaseError::NoRoom { .. } => Self::NoRoom(error.to_string()),
            RebaseError::NoPort { .. } | RebaseError::NoFlowRule { .. } => Self::NeedsRestart(error.to_string()),
        }
    }
}

impl From<ChangeError> for Status {
    fn from(error: ChangeError) -> Self {
        let message = error.to_string();
        match &error {
            ChangeError::Invalid(fields) => violations(fields.iter().cloned()),
            ChangeError::File(ConfigError::Invalid { problems, .. }) => {
                violations(problems.iter().map(|problem| (problem.key.clone(), problem.to_string())))
            }
            ChangeError::Lines(error) => super::refusal::control(error),
            _ => error.reason().map_or_else(|| violations([("file", &message)]), |reason| reason.says(&message)),
        }
    }
}

impl Desk {
    /// Says which configuration the plan was made of, and `written`, the file as it is: without it nothing can be changed but
    /// subscriptions.
    pub fn set_config(&self, loaded: Loaded, written: Config) {
        *locked(&self.hash) = loaded.config.hash();
        let Loaded { config, file, .. } = loaded;
        *locked(&self.changed) = Changed::between(&written, &config);
        *locked(&self.running) = Some(Running { config, written, file });
    }

    /// Hash of the configuration that runs, without its passwords; empty if it is not known. Waits for no change.
    #[must_use]
    pub fn config_hash(&self) -> String {
        locked(&self.hash).clone()
    }

    /// Carries out the edits of a request, as somebody (`by`) asks. Waits for workers, so not for an async thread.
    ///
    /// # Errors
    /// Why nothing was changed; or, if it says so, what could not be put back.
    pub fn change(&self, request: &ChangeRequest, by: &str) -> Result<ChangeResponse, ChangeError> {
        let mut running = locked(&self.running);
        let running = running.as_mut().ok_or_else(without_file)?;
        let result = edits::target(&running.config, &request.edits)
            .and_then(|(target, origins)| self.go_to(running, target, Some(&origins), request.dry_run, by));
        self.told("change", request.dry_run, by, result)
    }

    /// Reads the configuration file again and makes what runs as it says. Waits like [`Self::change`].
    ///
    /// # Errors
    /// As [`Self::change`].
    pub fn reload(&self, dry_run: bool, by: &str) -> Result<ChangeResponse, ChangeError> {
        let mut running = locked(&self.running);
        let running = running.as_mut().ok_or_else(without_file)?;
        let result = Config::reload(&running.file).map_err(ChangeError::from).and_then(|loaded| {
            let before = running.written.clone();
            if !dry_run {
                running.written = loaded.config.clone();
            }
            let result = self.go_to(running, loaded.config, None, dry_run, by);
            if result.is_err() {
                running.written = before;
            }
            result
        });
        self.told("reload", dry_run, by, result)
    }

    /// What runs, as a configuration file. Waits for a change that is under way.
    ///
    /// # Errors
    /// The handler was not started from a file.
    pub fn config(&self) -> Result<GetConfigResponse, ChangeError> {
        let running = locked(&self.running);
        let Running { config, written, file } = running.as_ref().ok_or_else(without_file)?;
        Ok(GetConfigResponse {
            toml: config.masked(),
            config_hash: self.config_hash(),
            file: file.display().to_string(),
            is_changed: config != written,
        })
    }

    /// From the configuration that runs to another.
    fn go_to(
        &self,
        running: &mut Running,
        target: Config,
        origins: Option<&Origins>,
        dry_run: bool,
        by: &str,
    ) -> Result<Vec<Change>, ChangeError> {
        fixed_parts(&running.config, &target)?;
        let (plan, rebased) = self.next_plan(&target, origins)?;
        let changes = describe::changes(&running.config, &target, &plan, &rebased);
        if dry_run {
            return Ok(changes);
        }
        if !rebased.is_nothing() {
            self.apply(&plan, &rebased, by)?;
        }
        *locked(&self.hash) = target.hash();
        running.config = target;
        *locked(&self.changed) = Changed::between(&running.written, &running.config);
        self.save();
        Ok(changes)
    }

    /// The plan that runs, and what follows it when `target` is to run.
    fn next_plan(
        &self,
        target: &Config,
        origins: Option<&Origins>,
    ) -> Result<(std::sync::Arc<crate::config::plan::Plan>, Rebased), ChangeError> {
        let checked = target.check_running(&Host::this()).map_err(|problems| invalid(problems, target, origins))?;
        let plan = self.plan();
        let rebased = rebase(&plan, &checked)?;
        Ok((plan, rebased))
    }

    /// Who changed what goes to the log and to everybody who watches, also when it failed.
    fn told(
        &self,
        action: &str,
        dry_run: bool,
        by: &str,
        result: Result<Vec<Change>, ChangeError>,
    ) -> Result<ChangeResponse, ChangeError> {
        if !dry_run {
            let changes: Vec<String> =
                result.as_ref().map(|changes| changes.iter().map(describe::sentence).collect()).unwrap_or_default();
            self.tell_action(action, by, changes, result.as_ref().err().map(ToString::to_string));
        }
        result.map(|changes| ChangeResponse { changes, config_hash: self.config_hash() })
    }

    /// What an operator did, for the log and everybody who watches.
    pub(super) fn tell_action(&self, action: &str, by: &str, changes: Vec<String>, error: Option<String>) {
        let text = changes.join("; ");
        match &error {
            None => tracing::info!(action, by, changes = text, "operator"),
            Some(error) => tracing::warn!(action, by, error, "operator: not done"),
        }
        let (by, action) = (by.to_owned(), action.to_owned());
        self.watch.tell(What::OperatorAction(OperatorAction { by, action, changes, error: error.unwrap_or_default() }));
    }
}

fn without_file() -> ChangeError {
    ChangeError::NeedsRestart(
        "the handler was not started from a configuration file: only subscriptions can change".to_owned(),
    )
}

/// Problems by the fields of the request that they come from; those of a file by their keys.
fn invalid(problems: Vec<Problem>, target: &Config, origins: Option<&Origins>) -> ChangeError {
    let field = |key: &str| origins.map_or_else(|| key.to_owned(), |origins| origins.field(target, key));
    let reason = |problem: &Problem, field: &str| Problem { key: field.to_owned(), ..problem.clone() }.to_string();
    let named = problems.iter().map(|problem| {
        let field = field(&problem.key);
        let reason = reason(problem, &field);
        (field, reason)
    });
    ChangeError::Invalid(named.collect())
}

/// What is fixed at the start must not differ.
fn fixed_parts(running: &Config, target: &Config) -> Result<(), ChangeError> {
    let mut differs: Vec<String> = Vec::new();
    for found in differing(&running.handler, &target.handler, &[]) {
        differs.push(format!("handler.{found}"));
    }
    lists("interface", &running.interface, &target.interface, |one| &one.name, &mut differs);
    lists("worker", &running.worker, &target.worker, |one| &one.name, &mut differs);
    if differs.is_empty() {
        return Ok(());
    }
    let text = format!("it needs a restart, because this differs: {}; nothing was changed", differs.join("; "));
    Err(ChangeError::NeedsRestart(text))
}

fn lists<T: serde::Serialize>(what: &str, old: &[T], new: &[T], name: impl Fn(&T) -> &str, differs: &mut Vec<String>) {
    if old.iter().map(&name).ne(new.iter().map(&name)) {
        let all = |list: &[T]| list.iter().map(&name).collect::<Vec<_>>().join(", ");
        differs.push(format!("[[{what}]] {} -> {}", all(old), all(new)));
        return;
    }
    for (old, new) in old.iter().zip(new) {
        differs.extend(differing(old, new, &[]).iter().map(|found| format!("{what} `{}`: {found}", name(old))));
    }
}
