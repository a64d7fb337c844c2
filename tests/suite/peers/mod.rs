//! vconsole and the real programs of the field, on either side: who holds a console, who comes later,
//! and which of them gets it.
//!
//! The programs know no lock directory but the system's, so these tests use it too: one test at a
//! time, and nothing of theirs is left there. Who they run as matters, so that root has to run them.
//! `VCONSOLE_REQUIRE_PEERS=1` makes a program that is not installed a failure.

mod as_holder;
mod as_newcomer;
mod console;
mod evicted;
mod kernel_locks;
mod libvirt;
mod matrix;
mod peer;
mod qemu;
mod running;
mod virsh;

use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::FlockOperation;

use super::harness::{Program, Terminal, not_root};

/// As whom a program runs. The two ordinary users are ones that every Debian has, since some of the
/// programs refuse to work for a user without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    Root,
    /// The ordinary user whom the console belongs to.
    Owner,
    /// Another ordinary user, who may open the console.
    Other,
}

impl User {
    fn ids(self) -> Option<(u32, u32)> {
        match self {
            Self::Root => None,
            Self::Owner => Some((1, 1)),
            Self::Other => Some((65534, 65534)),
        }
    }

    fn number(self) -> u32 {
        self.ids().map_or(0, |(user, _)| user)
    }

    /// Whether this user sees in `/proc` what a process of `other` has open.
    fn sees(self, other: Self) -> bool {
        self == Self::Root || self == other
    }

    fn runs(self, program: Program) -> Program {
        match self.ids() {
            Some((user, group)) => program.as_user(user, group),
            None => program,
        }
    }
}

/// The right to use the system's lock directory and the programs that use it. Others wait until it is
/// dropped, those of another run of the tests as well.
struct Turn {
    _among_us: MutexGuard<'static, ()>,
    _among_all: File,
}

/// Waits for its turn with the system's lock directory. None where these tests cannot run: the test
/// is skipped then, and should return.
fn turn() -> Option<Turn> {
    static TURN: Mutex<()> = Mutex::new(());
    if not_root() {
        return None;
    }
    // A test that failed says nothing about the next one.
    let among_us = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let among_all = File::open("/var/lock").unwrap();
    rustix::fs::flock(&among_all, FlockOperation::LockExclusive).unwrap();
    Some(Turn { _among_us: among_us, _among_all: among_all })
}

/// A piece of text that was not used before, to be recognized wherever it arrives.
fn token() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("<{}>", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A vconsole that is attached, with the terminal it is on.
struct Attached {
    terminal: Terminal,
    session: super::harness::Session,
}

impl Attached {
    /// Starts `attach` with `options`, and waits until it is connected.
    #[track_caller]
    fn start(console: &dyn console::Console, user: User, options: &[&str]) -> Self {
        let terminal = Terminal::new();
        let attach = super::harness::Vconsole::attach(console.path()).args(options);
        let session = user.runs(attach).attached_on(&terminal);
        Self { terminal, session }
    }

    /// What is typed arrives, and what the guest says is shown, whole.
    #[track_caller]
    fn relays(&self, console: &dyn console::Console) {
        for _ in 0..3 {
            let typed = token();
            self.terminal.types(&typed);
            console.receives(&typed);
            let said = token();
            console.say(&said);
            self.terminal.shows(&said);
        }
    }

    /// Detaches, and asserts that no lock is left.
    #[track_caller]
    fn leaves(self, console: &dyn console::Console) {
        self.terminal.types("\x1d.");
        assert_eq!(self.session.wait(), 0);
        assert_eq!(console.lock_files(), [""; 0], "left in the lock directory");
        assert!(console.openers().is_empty(), "{:?}", console.openers());
    }
}
