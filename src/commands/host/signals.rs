//! The signals that end host.

use std::io;
use std::os::unix::net::UnixStream;

use signal_hook::consts::SIGCHLD;

use crate::signals::{Delivery, ENDING, deliver};

/// Signals, delivered where a poll can wait for them.
pub(super) struct Signals(Delivery);

impl Signals {
    /// From here on SIGHUP, SIGINT, SIGQUIT and SIGTERM are delivered, but not those that whoever
    /// started us wants ignored.
    pub(super) fn watch() -> io::Result<Self> {
        // SIGCHLD for its side effect only: while it is ignored the kernel throws away how children
        // ended (wait(2)), and it may have been ignored when we were started.
        deliver(&ENDING, &[SIGCHLD]).map(Self)
    }

    /// The descriptor that is readable when a signal came.
    pub(super) fn arrival(&self) -> &UnixStream {
        self.0.get_read()
    }

    /// The signal that came, if one did.
    pub(super) fn received(&mut self) -> Option<i32> {
        self.0.pending().find(|signal| *signal != SIGCHLD)
    }
}
