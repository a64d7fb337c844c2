//! What can happen to a machine: real faults, and what a session makes of them. Whatever it is, no byte
//! is lost that could be delivered, the exit status says what it was, the terminal is as before, and
//! nothing of ours stays behind.
//!
//! `cargo test --test suite -- --ignored --nocapture faults::table` runs each fault's test, also those
//! that belong to another topic, and prints what became of it.

mod behind_our_back;
mod clock;
mod lines;
mod surroundings;
pub(crate) mod syscalls;
mod table;

use std::path::PathBuf;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::guard::{awaited_guard_of, is_done};
use crate::harness::{
    Client, Guest, Locks, Piped, Program, Session, Settings, Terminal, Vconsole, contains,
    set_mode, until,
};
use crate::pipes::noise;

/// A guest, a lock directory, a terminal, and a directory for sockets: all that a session can leave
/// something in.
struct Stage {
    guest: Guest,
    locks: Locks,
    terminal: Terminal,
    runtime: TempDir,
    before: Settings,
}

impl Stage {
    fn new() -> Self {
        let terminal = Terminal::new();
        let before = terminal.settings();
        let runtime = TempDir::with_prefix("vconsole-runtime-").unwrap();
        // For any user's session.
        set_mode(runtime.path(), 0o1777);
        Self { guest: Guest::new(), locks: Locks::new(), terminal, runtime, before }
    }

    /// `vconsole attach`, which ends soon after its input.
    fn attach(&self) -> Program {
        let attach = Vconsole::attach(&self.guest).locks(&self.locks).args(["--linger", "300ms"]);
        attach.env("VCONSOLE_TEST_RUNTIME", self.runtime.path())
    }

    /// Sends as much both ways at once, and sees all of it arrive; then ends the input.
    #[track_caller]
    fn carries(&self, piped: &mut Piped, count: usize) {
        let (down, up) = (noise(count), noise(count + 1));
        self.guest.ear().forget();
        std::thread::scope(|scope| {
            scope.spawn(|| self.guest.say(&down));
            scope.spawn(|| piped.types(&up));
            piped.stdout().receives_exactly(&down);
            self.guest.receives_exactly(&up);
        });
        piped.closes_stdin();
    }

    /// Types, and sees it arrive and what the guest says to it.
    #[track_caller]
    fn talks(&self, what: &str) {
        self.terminal.types(what);
        self.guest.receives(what);
        self.guest.say(format!("{what} to you"));
        self.terminal.shows(format!("{what} to you"));
    }

    /// Killed, it leaves what it had to its guard, which puts everything right.
    #[track_caller]
    fn is_put_right_when_killed(&self, session: &Session) {
        let guard = awaited_guard_of(session);
        session.signal(Signal::KILL);
        assert_eq!(session.wait(), 137);
        is_done(guard);
        self.is_as_before();
    }

    /// The terminal is as before, and nothing is left but the console, which is free.
    #[track_caller]
    fn is_as_before(&self) {
        assert_eq!(self.terminal.settings(), self.before);
        self.nothing_is_left();
    }

    /// The same where the terminal was not ours, or is gone.
    #[track_caller]
    fn nothing_is_left(&self) {
        self.locks.become_empty();
        until("its sockets are gone", || self.sockets().is_empty());
        let line = Client::asleep(self.guest.path());
        let is_flagged = || vconsole::sys::is_exclusive(line.line()).unwrap();
        until("the exclusive flag is cleared", || !is_flagged());
    }

    fn sockets(&self) -> Vec<PathBuf> {
        let entries = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten();
        let users = entries(self.runtime.path().to_path_buf());
        users.flat_map(|user| entries(user.path())).map(|socket| socket.path()).collect()
    }
}

/// Whether the terminal or stderr said this.
fn said(heard: &[u8], what: &str) -> bool {
    contains(heard, what.as_bytes())
}
