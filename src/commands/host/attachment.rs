//! `host --attach`: the session that host starts on its own console.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::child::Child;
use crate::exit_status::ExitStatus;

/// How long a session has to end by itself, and then after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(2);

/// A `vconsole attach` on the user's terminal. It is in our process group, so that it is in the
/// foreground when we are. The console must be gone when this is dropped: what is waited for then is
/// the end of the session, since until then the terminal is not the user's again.
pub(super) struct Attachment(Child);

impl Attachment {
    /// Starts this program again, to attach to `console`.
    pub(super) fn start(console: &Path) -> io::Result<Self> {
        let mut attach = Command::new(this_program());
        // Whatever file that is, a user looks for this name in the list of processes.
        attach.arg0("vconsole").arg("attach").arg(console);
        Ok(Self(Child::start(&mut attach)?))
    }

    /// The descriptor that is readable when it ended; none when that is known.
    pub(super) fn end(&self) -> Option<BorrowedFd<'_>> {
        self.0.end()
    }

    /// How it ended, if it did.
    pub(super) fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.status()
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // There is nobody to tell of errors.
        if let Ok(None) = self.0.wait(PATIENCE) {
            self.0.signal(Signal::TERM);
            self.0.signal(Signal::CONT);
            let _ = self.0.wait(PATIENCE);
        }
    }
}

/// The file we were started from, or where that was removed or replaced meanwhile what is left of it.
fn this_program() -> PathBuf {
    let file = std::env::current_exe().ok().filter(|file| file.exists());
    file.unwrap_or_else(|| "/proc/self/exe".into())
}
