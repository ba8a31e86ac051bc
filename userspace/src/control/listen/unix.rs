//! A Unix socket that one process at a time can have, and that is never seen half made.
#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use super::ServeError;

/// Owner and group may talk to the socket, nobody else.
const SOCKET_MODE: u32 = 0o660;

/// A socket's file, removed when dropped if it is still the one we made; and the lock that makes it ours.
#[derive(Debug)]
pub(in crate::control) struct SocketFile {
    path: PathBuf,
    inode: u64,
    _lock: Lock,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds a Unix socket. A file that a killed process left is replaced; one that somebody listens on is not.
///
/// The socket is made under another name and renamed, so that nobody finds it with the wrong mode, and there is no moment
/// without one where a stale one was.
pub(super) fn bind(path: &Path) -> Result<(UnixListener, SocketFile), ServeError> {
    let failed = |source| refusal(path, source);
    let directory = path.parent().unwrap_or(Path::new("/"));
    match DirBuilder::new().mode(0o755).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    if fs::symlink_metadata(path).is_ok_and(|file| !file.file_type().is_socket()) {
        return Err(ServeError::NotASocket { path: path.to_owned() });
    }
    let lock = Lock::take(path)?;
    // Who listens without our lock is no feed handler, or one whose lock file was removed.
    if somebody_listens(path).map_err(failed)? {
        return Err(in_use(path, format!("`ss -lxp src {}`", path.display())));
    }
    // Short, because the kernel takes 107 bytes for all; ours alone, because we have the lock.
    let unfinished = directory.join(format!(".{:x}", std::process::id()));
    let make = || -> io::Result<(UnixListener, u64)> {
        let _ = fs::remove_file(&unfinished);
        let listener = UnixListener::bind(&unfinished)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(&unfinished, Permissions::from_mode(SOCKET_MODE))?;
        let inode = fs::metadata(&unfinished)?.ino();
        fs::rename(&unfinished, path)?;
        Ok((listener, inode))
    };
    let (listener, inode) = make().map_err(|error| {
        let _ = fs::remove_file(&unfinished);
        failed(error)
    })?;
    Ok((listener, SocketFile { path: path.to_owned(), inode, _lock: lock }))
}

/// An exclusive lock on `<path>.lock`, which holds the pid of its owner. The kernel takes it from a process that dies.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(socket: &Path) -> Result<Self, ServeError> {
        let mut name = socket.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let failed = |source| refusal(socket, source);
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o644).custom_flags(libc::O_NOFOLLOW);
            let mut file = options.open(&path).map_err(failed)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    let mut pid = String::new();
                    let _ = file.read_to_string(&mut pid);
                    return Err(in_use(socket, format!("`ps -p {}`", pid.trim())));
                }
                Err(error) => return Err(failed(error.into())),
            }
            // The owner before us removes the file when it ends: what we locked may have no name any more.
            let inode = file.metadata().map_err(failed)?.ino();
            if fs::metadata(&path).is_ok_and(|named| named.ino() == inode) {
                file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still locked: whoever opens it now sees, once it has the lock, that the name is gone.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether a connection finds somebody. Never waits: a full backlog counts as somebody.
fn somebody_listens(path: &Path) -> io::Result<bool> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock => Ok(true),
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => Ok(false),
            _ => Err(error),
        },
    }
}

fn in_use(path: &Path, hint: String) -> ServeError {
    ServeError::InUse { key: "grpc", address: address(path), hint }
}

fn refusal(path: &Path, source: io::Error) -> ServeError {
    let directory = path.parent().unwrap_or(Path::new("/")).display();
    let remedy = match source.kind() {
        ErrorKind::NotFound => format!("make its directory: `mkdir -p {directory}`"),
        ErrorKind::PermissionDenied => {
            format!("start as root, or give this user its directory: `install -d -o USER {directory}`")
        }
        _ => "configure another path".to_owned(),
    };
    ServeError::Listen { key: "grpc", address: address(path), source, remedy }
}

fn address(path: &Path) -> String {
    format!("unix:{}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_by_the_system_says_what_to_do() {
        let says = |kind: ErrorKind| refusal(Path::new("/run/x/control.sock"), kind.into()).to_string();
        assert!(says(ErrorKind::PermissionDenied).ends_with("`install -d -o USER /run/x`"));
        assert!(says(ErrorKind::NotFound).ends_with("`mkdir -p /run/x`"));
    }

    #[test]
    fn of_many_at_once_one_gets_the_socket_and_nothing_is_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        for _ in 0..50 {
            let barrier = std::sync::Barrier::new(4);
            let all: Vec<_> = std::thread::scope(|scope| {
                let one = || {
                    barrier.wait();
                    bind(&path)
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let won = all.iter().filter(|result| result.is_ok()).count();
            assert_eq!(won, 1, "{all:?}");
            assert!(all.iter().flatten().all(|(_, file)| fs::metadata(&path).unwrap().ino() == file.inode));
            assert!(somebody_listens(&path).unwrap(), "the winner's socket is the one that is found");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_full_backlog_is_somebody_and_does_not_hang() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let deaf = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        deaf.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        deaf.listen(0).unwrap();
        let mut waiting = Vec::new();
        for _ in 0..3 {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            let _ = client.connect(&SockAddr::unix(&path).unwrap());
            waiting.push(client);
        }
        assert!(matches!(bind(&path), Err(ServeError::InUse { .. })));
    }
}
