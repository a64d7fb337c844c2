//! Where the sockets of sessions are. They are found by the user and the process that hold a console,
//! never by the environment of who looks: sudo, su and cron have another.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno as KillErrno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, geteuid};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::process::{Process, in_first_namespace};
use crate::wire::Peer;

/// So many may wait at a door before they are let in.
const BACKLOG: i32 = 64;

/// Who answers at a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The session itself.
    Session,
    /// Its guard, for when the session does not answer.
    Guard,
}

impl Who {
    fn suffix(self) -> &'static str {
        match self {
            Self::Session => "",
            Self::Guard => ".guard",
        }
    }
}

/// A socket at which somebody can be called.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    path: PathBuf,
}

impl Listener {
    /// Makes the socket of this process, at which `who` will answer, and removes what dead sessions of
    /// the same user left.
    pub fn of_ours(who: Who) -> io::Result<Self> {
        let directory = own_directory()?;
        sweep(&directory);
        let name = name_of(Process::own_pid(), who);
        let socket = open_socket()?;
        // It is there under its name only when it listens: who is refused then is nobody.
        let private = directory.join(format!(".{name}"));
        let _ = fs::remove_file(&private);
        bind(&socket, &SocketAddrUnix::new(&private)?)?;
        listen(&socket, BACKLOG)?;
        let path = directory.join(&name);
        fs::rename(&private, &path)?;
        Ok(Self { socket, path })
    }

    /// One that another process of ours made, and passed on.
    #[must_use]
    pub fn received(socket: OwnedFd, path: PathBuf) -> Self {
        Self { socket, path }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes its name away: nobody comes any more.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Calls the session that is process `pid` of user `uid`, or its guard.
pub fn call(uid: u32, pid: i32, who: Who) -> io::Result<OwnedFd> {
    let path = directory_of(uid).join(name_of(pid, who));
    let socket = open_socket()?;
    connect(&socket, &SocketAddrUnix::new(&path)?)?;
    // Anybody could have put it there, in /tmp. The kernel knows who did. The session makes its guard's.
    if Peer::of(&socket)? == (Peer { pid, uid }) {
        Ok(socket)
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "somebody else answers in its place"))
    }
}

fn open_socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

fn name_of(pid: i32, who: Who) -> String {
    format!("{pid}{}", who.suffix())
}

/// The directory of a user's sockets.
fn directory_of(uid: u32) -> PathBuf {
    #[cfg(feature = "test-points")]
    if let Some(base) = std::env::var_os("VCONSOLE_TEST_RUNTIME") {
        return Path::new(&base).join(uid.to_string());
    }
    if uid == 0 {
        return PathBuf::from("/run/vconsole");
    }
    let of_the_login = PathBuf::from(format!("/run/user/{uid}"));
    if fs::symlink_metadata(&of_the_login).is_ok_and(|it| it.is_dir() && it.uid() == uid) {
        of_the_login.join("vconsole")
    } else {
        PathBuf::from(format!("/tmp/vconsole-{uid}"))
    }
}

/// The directory of our own sockets, made where it is missing. Nobody else may write there.
fn own_directory() -> io::Result<PathBuf> {
    let uid = geteuid().as_raw();
    let path = directory_of(uid);
    match rustix::fs::mkdir(&path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let found = fs::symlink_metadata(&path)?;
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o077 != 0 {
        let what = format!("{} is not a directory of ours alone", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    Ok(path)
}

/// Removes the sockets at which nobody answers any more.
fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let dead = match name.strip_prefix('.') {
            Some(private) => is_gone(private),
            None => is_refused(&entry.path()),
        };
        if dead {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_refused(path: &Path) -> bool {
    let tried = open_socket().and_then(|socket| connect(&socket, &SocketAddrUnix::new(path)?));
    tried == Err(Errno::CONNREFUSED)
}

/// Whether the process that made a private name is certainly gone.
fn is_gone(name: &str) -> bool {
    let pid = name.split('.').next().and_then(|pid| pid.parse().ok());
    in_first_namespace()
        && pid.is_some_and(|pid| kill(Pid::from_raw(pid), None) == Err(KillErrno::ESRCH))
}
