//! Somebody who operates, watches or waits, at a terminal or in a pipe.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::dice::Dice;
use crate::harness::{Ear, Piped, Process, Program, Session, Settings, Terminal};
use crate::harness::{contains, until, until_within};
use crate::seen::{Observed, Role, Told};
use crate::streams::is_shown;

/// A takeover from whoever hangs takes a few seconds, and the machine may be loaded.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One session, and what it is told with. Its standard output has the console's bytes alone.
pub(crate) struct Desk {
    seat: Station,
    /// Whether its guard was killed once: after some times a session does without.
    pub(crate) guard_was_killed: bool,
    /// Whether it watches on when it is taken over.
    pub(crate) stays: bool,
    /// Whether it is stopped.
    pub(crate) is_stopped: bool,
    /// What it has shown, whatever it did meanwhile, and what it said of that.
    pub(crate) seen: Observed,
    pub(crate) told: Told,
}

enum Station {
    Pipes(Piped),
    Terminal {
        terminal: Terminal,
        before: Settings,
        session: Session,
        notices: PathBuf,
        _of: TempDir,
    },
}

impl Desk {
    /// Somebody starts `program`, in a pipe or at a terminal.
    pub(crate) fn somewhere(program: Program, dice: &mut Dice) -> Self {
        if dice.coin() { Self::in_pipes(&program) } else { Self::at_a_terminal(program) }
    }

    /// Starts `program` in a pipe.
    pub(crate) fn in_pipes(program: &Program) -> Self {
        Self::at(Station::Pipes(program.piped()))
    }

    fn at(seat: Station) -> Self {
        let (seen, told) = (Observed::default(), Told::default());
        Self { seat, guard_was_killed: false, stays: false, is_stopped: false, seen, told }
    }

    /// It is one that watches on when it is taken over.
    pub(crate) fn that_stays(self, stays: bool) -> Self {
        Self { stays, ..self }
    }

    /// Starts `program` at a terminal.
    pub(crate) fn at_a_terminal(program: Program) -> Self {
        let (terminal, directory) = (Terminal::new(), tempfile::tempdir().unwrap());
        let (before, notices) = (terminal.settings(), directory.path().join("notices"));
        let program = program.redirected(format!("2>'{}'", notices.display()));
        let session = program.on(&terminal);
        Self::at(Station::Terminal { terminal, before, session, notices, _of: directory })
    }

    pub(crate) fn is_in_pipes(&self) -> bool {
        matches!(self.seat, Station::Pipes(_))
    }

    pub(crate) fn session(&self) -> &Session {
        match &self.seat {
            Station::Pipes(piped) => piped,
            Station::Terminal { session, .. } => session,
        }
    }

    /// What the console printed since the last time, as it is shown.
    #[track_caller]
    pub(crate) fn shows(&mut self) -> Vec<u8> {
        let mut bytes = self.ear().forget();
        // What was typed while it had set its terminal back was echoed.
        if self.stays && !self.is_in_pipes() {
            bytes.retain(|&byte| is_shown(byte));
        }
        self.seen.goes_on(&bytes);
        bytes
    }

    /// What it does now, as it says.
    pub(crate) fn role(&mut self) -> Role {
        let notices = self.notices();
        self.told.receives(&notices);
        self.told.role
    }

    fn ear(&self) -> &Ear {
        match &self.seat {
            Station::Pipes(piped) => piped.stdout(),
            Station::Terminal { terminal, .. } => terminal.ear(),
        }
    }

    pub(crate) fn types(&self, bytes: &[u8]) {
        match &self.seat {
            Station::Pipes(piped) => piped.types(bytes),
            Station::Terminal { terminal, .. } => terminal.types(bytes),
        }
    }

    /// How many bytes were typed and not read; nothing where that cannot be known.
    pub(crate) fn unread(&self) -> Option<u64> {
        match &self.seat {
            Station::Pipes(piped) => Some(piped.unread()),
            Station::Terminal { .. } => None,
        }
    }

    /// What it said of itself.
    pub(crate) fn notices(&self) -> String {
        let bytes = match &self.seat {
            Station::Pipes(piped) => piped.stderr().so_far(),
            Station::Terminal { notices, .. } => std::fs::read(notices).unwrap_or_default(),
        };
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until it is connected.
    #[track_caller]
    pub(crate) fn connects(&self) {
        until_within(PATIENCE, "it is connected", || {
            let ended = self.session().has_ended() && !self.is_connected();
            assert!(!ended, "it ended: {}", self.notices());
            self.is_connected()
        });
    }

    pub(crate) fn is_connected(&self) -> bool {
        contains(self.notices().as_bytes(), b"connected to")
    }

    /// The terminal is gone. Gives what it has shown.
    pub(crate) fn vanishes(&mut self) -> Vec<u8> {
        let Station::Terminal { terminal, .. } = &mut self.seat else { return Vec::new() };
        let mut words = terminal.vanishes();
        words.retain(|&byte| is_shown(byte));
        self.seen.goes_on(&words);
        words
    }

    /// What was shown until the session, which has ended, ended.
    #[track_caller]
    pub(crate) fn last_words(&mut self) -> Vec<u8> {
        let Station::Terminal { terminal, .. } = &self.seat else {
            self.ear().to_the_end();
            return self.shows();
        };
        // All that was written was there at once; but a terminal has no end to wait for.
        let mut before = usize::MAX;
        until("nothing more is shown", || {
            let now = terminal.ear().so_far().len();
            std::thread::sleep(Duration::from_millis(30));
            std::mem::replace(&mut before, now) == now
        });
        // What was typed and came through when it was set back was echoed.
        let mut words = self.ear().forget();
        words.retain(|&byte| is_shown(byte));
        self.seen.goes_on(&words);
        words
    }

    /// The terminal of a session that has ended is as it was before.
    #[track_caller]
    pub(crate) fn is_as_it_was(&self) {
        if let Station::Terminal { terminal, before, .. } = &self.seat {
            until("the terminal is as it was", || terminal.settings() == *before);
        }
    }

    /// The guard, if it has one at this moment.
    pub(crate) fn guard(&self) -> Option<Process> {
        let guard = children_of(self.session().pid()).find(|(state, _)| !state.starts_with('Z'))?;
        Process::find(Pid::from_raw(guard.1)?)
    }

    /// It is stopped, until [`Desk::goes_on`]. Its shell, if it has one, uses the terminal from then on.
    #[track_caller]
    pub(crate) fn stops(&mut self) {
        self.signal(Signal::STOP);
        self.session().is_stopped();
        if let Station::Terminal { terminal, session, .. } = &self.seat {
            until("its shell has the terminal", || terminal.foreground() != session.pid());
        }
        self.is_stopped = true;
    }

    /// It is continued, if it was stopped: at a terminal in the foreground. Who continued it before has not
    /// brought it there, and it stops again as soon as it needs that.
    #[track_caller]
    pub(crate) fn goes_on(&mut self) {
        if !std::mem::take(&mut self.is_stopped) {
            return;
        }
        if self.is_in_pipes() {
            return self.signal(Signal::CONT);
        }
        let mut again = Instant::now();
        until_within(PATIENCE, "it is in the foreground", || {
            let (stopped, role) = (self.session().is_stopped_now(), self.role());
            assert!(!self.session().has_ended(), "it ended: {}", self.notices());
            if stopped && Instant::now() >= again {
                // A shell may miss that it stopped once more, and has to be told again.
                again = Instant::now() + Duration::from_secs(1);
                self.is_brought_to_the_foreground();
            }
            !stopped && role != Role::None
        });
    }

    fn is_brought_to_the_foreground(&self) {
        if let Station::Terminal { session, terminal, before, .. } = &self.seat {
            // An interactive shell has done so when it was stopped.
            terminal.set(before);
            session.fg();
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.session().signal(signal);
    }
}

/// Guards outlive their sessions, and are our children then: but not for long.
#[track_caller]
pub(crate) fn no_guard_is_left_alone() {
    let own = i32::try_from(std::process::id()).unwrap();
    until_within(PATIENCE, "the guards of ended sessions have left", || {
        let (dead, alive): (Vec<_>, Vec<_>) =
            children_of(own).partition(|(state, _)| state.starts_with('Z'));
        let dead = dead.into_iter().filter_map(|(_, pid)| Process::find(Pid::from_raw(pid)?));
        dead.for_each(|guard| guard.kill());
        alive.is_empty()
    });
}

/// The guards that are children of `parent`: the states they are in, and their numbers.
fn children_of(parent: i32) -> impl Iterator<Item = (String, i32)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(move |pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = stat.rsplit_once(") ")?;
        let (state, rest) = rest.split_once(' ')?;
        let is_its = rest.split(' ').next() == Some(&parent.to_string());
        (is_its && name.ends_with("(vconsole-guard")).then(|| (state.to_owned(), pid))
    })
}
