//! Every test of the workspace, with one count at the end.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result};

use crate::{process, setup};

/// How the tests went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By libtest, which counts a test that skipped itself as passed.
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Tests that printed a line `SKIPPED name: why` and returned, because their input is absent.
    skipped: u64,
    /// Whether cargo itself succeeded: a crate that does not compile fails no test.
    cargo_ok: bool,
    /// Whether running no test is what was asked for. Else it means that a name matches none.
    may_run_none: bool,
}

impl Counts {
    /// Success if every test that ran passed.
    pub fn exit_code(self) -> ExitCode {
        if self.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    pub const fn is_success(self) -> bool {
        self.cargo_ok && self.failed == 0 && (self.ran() > 0 || self.may_run_none)
    }

    /// Tests that ran, or said why not.
    const fn ran(self) -> u64 {
        self.passed + self.failed + self.ignored
    }

    /// Adds what one line of libtest's output says.
    fn add_line(&mut self, line: &str) {
        // Behind "test name ... " when tests run one by one, else on a line of its own.
        if line.starts_with("SKIPPED ") || line.contains(" ... SKIPPED ") {
            self.skipped += 1;
        }
        let Some(result) = line.strip_prefix("test result: ") else { return };
        for part in result.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(Ok(count)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else { continue };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passed = self.passed.saturating_sub(self.skipped);
        write!(f, "{passed} passed, {} failed, {} skipped", self.failed, self.skipped + self.ignored)?;
        if self.cargo_ok && self.ran() == 0 && !self.may_run_none {
            write!(f, "; error: no test has such a name")?;
        }
        Ok(())
    }
}

/// What stands behind `test`, as written: clap takes a `--` away, which cargo needs (`cargo xtask test -- --nocapture`).
pub fn own_arguments(all: impl Iterator<Item = OsString>) -> Vec<OsString> {
    all.skip_while(|argument| argument != "test").skip(1).collect()
}

/// Sets up, runs `cargo test --workspace` with its output streamed through, and prints the counts on the last line.
pub fn run(arguments: &[OsString]) -> Result<Counts> {
    setup::run()?;
    process::require_root("the tests (network namespaces, XDP, AF_XDP)")?;
    let mut child = process::cargo()
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let may_run_none =
        arguments.iter().any(|argument| ["--no-run", "--list", "--help"].iter().any(|word| argument == word));
    let mut counts = Counts { may_run_none, ..Counts::default() };
    let mut stdout = std::io::stdout();
    for line in BufReader::new(child.stdout.take().context("no output of cargo")?).split(b'\n') {
        let line = line.context("cannot read cargo's output")?;
        let line = String::from_utf8_lossy(&line);
        writeln!(stdout, "{line}")?;
        counts.add_line(&line);
    }
    counts.cargo_ok = child.wait()?.success();
    println!("{counts}");
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_summed_over_binaries_and_skips_are_not_passes() {
        let mut counts = Counts::default();
        for line in [
            "running 3 tests",
            "SKIPPED golden_captures: no folder captures",
            "test golden_captures ... ok",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.95s",
        ] {
            counts.add_line(line);
        }
        assert_eq!(counts.to_string(), "12 passed, 2 failed, 2 skipped");
    }

    #[test]
    fn a_failed_build_is_no_success() {
        assert!(!Counts::default().is_success());
        assert!(Counts { cargo_ok: true, passed: 1, ..Counts::default() }.is_success());
    }

    #[test]
    fn a_name_that_no_test_has_is_no_success() {
        let mut counts = Counts { cargo_ok: true, ..Counts::default() };
        counts.add_line("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0s");
        assert!(!counts.is_success());
        assert_eq!(counts.to_string(), "0 passed, 0 failed, 0 skipped; error: no test has such a name");
        assert!(Counts { may_run_none: true, ..counts }.is_success());
        counts.add_line("test result: ok. 0 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out; finished in 0s");
        assert!(counts.is_success(), "it was found and says that it is ignored");
    }

    #[test]
    fn the_separator_is_kept_for_cargo() {
        let own = |line: &str| own_arguments(line.split(' ').map(OsString::from)).join(" ".as_ref());
        assert_eq!(own("target/debug/xtask test -- --nocapture"), "-- --nocapture");
        assert_eq!(own("xtask test demo -- --exact test"), "demo -- --exact test");
        assert_eq!(own("xtask test"), "");
    }
}
