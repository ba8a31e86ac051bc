//! A host to deploy to: namespaces with files and processes of its own, a real sshd on its loopback, and systemd as its
//! pid 1 where that is wanted. Nothing of it reaches this machine, and it goes as a whole. See boot.sh.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::binaries::{program, xtask};
use crate::site::Site;
use crate::tools::{self, tool, workspace};

const TIMEOUT: Duration = Duration::from_secs(60);

/// What the host has for pid 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    Sshd,
    Systemd,
}

/// The host; ended when dropped, then what it had is removed, in this order.
pub struct Rig {
    init: Child,
    _cgroup: Option<Cgroup>,
    pub site: Site,
}

impl Rig {
    pub fn new(init: Init) -> Self {
        let site = Site::new();
        let files = site.files.path();
        for key in ["key", "host_key"] {
            let mut keygen = Command::new("ssh-keygen");
            run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(files.join(key)));
        }
        let at = files.display();
        let host_key = fs::read_to_string(files.join("host_key.pub")).expect("a key");
        let write = |name: &str, text: String| fs::write(files.join(name), text).expect("a file");
        write("known_hosts", format!("[127.0.0.1]:2222 {host_key}"));
        write(
            "sshd_config",
            format!(
                "Port 2222\nListenAddress 127.0.0.1\nHostKey {at}/host_key\nAuthorizedKeysFile {at}/key.pub\nStrictModes no\n\
                 PermitRootLogin prohibit-password\nPasswordAuthentication no\nPidFile none\nSubsystem sftp internal-sftp\n"
            ),
        );
        write(
            "ssh_config",
            format!(
                "Host box\nHostName 127.0.0.1\nPort 2222\nUser root\nIdentityFile {at}/key\nIdentitiesOnly yes\n\
                 UserKnownHostsFile {at}/known_hosts\nStrictHostKeyChecking yes\n"
            ),
        );
        // They are shipped again and again, and debug information is two thirds of them.
        fs::create_dir(files.join("bin")).expect("a folder");
        for name in ["feedhandler", "feedctl"] {
            run(Command::new("strip").arg("-o").arg(files.join("bin").join(name)).arg(program(name)));
        }
        let cgroup = (init == Init::Systemd).then(|| Cgroup::new(site.namespace.name()));
        let rig = Self { init: boot(&site, init, cgroup.as_ref()), _cgroup: cgroup, site };
        let deadline = Instant::now() + TIMEOUT;
        while !rig.try_ssh("true").status.success() {
            let log = fs::read_to_string(rig.site.files.path().join("boot.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "no host: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        rig
    }

    /// A configuration for the host, with its control socket where the unit has it, and `change`.
    pub fn config(&self, name: &str, change: impl FnOnce(String) -> String) -> PathBuf {
        self.site.config(name, |text| {
            let text: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("grpc =")).collect();
            change(text.join("\n"))
        })
    }

    /// `cargo xtask deploy` with these arguments, to be started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.site.namespace.command(&xtask());
        command.args(["deploy", "--host", "root@box", "--ssh-config"]).arg(self.site.files.path().join("ssh_config"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// The same for a new release.
    pub fn release(&self, config: &Path, arguments: &[&str]) -> Command {
        self.release_of(&self.site.files.path().join("bin"), config, arguments)
    }

    /// The same with other programs than the good ones.
    pub fn release_of(&self, binaries: &Path, config: &Path, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.arg("--binaries").arg(binaries).arg("--config").arg(config);
        command
    }

    /// A folder of programs, of which the handler is sound until it is to run.
    pub fn doomed(&self) -> PathBuf {
        let (good, folder) = (self.site.files.path().join("bin"), self.site.files.path().join("doomed"));
        fs::create_dir(&folder).expect("a folder");
        fs::copy(good.join("feedctl"), folder.join("feedctl")).expect("a program");
        let script = format!("#!/bin/sh\n[ \"$1\" != run ] || exit 7\nexec {}/feedhandler \"$@\"\n", good.display());
        fs::write(folder.join("feedhandler"), script).expect("a file");
        run(Command::new("chmod").arg("755").arg(folder.join("feedhandler")));
        folder
    }

    /// The line of shell that deploys a new release from the host to itself.
    pub fn release_here(&self, config: &Path) -> String {
        let binaries = self.site.files.path().join("bin");
        let (xtask, binaries, config) = (xtask(), binaries.display(), config.display());
        format!("{} deploy --local --binaries {binaries} --config {config}", xtask.display())
    }

    /// What a line of shell prints on the host; it must succeed.
    pub fn ssh(&self, line: &str) -> String {
        let output = self.try_ssh(line);
        assert!(output.status.success(), "{line}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn try_ssh(&self, line: &str) -> Output {
        let mut ssh = self.site.namespace.command(Path::new("ssh"));
        ssh.arg("-F").arg(self.site.files.path().join("ssh_config")).args(["root@box", line]);
        ssh.stdin(Stdio::null()).output().expect("ssh is installed")
    }

    /// The current release.
    pub fn current(&self) -> String {
        self.ssh("readlink /opt/feedhandler/current").replace("releases/", "")
    }

    /// Waits until a line of shell succeeds on the host.
    pub fn wait_for(&self, line: &str) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let output = self.try_ssh(line);
            if output.status.success() {
                return;
            }
            assert!(Instant::now() < deadline, "{line}: {}", said(&output));
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

/// A control group of this machine, in which systemd makes its own; removed when dropped, which its processes have to precede.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Self {
        // Those of tests that were killed: their namespaces are gone. One with processes in it is not removed.
        for entry in fs::read_dir(cgroups()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("fh-") && !Path::new("/run/netns").join(&name).exists() {
                remove_folders(&entry.path());
            }
        }
        let path = cgroups().join(name);
        fs::create_dir(&path).expect("a cgroup");
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Processes die with pid 1, which takes the kernel a moment.
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.0.exists() && Instant::now() < deadline {
            remove_folders(&self.0);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn boot(site: &Site, init: Init, cgroup: Option<&Cgroup>) -> Child {
    let libraries = fs::read_dir(tools::folder().join("usr/lib")).expect("tools").flatten();
    let libraries =
        libraries.map(|entry| entry.path()).find(|path| path.join("libwrap.so.0").exists()).expect("libwrap");
    // Whatever ends this program ends the host.
    let script = "[ -z \"$0\" ] || echo $$ > \"$0/cgroup.procs\"; exec setpriv --pdeathsig KILL \"$@\"";
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(cgroup.map_or(Path::new(""), |cgroup| &cgroup.0));
    command.args(["ip", "netns", "exec", site.namespace.name(), "unshare"]);
    command.args(["--pid", "--fork", "--kill-child", "--mount"]);
    command.args(["--cgroup", "--uts", "sh"]).arg(workspace("tests/tests/it/deploy/boot.sh"));
    command.arg(if init == Init::Systemd { "systemd" } else { "sshd" });
    command.arg(site.files.path()).arg(tool("sshd")).arg(libraries);
    // target: where the tests and their programs are.
    command.arg(tools::folder().parent().expect("target/tools"));
    let log = File::create(site.files.path().join("boot.log")).expect("a file");
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log).spawn().expect("starts")
}

/// The unified hierarchy of control groups.
fn cgroups() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc");
    let of_kind = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let folder = fields.next()?;
        (fields.next() == Some("cgroup2")).then(|| PathBuf::from(folder))
    };
    mounts.lines().find_map(of_kind).expect("cgroup2 is mounted")
}

/// Control groups are removed from the leaves up; the files in them go by themselves.
fn remove_folders(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_folders(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

fn run(command: &mut Command) {
    let output = command.output().expect("starts");
    assert!(output.status.success(), "{command:?}: {}", said(&output));
}

/// Everything that a program printed.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs to the end; exit status and what was said.
pub fn outcome(mut command: Command) -> (i32, String) {
    let output = command.output().expect("starts");
    (output.status.code().expect("an exit status"), said(&output))
}
