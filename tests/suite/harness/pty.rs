//! A PTY pair whose master a test holds.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use super::ear::{Ear, Ends};

/// The master of a PTY, read all the time. Dropping it hangs the slave up.
pub(super) struct Pty {
    pub(super) ear: Ear,
    pub(super) master: Arc<OwnedFd>,
    pub(super) path: PathBuf,
}

impl Pty {
    /// Changes the settings of the line through its master.
    pub(super) fn sets(&self, change: impl FnOnce(&mut Termios)) {
        let mut settings = tcgetattr(&self.master).unwrap();
        change(&mut settings);
        tcsetattr(&self.master, OptionalActions::Now, &settings).unwrap();
    }

    /// Opens a pair, and gives its slave as well.
    pub(super) fn open(what: &str) -> (Self, OwnedFd) {
        // Never without CLOEXEC: a child of another test that got the master would keep it alive.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let path = PathBuf::from(OsString::from_vec(name.into_bytes()));
        fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK).unwrap();
        let master = Arc::new(master);
        let ear = Ear::on(Arc::clone(&master), format!("{what} {}", path.display()), Ends::Never);
        (Self { ear, master, path }, slave)
    }
}
