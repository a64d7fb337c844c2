//! A lock directory of a test's own.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{GLANCE, set_mode, until};

/// So often it is tried to remove one, that a guard may still be giving locks back in.
const TRIES: usize = 500;

/// A lock directory as Debian has it: everybody may write, and remove only their own (1777).
pub(crate) struct Locks {
    directory: TempDir,
}

impl Locks {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { directory: TempDir::with_prefix("vconsole-locks-").unwrap() }.mode(0o1777)
    }

    /// The same with other permissions: 0o755 is what Fedora and Arch have.
    pub(crate) fn mode(self, mode: u32) -> Self {
        set_mode(self.path(), mode);
        self
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes the lock `name`, and gives its path.
    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path
    }

    /// What the lock `name` holds, if it exists.
    pub(crate) fn read(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path().join(name)).ok()
    }

    /// The names of everything in it, hidden and half-made files as well, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into()).collect();
        names.sort();
        names
    }

    /// Nothing is in it.
    #[track_caller]
    pub(crate) fn assert_empty(&self) {
        assert_eq!(self.names(), [""; 0], "left in the lock directory");
    }

    /// Waits until nothing is in it.
    #[track_caller]
    pub(crate) fn become_empty(&self) {
        until("the lock directory is empty", || self.names().is_empty());
    }
}

impl Drop for Locks {
    /// A file that goes while the directory is removed makes that fail, and tempfile does not say so.
    fn drop(&mut self) {
        for _ in 0..TRIES {
            match std::fs::remove_dir_all(self.path()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    std::thread::sleep(GLANCE);
                }
                _ => break,
            }
        }
    }
}
