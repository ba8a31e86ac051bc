//! Everything that must pass before a merge, in the order in which it fails fastest.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::{demo, process, setup, test};

/// Runs all steps; the first that fails ends it. The first one that builds also sees to it that Cargo.lock is up to date.
pub fn run() -> Result<ExitCode> {
    let mut times = Vec::new();
    let mut step = |name: &'static str, body: &mut dyn FnMut() -> Result<()>| {
        println!("ci: {name}");
        let start = Instant::now();
        body().with_context(|| format!("ci step `{name}`"))?;
        times.push((name, start.elapsed()));
        Ok::<(), anyhow::Error>(())
    };
    step("setup", &mut setup::run)?;
    step("fmt", &mut || process::run(process::cargo().args(["fmt", "--all", "--check"])))?;
    step("clippy", &mut || {
        process::run(process::cargo().args([
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    step("doc", &mut || {
        let mut command = process::cargo();
        process::run(command.args(["doc", "--locked", "--no-deps", "--workspace"]).env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    let mut counts = test::Counts::default();
    step("test", &mut || {
        counts = test::run(&["--locked".into()])?;
        if !counts.is_success() {
            bail!("{counts}");
        }
        Ok(())
    })?;
    // Patient: on a busy machine a sender that waits for its turn must not pass for loss.
    step("demo", &mut || demo::run_to_end(&["--seconds", "5", "--patient"]))?;

    for (name, time) in times {
        println!("ci: {name:<7} ok {:>7.1} s", time.as_secs_f64());
    }
    println!("{counts}");
    Ok(ExitCode::SUCCESS)
}
