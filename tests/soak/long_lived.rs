//! A session that lives all the time: it relays, is looked at and called, and must not grow.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Flood, Guest, Locks, Piped, Vconsole, until};
use crate::streams::Shown;

/// How often it is called and measured.
const BETWEEN: Duration = Duration::from_secs(1);

/// By so much its memory may vary: pages that the kernel takes and gives.
const SLACK: u64 = 512 * 1024;

pub(crate) struct LongLived {
    guest: Guest,
    locks: Locks,
    flood: Flood,
    session: Piped,
    shown: Shown,
    next: Instant,
    looks: usize,
    /// Memory and descriptors when it had seen everything once.
    first: Option<(u64, usize)>,
}

impl LongLived {
    pub(crate) fn new() -> Self {
        let (guest, locks) = (Guest::new(), Locks::new());
        let session = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
        let (flood, shown) = (guest.counts(), Shown::default());
        Self { guest, locks, flood, session, shown, next: Instant::now(), looks: 0, first: None }
    }

    /// It is called, shows all that comes, and has as much memory and as many descriptors as before.
    #[track_caller]
    pub(crate) fn holds(&mut self) {
        self.shown.goes_on(&self.session.stdout().forget());
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + BETWEEN;
        self.looks += 1;
        assert_eq!(Vconsole::attach(&self.guest).locks(&self.locks).output().status, 3);
        let target = self.flood.taken();
        until("the long-lived session shows what its guest printed", || {
            self.shown.goes_on(&self.session.stdout().forget());
            self.shown.at() >= target
        });
        let (memory, files) = (self.session.memory(), self.session.open_files().len());
        let (memory_at_first, files_at_first) = *self.first.get_or_insert((memory, files));
        assert_eq!(files, files_at_first, "{:?}", self.session.open_files());
        assert!(memory <= memory_at_first + SLACK, "{memory_at_first} bytes grew to {memory}");
    }

    /// Ends it, and says what was measured.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> String {
        let (memory, files) = (self.session.memory(), self.session.open_files().len());
        let first = self.first.unwrap_or((memory, files));
        self.session.signal(Signal::TERM);
        assert_eq!(self.session.wait(), 143);
        self.locks.become_empty();
        format!(
            "a session that lived all the time, at {} looks: {} to {} KiB, {} to {files} descriptors",
            self.looks,
            first.0 / 1024,
            memory / 1024,
            first.1
        )
    }
}
