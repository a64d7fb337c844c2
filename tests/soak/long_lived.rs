//! A session that lives all the time, and one who watches it: they relay, are looked at and called, and must not
//! grow.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::desk::PATIENCE;
use crate::harness::{Flood, Guest, Locks, Piped, Program, Vconsole, until, until_within};
use crate::seen::{Observed, Told};
use crate::streams::Shown;

/// How often they are called and measured.
const BETWEEN: Duration = Duration::from_secs(1);

/// By so much the memory of each may vary: pages that the kernel takes and gives.
const SLACK: u64 = 512 * 1024;

/// When so much was printed they have used all the memory that they use: what is kept for viewers is full.
const EVERYTHING: u64 = 2 * 1024 * 1024;

pub(crate) struct LongLived {
    guest: Guest,
    locks: Locks,
    flood: Flood,
    operator: Piped,
    shown: Shown,
    viewer: Piped,
    seen: Observed,
    told: Told,
    said: Vec<u8>,
    next: Instant,
    looks: usize,
    /// What they had when they had used everything once.
    first: Option<[Size; 2]>,
}

/// What a session has: memory, in bytes, and descriptors.
#[derive(Clone, Copy)]
struct Size {
    memory: u64,
    files: usize,
}

impl LongLived {
    pub(crate) fn new() -> Self {
        let (guest, locks) = (Guest::new(), Locks::new());
        let attach: Program = Vconsole::attach(&guest).locks(&locks);
        let operator = attach.attached_to_pipes();
        let viewer = attach.arg("--read-only").piped();
        viewer.stderr().receives("watching");
        Self {
            flood: guest.counts(),
            guest,
            locks,
            operator,
            shown: Shown::default(),
            viewer,
            seen: Observed::default(),
            told: Told::default(),
            said: Vec::new(),
            next: Instant::now(),
            looks: 0,
            first: None,
        }
    }

    /// They are called, show all that comes, and have as much memory and as many descriptors as before.
    #[track_caller]
    pub(crate) fn holds(&mut self) {
        self.show();
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + BETWEEN;
        self.looks += 1;
        assert_eq!(Vconsole::attach(&self.guest).locks(&self.locks).output().status, 3);
        self.show_all(self.flood.taken());
        if self.shown.at() < EVERYTHING {
            return;
        }
        let now = self.sizes();
        let first = *self.first.get_or_insert(now);
        // Somebody may just stand at the door.
        until("they have no more descriptors than before", || {
            first.iter().zip(self.sizes()).all(|(first, now)| now.files <= first.files)
        });
        for (first, now) in first.iter().zip(self.sizes()) {
            let most = first.memory + SLACK;
            assert!(now.memory <= most, "{} bytes grew to {}", first.memory, now.memory);
        }
    }

    fn show(&mut self) {
        self.shown.goes_on(&self.operator.stdout().forget());
        self.seen.goes_on(&self.viewer.stdout().forget());
        self.said.extend(self.viewer.stderr().forget());
        let end = self.said.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.said.drain(..end).collect();
        String::from_utf8_lossy(&lines).lines().for_each(|line| self.told.receives_line(line));
    }

    #[track_caller]
    fn show_all(&mut self, target: u64) {
        until_within(PATIENCE, "both show what the guest printed", || {
            self.show();
            self.shown.at() >= target && self.seen.is_at(target)
        });
    }

    fn sizes(&self) -> [Size; 2] {
        [&self.operator, &self.viewer]
            .map(|it| Size { memory: it.memory(), files: it.open_files().len() })
    }

    /// Ends them, and says what was measured.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> String {
        self.flood.rests();
        self.show_all(self.flood.taken());
        until("the viewer is told all that it missed", || {
            self.show();
            self.told.untold(&self.seen) == 0
        });
        let now = self.sizes();
        let first = self.first.unwrap_or(now);
        for session in [&self.viewer, &self.operator] {
            session.signal(Signal::TERM);
            assert_eq!(session.wait(), 143);
        }
        self.locks.become_empty();
        let [operator, viewer] = [0, 1].map(|at| {
            let (first, now) = (first[at], now[at]);
            let memory = (first.memory / 1024, now.memory / 1024);
            format!(
                "{} to {} KiB, {} to {} descriptors",
                memory.0, memory.1, first.files, now.files
            )
        });
        format!(
            "a session that lived all the time, at {} looks: {operator}; one who watched it, and saw {} and was \
             told of {} bytes that it missed: {viewer}",
            self.looks,
            self.seen.length,
            self.told.missed()
        )
    }
}
