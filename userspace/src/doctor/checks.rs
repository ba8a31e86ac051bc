//! Judging what was found.
#![forbid(unsafe_code)]

mod endpoints;
mod host;
mod link;
mod multicast;
mod nic;
mod worker;

pub(super) use endpoints::endpoints;
pub(super) use host::host;
pub(super) use link::link;
pub(super) use nic::state;
pub(super) use worker::worker;

use super::files::Silence;
use super::{Finding, Findings};
use crate::config::ConfigError;

/// The lines of a configuration that was refused.
pub(super) fn refused(error: &ConfigError) -> Vec<Finding> {
    let mut findings = Findings::about("configuration");
    let remedy = "config/feedhandler.toml documents every key; without a plan only the host is looked at";
    for line in error.to_string().lines() {
        findings.problem("refused", line, remedy);
    }
    findings.list
}

/// There is nothing to look at.
pub(super) fn no_interface() -> Vec<Finding> {
    let mut findings = Findings::about("interfaces");
    findings.warning(
        "physical interfaces",
        "this network namespace has none",
        "name the interfaces in a configuration: --config FILE",
    );
    findings.list
}

/// Why a file told nothing, for a person.
fn silence(why: Silence, path: &str) -> String {
    match why {
        Silence::Absent => format!("cannot tell: there is no {path} here"),
        Silence::Denied => format!("cannot tell: reading {path} needs root"),
        Silence::Odd => format!("cannot tell: {path} holds something unexpected"),
    }
}
