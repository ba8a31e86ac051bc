//! The Debian package: programs, unit, user, configuration (a conffile), board and rules. Built by dpkg-deb, which every
//! Debian has; what the programs need of other packages is found by dpkg-shlibdeps.
//!
//! Installing it starts nothing: the configuration names interfaces and groups that only the operator knows. An upgrade
//! restarts nothing either: when the stream is cut is the operator's choice (`systemctl restart feedhandler`).
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::deploy::PROGRAMS;
use crate::{build, process};

/// What to pack.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Pack the programs in this folder instead of building a release
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Folder for the package; default target/debian
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Where the configuration goes; it may hold passwords, so that only root and the handler read it.
const CONFIG: &str = "etc/feedhandler/feedhandler.toml";

/// Files of config/, and where they go.
const FILES: [(&str, &str); 6] = [
    ("feedhandler.toml", CONFIG),
    ("feedhandler.service", "lib/systemd/system/feedhandler.service"),
    ("feedhandler.sysusers", "usr/lib/sysusers.d/feedhandler.conf"),
    ("alerts.yml", "usr/share/doc/feedhandler/examples/alerts.yml"),
    ("grafana.json", "usr/share/doc/feedhandler/examples/grafana.json"),
    ("../LICENSE", "usr/share/doc/feedhandler/copyright"),
];

const CONFFILES: &str = "/etc/feedhandler/feedhandler.toml\n";

/// DPKG_ROOT: the package may be installed into another root, such as an image's, where nothing runs and groups have numbers
/// of their own. dpkg keeps the configuration's group and mode in an upgrade.
const POSTINST: &str = r#"#!/bin/sh
set -e
if [ "$1" = configure ]; then
    systemd-sysusers ${DPKG_ROOT:+--root="$DPKG_ROOT"} feedhandler.conf
    if [ -z "$2" ] && [ -e "$DPKG_ROOT/etc/feedhandler/feedhandler.toml" ]; then
        group=$(sed -n 's/^feedhandler:[^:]*:\([0-9]*\):.*/\1/p' "$DPKG_ROOT/etc/group")
        chgrp "${group:-feedhandler}" "$DPKG_ROOT/etc/feedhandler/feedhandler.toml"
    fi
    if [ -d "$DPKG_ROOT/run/systemd/system" ]; then systemctl --quiet daemon-reload; fi
fi
"#;

const PRERM: &str = r#"#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d "$DPKG_ROOT/run/systemd/system" ]; then systemctl --quiet disable --now feedhandler.service; fi
"#;

const POSTRM: &str = r#"#!/bin/sh
set -e
if [ -d "$DPKG_ROOT/run/systemd/system" ]; then systemctl --quiet daemon-reload; fi
"#;

/// Builds the package and prints its path.
pub fn run(arguments: &Arguments) -> Result<()> {
    let binaries = match &arguments.binaries {
        Some(folder) => folder.clone(),
        None => {
            build::handler()?;
            process::target_directory()?.join("release")
        }
    };
    let out = match &arguments.out {
        Some(folder) => folder.clone(),
        None => process::target_directory()?.join("debian"),
    };
    let root = out.join(format!(".feedhandler-{}", std::process::id()));
    let packed = pack(&binaries, &root, &out);
    // Also after a failure, which is the error to show; it may have come before there was anything.
    let removed = if root.exists() { fs::remove_dir_all(&root) } else { Ok(()) };
    println!("package: {}", packed?.display());
    removed.with_context(|| format!("cannot remove {}", root.display()))?;
    Ok(())
}

fn pack(binaries: &Path, root: &Path, out: &Path) -> Result<PathBuf> {
    for program in PROGRAMS {
        let to = root.join("usr/bin").join(program);
        let from = binaries.join(program);
        put(&to, &fs::read(&from).with_context(|| format!("no program {}", from.display()))?, 0o755)?;
        // Names of functions stay, for backtraces.
        process::run(Command::new("strip").arg("--strip-debug").arg(&to))?;
    }
    for (from, to) in FILES {
        let from = process::workspace().join("config").join(from);
        let mode = if to == CONFIG { 0o640 } else { 0o644 };
        put(&root.join(to), &fs::read(&from).with_context(|| from.display().to_string())?, mode)?;
    }
    for shell in [("bash", "bash-completion/completions/feedctl"), ("zsh", "zsh/vendor-completions/_feedctl")] {
        let feedctl = root.join("usr/bin/feedctl");
        let text = process::output(&feedctl, &["completion", shell.0]).context("feedctl does not run here")?;
        put(&root.join("usr/share").join(shell.1), text.as_bytes(), 0o644)?;
    }
    let pages = root.join("usr/share/man/man1");
    fs::create_dir_all(&pages).with_context(|| format!("cannot make {}", pages.display()))?;
    for program in PROGRAMS {
        process::run(Command::new(root.join("usr/bin").join(program)).arg("man").arg(&pages))?;
    }
    for page in fs::read_dir(&pages)? {
        let page = page?.path();
        // As Debian has them: the manual reads them so.
        process::run(Command::new("gzip").args(["--no-name", "-9"]).arg(&page))?;
        let packed = page.with_extension("1.gz");
        let bytes = fs::read(&packed).with_context(|| packed.display().to_string())?;
        put(&packed, &bytes, 0o644)?;
    }
    let (version, architecture) = (version(), architecture()?);
    let control = format!(
        "Package: feedhandler\nVersion: {version}\nArchitecture: {architecture}\nSection: net\nPriority: optional\n\
         Maintainer: feedhandler <feedhandler@localhost>\nHomepage: {}\n\
         Depends: {}, systemd | systemd-standalone-sysusers\nRecommends: ethtool\n\
         Description: Market-data feed handler\n Exchange multicast in over AF_XDP, one clean, ordered, normalised stream \
         out:\n A/B arbitration, order books, DBN records. Contains feedhandler and feedctl.\n",
        env!("CARGO_PKG_REPOSITORY"),
        dependencies(root)?
    );
    let debian = root.join("DEBIAN");
    put(&debian.join("control"), control.as_bytes(), 0o644)?;
    put(&debian.join("conffiles"), CONFFILES.as_bytes(), 0o644)?;
    for (name, script) in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)] {
        put(&debian.join(name), script.as_bytes(), 0o755)?;
    }
    let package = out.join(format!("feedhandler_{version}_{architecture}.deb"));
    process::run(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(root).arg(&package))?;
    Ok(package)
}

/// Writes a file with its folders, all readable by everybody whatever this user's umask.
fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let folder = path.parent().with_context(cannot)?;
    fs::create_dir_all(folder).with_context(cannot)?;
    fs::write(path, bytes).with_context(cannot)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(cannot)?;
    // Up to the package's root, which is the first folder with a leading dot.
    for folder in path.ancestors().skip(1) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).with_context(cannot)?;
        if folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            break;
        }
    }
    Ok(())
}

/// The crate's version and, where git knows it, the commit's day and name: newer ones sort higher.
fn version() -> String {
    let top = process::workspace().to_string_lossy();
    let arguments = ["-C", &*top, "log", "-1", "--format=+%cd.%h", "--date=format:%Y%m%d%H%M"];
    let commit = process::output("git", &arguments).unwrap_or_default();
    format!("{}{}", env!("CARGO_PKG_VERSION"), commit.trim())
}

fn architecture() -> Result<String> {
    let output = process::output("dpkg", &["--print-architecture"]);
    Ok(output.context("`dpkg` does not run: packages are built on Debian")?.trim().to_owned())
}

/// What the programs are linked with, as packages with versions.
fn dependencies(root: &Path) -> Result<String> {
    // It wants a source package around it.
    let source = root.with_extension("source");
    put(&source.join("debian/control"), b"Source: feedhandler\n\nPackage: feedhandler\nArchitecture: any\n", 0o644)?;
    let mut command = Command::new("dpkg-shlibdeps");
    command.arg("-O").current_dir(&source);
    for program in PROGRAMS {
        command.arg(fs::canonicalize(root.join("usr/bin").join(program))?);
    }
    let output = command.output().context("cannot start dpkg-shlibdeps (package dpkg-dev)");
    fs::remove_dir_all(&source).with_context(|| format!("cannot remove {}", source.display()))?;
    let output = output?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    let complaint = || format!("dpkg-shlibdeps: {}", String::from_utf8_lossy(&output.stderr).trim());
    found.map(str::to_owned).with_context(complaint)
}
