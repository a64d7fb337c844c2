//! Waiting for descriptors, with a deadline.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

/// A hang-up or an error, which poll(2) reports even if not asked for.
pub(crate) const GONE: PollFlags = PollFlags::HUP.union(PollFlags::ERR);

pub(crate) fn entry(fd: BorrowedFd<'_>, events: PollFlags) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, events)
}

pub(crate) fn readable<F: AsFd + ?Sized>(fd: &F) -> PollFd<'_> {
    entry(fd.as_fd(), PollFlags::IN)
}

/// Waits until some of `fds` are ready (returns how many), a signal arrives or `deadline` passes.
pub(crate) fn wait(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<usize> {
    let forever = Timespec { tv_sec: i64::MAX, tv_nsec: 0 };
    let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
    let timeout = left.map(|left| Timespec::try_from(left).unwrap_or(forever));
    match rustix::event::poll(fds, timeout.as_ref()) {
        Ok(ready) => Ok(ready),
        Err(Errno::INTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Waits until `fd` is readable or hung up. Returns false if `deadline` passes first.
pub(crate) fn wait_readable(fd: impl AsFd, deadline: Option<Instant>) -> bool {
    loop {
        match wait(&mut [readable(&fd)], deadline) {
            Ok(0) if deadline.is_some_and(|at| at <= Instant::now()) => return false,
            Ok(0) => {}
            Ok(_) | Err(_) => return true,
        }
    }
}

/// The events among `events`, and hang-ups, that are on `fd` now.
pub(crate) fn events_now(fd: impl AsFd, events: PollFlags) -> io::Result<PollFlags> {
    let mut set = [entry(fd.as_fd(), events)];
    let now = Timespec::default();
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut set, Some(&now)))?;
    Ok(set[0].revents())
}

pub(crate) fn is_readable(fd: impl AsFd) -> bool {
    events_now(fd, PollFlags::IN).is_ok_and(|events| !events.is_empty())
}

/// Pauses that double from `first` to `max`.
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, next: first }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        pause
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}
