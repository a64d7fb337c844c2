//! A place from which a session is watched: the viewer's side.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::fcntl_getpipe_size;

use super::handover::{Declined, PATIENCE};
use super::place::{self, Who};
use super::protocol::{About, Answer, Leave, Place, Request, VERSION};
use crate::printable::sentence;
use crate::wire;

/// A place from which a session is watched.
#[derive(Debug)]
pub struct Seat {
    wire: OwnedFd,
    feed: OwnedFd,
    from: Place,
}

/// What is said to those who watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// So many bytes were missed.
    Missed(u64),
    /// There is nothing more to watch.
    Ended {
        /// Why.
        why: Leave,
        /// Up to here everything came, but for what was missed.
        at: Place,
        /// So many bytes were missed that were not told before.
        missed: u64,
    },
    /// The session ended without a word: it was killed.
    Gone,
}

impl Seat {
    /// Asks the session that is process `pid` of user `uid` to be let in, and to see what it prints from
    /// the place on that was not seen yet.
    pub fn ask(uid: u32, pid: i32, about: About, from: Option<Place>) -> Result<Self, Declined> {
        let until = Instant::now() + PATIENCE;
        let wire = place::call(uid, pid, Who::Session).map_err(Declined::Nobody)?;
        let request = Request::Watch { version: VERSION, about, from };
        wire::send(&wire, &request, &[]).map_err(|_| Declined::Ended)?;
        loop {
            if !wire::wait(&wire, Some(until)) {
                return Err(Declined::Silent);
            }
            match wire::receive(&wire) {
                Ok(Some((Answer::Watching { from }, mut descriptors))) => {
                    let feed = descriptors.pop().filter(is_to_be_read).ok_or(Declined::Ended)?;
                    return Ok(Self { wire, feed, from });
                }
                Ok(Some((Answer::Refused(why), _))) => {
                    return Err(Declined::Refused(sentence(&why)));
                }
                Ok(Some((Answer::Unsupported { version }, _))) => {
                    return Err(Declined::Unsupported(version));
                }
                Err(Errno::AGAIN) => {}
                Ok(Some(_)) | Err(Errno::BADMSG) => return Err(Declined::Garbled),
                Ok(None) | Err(_) => return Err(Declined::Ended),
            }
        }
    }

    /// One at a line that a test has the other end of.
    #[cfg(test)]
    pub(crate) fn at(wire: OwnedFd, feed: OwnedFd) -> Self {
        Self { wire, feed, from: Place { reel: 7, at: 0 } }
    }

    /// The place of the first byte that comes, or is missed.
    #[must_use]
    pub fn from(&self) -> Place {
        self.from
    }

    /// What the console prints.
    #[must_use]
    pub fn feed(&self) -> BorrowedFd<'_> {
        self.feed.as_fd()
    }

    /// What becomes readable when there is a word.
    #[must_use]
    pub fn wire(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }

    /// The next word, if there is one. After the last there is [`Word::Gone`] for ever.
    #[must_use]
    pub fn word(&self) -> Option<Word> {
        match wire::receive(&self.wire) {
            Ok(Some((Answer::Missed(bytes), _))) => Some(Word::Missed(bytes)),
            Ok(Some((Answer::Ended { why, at, missed }, _))) => {
                Some(Word::Ended { why, at, missed })
            }
            Err(Errno::AGAIN | Errno::INTR) => None,
            Ok(_) | Err(_) => Some(Word::Gone),
        }
    }
}

/// Whether it is the read end of a pipe: anything else could make us wait in it. Where we share it with
/// who sent it, it can be made to wait again: reading asks not to in each call.
fn is_to_be_read(feed: &OwnedFd) -> bool {
    // The kernel itself knows what is a pipe. A file's own filesystem, asked, can be a program that does
    // not answer.
    let is_pipe = fcntl_getpipe_size(feed).is_ok();
    let Ok(flags) = fcntl_getfl(feed) else { return false };
    is_pipe
        && flags & OFlags::ACCMODE == OFlags::RDONLY
        && fcntl_setfl(feed, flags | OFlags::NONBLOCK).is_ok()
}
