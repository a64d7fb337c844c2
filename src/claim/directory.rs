//! A directory of lock files. All that is done in it is done below its own descriptor, to names in it
//! and never through a link out of it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::iter;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use super::LockPlace;
use super::lock_file::{Contents, Inode, LONGEST, LockFile, contents_for, not_a_file};
use crate::process::Process;

/// Where the system's lock files are: the first of these that exists.
const SYSTEM: [&str; 2] = ["/var/lock", "/run/lock"];

/// A packager's choice instead: `VCONSOLE_DEFAULT_LOCK_DIR=/some/dir cargo build`.
const BUILT_IN: Option<&str> = option_env!("VCONSOLE_DEFAULT_LOCK_DIR");

/// Red Hat's lockdev keeps its own in this directory of that one.
const LOCKDEV: &str = "lockdev";

/// The mode of lock files, whatever the umask is: everybody must be able to see who holds a console.
const LOCK_FILE_MODE: Mode = Mode::from_raw_mode(0o644);

/// An open directory of lock files.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    handle: OwnedFd,
}

/// A lock file with its full content, that has no lock file's name yet. Its names are links to it, so
/// that no name is ever half there.
#[derive(Debug)]
pub(super) struct Prepared {
    file: OwnedFd,
    pub(super) inode: Inode,
    /// Its private name, where the filesystem has no files without a name.
    pub(super) private: Option<OsString>,
}

impl Prepared {
    fn write(&self, contents: &[u8]) -> io::Result<()> {
        rustix::fs::fchmod(&self.file, LOCK_FILE_MODE)?;
        if rustix::io::write(&self.file, contents)? == contents.len() {
            Ok(())
        } else {
            // A few bytes fit, and no more.
            Err(io::ErrorKind::StorageFull.into())
        }
    }
}

impl LockPlace {
    /// The lock directory, whether it is there or not.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Directory(path) => path.clone(),
            Self::Auto => {
                let candidates = BUILT_IN.map_or(SYSTEM.to_vec(), |built_in| vec![built_in]);
                let found = candidates.iter().find(|path| Path::new(path).is_dir());
                PathBuf::from(found.unwrap_or(&candidates[0]))
            }
        }
    }
}

impl Directory {
    /// Opens the directories that `place` means, the main one first, or says which one cannot be
    /// opened and why.
    pub(super) fn open_all(place: &LockPlace) -> Result<Vec<Self>, (PathBuf, io::Error)> {
        let path = place.path();
        let main = Self::open(&path).map_err(|error| (path, error))?;
        let lockdev = main.lockdev();
        Ok([Some(main), lockdev].into_iter().flatten().collect())
    }

    /// The directory of lockdev in this one. Where everybody may write here, somebody could have made
    /// it, or a link in its place, to have lock files made and removed elsewhere: it must belong to root
    /// or to whom this one belongs.
    fn lockdev(&self) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(&self.handle, LOCKDEV, flags, Mode::empty()).ok()?;
        let owner = rustix::fs::fstat(&handle).ok()?.st_uid;
        let trusted = owner == 0 || owner == rustix::fs::fstat(&self.handle).ok()?.st_uid;
        trusted.then(|| Self { path: self.path.join(LOCKDEV), handle })
    }

    /// One that another process opened, and passed on.
    pub(super) fn received(handle: OwnedFd) -> Self {
        Self { path: PathBuf::new(), handle }
    }

    fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { path: path.to_path_buf(), handle })
    }

    /// The directory that its path leads to by now, if that is another one. An error where there is none,
    /// or one of somebody whom this one did not belong to.
    pub(super) fn replacement(&self) -> io::Result<Option<Self>> {
        let before = rustix::fs::fstat(&self.handle)?;
        // Not opened at once: a want of descriptors says nothing of it.
        if Inode::of(&rustix::fs::stat(&self.path)?) == Inode::of(&before) {
            return Ok(None);
        }
        let mut flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // As it was found: see `lockdev`.
        flags.set(OFlags::NOFOLLOW, self.path.file_name() == Some(OsStr::new(LOCKDEV)));
        let handle = rustix::fs::open(&self.path, flags, Mode::empty())?;
        let owner = rustix::fs::fstat(&handle)?.st_uid;
        if owner != 0 && owner != before.st_uid {
            let why = "it belongs to another user now";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Ok(Some(Self { path: self.path.clone(), handle }))
    }

    /// The names of all files in it.
    pub(super) fn list(&self) -> io::Result<Vec<OsString>> {
        use std::os::unix::ffi::OsStringExt as _;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&self.handle, ".", flags, Mode::empty())?;
        let entries = Dir::read_from(&directory)?;
        entries
            .map(|entry| Ok(OsString::from_vec(entry?.file_name().to_bytes().to_vec())))
            .collect()
    }

    /// Looks at the lock file called `name`, if there is one.
    pub(super) fn look(&self, name: &OsStr) -> io::Result<Option<LockFile>> {
        let file = match self.stat(name) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        // A fifo or a device would notice being opened, and a link leads elsewhere.
        if let Some(what) = not_a_file(&file) {
            return Ok(Some(LockFile::new(&file, Contents::NotAFile(what), None)));
        }
        // Should it have become one of those since: neither followed nor waited for.
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = match rustix::fs::openat(&self.handle, name, flags, Mode::empty()) {
            Ok(open) => open,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::ACCESS | Errno::PERM | Errno::LOOP) => {
                return Ok(Some(LockFile::new(&file, Contents::Unreadable, None)));
            }
            // Out of descriptors or memory: that says nothing of the lock.
            Err(errno) => return Err(errno.into()),
        };
        let file = rustix::fs::fstat(&open)?;
        let contents = match (not_a_file(&file), read_head(&open)) {
            (Some(what), _) => Contents::NotAFile(what),
            (None, Err(_)) => Contents::Unreadable,
            (None, Ok(head)) if head.len() > LONGEST => Contents::Garbage,
            (None, Ok(head)) => Contents::parse(&head),
        };
        Ok(Some(LockFile::new(&file, contents, Some(open))))
    }

    fn stat(&self, name: &OsStr) -> rustix::io::Result<Stat> {
        rustix::fs::statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Whether `name` still means this file.
    pub(super) fn has(&self, name: &OsStr, inode: Inode) -> bool {
        self.stat(name).is_ok_and(|file| Inode::of(&file) == inode)
    }

    /// Writes a lock file that has no name yet.
    pub(super) fn prepare(&self) -> io::Result<Prepared> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let (file, private) = match rustix::fs::openat(&self.handle, ".", flags, LOCK_FILE_MODE) {
            // It gets its names by way of /proc.
            Ok(_) if !Path::new("/proc/self/fd").is_dir() => self.create_private()?,
            Ok(file) => (file, None),
            // The filesystem, or a kernel before 3.11, has no files without a name (open(2)).
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => self.create_private()?,
            Err(errno) => return Err(errno.into()),
        };
        let inode = Inode::of(&rustix::fs::fstat(&file)?);
        let prepared = Prepared { file, inode, private };
        match prepared.write(contents_for(Process::own_pid()).as_bytes()) {
            Ok(()) => Ok(prepared),
            Err(error) => {
                if let Some(private) = &prepared.private {
                    self.remove_aside(private);
                }
                Err(error)
            }
        }
    }

    fn create_private(&self) -> io::Result<(OwnedFd, Option<OsString>)> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let name = self.free_private_name();
        let file = rustix::fs::openat(&self.handle, &name, flags, LOCK_FILE_MODE)?;
        Ok((file, Some(name)))
    }

    /// A private name that no file has yet: a process of the same number in another pid namespace can
    /// have left some.
    pub(super) fn free_private_name(&self) -> OsString {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let next = || COUNT.fetch_add(1, Ordering::Relaxed);
        let names = iter::repeat_with(|| private_names(Process::own_pid()) + &next().to_string());
        let mut free = names.map(OsString::from).filter(|name| self.stat(name).is_err());
        free.next().unwrap_or_default()
    }

    /// Gives the prepared file this name as well. Fails with `EEXIST` if the name is taken.
    pub(super) fn link(&self, prepared: &Prepared, name: &OsStr) -> io::Result<()> {
        if let Some(private) = &prepared.private {
            match rustix::fs::linkat(&self.handle, private, &self.handle, name, AtFlags::empty()) {
                // Once a claim stands that name is gone, and the file has others.
                Err(Errno::NOENT) => {}
                done => return Ok(done?),
            }
        }
        // open(2), O_TMPFILE: the way that needs no capability.
        let file = format!("/proc/self/fd/{}", prepared.file.as_fd().as_raw_fd());
        Ok(rustix::fs::linkat(CWD, file, &self.handle, name, AtFlags::SYMLINK_FOLLOW)?)
    }

    /// Gives the prepared file the name of `old`, without a moment in which nobody has the name. Gives
    /// false if the name means another file by now, or none.
    pub(super) fn replace(
        &self,
        prepared: &Prepared,
        name: &OsStr,
        old: Inode,
    ) -> io::Result<bool> {
        let private = self.free_private_name();
        self.link(prepared, &private)?;
        if !self.has(name, old) {
            self.remove_aside(&private);
            return Ok(false);
        }
        match rustix::fs::renameat(&self.handle, &private, &self.handle, name) {
            Ok(()) => Ok(true),
            Err(errno) => {
                self.remove_aside(&private);
                Err(errno.into())
            }
        }
    }

    /// Takes `name` away from the file that it means, if that is still `inode`, and gives the file the
    /// private name `aside` instead. Gives false if the name means another file by now, or none.
    ///
    /// The name itself is never unlinked: what it means could be another's lock by then.
    pub(super) fn set_aside(&self, name: &OsStr, inode: Inode, aside: &OsStr) -> io::Result<bool> {
        if !self.has(name, inode) {
            return Ok(false);
        }
        match rustix::fs::renameat(&self.handle, name, &self.handle, aside) {
            Ok(()) if self.has(aside, inode) => Ok(true),
            Ok(()) => {
                // Another's, that came in between. If even another has the name now, nobody loses a
                // lock that still counts.
                let _ = self.put_back(aside, name);
                Ok(false)
            }
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Gives a file that was set aside its name again. Fails with `EEXIST` if another file has that by
    /// now.
    pub(super) fn put_back(&self, aside: &OsStr, name: &OsStr) -> rustix::io::Result<()> {
        let here = &self.handle;
        match rustix::fs::renameat_with(here, aside, here, name, RenameFlags::NOREPLACE) {
            // The filesystem has no such renaming (NFS): a link never replaces either.
            Err(Errno::INVAL | Errno::NOSYS) => {
                rustix::fs::linkat(here, aside, here, name, AtFlags::empty())?;
                rustix::fs::unlinkat(here, aside, AtFlags::empty())
            }
            other => other,
        }
    }

    /// Removes a file that was set aside. Gives false if it could not be removed, as a directory that
    /// is not empty.
    pub(super) fn remove_aside(&self, aside: &OsStr) -> bool {
        let removed = match rustix::fs::unlinkat(&self.handle, aside, AtFlags::empty()) {
            Err(Errno::ISDIR) => rustix::fs::unlinkat(&self.handle, aside, AtFlags::REMOVEDIR),
            other => other,
        };
        removed.is_ok()
    }
}

/// Whether `name` is a private name of process `pid`.
pub(super) fn is_private_name_of(pid: i32, name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(private_names(pid).as_bytes())
}

/// How the private names of a process begin: no lock file's for anybody, and nobody else's.
pub(super) fn private_names(pid: i32) -> String {
    format!(".vconsole.{pid}.")
}

/// Reads one byte more than a lock file is read of, if there are so many.
fn read_head(file: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut head = vec![0; LONGEST + 1];
    let count = rustix::io::pread(file, &mut head, 0)?;
    head.truncate(count);
    Ok(head)
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}
