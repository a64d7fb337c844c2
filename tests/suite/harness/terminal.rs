//! The user's terminal.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown};
use rustix::termios::{
    Action, LocalModes, OptionalActions, Termios, Winsize, tcflow, tcgetattr, tcgetwinsize,
    tcsetattr, tcsetwinsize,
};

use super::ear::Ear;
use super::leader::Leader;
use super::pty::Pty;
use super::write_all;

/// A terminal as a user sits at: programs run on it as the jobs of a shell. It is read all the time,
/// as a terminal emulator does, unless [`Terminal::is_stuck`].
pub(crate) struct Terminal {
    pty: Option<Pty>,
    /// For the shell, which keeps it open.
    slave: Mutex<Option<OwnedFd>>,
    leader: Mutex<Option<Arc<Leader>>>,
}

impl Terminal {
    /// A terminal of 24 rows and 80 columns, with the settings the kernel gives a new one.
    pub(crate) fn new() -> Self {
        let (pty, slave) = Pty::open("the terminal");
        let terminal =
            Self { pty: Some(pty), slave: Mutex::new(Some(slave)), leader: Mutex::default() };
        terminal.set_size(24, 80);
        terminal
    }

    /// The user types `bytes`.
    #[track_caller]
    pub(crate) fn types(&self, bytes: impl AsRef<[u8]>) {
        write_all(&self.pty().master, bytes.as_ref(), "the terminal");
    }

    /// Waits until `text` is among what was shown.
    #[track_caller]
    pub(crate) fn shows(&self, text: impl AsRef<[u8]>) {
        self.ear().receives(text);
    }

    /// What was shown so far, since [`Terminal::clear`].
    pub(crate) fn screen_so_far(&self) -> String {
        String::from_utf8_lossy(&self.ear().so_far()).into_owned()
    }

    /// Forgets what was shown so far.
    pub(crate) fn clear(&self) {
        self.ear().forget();
    }

    /// What was shown, byte by byte.
    pub(crate) fn ear(&self) -> &Ear {
        &self.pty().ear
    }

    /// All its settings, to be compared.
    pub(crate) fn settings(&self) -> Settings {
        Settings::of(&self.pty().master)
    }

    /// Gives it other settings, as a shell does after a job that left it raw.
    pub(crate) fn set(&self, settings: &Settings) {
        tcsetattr(&self.pty().master, OptionalActions::Now, &settings.0).unwrap();
    }

    /// Another program changes its settings.
    pub(crate) fn sets(&self, change: impl FnOnce(&mut Termios)) {
        self.pty().sets(change);
    }

    /// Whether what is typed goes to the program key by key.
    pub(crate) fn is_raw(&self) -> bool {
        let raw = rustix::termios::LocalModes::ICANON | rustix::termios::LocalModes::ECHO;
        !tcgetattr(&self.pty().master).unwrap().local_modes.intersects(raw)
    }

    /// Waits until it is raw.
    #[track_caller]
    pub(crate) fn becomes_raw(&self) {
        super::until("the terminal is raw", || self.is_raw());
    }

    /// The user makes the window larger or smaller.
    pub(crate) fn set_size(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.pty().master, size).unwrap();
    }

    /// The process group in its foreground.
    pub(crate) fn foreground(&self) -> i32 {
        rustix::termios::tcgetpgrp(&self.pty().master).unwrap().as_raw_nonzero().get()
    }

    /// Rows and columns.
    pub(crate) fn size(&self) -> (u16, u16) {
        let size = tcgetwinsize(&self.pty().master).unwrap();
        (size.ws_row, size.ws_col)
    }

    /// Nobody reads it any more, until [`Terminal::goes_on`].
    pub(crate) fn is_stuck(&self) {
        self.ear().pause();
    }

    /// It is read again.
    pub(crate) fn goes_on(&self) {
        self.ear().resume();
    }

    /// Stops its output as `tcflow` of another process does.
    pub(crate) fn freezes(&self) {
        tcflow(self.open(), Action::OOff).unwrap();
    }

    /// Lets its output go on.
    pub(crate) fn thaws(&self) {
        tcflow(self.open(), Action::OOn).unwrap();
    }

    /// Its window is closed, its connection is cut: the master is gone. Gives what was shown to the last,
    /// since [`Terminal::clear`].
    pub(crate) fn vanishes(&mut self) -> Vec<u8> {
        self.pty.take().map(|pty| pty.ear.ends()).unwrap_or_default()
    }

    /// The path of its slave.
    pub(crate) fn path(&self) -> &Path {
        &self.pty().path
    }

    /// The slave, opened once more, as another process would.
    pub(crate) fn open(&self) -> OwnedFd {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(self.path(), flags, Mode::empty()).unwrap()
    }

    /// The shell on it, started as `user` when there is none yet. The terminal is that user's then, as
    /// after a login.
    #[track_caller]
    pub(super) fn leader(&self, user: Option<(u32, u32)>) -> Arc<Leader> {
        let mut leader = self.leader.lock().unwrap();
        let started = leader.get_or_insert_with(|| {
            let slave = self.slave.lock().unwrap().take().expect("the first leader");
            if let Some((owner, group)) = user {
                fchown(&slave, Some(Uid::from_raw(owner)), Some(Gid::from_raw(group))).unwrap();
            }
            Leader::start(slave, user)
        });
        assert!(started.user() == user, "the terminal is another user's");
        Arc::clone(started)
    }

    fn pty(&self) -> &Pty {
        self.pty.as_ref().expect("the terminal vanished")
    }
}

/// Everything that `stty -g` would say.
#[derive(Clone, Debug)]
pub(crate) struct Settings(Termios);

impl Settings {
    /// The settings of a terminal line.
    pub(crate) fn of(line: impl AsFd) -> Self {
        Self(tcgetattr(line).unwrap())
    }

    /// As a shell's line editor changes them.
    pub(crate) fn of_a_line_editor(&self) -> Self {
        let mut settings = self.0.clone();
        settings.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        Self(settings)
    }
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        format!("{:?}", self.0) == format!("{:?}", other.0)
    }
}
