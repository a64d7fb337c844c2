//! Where the sockets of sessions are. They are found by the user and pid of the holder, never by
//! the environment of the newcomer: it is another under sudo, su and cron.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use nix::errno::Errno as KillErrno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, geteuid};
use rustix::fs::Mode;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SocketAddrUnix, bind, connect, listen};

use crate::process::{Process, in_first_namespace, namespace_beside_the_first};
use crate::seqpacket::{PeerCredentials, new_socket};
use crate::test_point;

/// Hundreds of viewers can come at once.
const BACKLOG: i32 = 512;

/// The listener on a socket: a session, or its guard in case the session does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketRole {
    Session,
    Guard,
}

#[derive(Debug)]
pub(crate) struct SessionSocket {
    socket: OwnedFd,
    path: PathBuf,
}

#[derive(Debug)]
pub(crate) struct SocketDir {
    directory: PathBuf,
}

impl SocketDir {
    /// Finds or creates it, and removes what dead sessions of the same user left there.
    pub(crate) fn of_ours() -> io::Result<Self> {
        let directory = own_directory()?;
        sweep(&directory);
        Ok(Self { directory })
    }

    /// Every path that this process may create in it.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let of = |role| [self.private(role), self.path(role)];
        let mut paths = [of(SocketRole::Session), of(SocketRole::Guard)].concat();
        paths.push(self.reader_mark());
        paths
    }

    /// Registers this session as a reader: a newcomer may take it over without `--force`.
    pub(crate) fn register_reader(self) -> io::Result<ReaderRegistration> {
        self.mark_reader()?;
        Ok(ReaderRegistration(self))
    }

    pub(crate) fn mark_reader(&self) -> io::Result<()> {
        fs::File::create(self.reader_mark()).map(drop)
    }

    pub(crate) fn unregister_reader(&self) {
        let _ = fs::remove_file(self.reader_mark());
    }

    fn reader_mark(&self) -> PathBuf {
        self.directory.join(reader_mark(Process::own_pid()))
    }

    pub(crate) fn listen(&self, role: SocketRole) -> io::Result<SessionSocket> {
        let socket = new_socket()?;
        // Named only once it listens: a socket that refuses connections is taken for a dead one.
        let private = self.private(role);
        let _ = fs::remove_file(&private);
        bind(&socket, &SocketAddrUnix::new(&private)?)?;
        listen(&socket, BACKLOG)?;
        let path = self.path(role);
        fs::rename(&private, &path)?;
        Ok(SessionSocket { socket, path })
    }

    /// A descriptor that is readable when somebody removes something from the directory.
    pub(crate) fn watch(&self) -> io::Result<OwnedFd> {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let removed = WatchFlags::DELETE | WatchFlags::MOVED_FROM;
        let wanted = removed | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        inotify::add_watch(&events, &self.directory, wanted | WatchFlags::ONLYDIR)?;
        Ok(events)
    }

    /// Whether both of our sockets still have their names.
    pub(crate) fn has_sockets(&self) -> bool {
        [SocketRole::Session, SocketRole::Guard].iter().all(|role| self.path(*role).exists())
    }

    fn path(&self, role: SocketRole) -> PathBuf {
        self.directory.join(name_of(Process::own_pid(), role))
    }

    fn private(&self, role: SocketRole) -> PathBuf {
        self.directory.join(format!(".{}", name_of(Process::own_pid(), role)))
    }
}

/// Marks this session as one that only reads, until it is dropped.
#[derive(Debug)]
pub(crate) struct ReaderRegistration(SocketDir);

impl Drop for ReaderRegistration {
    fn drop(&mut self) {
        self.0.unregister_reader();
    }
}

impl SessionSocket {
    /// A socket that another process of ours created and passed on.
    pub(crate) fn received(socket: OwnedFd, path: PathBuf) -> Self {
        Self { socket, path }
    }

    /// Removes its name, so that no more clients come.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl AsFd for SessionSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

pub(crate) fn connect_to(uid: u32, pid: i32, role: SocketRole) -> io::Result<OwnedFd> {
    let mut connected = Err(io::ErrorKind::NotFound.into());
    // The directories come and go independently of the session: any of them may have the socket.
    for directory in trusted_directories_of(uid) {
        connected = connect_at(&directory.join(name_of(pid, role)), PeerCredentials { pid, uid });
        // EAGAIN means a full backlog: this is the socket.
        if !connected.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
            break;
        }
    }
    connected
}

/// Whether a session has a socket by now.
pub(crate) fn has_socket(uid: u32, pid: i32) -> bool {
    let name = name_of(pid, SocketRole::Session);
    trusted_directories_of(uid).any(|directory| directory.join(&name).exists())
}

pub(crate) fn is_reader(uid: u32, pid: i32) -> bool {
    trusted_directories_of(uid).any(|directory| directory.join(reader_mark(pid)).exists())
}

fn connect_at(path: &Path, peer: PeerCredentials) -> io::Result<OwnedFd> {
    let socket = new_socket()?;
    let address = SocketAddrUnix::new(path)?;
    retry_on_intr(|| connect(&socket, &address))?;
    // Anybody could have created it in /tmp, but the kernel knows who. A session creates the
    // socket of its guard.
    if PeerCredentials::of(&socket)? == peer {
        Ok(socket)
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "somebody else answers in its place"))
    }
}

/// The name of the socket of the session with this pid, or of its guard. Containers that share a
/// directory such as `/tmp` use the same pids: there the name contains the pid namespace.
pub fn name_of(pid: i32, role: SocketRole) -> String {
    let namespace = namespace_beside_the_first().map(|number| format!("-{number}"));
    let suffix = if role == SocketRole::Guard { ".guard" } else { "" };
    format!("{pid}{}{suffix}", namespace.unwrap_or_default())
}

/// The file by which a session registers as one that only reads.
fn reader_mark(pid: i32) -> String {
    format!(".{}.reader", name_of(pid, SocketRole::Session))
}

/// The directories that a user's sockets can be in. The first one exists, for an ordinary user,
/// from the first login to the last logout.
fn directories_of(uid: u32) -> Vec<PathBuf> {
    if let Some(bases) = test_point::value("VCONSOLE_TEST_RUNTIME") {
        return env::split_paths(&bases).map(|base| base.join(uid.to_string())).collect();
    }
    if uid == 0 {
        return vec![PathBuf::from("/run/vconsole")];
    }
    [format!("/run/user/{uid}/vconsole"), format!("/tmp/vconsole-{uid}")].map(PathBuf::from).into()
}

/// The same, without those that another user may write to.
fn trusted_directories_of(uid: u32) -> impl Iterator<Item = PathBuf> {
    directories_of(uid).into_iter().filter(move |directory| is_of(directory, uid))
}

/// Finds or creates the directory for our own sockets. Nobody else may write to it.
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

/// Whether this is a directory that only this user may use.
fn is_of(path: &Path, uid: u32) -> bool {
    let others = Mode::RWXG.union(Mode::RWXO);
    fs::symlink_metadata(path).is_ok_and(|it| {
        it.is_dir() && it.uid() == uid && !Mode::from_raw_mode(it.mode()).intersects(others)
    })
}

/// Removes the sockets of dead processes.
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
    let Ok(address) = SocketAddrUnix::new(path) else { return false };
    let connected = new_socket().and_then(|socket| retry_on_intr(|| connect(&socket, &address)));
    connected == Err(Errno::CONNREFUSED)
}

/// Whether the process of a private name is gone. Unknown, so false, in another pid namespace.
fn is_gone(name: &str) -> bool {
    let pid = name.split('.').next().and_then(|pid| pid.parse().ok());
    in_first_namespace()
        && pid.is_some_and(|pid| kill(Pid::from_raw(pid), None) == Err(KillErrno::ESRCH))
}
