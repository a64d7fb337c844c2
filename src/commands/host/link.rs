//! `--link`: a symlink to the console. It replaces only a symlink of its user that leads to a PTY
//! which is gone: most likely a killed host left it there.

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::{ffi::OsString, io, os::unix::ffi::OsStrExt as _};

use anyhow::{Context as _, bail};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::geteuid;

use crate::printable::Printable;

/// Removed when dropped, if it is still ours.
pub(super) struct Link {
    name: PathBuf,
    target: PathBuf,
    inode: (u64, u64),
}

impl Link {
    /// Replaces a link that a killed host seems to have left.
    pub(super) fn make(name: &Path, console: &Path) -> anyhow::Result<Self> {
        let shown = Printable::new(name);
        let mut made = symlink(console, name);
        if made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
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
        if inode(&self.name).is_ok_and(|found| found == self.inode)
            && std::fs::read_link(&self.name).is_ok_and(|target| target == self.target)
        {
            // If this fails, the next host replaces the link.
            let _ = std::fs::remove_file(&self.name);
        }
    }
}

/// A link that a killed host left, known by its inode.
struct Leftover((u64, u64));

impl Leftover {
    /// The link must be our user's and lead to a PTY number that no other PTY has now: it leads
    /// nowhere, or to the PTY that we have just got.
    fn at(name: &Path, console: &Path) -> Option<Self> {
        let found = std::fs::symlink_metadata(name).ok()?;
        let target = std::fs::read_link(name).ok()?;
        let ours = found.is_symlink() && found.uid() == geteuid().as_raw() && is_pty(&target);
        let unused = target == console || !target.try_exists().unwrap_or(true);
        (ours && unused).then(|| Self((found.dev(), found.ino())))
    }

    /// Removes only the judged link, even if another file replaces it meanwhile: the link is first
    /// renamed to a private name, and checked again there.
    fn remove(self, name: &Path) -> io::Result<()> {
        let stash_name = stash_name(name);
        renameat_with(CWD, name, CWD, &stash_name, RenameFlags::NOREPLACE)?;
        if inode(&stash_name)? == self.0 {
            return std::fs::remove_file(&stash_name);
        }
        renameat_with(CWD, &stash_name, CWD, name, RenameFlags::NOREPLACE)?;
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

fn is_pty(target: &Path) -> bool {
    let number = target.as_os_str().as_bytes().strip_prefix(b"/dev/pts/");
    number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

fn stash_name(name: &Path) -> PathBuf {
    let mut stash_name = OsString::from(".");
    stash_name.push(name.file_name().unwrap_or_default());
    stash_name.push(format!(".vconsole-{}", std::process::id()));
    name.with_file_name(stash_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leftover_leads_nowhere_or_to_the_new_console_and_only_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("console");
        let (gone, there) = (Path::new("/dev/pts/99999999"), Path::new("/dev/pts/ptmx"));
        symlink(gone, &link).unwrap();
        assert!(Leftover::at(&link, gone).is_some());
        let leftover = Leftover::at(&link, there).unwrap();
        std::fs::rename(&link, directory.path().join("still has its inode")).unwrap();
        std::fs::write(&link, "somebody else's").unwrap();
        assert!(leftover.remove(&link).is_err());
        assert_eq!(std::fs::read(&link).unwrap(), b"somebody else's");
        std::fs::remove_file(&link).unwrap();
        symlink("/dev/null", &link).unwrap();
        assert!(Leftover::at(&link, there).is_none());
        assert!(Leftover::at(directory.path(), there).is_none());
    }
}
