//! Where the sockets of sessions are. They are found by the user and the process that hold a console,
//! never by the environment of who looks: sudo, su and cron have another.

use std::env;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno as KillErrno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, geteuid};
use rustix::fs::Mode;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::process::{Process, in_first_namespace, namespace_beside_the_first};
use crate::test_point;
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

/// Where the sockets of this process are going to be.
#[derive(Debug)]
pub struct Site {
    directory: PathBuf,
}

impl Site {
    /// Finds it, and removes what dead sessions of the same user left there.
    pub fn of_ours() -> io::Result<Self> {
        let directory = own_directory()?;
        sweep(&directory);
        Ok(Self { directory })
    }

    /// All the names that are made there.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        let of = |who| [self.private(who), self.path(who)];
        [of(Who::Session), of(Who::Guard)].concat()
    }

    /// Makes the socket at which `who` will answer.
    pub fn listen(&self, who: Who) -> io::Result<Listener> {
        let socket = open_socket()?;
        // It is there under its name only when it listens: who is refused then is nobody.
        let private = self.private(who);
        let _ = fs::remove_file(&private);
        bind(&socket, &SocketAddrUnix::new(&private)?)?;
        listen(&socket, BACKLOG)?;
        let path = self.path(who);
        fs::rename(&private, &path)?;
        Ok(Listener { socket, path })
    }

    fn path(&self, who: Who) -> PathBuf {
        self.directory.join(name_of(Process::own_pid(), who))
    }

    fn private(&self, who: Who) -> PathBuf {
        self.directory.join(format!(".{}", name_of(Process::own_pid(), who)))
    }
}

impl Listener {
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
    let mut called = Err(io::ErrorKind::NotFound.into());
    // It may have been made before the first of them was there, or the first went away meanwhile.
    for directory in directories_of(uid).iter().filter(|it| is_of(it, uid)) {
        called = call_at(&directory.join(name_of(pid, who)), Peer { pid, uid });
        // There is one, and it has no time for us.
        if !called.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
            break;
        }
    }
    called
}

fn call_at(path: &Path, peer: Peer) -> io::Result<OwnedFd> {
    let socket = open_socket()?;
    let address = SocketAddrUnix::new(path)?;
    retry_on_intr(|| connect(&socket, &address))?;
    // Anybody could have put it there, in /tmp. The kernel knows who did. The session makes its guard's.
    if Peer::of(&socket)? == peer {
        Ok(socket)
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "somebody else answers in its place"))
    }
}

fn open_socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// The name of the socket of the session that is process `pid` here, or of its guard. Where containers share
/// a directory, as `/tmp`, each has processes of the same numbers: who is in one says in which.
#[must_use]
pub fn name_of(pid: i32, who: Who) -> String {
    let namespace = namespace_beside_the_first().map(|number| format!("-{number}"));
    format!("{pid}{}{}", namespace.unwrap_or_default(), who.suffix())
}

/// Where a user's sockets can be: the first for as long as it is there, which for an ordinary user is from
/// the first login to the last logout.
fn directories_of(uid: u32) -> Vec<PathBuf> {
    if let Some(bases) = test_point::value("VCONSOLE_TEST_RUNTIME") {
        return env::split_paths(&bases).map(|base| base.join(uid.to_string())).collect();
    }
    if uid == 0 {
        return vec![PathBuf::from("/run/vconsole")];
    }
    [format!("/run/user/{uid}/vconsole"), format!("/tmp/vconsole-{uid}")].map(PathBuf::from).into()
}

/// The directory of our own sockets, made where it is missing. Nobody else may write there.
fn own_directory() -> io::Result<PathBuf> {
    let uid = geteuid().as_raw();
    let mut made = Err(io::ErrorKind::NotFound.into());
    for path in directories_of(uid) {
        made = make(path, uid);
        if made.is_ok() {
            break;
        }
    }
    made
}

fn make(path: PathBuf, uid: u32) -> io::Result<PathBuf> {
    match rustix::fs::mkdir(&path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    if !is_of(&path, uid) {
        let what = format!("{} is not a directory of ours alone", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    Ok(path)
}

/// Whether it is a directory of that user alone.
fn is_of(path: &Path, uid: u32) -> bool {
    let others = Mode::RWXG.union(Mode::RWXO);
    fs::symlink_metadata(path).is_ok_and(|it| {
        it.is_dir() && it.uid() == uid && !Mode::from_raw_mode(it.mode()).intersects(others)
    })
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
    let tried = open_socket().and_then(|socket| {
        let address = SocketAddrUnix::new(path)?;
        retry_on_intr(|| connect(&socket, &address))
    });
    tried == Err(Errno::CONNREFUSED)
}

/// Whether the process that made a private name is certainly gone. One of another pid namespace is not known.
fn is_gone(name: &str) -> bool {
    let pid = name.split('.').next().and_then(|pid| pid.parse().ok());
    in_first_namespace()
        && pid.is_some_and(|pid| kill(Pid::from_raw(pid), None) == Err(KillErrno::ESRCH))
}
