//! The console, its guest, and who drives it: and what has to hold of them after each step.

use rustix::io::Errno;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::desk::{Desk, PATIENCE};
use crate::harness::{Flood, Guest, Locks, Program, Vconsole, until, until_within};
use crate::streams::{Shown, Typed};

pub(crate) struct Stage {
    pub(crate) guest: Guest,
    pub(crate) driver: Option<Desk>,
    locks: Locks,
    runtime: TempDir,
    flood: Flood,
    shown: Shown,
    typed: Typed,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let guest = Guest::new();
        Self {
            driver: None,
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

    /// `desk` drives now, which is connected.
    #[track_caller]
    pub(crate) fn drives(&mut self, desk: Desk) {
        desk.types(self.typed.begins());
        self.driver = Some(desk);
        until_within(PATIENCE, "the guest hears the new driver", || {
            self.typed.goes_on(&self.guest.ear().forget());
            self.typed.has_begun() && self.typed.has_arrived()
        });
    }

    /// The driver types something.
    pub(crate) fn types(&mut self, length: usize) {
        let driver = self.driver.as_ref().unwrap();
        driver.types(&self.typed.next(length));
    }

    /// The driver has ended with this status, and nothing that it read is lost.
    #[track_caller]
    pub(crate) fn has_ended(&mut self, driver: &Desk, status: i32) {
        assert_eq!(driver.session().wait(), status, "{}", driver.notices());
        match driver.unread() {
            Some(unread) => {
                self.typed.loses(unread);
                until("what was typed arrives", || {
                    self.typed.goes_on(&self.guest.ear().forget());
                    self.typed.has_arrived()
                });
            }
            None => self.typed.may_have_a_gap(),
        }
        self.shown.goes_on(&driver.last_words());
        driver.is_as_it_was();
    }

    /// The driver was killed, or its terminal has vanished: what it had read may be lost.
    #[track_caller]
    pub(crate) fn was_killed(&mut self, driver: &Desk, vanished: bool) {
        until_within(PATIENCE, "it ends", || driver.session().has_ended());
        self.typed.may_have_a_gap();
        if !vanished {
            self.shown.goes_on(&driver.last_words());
            driver.is_as_it_was();
        }
        self.shown.may_have_a_gap();
    }

    /// Somebody who knows nothing of vconsole has read and typed, or the console was hung up.
    pub(crate) fn was_disturbed(&mut self) {
        self.typed.may_have_a_gap();
        self.shown.may_have_a_gap();
    }

    /// `new` was killed while it took the console over from `old`: that one goes on, or it had given
    /// everything away.
    #[track_caller]
    pub(crate) fn newcomer_was_killed(&mut self, old: Desk, new: &Desk) {
        until("the newcomer ends", || new.session().has_ended());
        // What the guest prints from now on is shown by nobody but the old one.
        let target = self.flood.taken() + 1;
        until_within(PATIENCE, "the old driver goes on or ends", || {
            self.shown.goes_on(&old.ear().forget());
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
            self.driver = Some(old);
        }
    }

    /// The invariants, whoever drives or nobody.
    #[track_caller]
    pub(crate) fn holds(&mut self) {
        if self.driver.is_some() { self.is_driven() } else { self.is_free() }
    }

    /// One drives, has every lock, shows all that comes, and what it types arrives.
    #[track_caller]
    fn is_driven(&mut self) {
        let driver = self.driver.as_ref().unwrap();
        let target = self.flood.taken();
        until_within(PATIENCE, "the driver shows what the guest printed", || {
            self.shown.goes_on(&driver.ear().forget());
            assert!(!driver.session().has_ended(), "the driver ended: {}", driver.notices());
            self.shown.at() >= target
        });
        driver.types(&self.typed.next(16));
        until("the guest hears what was typed", || {
            self.typed.goes_on(&self.guest.ear().forget());
            self.typed.has_arrived()
        });
        let own = format!("{:>10}\n", driver.session().pid()).into_bytes();
        until("every lock names the driver", || {
            let names = self.locks.names();
            let all = names.iter().all(|name| self.locks.read(name).as_ref() == Some(&own));
            all && names.len() == 4
        });
        assert!(self.is_exclusive(), "anybody can open the console");
    }

    /// Nobody drives, and nothing is left.
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

    /// The last driver leaves, and nothing is left.
    #[track_caller]
    pub(crate) fn ends(&mut self) {
        let Some(driver) = self.driver.take() else { return self.is_free() };
        driver.signal(Signal::TERM);
        self.has_ended(&driver, 143);
        self.is_free();
    }

    /// How much went both ways.
    pub(crate) fn account(&self) -> String {
        format!(
            "{} bytes shown, {} heard, in order and once; of killed sessions {} and {} were lost",
            self.shown.at(),
            self.typed.heard,
            self.shown.lost,
            self.typed.lost
        )
    }
}
