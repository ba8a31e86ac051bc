//! `feedhandler doctor`: what this host can do, and what to fix before a plan runs well on it.
//!
//! Facts are gathered first (`host`, `link`: the kernel's files, netlink, the process itself), then judged (`checks`), so
//! that every bad case can be made up in a test. Nothing is changed, ever, and it works without privileges: what only root
//! may read is a warning that says so.
//!
//! Without a plan the host and every interface with a device behind it are looked at; with one, its interfaces, cores
//! and modes.
#![forbid(unsafe_code)]

mod checks;
mod files;
mod host;
mod link;
mod netlink;
mod print;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use files::Files;
pub use print::Style;

use crate::config::ConfigError;
use crate::config::plan::Plan;
use crate::net::interface::InterfaceError;
use host::Host;
use link::Link;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It runs, but slower, less evenly or less safely than it could; or it could not be found out.
    Warning,
    /// It will not start, or lose data.
    Problem,
}

impl Level {
    /// The word in the report.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about: `configuration`, `host`, `interface NAME` or `worker NAME`.
    pub subject: String,
    /// What was looked at.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do about it; always there when it is not [`Level::Ok`].
    pub remedy: Option<String>,
}

/// The whole report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Version of the program.
    pub version: &'static str,
    /// The worst level of all lines.
    pub verdict: Level,
    /// Lines that are ok.
    pub ok: usize,
    /// Lines that warn.
    pub warnings: usize,
    /// Lines that are problems.
    pub problems: usize,
    /// The lines, those of one subject together.
    pub findings: Vec<Finding>,
}

impl Report {
    fn new(findings: Vec<Finding>) -> Self {
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            verdict: findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok),
            ok: count(Level::Ok),
            warnings: count(Level::Warning),
            problems: count(Level::Problem),
            findings,
        }
    }

    /// Exit status of the program by the worst line: 0 = all ok, 1 = a warning, 2 = a problem.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self.verdict {
            Level::Ok => 0,
            Level::Warning => 1,
            Level::Problem => 2,
        }
    }
}

/// Lines about one subject, as they are found.
#[derive(Debug)]
struct Findings {
    subject: String,
    list: Vec<Finding>,
}

impl Findings {
    fn about(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), list: Vec::new() }
    }

    fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.push(check, Level::Ok, found.into(), None);
    }

    fn warning(&mut self, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.push(check, Level::Warning, found.into(), Some(remedy.into()));
    }

    fn problem(&mut self, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.push(check, Level::Problem, found.into(), Some(remedy.into()));
    }

    fn push(&mut self, check: &'static str, level: Level, found: String, remedy: Option<String>) {
        self.list.push(Finding { subject: self.subject.clone(), check, level, found, remedy });
    }
}

/// All facts about a host that a plan, or no plan, makes interesting.
#[derive(Debug)]
struct Facts {
    host: Host,
    /// By name: those of the plan in its order, or the physical ones.
    links: Vec<(String, Result<Link, InterfaceError>)>,
}

/// Looks at this host, with a plan for it or without. A refused configuration is the first thing that the report says; the
/// host is then looked at without it.
#[must_use]
pub fn examine(plan: Option<Result<&Plan, &ConfigError>>, files: &Files) -> Report {
    let refused = plan.and_then(Result::err);
    let plan = plan.and_then(Result::ok);
    let names = match plan {
        Some(plan) => plan.interfaces.iter().map(|interface| interface.name.clone()).collect(),
        None => link::physical(files),
    };
    let links = names.into_iter().map(|name| (name.clone(), Link::read(files, &name))).collect();
    let facts = Facts { host: Host::read(files), links };
    let mut findings = Vec::new();
    if let Some(error) = refused {
        findings.extend(checks::refused(error));
    }
    findings.extend(judge(plan, &facts, files));
    Report::new(findings)
}

/// The lines for a host with these facts.
fn judge(plan: Option<&Plan>, facts: &Facts, files: &Files) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(plan.into_iter().flat_map(|plan| checks::endpoints(plan, files)));
    findings.extend(plan.into_iter().flat_map(|plan| checks::state(plan, files)));
    findings.extend(checks::host(&facts.host, plan));
    if facts.links.is_empty() {
        findings.extend(checks::no_interface());
    }
    for (name, link) in &facts.links {
        findings.extend(checks::link(name, link, plan, &facts.host));
    }
    for worker in 0..plan.map_or(0, |plan| plan.workers.len()) {
        findings.extend(plan.into_iter().flat_map(|plan| checks::worker(worker, plan, facts)));
    }
    findings
}
