//! A directory of lock files, used through its own descriptor: no operation follows a link out of
//! it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{io, iter};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use crate::locks::file::{Contents, Inode, LONGEST, LockFile, contents_for, not_a_file};
use crate::process::Process;

/// The system's lock directory is the first of these that exists.
const SYSTEM: [&str; 2] = ["/var/lock", "/run/lock"];

/// A packager's choice: `VCONSOLE_DEFAULT_LOCK_DIR=/some/dir cargo build`.
const BUILT_IN: Option<&str> = option_env!("VCONSOLE_DEFAULT_LOCK_DIR");

const LOCKDEV: &str = "lockdev";

/// Independent of the umask: everybody must be able to see the holder of a console.
const LOCK_FILE_MODE: Mode = Mode::from_raw_mode(0o644);

pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    handle: OwnedFd,
}

/// A complete lock file without a lock name. The lock names are links to it, so that no name ever
/// has an incomplete file.
pub(crate) struct Prepared {
    file: OwnedFd,
    pub(crate) inode: Inode,
    /// Its private name, where the filesystem has no files without a name.
    pub(crate) private: Option<OsString>,
}

impl Prepared {
    fn write(&self, contents: &[u8]) -> io::Result<()> {
        rustix::fs::fchmod(&self.file, LOCK_FILE_MODE)?;
        let complete = rustix::io::write(&self.file, contents)? == contents.len();
        if complete { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LockPlace {
    Auto,
    Directory(PathBuf),
}

impl From<OsString> for LockPlace {
    fn from(text: OsString) -> Self {
        let auto = text.is_empty() || text == "auto";
        if auto { Self::Auto } else { Self::Directory(text.into()) }
    }
}

impl LockPlace {
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Directory(path) => path.clone(),
            Self::Auto => {
                let all = BUILT_IN.map_or(SYSTEM.to_vec(), |built_in| vec![built_in]);
                let found = all.iter().find(|path| Path::new(path).is_dir());
                found.unwrap_or(&all[0]).into()
            }
        }
    }
}

impl Directory {
    /// Opens the main directory and that of lockdev, or returns the path of the one that failed.
    pub(crate) fn open_all(dir: &LockPlace) -> Result<Vec<Self>, (PathBuf, io::Error)> {
        let path = dir.path();
        let main = Self::open(&path).map_err(|error| (path, error))?;
        let lockdev = main.lockdev();
        Ok([Some(main), lockdev].into_iter().flatten().collect())
    }

    /// Where everybody may write, a user could create this directory, or a link, to have files
    /// removed elsewhere: it must belong to root or to the owner of the parent.
    fn lockdev(&self) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(&self.handle, LOCKDEV, flags, Mode::empty()).ok()?;
        let owner = rustix::fs::fstat(&handle).ok()?.st_uid;
        let trusted = owner == 0 || owner == rustix::fs::fstat(&self.handle).ok()?.st_uid;
        trusted.then(|| Self { path: self.path.join(LOCKDEV), handle })
    }

    pub(crate) fn received(handle: OwnedFd) -> Self {
        Self { path: PathBuf::new(), handle }
    }

    fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { path: path.to_path_buf(), handle })
    }

    pub(crate) fn is_in_place(&self) -> bool {
        let inode = |file: rustix::io::Result<Stat>| file.map(|file| Inode::of(&file));
        inode(rustix::fs::stat(&self.path)) == inode(rustix::fs::fstat(&self.handle))
    }

    pub(crate) fn list(&self) -> io::Result<Vec<OsString>> {
        use std::os::unix::ffi::OsStringExt as _;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&self.handle, ".", flags, Mode::empty())?;
        let entries = Dir::read_from(&directory)?;
        entries
            .map(|entry| Ok(OsString::from_vec(entry?.file_name().to_bytes().to_vec())))
            .collect()
    }

    pub(crate) fn look(&self, name: &OsStr) -> io::Result<Option<LockFile>> {
        let file = match self.stat(name) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        // A fifo or a device would notice being opened, and a link leads elsewhere.
        if let Some(what) = not_a_file(&file) {
            return Ok(Some(LockFile::new(&file, Contents::NotAFile(what), None)));
        }
        // If the file was replaced by a link or a fifo since, this neither follows nor waits.
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = match rustix::fs::openat(&self.handle, name, flags, Mode::empty()) {
            Ok(open) => open,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::ACCESS | Errno::PERM | Errno::LOOP) => {
                return Ok(Some(LockFile::new(&file, Contents::Unreadable, None)));
            }
            // A lack of descriptors or memory says nothing about the lock.
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

    pub(crate) fn has(&self, name: &OsStr, inode: Inode) -> bool {
        self.stat(name).is_ok_and(|file| Inode::of(&file) == inode)
    }

    pub(crate) fn prepare(&self) -> io::Result<Prepared> {
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
        let written = prepared.write(contents_for(Process::own_pid()).as_bytes());
        if let (Err(_), Some(private)) = (&written, &prepared.private) {
            self.remove_stashed(private);
        }
        written.map(|()| prepared)
    }

    fn create_private(&self) -> io::Result<(OwnedFd, Option<OsString>)> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let name = self.free_private_name();
        let file = rustix::fs::openat(&self.handle, &name, flags, LOCK_FILE_MODE)?;
        Ok((file, Some(name)))
    }

    /// A process with the same pid in another pid namespace may have left such names.
    pub(crate) fn free_private_name(&self) -> OsString {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let next = || COUNT.fetch_add(1, Ordering::Relaxed);
        let names = iter::repeat_with(|| private_names(Process::own_pid()) + &next().to_string());
        let mut free = names.map(OsString::from).filter(|name| self.stat(name).is_err());
        free.next().unwrap_or_default()
    }

    pub(crate) fn link(&self, prepared: &Prepared, name: &OsStr) -> io::Result<()> {
        if let Some(private) = &prepared.private {
            match rustix::fs::linkat(&self.handle, private, &self.handle, name, AtFlags::empty()) {
                // Once a claim stands the private name is gone, and the file has other names.
                Err(Errno::NOENT) => {}
                done => return Ok(done?),
            }
        }
        // open(2), O_TMPFILE: the way that needs no capability.
        let file = format!("/proc/self/fd/{}", prepared.file.as_fd().as_raw_fd());
        Ok(rustix::fs::linkat(CWD, file, &self.handle, name, AtFlags::SYMLINK_FOLLOW)?)
    }

    /// Gives the prepared file the name of `old`, without a moment in which nobody has the name.
    /// Returns false if the name no longer means `old`.
    pub(crate) fn replace(
        &self,
        prepared: &Prepared,
        name: &OsStr,
        old: Inode,
    ) -> io::Result<bool> {
        let private = self.free_private_name();
        self.link(prepared, &private)?;
        let means_old = self.has(name, old);
        let rename = || rustix::fs::renameat(&self.handle, &private, &self.handle, name);
        let renamed = if means_old { rename() } else { Ok(()) };
        if !means_old || renamed.is_err() {
            self.remove_stashed(&private);
        }
        Ok(renamed.map(|()| means_old)?)
    }

    /// Gives the file `inode` the private name `stashed` instead of `name`. Returns false if `name`
    /// no longer means that file. `name` is never unlinked: it could mean another's lock by then.
    pub(crate) fn stash(&self, name: &OsStr, inode: Inode, stashed: &OsStr) -> io::Result<bool> {
        if !self.has(name, inode) {
            return Ok(false);
        }
        match rustix::fs::renameat(&self.handle, name, &self.handle, stashed) {
            Ok(()) if self.has(stashed, inode) => Ok(true),
            Ok(()) => {
                // Another's lock came in between. If a third process has the name now, no valid
                // lock is lost.
                let _ = self.unstash(stashed, name);
                Ok(false)
            }
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Gives a stashed file its name again. Fails with `EEXIST` if another file has the name.
    pub(crate) fn unstash(&self, stashed: &OsStr, name: &OsStr) -> rustix::io::Result<()> {
        let here = &self.handle;
        match rustix::fs::renameat_with(here, stashed, here, name, RenameFlags::NOREPLACE) {
            // A filesystem without this flag (NFS): a link never replaces a file either.
            Err(Errno::INVAL | Errno::NOSYS) => {
                rustix::fs::linkat(here, stashed, here, name, AtFlags::empty())?;
                rustix::fs::unlinkat(here, stashed, AtFlags::empty())
            }
            other => other,
        }
    }

    /// Returns false if the file could not be removed, such as a directory that is not empty.
    pub(crate) fn remove_stashed(&self, stashed: &OsStr) -> bool {
        let remove = |flags| rustix::fs::unlinkat(&self.handle, stashed, flags);
        match remove(AtFlags::empty()) {
            Err(Errno::ISDIR) => remove(AtFlags::REMOVEDIR).is_ok(),
            removed => removed.is_ok(),
        }
    }
}

/// The private names of a process begin with this, and no lock name does.
pub(crate) fn private_names(pid: i32) -> String {
    format!(".vconsole.{pid}.")
}

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
