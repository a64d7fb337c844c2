//! Why a console could not be claimed: a value that knows who is in the way.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::io::Errno;

use super::evict::Immunity;
use super::judge::Suspicion;
use crate::console::NotAConsole;
use crate::printable::{Printable, local_time};
use crate::process::Process;

/// Why a console could not be claimed. Nothing was touched, or all of it was given back.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A living program has a lock file on it.
    #[error("{console} is held by {holder} since {}: lock file {}", local_time(*since), Printable::new(lock))]
    Held {
        /// The console's name, safe to show.
        console: String,
        /// Who has it.
        holder: Box<Process>,
        /// When the lock was written.
        since: SystemTime,
        /// The lock file.
        lock: PathBuf,
        /// Whether `--force` was given.
        forced: bool,
    },
    /// There is a lock that nobody can vouch for.
    #[error("{console} has a lock that nobody can vouch for: {}: {why}", Printable::new(lock))]
    Suspect {
        /// The console's name, safe to show.
        console: String,
        /// The lock file.
        lock: PathBuf,
        /// Why.
        why: Suspicion,
    },
    /// Nobody can see whether there are locks.
    #[error("{console} may have locks that cannot be seen in {}", Printable::new(directory))]
    Unseen {
        /// The console's name, safe to show.
        console: String,
        /// The lock directory.
        directory: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another has it by `flock`.
    #[error("{console} is locked with flock by {by}")]
    Flock {
        /// The console's name, safe to show.
        console: String,
        /// Who that can be.
        by: Suspects,
    },
    /// The session that drives it does not give it away.
    #[error("{console} was not given away by {holder}: {why}")]
    Kept {
        /// The console's name, safe to show.
        console: String,
        /// Who has it.
        holder: Box<Process>,
        /// Why.
        why: String,
        /// What helps.
        remedy: Remedy,
    },
    /// The session that drives it cannot be watched.
    #[error("{console} cannot be watched, {holder} has it: {why}")]
    Unwatched {
        /// The console's name, safe to show.
        console: String,
        /// Who has it.
        holder: Box<Process>,
        /// Why.
        why: String,
    },
    /// Others have it open without any lock.
    #[error("{console} is open in {by}, without a lock")]
    Open {
        /// The console's name, safe to show.
        console: String,
        /// Who.
        by: Suspects,
    },
    /// Another has set the exclusive flag.
    #[error("{console} has the exclusive flag (TIOCEXCL) of {by}")]
    Exclusive {
        /// The console's name, safe to show.
        console: String,
        /// Who that can be.
        by: Suspects,
    },
    /// Somebody who has it cannot be evicted.
    #[error("{console} is held by {holder}, who cannot be evicted: {why}")]
    Unevictable {
        /// The console's name, safe to show.
        console: String,
        /// Who has it.
        holder: Box<Process>,
        /// Why.
        why: Immunity,
        /// The guest at the other end, where that can be seen.
        guest: Option<String>,
    },
    /// A signal came that ends us, while we waited for others to leave.
    #[error("gave up {console}")]
    GivenUp {
        /// The console's name, safe to show.
        console: String,
    },
    /// Others who want it came first, again and again.
    #[error("{console} is wanted by others at the same moment, or one of its lock files is locked")]
    Contended {
        /// The console's name, safe to show.
        console: String,
    },
    /// The lock directory does not work as it should.
    #[error("the lock directory {} cannot be used", Printable::new(directory))]
    Directory {
        /// The lock directory.
        directory: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It cannot be attached to at all.
    #[error(transparent)]
    NotAConsole(#[from] NotAConsole),
    /// It could not be opened or set up.
    #[error("{console} cannot be used")]
    Unusable {
        /// The console's name, safe to show.
        console: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What helps where a session does not give its console away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// To ask it once more.
    AskAgain,
    /// To be root.
    BeRoot,
    /// To end it.
    EndIt,
    /// To see what there is.
    Look,
}

/// The processes that have a console open: one of them holds it.
#[derive(Debug)]
pub struct Suspects(pub Vec<Process>);

impl Refusal {
    /// Whether somebody has the console: exit status 3.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Held { .. }
            | Self::Suspect { .. }
            | Self::Unseen { .. }
            | Self::Flock { .. }
            | Self::Kept { .. }
            | Self::Unwatched { .. }
            | Self::Open { .. }
            | Self::Exclusive { .. }
            | Self::Unevictable { .. }
            | Self::Contended { .. } => true,
            Self::Directory { .. }
            | Self::NotAConsole(_)
            | Self::Unusable { .. }
            | Self::GivenUp { .. } => false,
        }
    }

    /// The session in the way, where it is another vconsole's that was there before us. One that came
    /// at the same moment has won a race, and is not what its loser knew of.
    #[must_use]
    pub fn session(&self) -> Option<&Process> {
        self.any_session().filter(|holder| {
            let since = match self {
                // Written later than now: the clock was set back, and the lock tells nothing.
                Self::Held { since, .. } if *since <= SystemTime::now() => Some(*since),
                _ => holder.started,
            };
            since.is_none_or(|since| !is_after_us(since))
        })
    }

    /// The session in the way, where it is another vconsole's, whenever it came.
    #[must_use]
    pub fn any_session(&self) -> Option<&Process> {
        match self {
            Self::Held { holder, .. } => {
                Some(&**holder).filter(|holder| holder.is_surely_vconsole())
            }
            // Also one that runs another file than we do: vconsole may have been upgraded since it
            // started. Whether it is a session it has to show at its socket.
            Self::Flock { by, .. } | Self::Open { by, .. } | Self::Exclusive { by, .. } => {
                by.0.iter().find(|process| process.is_surely_vconsole() && !process.is_guard())
            }
            _ => None,
        }
    }

    /// Whether it is of the moment: others want it as well, or a guard still clears up after a session
    /// that was killed.
    #[must_use]
    pub fn passes_by_itself(&self) -> bool {
        match self {
            Self::Contended { .. } => true,
            Self::Flock { by, .. } | Self::Exclusive { by, .. } => {
                // Beside a session that lives, a guard is that session's.
                by.0.iter().any(Process::is_guard) && self.any_session().is_none()
            }
            _ => false,
        }
    }

    /// What to type next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Held { console, holder, forced: true, .. } if holder.is_surely_vconsole() => format!(
                "it came at the same moment; to drive instead of its user: vconsole attach --force \
                 {console}"
            ),
            Self::Held { forced: true, .. } => {
                "--force evicts who has the console open, which this program has not: ask its user to \
                 end it"
                    .to_owned()
            }
            Self::Held { console, holder, .. } if holder.is_surely_vconsole() => format!(
                "`vconsole status {console}` shows its locks; to watch: vconsole attach --read-only \
                 {console}; to drive instead of its user: vconsole attach --force {console}"
            ),
            Self::Held { console, .. } => {
                format!(
                    "`vconsole status {console}` shows its locks; ask its user to leave, or evict it: \
                     vconsole attach --force {console}"
                )
            }
            Self::Suspect { console, why: Suspicion::Unreadable, .. } => format!(
                "root can read the lock; if you know that nobody uses it: vconsole attach --force {console}"
            ),
            Self::Suspect { console, .. } | Self::Unseen { console, .. } => {
                format!("if you know that nobody uses it: vconsole attach --force {console}")
            }
            Self::Flock { console, .. } | Self::Open { console, .. } | Self::Exclusive { console, .. }
                if self.any_session().is_some() =>
            {
                format!("to drive instead of its user: vconsole attach --force {console}")
            }
            Self::Flock { by, .. } if by.0.iter().any(Process::is_guard) => {
                let guard = by.0.iter().find(|process| process.is_guard());
                let pid = guard.map_or(0, |guard| guard.pid);
                format!(
                    "its session was killed, and the guard does not put things right: kill -CONT {pid}"
                )
            }
            Self::Flock { .. } => "ask its user to leave; flock ends with its process".to_owned(),
            Self::Open { .. } => {
                "two who read one console each get a part of it: ask its user to leave, or use --force"
                    .to_owned()
            }
            Self::Unevictable { console, holder, why, guest } => {
                why.hint(console, holder, guest.as_deref())
            }
            Self::Exclusive { console, by } if by.0.is_empty() => format!(
                "the flag outlives a program that was killed, while anything else, such as the virtual \
                 machine, has the line open; root clears it: sudo vconsole attach --force {console}"
            ),
            Self::Exclusive { .. } => "ask its user to leave".to_owned(),
            Self::Contended { .. } => "try again".to_owned(),
            Self::Directory { source, .. } => directory_hint(source).to_owned(),
            Self::NotAConsole(error) => error.hint(),
            Self::Kept { console, holder, remedy, .. } => remedy.hint(console, holder),
            Self::Unwatched { .. }
            | Self::Unusable { .. }
            | Self::GivenUp { .. } => return None,
        })
    }
}

impl Remedy {
    fn hint(self, console: &str, holder: &Process) -> String {
        let pid = holder.pid;
        match self {
            Self::AskAgain => format!(
                "try again: vconsole attach --force {console}; if that does not help, end it: kill {pid}"
            ),
            Self::BeRoot => format!("sudo vconsole attach --force {console}"),
            Self::EndIt => format!("end it, and try again: kill {pid}"),
            Self::Look => format!("`vconsole status {console}` shows its locks"),
        }
    }
}

/// Whether something was done after we were started, which is known to a tick of the kernel's clock.
fn is_after_us(at: SystemTime) -> bool {
    const TICK: Duration = Duration::from_millis(10);
    let own = Process::shown(Process::own_pid()).and_then(|own| own.started);
    own.and_then(|own| own.checked_add(TICK)).is_some_and(|own| at > own)
}

fn directory_hint(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => "make room there, or make no lock file: --locks check",
        _ => {
            "name another with --lock-dir, make no lock file with --locks check, or use none with --locks off"
        }
    }
}

impl fmt::Display for Suspects {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, others @ ..] = self.0.as_slice() else {
            return out.write_str("a program that cannot be seen from here");
        };
        write!(out, "{first}")?;
        others.iter().try_for_each(|other| write!(out, " or {other}"))
    }
}
