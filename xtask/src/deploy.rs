//! Rolls the handler out to a host: builds, ships, has the doctor judge the host, installs beside what runs, switches,
//! waits until it is ready, and goes back if it is not. What happens on the host is `deploy/host.sh`.
#![forbid(unsafe_code)]

mod host;

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};

use crate::{build, process};
use host::{Host, quoted};

/// Where the release that is current lies on the host: what the unit starts.
const CURRENT: &str = "/opt/feedhandler/current";
const SCRIPT: &str = include_str!("deploy/host.sh");
/// The programs of a release.
pub const PROGRAMS: [&str; 2] = ["feedhandler", "feedctl"];
/// handler.grpc where the configuration does not say.
const DEFAULT_ENDPOINT: &str = "unix:/run/feedhandler/control.sock";

/// Where to and what.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The host, as ssh takes it. Its user is root, or may use sudo without a password
    #[arg(long, global = true, value_name = "USER@HOST", conflicts_with = "local")]
    host: Option<String>,
    /// This machine
    #[arg(long, global = true)]
    local: bool,
    /// Configuration of ssh to use instead of the user's (ssh -F)
    #[arg(long, global = true, value_name = "FILE")]
    ssh_config: Option<PathBuf>,
    /// What starts the handler on the host
    #[arg(long, global = true, value_enum, default_value = "auto")]
    service: Service,
    /// How long the handler may take to become ready, seconds
    #[arg(long, global = true, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    wait: u32,
    /// The handler's configuration
    #[arg(long, value_name = "FILE", default_value = "config/feedhandler.toml")]
    config: PathBuf,
    /// Ship the programs in this folder instead of building a release
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Cores that the handler may use, such as 0,2-3; default all, isolated ones too
    #[arg(long, value_name = "LIST", value_parser = cpu_list)]
    cpus: Option<String>,
    /// Releases that stay on the host, the current one and the one before included
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=100))]
    keep: u16,
    /// Deploy although the doctor sees problems
    #[arg(long)]
    accept_problems: bool,
    /// Ship to a temporary folder, have the doctor judge the host, say what would be done, and leave nothing behind
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Verb {
    /// Shows what is installed, and whether it is ready
    Status,
    /// Goes back to the release before
    Rollback,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Service {
    /// systemd where it runs, else a process
    Auto,
    /// The unit feedhandler.service
    Systemd,
    /// A supervised process with a pid file, for hosts without a service manager, such as containers
    Process,
}

/// Does what the arguments say; the exit status is the host's: 0 done, 1 failed or rolled back, 2 refused.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let host = match (&arguments.host, arguments.local) {
        (Some(name), _) => Host::Ssh { name: name.clone(), config: arguments.ssh_config.clone() },
        (None, true) => Host::Local,
        (None, false) => bail!("say where to: --host USER@HOST, or --local"),
    };
    let folder = Folder::new(&host)?;
    let version = match arguments.verb {
        Some(_) => String::new(),
        None => {
            let version = version()?;
            let staged = process::target_directory()?.join("deploy").join(format!("{version}-{}", std::process::id()));
            let shipped = stage(arguments, &staged).and_then(|()| {
                println!("deploy: {version} to {}", host.name());
                host.copy(&staged, &folder.path)
            });
            // Also after a failure, which is the error to show: it is a copy, with passwords.
            let removed = if staged.exists() { fs::remove_dir_all(&staged) } else { Ok(()) };
            shipped?;
            removed.with_context(|| format!("cannot remove {}", staged.display()))?;
            version
        }
    };
    let verb = match arguments.verb {
        Some(verb) => {
            host.output(&format!("printf %s {} > {}/host.sh", quoted(SCRIPT), folder.path))?;
            if matches!(verb, Verb::Status) { "status" } else { "rollback" }.to_owned()
        }
        None => format!("{} {} {version}", if arguments.dry_run { "try" } else { "deploy" }, folder.path),
    };
    let service = arguments.service.to_possible_value().expect("every variant has a name");
    let status = host.run_as_root(&format!(
        "env SERVICE={} WAIT={} KEEP={} ACCEPT={} sh {}/host.sh {verb}",
        service.get_name(),
        arguments.wait,
        arguments.keep,
        if arguments.accept_problems { "yes" } else { "no" },
        folder.path
    ))?;
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)))
}

/// A temporary folder on the host; removed when dropped.
struct Folder<'a> {
    host: &'a Host,
    path: String,
}

impl<'a> Folder<'a> {
    fn new(host: &'a Host) -> Result<Self> {
        let path = host.output("mktemp -d \"${TMPDIR:-/tmp}/feedhandler.XXXXXXXX\"")?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        ensure!(path.starts_with('/') && path.chars().all(is_plain), "mktemp on {} says {path:?}", host.name());
        Ok(Self { host, path })
    }
}

impl Drop for Folder<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.host.output(&format!("rm -rf {}", self.path)) {
            eprintln!("warning: {} is left behind: {error:#}", self.path);
        }
    }
}

/// Puts everything of a release into a folder of this machine, which only its user may enter: the configuration may hold
/// passwords.
fn stage(arguments: &Arguments, staged: &Path) -> Result<()> {
    // First what costs nothing: a configuration that is no TOML needs no build.
    let text = fs::read_to_string(&arguments.config)
        .with_context(|| format!("cannot read the configuration {}", arguments.config.display()))?;
    let endpoint = endpoint(&text).with_context(|| arguments.config.display().to_string())?;
    let binaries = match &arguments.binaries {
        Some(folder) => folder.clone(),
        None => {
            build::handler()?;
            process::target_directory()?.join("release")
        }
    };
    let bin = staged.join("bin");
    let mut private = fs::DirBuilder::new();
    private.recursive(true).mode(0o700).create(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
    for program in PROGRAMS {
        let from = binaries.join(program);
        fs::copy(&from, bin.join(program)).with_context(|| format!("no program {}", from.display()))?;
    }
    let config = |name: &str| process::workspace().join("config").join(name);
    let unit = fs::read_to_string(config("feedhandler.service")).context("config/feedhandler.service")?;
    let files = [
        ("feedhandler.toml", text),
        ("feedhandler.service", deployed_unit(&unit, arguments.cpus.as_deref())?),
        ("feedhandler.sysusers", fs::read_to_string(config("feedhandler.sysusers"))?),
        ("endpoint", endpoint),
        ("cpus", arguments.cpus.clone().unwrap_or_default()),
        ("host.sh", SCRIPT.to_owned()),
    ];
    for (name, text) in files {
        fs::write(staged.join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
}

/// A name that sorts by time and says what it is: `20261124T201500Z-0.1.0-21cdc21`.
fn version() -> Result<String> {
    let time = process::output("date", &["-u", "+%Y%m%dT%H%M%SZ"]).context("`date` does not run")?;
    let mut version = format!("{}-{}", time.trim(), env!("CARGO_PKG_VERSION"));
    let top = process::workspace().to_string_lossy();
    if let Some(commit) = process::output("git", &["-C", &top, "rev-parse", "--short", "HEAD"]) {
        version.push('-');
        version.push_str(commit.trim());
    }
    Ok(version)
}

/// Where feedctl finds a handler with this configuration.
fn endpoint(config: &str) -> Result<String> {
    let table: toml::Table = config.parse().context("no TOML")?;
    let grpc = table.get("handler").and_then(|handler| handler.get("grpc"));
    let endpoint = grpc.map_or(Some(DEFAULT_ENDPOINT), toml::Value::as_str).context("handler.grpc must be a string")?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._:-[]".contains(c);
    ensure!(endpoint.chars().all(is_plain), "handler.grpc: {endpoint:?} has characters that no shell should see");
    Ok(if endpoint.starts_with("unix:") { endpoint.to_owned() } else { format!("http://{endpoint}") })
}

/// The unit with the paths of the current release, and the cores.
fn deployed_unit(unit: &str, cpus: Option<&str>) -> Result<String> {
    let mut changes = vec![
        ("ExecStart=/usr/bin/".to_owned(), format!("ExecStart={CURRENT}/bin/")),
        ("/etc/feedhandler/feedhandler.toml".to_owned(), format!("{CURRENT}/feedhandler.toml")),
    ];
    changes.extend(cpus.map(|cpus| ("CPUAffinity=0-1023".to_owned(), format!("CPUAffinity={cpus}"))));
    changes.into_iter().try_fold(unit.to_owned(), |unit, (from, to)| {
        ensure!(unit.matches(&from).count() == 1, "config/feedhandler.service does not have `{from}` once");
        Ok(unit.replace(&from, &to))
    })
}

fn cpu_list(text: &str) -> Result<String, String> {
    let is_number = |part: &str| part.parse::<u16>().is_ok();
    let is_part =
        |part: &str| part.split_once('-').map_or_else(|| is_number(part), |(a, b)| is_number(a) && is_number(b));
    if text.split(',').all(is_part) { Ok(text.to_owned()) } else { Err("must be cores, such as 0,2-3".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_the_configurations_or_the_default() {
        assert_eq!(endpoint("[handler]\nname = \"x\"").unwrap(), DEFAULT_ENDPOINT);
        assert_eq!(endpoint("[handler]\ngrpc = \"127.0.0.1:7\"").unwrap(), "http://127.0.0.1:7");
        assert_eq!(endpoint("[handler]\ngrpc = \"unix:/x/y.sock\"").unwrap(), "unix:/x/y.sock");
        assert!(endpoint("[handler").unwrap_err().to_string().contains("TOML"));
        assert!(endpoint("[handler]\ngrpc = 7").is_err());
        assert!(endpoint("[handler]\ngrpc = \"unix:/x;reboot\"").unwrap_err().to_string().contains("reboot"));
    }

    #[test]
    fn the_unit_starts_the_current_release() {
        let unit = fs::read_to_string(process::workspace().join("config/feedhandler.service")).unwrap();
        let deployed = deployed_unit(&unit, Some("0,2-3")).unwrap();
        let start = "ExecStart=/opt/feedhandler/current/bin/feedhandler run --config /opt/feedhandler/current/feedhandler.toml\n";
        assert!(deployed.contains(start) && deployed.contains("\nCPUAffinity=0,2-3\n"), "{deployed}");
        assert!(!deployed.contains("/usr/bin/") && !deployed.contains("/etc/feedhandler"), "{deployed}");
        assert!(deployed_unit("[Service]\n", None).is_err());
    }

    #[test]
    fn cores_are_a_list_of_numbers_and_ranges() {
        assert!(["0", "0,2-3", "1-4,7"].iter().all(|list| cpu_list(list).is_ok()));
        assert!(["", "a", "0,", "1-", "0;reboot", "0 1"].iter().all(|list| cpu_list(list).is_err()));
    }
}
