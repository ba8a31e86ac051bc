//! Certificates and tokens are read again when their files change.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::{error, info, warn};

use super::Access;
use super::credentials::Part;
use crate::config::plan::AccessPlan;

/// Time between two looks at the files.
pub(in crate::control) const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Before a certificate expires, it is said so often.
const WARN_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// So long before.
const WARN_BEFORE_S: i64 = 14 * 24 * 3600;

/// What tells that a file is another: time of change, size, inode.
type Stamp = Option<(i64, i64, u64, u64)>;

/// Looks after the files of a plan.
#[derive(Debug)]
pub(in crate::control) struct Keeper {
    plan: AccessPlan,
    parts: [Watched; 2],
    warned: Option<Instant>,
}

/// The files of a part.
#[derive(Debug)]
struct Watched {
    part: Part,
    /// What was read last, usable or not.
    read: Vec<Stamp>,
    /// What the last look saw: files are read once they have stopped changing, for certificate and key change one by one.
    seen: Vec<Stamp>,
}

impl Watched {
    fn new(plan: &AccessPlan, part: Part) -> Self {
        let read = stamps(plan, part);
        Self { part, seen: read.clone(), read }
    }

    /// Whether the files are others than those that were read last, and have settled.
    fn has_changed(&mut self, plan: &AccessPlan) -> bool {
        let now = stamps(plan, self.part);
        let has_settled = now == self.seen;
        self.seen.clone_from(&now);
        let has_changed = has_settled && now != self.read;
        if has_changed {
            self.read = now;
        }
        has_changed
    }
}

impl Keeper {
    /// To be made before the files are read for the first time; `None`: the plan has none.
    pub(in crate::control) fn new(plan: &AccessPlan) -> Option<Self> {
        let parts = [Part::Tls, Part::Tokens].map(|part| Watched::new(plan, part));
        let has_files = parts.iter().any(|watched| !watched.read.is_empty());
        has_files.then(|| Self { plan: plan.clone(), parts, warned: None })
    }

    /// Looks once; it may wait for the disk.
    pub(in crate::control) fn look(&mut self, access: &Access) {
        for watched in &mut self.parts {
            if !watched.has_changed(&self.plan) {
                continue;
            }
            let what = watched.part.label();
            match access.credentials().with(&self.plan, watched.part) {
                Ok(credentials) => {
                    access.install(credentials);
                    self.warned = None;
                    info!(what, "read again");
                }
                Err(error) => {
                    access.counts.reloads_failed.fetch_add(1, Relaxed);
                    error!(what, %error, "changed files cannot be used; the old ones stay in force");
                }
            }
        }
        if self.warned.is_none_or(|warned| warned.elapsed() >= WARN_INTERVAL) {
            self.warned = Some(Instant::now());
            for (file, at) in access.credentials().expiries() {
                warn_of(file, i64::try_from(at).unwrap_or(i64::MAX));
            }
        }
    }
}

fn warn_of(file: &str, at: i64) {
    let left = at - Timestamp::now().as_second();
    let at = Timestamp::from_second(at).unwrap_or_default();
    if left < 0 {
        error!(file, %at, "the certificate has expired: clients will refuse it; renew it");
    } else if left < WARN_BEFORE_S {
        warn!(file, %at, days = left / 86_400, "the certificate expires soon: renew it");
    }
}

fn stamps(plan: &AccessPlan, part: Part) -> Vec<Stamp> {
    let files: Vec<&PathBuf> = match (part, &plan.tls) {
        (Part::Tls, Some(tls)) => [&tls.certificate, &tls.key].into_iter().chain(&tls.client_ca).collect(),
        (Part::Tls, None) => Vec::new(),
        (Part::Tokens, _) => plan.tokens_file.iter().collect(),
    };
    files.into_iter().map(|path| stamp(path)).collect()
}

fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok()?;
    Some((file.mtime(), file.mtime_nsec(), file.size(), file.ino()))
}
