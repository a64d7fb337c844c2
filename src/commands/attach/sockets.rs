//! The sockets of a session, and noticing that somebody removes them.

use std::os::fd::OwnedFd;
use std::{fs, io, path::PathBuf};

use crate::guard::{client::Guard, message::WatchKind};
use crate::session::listener::Listener;
use crate::session::registry::{SocketDir, SocketRole};
use crate::{poll, test_point};

#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) directory: SocketDir,
    pub(super) listener: Listener,
    /// Readable when a name in the directory was removed.
    watch: Option<OwnedFd>,
}

impl Sockets {
    /// The guard learns the names first.
    pub(super) fn open(guard: &Guard) -> io::Result<Self> {
        let directory = SocketDir::of_ours()?;
        let paths = directory.paths();
        guard.tell_sockets(&paths);
        // Before the sockets, so that none is removed unseen.
        let watch = directory.watch().ok();
        let opened = directory.listen(SocketRole::Session).and_then(|socket| {
            test_point::reached("one-socket");
            Ok((Listener::open(socket)?, directory.listen(SocketRole::Guard)?))
        });
        let (listener, guard_socket) = opened.inspect_err(|_| remove_all(&paths))?;
        guard.tell_guard_socket(&guard_socket);
        let watch = watch.filter(|watch| listener.also_wait_for(watch).is_ok());
        if let Some(watch) = &watch {
            guard.tell_watch(WatchKind::Sockets, watch);
        }
        Ok(Self { directory, listener, watch })
    }

    pub(super) fn were_removed(&self) -> bool {
        let Some(watch) = self.watch.as_ref().filter(|watch| poll::is_readable(watch)) else {
            return false;
        };
        while rustix::io::read(watch, &mut [0; 4096]).is_ok_and(|count| count > 0) {}
        !self.directory.has_sockets()
    }
}

pub(super) fn remove_all(paths: &[PathBuf]) {
    for path in paths {
        let _ = fs::remove_file(path);
    }
}
