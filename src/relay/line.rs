//! What is relayed.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::{Errno, read};

use super::endpoint::read_feed;
use crate::console::Console;

/// What is relayed.
#[derive(Clone, Copy, Debug)]
pub enum Line<'a> {
    /// A console that is ours.
    Console(&'a Console),
    /// What another session passes on of a console, through a pipe: there is only something to read.
    Feed(BorrowedFd<'a>),
}

impl<'a> Line<'a> {
    /// The console, if it is ours.
    pub(super) fn console(self) -> Option<&'a Console> {
        match self {
            Self::Console(console) => Some(console),
            Self::Feed(_) => None,
        }
    }

    /// Reads what is there, without ever waiting.
    pub(super) fn read(self, room: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Console(console) => read(console, room),
            Self::Feed(feed) => read_feed(feed, room),
        }
    }
}

impl AsFd for Line<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Console(console) => console.as_fd(),
            Self::Feed(feed) => feed.as_fd(),
        }
    }
}
