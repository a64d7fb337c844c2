//! The end of a relay that is not the user's: a console, or the pipe of a viewer.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::{Errno, read};

use crate::console::open::Console;
use crate::endpoint::read_feed;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Upstream<'a> {
    /// A console that we operate.
    Console(&'a Console),
    /// The pipe through which another session passes the output of its console on to a viewer.
    Feed(BorrowedFd<'a>),
}

impl<'a> Upstream<'a> {
    pub(super) fn console(self) -> Option<&'a Console> {
        match self {
            Self::Console(console) => Some(console),
            Self::Feed(_) => None,
        }
    }

    pub(super) fn read(self, room: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Console(console) => read(console, room),
            Self::Feed(feed) => read_feed(feed, room),
        }
    }
}

impl AsFd for Upstream<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Console(console) => console.as_fd(),
            Self::Feed(feed) => feed.as_fd(),
        }
    }
}
