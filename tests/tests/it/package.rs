//! The Debian package, by dpkg's own account, and installed into a root of its own.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::binaries::{program, xtask};
use crate::turn::turn;

fn run(command: &mut Command) -> String {
    let output = command.output().expect("starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

fn build(out: &Path) -> PathBuf {
    let binaries = program("feedhandler");
    let mut command = Command::new(xtask());
    command.args(["package", "--binaries"]).arg(binaries.parent().expect("a folder")).arg("--out").arg(out);
    let text = run(&mut command);
    let left: Vec<PathBuf> = fs::read_dir(out).expect("a folder").flatten().map(|entry| entry.path()).collect();
    assert_eq!(left.len(), 1, "the package and nothing else: {left:?}");
    assert!(text.contains(left[0].to_str().expect("UTF-8")), "{text}");
    left[0].clone()
}

/// An empty root with an administrative folder of dpkg.
fn root() -> TempDir {
    let root = TempDir::new().expect("a folder");
    for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "etc"] {
        fs::create_dir_all(root.path().join(folder)).expect("a folder");
    }
    fs::write(root.path().join("var/lib/dpkg/status"), "").expect("a file");
    root
}

fn dpkg(root: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("dpkg");
    command.arg("--root").arg(root).args(["--force-depends", "--force-script-chrootless"]).args(arguments);
    run(&mut command)
}

#[test]
fn the_package_installs_keeps_the_configuration_and_goes() {
    let _turn = turn();
    let out = TempDir::new().expect("a folder");
    let package = build(out.path());
    let package = package.to_str().expect("UTF-8");
    let info = run(Command::new("dpkg-deb").args(["--info", package]));
    for word in ["Package: feedhandler", "Version: 0.1.0", "libc6 (>= ", "libelf1 (>= ", "conffiles", "postinst"] {
        assert!(info.contains(word), "{word}: {info}");
    }
    let contents = run(Command::new("dpkg-deb").args(["--contents", package]));
    assert!(contents.lines().all(|line| line.contains(" root/root ")), "{contents}");
    for (mode, file) in [
        ("-rwxr-xr-x", "./usr/bin/feedhandler"),
        ("-rwxr-xr-x", "./usr/bin/feedctl"),
        ("-rw-r--r--", "./lib/systemd/system/feedhandler.service"),
        // It may hold passwords.
        ("-rw-r-----", "./etc/feedhandler/feedhandler.toml"),
        ("-rw-r--r--", "./usr/share/bash-completion/completions/feedctl"),
        ("-rw-r--r--", "./usr/share/man/man1/feedhandler-run.1.gz"),
        ("-rw-r--r--", "./usr/share/man/man1/feedctl-subscribe.1.gz"),
    ] {
        let line = contents.lines().find(|line| line.ends_with(file));
        assert!(line.is_some_and(|line| line.starts_with(mode)), "{file}: {contents}");
    }

    let root = root();
    let config = root.path().join("etc/feedhandler/feedhandler.toml");
    let own_users = || fs::read_to_string("/etc/passwd").expect("this machine's users");
    let before = own_users();
    dpkg(root.path(), &["--install", package]);
    let users = fs::read_to_string(root.path().join("etc/passwd")).expect("the user was made");
    assert!(users.contains("feedhandler:") && own_users() == before, "there, and not on this machine");
    let groups = fs::read_to_string(root.path().join("etc/group")).expect("its group");
    let group = || fs::metadata(&config).expect("installed").gid().to_string();
    let is_its_group = || groups.lines().any(|line| line.starts_with("feedhandler:") && line.contains(&group()));
    assert!(group() != "0" && is_its_group(), "the handler may read it: {} {groups}", group());
    let installed = root.path().join("usr/bin/feedhandler");
    assert!(run(Command::new(&installed).arg("--version")).starts_with("feedhandler 0.1.0"));
    run(Command::new(&installed).args(["doctor", "--help"]));
    // An operator's own configuration survives an upgrade and a removal, and goes when the package is purged.
    fs::write(&config, "# mine\n").expect("a file");
    dpkg(root.path(), &["--install", package]);
    assert_eq!(fs::read_to_string(&config).expect("kept"), "# mine\n");
    assert!(is_its_group() && fs::metadata(&config).expect("kept").mode() & 0o777 == 0o640);
    dpkg(root.path(), &["--remove", "feedhandler"]);
    assert!(config.exists() && !installed.exists());
    dpkg(root.path(), &["--purge", "feedhandler"]);
    assert!(!config.exists());
}

#[test]
fn programs_that_are_not_there_are_named_and_nothing_stays() {
    let (out, nowhere) = (TempDir::new().expect("a folder"), Path::new("/nonexistent/programs"));
    let mut command = Command::new(xtask());
    command.args(["package", "--binaries"]).arg(nowhere).arg("--out").arg(out.path());
    let output = command.output().expect("starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("no program /nonexistent/programs/feedhandler"), "{text}");
    assert_eq!(fs::read_dir(out.path()).expect("a folder").count(), 0);
}
