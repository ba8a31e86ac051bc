//! Coverage-guided fuzzing of the parsers and of the worker, by libFuzzer on the stable compiler.
//!
//! What a run finds is kept in `target/fuzz/TARGET/found` and goes on from there in the next. `tests/fuzz/corpus` holds
//! what is committed; it also runs as an ordinary test.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{process, setup};

const PROGRAM: &str = "feedhandler-fuzz";

/// Most files that `--keep` leaves of a target in the corpus, and their size.
const KEPT_FILES: usize = 24;
const KEPT_BYTES: u64 = 1_024;

/// What to fuzz.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How long, in all: shared out evenly among the targets.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// This target only. A folder of tests/fuzz/corpus.
    #[arg(long)]
    pub target: Option<String>,
    /// Run this input once instead (needs --target).
    #[arg(long, value_name = "FILE", requires = "target")]
    pub replay: Option<PathBuf>,
    /// In the end, put some of the inputs that reach what the corpus does not into tests/fuzz/corpus.
    #[arg(long)]
    pub keep: bool,
}

/// Sets up, builds, and fuzzes one target after the other. The first input that fails ends a target, and is named.
pub fn run(options: &Options) -> Result<()> {
    setup::run()?;
    let corpus = process::workspace().join("tests/fuzz/corpus");
    let mut targets = names(&corpus)?;
    if let Some(only) = &options.target {
        if !targets.contains(only) {
            bail!("--target {only}: one of {}", targets.join(", "));
        }
        targets.retain(|target| target == only);
    }
    let program = build()?;
    if let Some(file) = &options.replay {
        return process::run(fuzzer(&program, &targets[0])?.arg(file));
    }
    let share = options.seconds.div_ceil(targets.len() as u64);
    let mut failed = Vec::new();
    for target in &targets {
        println!("fuzz: {target}, {share} s");
        if !fuzz(&program, target, &corpus.join(target), share)? {
            failed.push(target.as_str());
        } else if options.keep {
            keep(&program, target, &corpus.join(target))?;
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    println!("fuzz: {} targets, nothing found", targets.len());
    Ok(())
}

fn names(corpus: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(corpus).with_context(|| corpus.display().to_string())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The program with counters. Only the workspace's own crates are compiled anew for it.
fn build() -> Result<PathBuf> {
    let wrapper = process::workspace().join("tests/fuzz/rustc");
    let mut command = process::cargo();
    command
        .args(["build", "--locked", "--package", PROGRAM, "--features", "libfuzzer"])
        .env("RUSTC_WORKSPACE_WRAPPER", wrapper)
        .env("CARGO_INCREMENTAL", "0");
    process::run(&mut command)?;
    Ok(process::target_directory()?.join("debug").join(PROGRAM))
}

/// Where a target's finds are: `found`, and beside it inputs that failed.
fn place(target: &str) -> Result<PathBuf> {
    Ok(process::target_directory()?.join("fuzz").join(target))
}

fn fuzzer(program: &Path, target: &str) -> Result<Command> {
    let place = place(target)?;
    fs::create_dir_all(place.join("found")).with_context(|| place.display().to_string())?;
    let mut command = Command::new(program);
    command.env("FEEDHANDLER_FUZZ_TARGET", target).arg(format!("-artifact_prefix={}/", place.display()));
    Ok(command)
}

/// Fuzzes one target; whether nothing failed.
fn fuzz(program: &Path, target: &str, committed: &Path, seconds: u64) -> Result<bool> {
    let place = place(target)?;
    let log = place.join("log");
    let mut command = fuzzer(program, target)?;
    let output = fs::File::create(&log).with_context(|| log.display().to_string())?;
    let status = command
        .args(["-timeout=20", "-rss_limit_mb=2048", "-use_value_profile=1", "-print_final_stats=1"])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={}", most_bytes(committed)?))
        .arg(place.join("found"))
        .arg(committed)
        .stdout(Stdio::null())
        .stderr(output)
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if status.success() {
        println!("fuzz: {target}: {}", summary(&text));
        return Ok(true);
    }
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("{}", lines[lines.len().saturating_sub(40)..].join("\n"));
    let input = text.lines().find_map(|line| line.split_once("Test unit written to "));
    println!("fuzz: {target} failed ({status})");
    println!("  again:  cargo xtask fuzz --target {target} --replay {}", input.map_or("(none)", |(_, file)| file));
    println!("  as a test: copy it into {}", committed.display());
    Ok(false)
}

/// Longest input: four times what the corpus has.
fn most_bytes(committed: &Path) -> Result<u64> {
    let mut most = 256;
    for entry in fs::read_dir(committed)? {
        most = most.max(entry?.metadata()?.len());
    }
    Ok((4 * most).min(16_384))
}

/// Inputs per second and what they reached, of libFuzzer's output.
fn summary(log: &str) -> String {
    let last = |word: &str| {
        let line = log.lines().rev().find(|line| line.contains(word))?;
        line.split(word).nth(1)?.split_whitespace().next().map(str::to_owned)
    };
    let part = |word: &str| last(word).unwrap_or_else(|| "?".to_owned());
    format!(
        "{} inputs, {} per second, {} edges, {} new to the corpus",
        part("stat::number_of_executed_units:"),
        part("stat::average_exec_per_sec:"),
        part(" cov: "),
        part("stat::new_units_added:"),
    )
}

/// Puts finds that reach what the corpus does not into it: the ones that reach most, as long as they are short.
fn keep(program: &Path, target: &str, committed: &Path) -> Result<()> {
    let place = place(target)?;
    let merged = place.join("merged");
    let _ = fs::remove_dir_all(&merged);
    fs::create_dir_all(&merged)?;
    // What libFuzzer merges into counts as reached already.
    for entry in fs::read_dir(committed)? {
        let entry = entry?;
        fs::copy(entry.path(), merged.join(entry.file_name()))?;
    }
    let mut command = fuzzer(program, target)?;
    command.args(["-merge=1", "-use_value_profile=0"]).arg(&merged).arg(place.join("found"));
    process::run(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
    let mut new = Vec::new();
    for entry in fs::read_dir(&merged)? {
        let entry = entry?;
        let len = entry.metadata()?.len();
        if len <= KEPT_BYTES && !committed.join(entry.file_name()).exists() {
            new.push((len, entry.path()));
        }
    }
    new.sort();
    for (_, file) in new.iter().rev().take(KEPT_FILES) {
        fs::copy(file, committed.join(file.file_name().context("a file has a name")?))?;
    }
    println!("fuzz: {target}: {} of {} inputs kept", new.len().min(KEPT_FILES), new.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn the_summary_is_of_the_last_lines() {
        let log = "#2 INITED cov: 7 ft: 8 corp: 1/1b\n#9 NEW    cov: 70 ft: 80 corp: 2/9b\n\
                   stat::number_of_executed_units: 1234\nstat::average_exec_per_sec:     99\nstat::new_units_added: 5\n";
        assert_eq!(summary(log), "1234 inputs, 99 per second, 70 edges, 5 new to the corpus");
        assert_eq!(summary(""), "? inputs, ? per second, ? edges, ? new to the corpus");
    }
}
