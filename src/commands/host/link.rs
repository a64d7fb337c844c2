//! `--link`: a symlink to the console, which replaces nothing but a symlink of its user's that leads to a
//! PTY which is gone: most likely what a host that was killed left there.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::geteuid;

use crate::printable::Printable;

/// A symlink that we made. It is removed when this is dropped, if it is still ours.
#[derive(Debug)]
pub(super) struct Link {
    name: PathBuf,
    target: PathBuf,
    inode: (u64, u64),
}

impl Link {
    /// Makes the symlink `name` to `console`. What seems to be left of a host that was killed is replaced.
    pub(super) fn make(name: &Path, console: &Path) -> anyhow::Result<Self> {
        let shown = Printable::new(name);
        let mut made = symlink(console, name);
        if is_taken(&made) {
            let Some(leftover) = Leftover::at(name, console) else {
                bail!(
                    "{shown} exists, and is no link that an ended `vconsole host` left behind\n\
                     hint: remove it, or give --link another name"
                );
            };
            leftover.remove(name).with_context(|| format!("cannot replace the link {shown}"))?;
            made = symlink(console, name);
        }
        made.with_context(|| format!("cannot make the link {shown}"))?;
        let inode = inode(name).with_context(|| format!("cannot find the link {shown} again"))?;
        Ok(Self { name: name.into(), target: console.into(), inode })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let same = inode(&self.name).is_ok_and(|found| found == self.inode)
            && std::fs::read_link(&self.name).is_ok_and(|target| target == self.target);
        if same {
            // If it cannot be removed there is nobody left to tell; the next host replaces it.
            let _ = std::fs::remove_file(&self.name);
        }
    }
}

/// A link as a host leaves it that could not remove it, known by its inode.
struct Leftover((u64, u64));

impl Leftover {
    /// The link `name`, if it is our user's, leads to a PTY and no other PTY has that number now:
    /// either it leads nowhere, or to the one that we have just been given.
    fn at(name: &Path, console: &Path) -> Option<Self> {
        let found = std::fs::symlink_metadata(name).ok()?;
        let target = std::fs::read_link(name).ok()?;
        let ours = found.is_symlink() && found.uid() == geteuid().as_raw() && is_pty(&target);
        (ours && (target == console || !exists(&target))).then(|| Self((found.dev(), found.ino())))
    }

    /// Removes it: only what was judged, even if somebody puts something else there meanwhile. So it
    /// is first taken out of the way, and looked at again where nobody else is.
    fn remove(self, name: &Path) -> io::Result<()> {
        let aside = aside(name);
        renameat_with(CWD, name, CWD, &aside, RenameFlags::NOREPLACE)?;
        if inode(&aside)? == self.0 {
            return std::fs::remove_file(&aside);
        }
        renameat_with(CWD, &aside, CWD, name, RenameFlags::NOREPLACE)?;
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

fn is_taken(made: &io::Result<()>) -> bool {
    made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
}

/// Whether `target` is `/dev/pts/` and a number.
fn is_pty(target: &Path) -> bool {
    let number = target.as_os_str().as_bytes().strip_prefix(b"/dev/pts/");
    number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

/// Whether there is anything; also when that cannot be told.
fn exists(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// A name beside `name` that only this process uses.
fn aside(name: &Path) -> PathBuf {
    let mut aside = OsString::from(".");
    aside.push(name.file_name().unwrap_or_default());
    aside.push(format!(".vconsole-{}", std::process::id()));
    name.with_file_name(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leftover_leads_nowhere_or_to_the_console_that_is_new() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("console");
        let gone = Path::new("/dev/pts/99999999");
        let there = Path::new("/dev/pts/ptmx");
        symlink(gone, &link).unwrap();
        assert!(Leftover::at(&link, there).is_some());
        assert!(Leftover::at(&link, gone).is_some());
        std::fs::remove_file(&link).unwrap();
        symlink("/dev/null", &link).unwrap();
        assert!(Leftover::at(&link, there).is_none());
        assert!(Leftover::at(directory.path(), there).is_none());
    }

    #[test]
    fn only_what_was_judged_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("console");
        symlink("/dev/pts/99999999", &link).unwrap();
        let leftover = Leftover::at(&link, Path::new("/dev/pts/0")).unwrap();
        std::fs::rename(&link, directory.path().join("still has its inode")).unwrap();
        std::fs::write(&link, "somebody else's").unwrap();
        assert!(leftover.remove(&link).is_err());
        assert_eq!(std::fs::read(&link).unwrap(), b"somebody else's");
    }
}
