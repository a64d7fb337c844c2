//! The console, its guest, and who operates it: and what has to hold of them after each step.

use std::time::Instant;

use rustix::io::Errno;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::desk::{Desk, PATIENCE};
use crate::dice::Dice;
use crate::harness::{Flood, Guest, Locks, Program, Vconsole, until, until_within};
use crate::queue::abandons;
use crate::seen::Role;
use crate::streams::{Shown, Typed};

pub(crate) struct Stage {
    pub(crate) guest: Guest,
    pub(crate) operator: Option<Desk>,
    /// Those who watch. Where nobody operates one of them reads.
    pub(crate) audience: Vec<Desk>,
    /// Those who have left since everybody's screen was looked at.
    pub(crate) gone: Vec<Desk>,
    /// Those who wait for the console, in the order of their coming.
    pub(crate) queue: Vec<Desk>,
    /// When the present step began.
    pub(crate) begun: Instant,
    pub(crate) flood: Flood,
    pub(crate) shown: Shown,
    /// How many bytes those who watched have seen, and how many they were told that they missed.
    pub(crate) watched: (u64, u64),
    locks: Locks,
    runtime: TempDir,
    typed: Typed,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let guest = Guest::new();
        Self {
            operator: None,
            audience: Vec::new(),
            gone: Vec::new(),
            queue: Vec::new(),
            begun: Instant::now(),
            watched: (0, 0),
            locks: Locks::new(),
            runtime: TempDir::with_prefix("vconsole-runtime-").unwrap(),
            flood: guest.counts(),
            guest,
            shown: Shown::default(),
            typed: Typed::default(),
        }
    }

    /// `attach`, not yet started.
    pub(crate) fn attach(&self) -> Program {
        let attach = Vconsole::attach(&self.guest).locks(&self.locks);
        attach.env("VCONSOLE_TEST_RUNTIME", self.runtime.path())
    }

    /// `desk` operates now, which is connected.
    #[track_caller]
    pub(crate) fn operates(&mut self, desk: Desk) {
        desk.types(self.typed.begins());
        self.operator = Some(desk);
        until_within(PATIENCE, "the guest hears the new operator", || {
            self.typed.goes_on(&self.guest.ear().forget());
            self.typed.has_begun() && self.typed.has_arrived()
        });
    }

    /// The operator types something.
    pub(crate) fn types(&mut self, length: usize) {
        let operator = self.operator.as_ref().unwrap();
        operator.types(&self.typed.next(length));
    }

    /// The operator has ended with this status, and nothing that it read is lost.
    #[track_caller]
    pub(crate) fn has_ended(&mut self, mut operator: Desk, status: i32) {
        assert_eq!(operator.session().wait(), status, "{}", operator.notices());
        self.what_it_read_arrives(&operator);
        self.shown.goes_on(&operator.last_words());
        operator.is_as_it_was();
        self.gone.push(operator);
    }

    /// The operator was taken over from: it has ended, or watches on.
    #[track_caller]
    pub(crate) fn was_taken_over(&mut self, mut operator: Desk) {
        if !operator.stays {
            return self.has_ended(operator, 4);
        }
        until_within(PATIENCE, "it operates no more", || operator.role() != Role::Operates);
        operator.goes_on();
        operator.told.was_taken_over(&operator.seen);
        self.what_it_read_arrives(&operator);
        // Its output as operator and as viewer is one stream.
        self.shown.may_be_elsewhere();
        self.audience.push(operator);
    }

    /// Input that the former operator has read arrives.
    #[track_caller]
    fn what_it_read_arrives(&mut self, operator: &Desk) {
        let Some(unread) = operator.unread() else { return self.typed.may_have_a_gap() };
        self.typed.loses(unread);
        until("what was typed arrives", || {
            self.typed.goes_on(&self.guest.ear().forget());
            self.typed.has_arrived()
        });
    }

    /// The operator was killed: what it had read may be lost.
    #[track_caller]
    pub(crate) fn was_killed(&mut self, mut operator: Desk) {
        until_within(PATIENCE, "it ends", || operator.session().has_ended());
        let words = operator.last_words();
        operator.is_as_it_was();
        self.has_no_terminal(operator, &words);
    }

    /// The operator has ended, since its terminal has vanished, which had shown this.
    #[track_caller]
    pub(crate) fn has_no_terminal(&mut self, operator: Desk, words: &[u8]) {
        self.typed.may_have_a_gap();
        self.shown.goes_on(words);
        self.shown.may_have_a_gap();
        self.gone.push(operator);
    }

    /// A viewer has control, and shows what was printed before, as far as it does not miss it. What comes after
    /// that nobody else has shown, where it is control of one who ended.
    #[track_caller]
    pub(crate) fn has_control(&mut self, mut successor: Desk, of_who_ended: bool) {
        // Where the other one watches on nobody knows what it has shown as operator; but all of that is printed.
        let target = if of_who_ended { self.shown.at() } else { self.flood.taken() };
        until_within(PATIENCE, "it shows what was shown before", || {
            successor.shows();
            successor.seen.is_at(target)
        });
        self.shown.skips_to(successor.seen.at().unwrap());
        if of_who_ended {
            self.shown.is_elsewhere(&std::iter::once(&successor.seen));
        }
        self.operates(successor);
    }

    /// Somebody who knows nothing of vconsole has read and typed, or the console was hung up.
    pub(crate) fn was_disturbed(&mut self) {
        self.typed.may_have_a_gap();
        self.shown.may_have_a_gap();
    }

    /// `new` was killed while it took the console over from `old`: that one goes on, or it had given
    /// everything away.
    #[track_caller]
    pub(crate) fn newcomer_was_killed(&mut self, mut old: Desk, mut new: Desk) {
        until("the newcomer ends", || new.session().has_ended());
        // What the guest prints from now on is shown by nobody but the old one.
        let target = self.flood.taken() + 1;
        until_within(PATIENCE, "the old operator goes on or ends", || {
            self.shown.goes_on(&old.shows());
            old.session().has_ended() || self.shown.at() >= target
        });
        if old.session().has_ended() {
            assert_eq!(old.session().wait(), 4, "{}", old.notices());
            self.typed.may_have_a_gap();
            self.shown.goes_on(&old.last_words());
            old.is_as_it_was();
            self.shown.goes_on(&new.last_words());
            self.shown.may_have_a_gap();
        } else {
            assert_eq!(new.last_words(), b"");
            self.operator = Some(old);
        }
    }

    /// The invariants, whoever operates or nobody.
    #[track_caller]
    pub(crate) fn holds(&mut self, dice: &mut Dice) {
        if self.operator.is_none() && !self.queue.is_empty() {
            self.one_who_waits_operates();
        }
        match &self.operator {
            Some(_) => self.is_operated(),
            None if self.audience.is_empty() => self.is_free(),
            None => self.is_read(),
        }
        self.the_others_wait();
        // Those who watch may also be on their way when the next thing happens.
        if self.operator.is_none() || self.shown.has_skipped() || dice.coin() {
            self.is_watched();
            let screens = self.operator.iter().chain(&self.audience).chain(&self.gone);
            self.shown.is_elsewhere(&screens.map(|desk| &desk.seen));
            self.gone.clear();
        }
    }

    /// One operates, has every lock, shows all that comes, and what it types arrives.
    #[track_caller]
    fn is_operated(&mut self) {
        let operator = self.operator.as_mut().unwrap();
        let target = self.flood.taken();
        until_within(PATIENCE, "the operator shows what the guest printed", || {
            self.shown.goes_on(&operator.shows());
            assert!(!operator.session().has_ended(), "the operator ended: {}", operator.notices());
            self.shown.at() >= target
        });
        operator.types(&self.typed.next(16));
        until("the guest hears what was typed", || {
            self.typed.goes_on(&self.guest.ear().forget());
            self.typed.has_arrived()
        });
        let pid = operator.session().pid();
        self.is_held_by(pid);
    }

    /// One session has every lock.
    #[track_caller]
    pub(crate) fn is_held_by(&self, pid: i32) {
        let own = format!("{pid:>10}\n").into_bytes();
        until("every lock names who has the console", || {
            let names = self.locks.names();
            let all = names.iter().all(|name| self.locks.read(name).as_ref() == Some(&own));
            all && names.len() == 4
        });
        assert!(self.is_exclusive(), "anybody can open the console");
    }

    /// Nobody operates, and nothing is left.
    #[track_caller]
    fn is_free(&mut self) {
        until("no lock is left", || self.locks.names().is_empty());
        until("no socket is left", || self.sockets().is_empty());
        until("the flag is cleared", || !self.is_exclusive());
    }

    fn is_exclusive(&self) -> bool {
        use rustix::fs::{Mode, OFlags, open};
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match open(self.guest.path(), flags, Mode::empty()) {
            Ok(line) => vconsole::sys::is_exclusive(line).unwrap(),
            Err(Errno::BUSY) => true,
            Err(error) => panic!("cannot open the console: {error}"),
        }
    }

    fn sockets(&self) -> Vec<String> {
        let directories = std::fs::read_dir(self.runtime.path()).unwrap().flatten();
        let files = directories.flat_map(|directory| std::fs::read_dir(directory.path()).unwrap());
        files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    /// All leave, and nothing is left.
    #[track_caller]
    pub(crate) fn ends(&mut self) {
        for waiting in std::mem::take(&mut self.queue) {
            abandons(&waiting);
        }
        while let Some(mut viewer) = self.audience.pop() {
            viewer.goes_on();
            viewer.signal(Signal::TERM);
            self.viewer_has_ended(viewer, Some(143));
        }
        let Some(operator) = self.operator.take() else { return self.is_free() };
        operator.signal(Signal::TERM);
        self.has_ended(operator, 143);
        self.is_free();
    }

    /// How much went both ways.
    pub(crate) fn account(&self) -> String {
        format!(
            "{} bytes shown, {} heard, in order and once; of killed sessions {} and {} were lost; those who \
             watched saw {} and were told of {} that they missed",
            self.shown.at(),
            self.typed.heard,
            self.shown.lost,
            self.typed.lost,
            self.watched.0,
            self.watched.1
        )
    }
}

impl Drop for Stage {
    /// Where a step panicked, everybody's screen is told.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let all = self.operator.iter().chain(&self.audience).chain(&self.queue).chain(&self.gone);
        for desk in all {
            eprintln!(
                "soak: {} has shown {:?} and said:\n{}",
                desk.session().pid(),
                desk.seen,
                desk.notices()
            );
        }
    }
}
