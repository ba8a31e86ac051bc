//! Open files: how many a plan takes, and the limit on them.
//!
//! Each line has a socket that holds its membership and one that watches its steering (or, with kernel sockets, one that
//! receives): a plan with many lines needs more files than the soft limit of most systems, 1024, which is as low as it is
//! for programs that use select(2). This one does not.
#![forbid(unsafe_code)]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::config::plan::Plan;

/// Membership, and canary or receiving socket.
const FILES_PER_LINE: u64 = 2;
/// AF_XDP socket and its UMEM, or kernel sockets; a port that is being opened in its place; a share of the filter's maps.
const FILES_PER_PORT: u64 = 6;
/// Listening sockets, /metrics and its clients, log, and what the libraries hold.
const FILES_BESIDE: u64 = 128;
/// Clients of the control service, of each address: those that are served, and those that are told that there are too many.
const FILES_OF_CLIENTS: u64 = 256 + 1024;

/// RLIMIT_NOFILE of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// What is in force; `None` = unlimited.
    pub soft: Option<u64>,
    /// Up to which the process may raise it.
    pub hard: Option<u64>,
}

impl OpenFiles {
    /// As it is now.
    #[must_use]
    pub fn now() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        Self { soft: current, hard: maximum }
    }
}

/// Files that a plan has open at most, roughly.
#[must_use]
pub fn needed_files(plan: &Plan) -> u64 {
    let ports: usize = plan.workers.iter().map(|worker| worker.ports.len()).sum();
    let streams = plan.channels.values().filter(|channel| channel.soup.is_some()).count();
    let servers = plan.destinations.values().filter(|to| to.retransmission.is_some()).count();
    plan.lines.len() as u64 * FILES_PER_LINE
        + ports as u64 * FILES_PER_PORT
        + (streams + servers) as u64
        + FILES_BESIDE
        + FILES_OF_CLIENTS * (1 + u64::from(plan.access.tls.is_some()))
}

/// Raises the soft limit to the hard one, which needs no privilege, and warns if that is not enough for the plan. To be
/// called before anything is opened. Returns the limit that is in force then.
pub fn raise_open_files(plan: &Plan) -> OpenFiles {
    let before = OpenFiles::now();
    if before.soft != before.hard {
        match setrlimit(Resource::Nofile, Rlimit { current: before.hard, maximum: before.hard }) {
            Ok(()) => info!(from = before.soft, to = before.hard, "limit of open files raised"),
            Err(error) => warn!(soft = before.soft, hard = before.hard, %error, "cannot raise the limit of open files"),
        }
    }
    let now = OpenFiles::now();
    let needed = needed_files(plan);
    if now.soft.is_some_and(|limit| limit < needed) {
        warn!(
            needed,
            limit = now.soft,
            "the plan may need more open files than the limit: lines will fail to join; LimitNOFILE={needed} in the unit, \
             or `ulimit -Hn {needed}`, raises it"
        );
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Host};

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let text = include_str!("../../config/demo.toml");
        let plan = Config::parse(text, "demo.toml", &Host { cores: Vec::new() }).unwrap();
        assert_eq!((plan.lines.len(), plan.workers[0].ports.len()), (2, 3));
        assert_eq!(needed_files(&plan), 2 * 2 + 3 * 6 + 128 + 1280);
        let hard = OpenFiles::now().hard;
        // Enough for the tests beside this one.
        setrlimit(Resource::Nofile, Rlimit { current: Some(700), maximum: hard }).unwrap();
        assert_eq!(OpenFiles::now(), OpenFiles { soft: Some(700), hard });
        assert_eq!(raise_open_files(&plan), OpenFiles { soft: hard, hard });
        assert_eq!(OpenFiles::now().soft, hard);
    }
}
