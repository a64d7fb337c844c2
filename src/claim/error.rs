//! Why a console could not be claimed, and what the user can do about it.

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use std::{fmt, io};

use nix::unistd::geteuid;
use rustix::io::Errno;

use crate::console::target::{Target, TargetError};
use crate::locks::staleness::UnknownReason;
use crate::printable::{Printable, local_time};
use crate::process::Process;

/// Why a console could not be claimed. Nothing was changed, or every change was undone.
#[derive(Debug)]
pub(crate) struct ClaimError {
    /// The console's name, safe to show.
    pub(crate) console: String,
    pub(crate) kind: ClaimErrorKind,
}

/// A [`ClaimError`] without the console's name, which is added at the boundary of `claim`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimErrorKind {
    #[error("is held by {holder} since {}: lock file {}", local_time(*since), Printable::new(lock))]
    Held { holder: Box<Process>, since: SystemTime, lock: PathBuf, forced: bool },
    #[error("has a lock that nobody can vouch for: {}: {why}", Printable::new(lock))]
    UnknownLock { lock: PathBuf, why: UnknownReason },
    #[error("may have locks that cannot be seen in {}", Printable::new(directory))]
    LocksHidden { directory: PathBuf, source: io::Error },
    #[error("is locked with flock by {by}")]
    Flock { by: PossibleHolders },
    #[error("was not given away by {holder}: {why}")]
    Kept { holder: Box<Process>, why: String, hint: Hint },
    #[error("cannot be watched, {holder} has it: {why}")]
    Unwatched { holder: Box<Process>, why: String },
    #[error("is open in {by}, without a lock")]
    Open { by: PossibleHolders },
    #[error("has the exclusive flag (TIOCEXCL) of {by}")]
    Exclusive { by: PossibleHolders },
    #[error("is held by {holder}, who cannot be evicted: {why}")]
    Unevictable { holder: Box<Process>, why: EvictError, guest: Option<String> },
    #[error("gave up")]
    Cancelled,
    #[error("is wanted by others at the same moment, or one of its lock files is locked")]
    Contended,
    #[error("the lock directory {} cannot be used", Printable::new(directory))]
    Directory { directory: PathBuf, source: io::Error },
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("cannot be used")]
    Unusable(#[source] io::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    AskAgain,
    BeRoot,
    EndHolder,
    ShowStatus,
    Thaw,
}

#[derive(Debug)]
pub(crate) struct PossibleHolders(pub(crate) Vec<Process>);

impl ClaimErrorKind {
    pub(crate) fn on(self, target: &Target) -> ClaimError {
        ClaimError { console: target.to_string(), kind: self }
    }

    fn possible_holders(&self) -> &[Process] {
        match self {
            Self::Flock { by } | Self::Open { by } | Self::Exclusive { by } => &by.0,
            _ => &[],
        }
    }
}

impl fmt::Display for ClaimError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { console, kind } = self;
        match kind {
            ClaimErrorKind::Directory { .. } | ClaimErrorKind::Target(_) => kind.fmt(out),
            ClaimErrorKind::Cancelled => write!(out, "{kind} {console}"),
            _ => write!(out, "{console} {kind}"),
        }
    }
}

impl Error for ClaimError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.kind.source()
    }
}

impl ClaimError {
    /// A busy console means exit status 3.
    pub(crate) fn is_busy(&self) -> bool {
        !matches!(
            self.kind,
            ClaimErrorKind::Directory { .. }
                | ClaimErrorKind::Target(_)
                | ClaimErrorKind::Unusable(_)
                | ClaimErrorKind::Cancelled
        )
    }

    pub(crate) fn holders(&self) -> &[Process] {
        match &self.kind {
            ClaimErrorKind::Held { holder, .. }
            | ClaimErrorKind::Kept { holder, .. }
            | ClaimErrorKind::Unevictable { holder, .. } => std::slice::from_ref(holder),
            kind => kind.possible_holders(),
        }
    }

    pub(crate) fn session(&self) -> Option<&Process> {
        match &self.kind {
            ClaimErrorKind::Held { holder, .. } => {
                Some(&**holder).filter(|holder| holder.is_surely_vconsole())
            }
            // The session can be of another version: its socket shows whether it is a session.
            kind => {
                let mut by = kind.possible_holders().iter();
                by.find(|process| process.is_surely_vconsole() && !process.is_guard())
            }
        }
    }

    /// The session, if it held the console before this process started. A session that came at the
    /// same moment won a race, and `--force` was not meant for it.
    pub(crate) fn earlier_session(&self) -> Option<&Process> {
        self.session().filter(|holder| {
            let since = match self.kind {
                // A lock from the future: the clock was set back, and the lock's time tells
                // nothing.
                ClaimErrorKind::Held { since, .. } if since <= SystemTime::now() => Some(since),
                _ => holder.started,
            };
            since.is_none_or(|since| !is_after_us(since))
        })
    }

    /// Whether another try may succeed soon: others want the console as well, or a guard still
    /// cleans up after a killed session.
    pub(crate) fn is_transient(&self) -> bool {
        match &self.kind {
            ClaimErrorKind::Contended => true,
            ClaimErrorKind::Flock { by } | ClaimErrorKind::Exclusive { by } => {
                // A guard of another session than the live one, if any, passes the console on.
                let session = self.session();
                by.0.iter()
                    .any(|it| it.is_guard() && session.is_none_or(|live| !it.is_child_of(live)))
            }
            _ => false,
        }
    }

    /// Like [`Self::is_transient`]; also if the guard left before it could be named.
    pub(crate) fn may_pass(&self) -> bool {
        use ClaimErrorKind::{Exclusive, Flock};
        matches!(&self.kind, Exclusive { by } | Flock { by } if by.0.is_empty())
            || self.is_transient()
    }

    pub(crate) fn hint(&self) -> Option<String> {
        use ClaimErrorKind as Kind;
        let console = &self.console;
        let force = format!("vconsole attach --force {console}");
        Some(match &self.kind {
            Kind::Held { holder, forced: true, .. } if holder.is_surely_vconsole() => {
                format!("it came at the same moment; to operate instead of its user: {force}")
            }
            Kind::Held { forced: true, .. } => {
                "--force evicts who has the console open, which this program has not: ask its user to \
                 end it"
                    .to_owned()
            }
            Kind::Held { holder, .. } if holder.is_surely_vconsole() => format!(
                "`vconsole status {console}` shows its locks; to watch: vconsole attach --read-only \
                 {console}; to operate instead of its user: {force}"
            ),
            Kind::Held { .. } => format!(
                "`vconsole status {console}` shows its locks; ask its user to leave, or evict it: {force}"
            ),
            Kind::UnknownLock { why: UnknownReason::Unreadable, .. } => {
                format!("root can read the lock; if you know that nobody uses it: {force}")
            }
            Kind::UnknownLock { .. } | Kind::LocksHidden { .. } => {
                format!("if you know that nobody uses it: {force}")
            }
            Kind::Flock { .. } | Kind::Open { .. } | Kind::Exclusive { .. }
                if self.session().is_some() =>
            {
                format!("to operate instead of its user: {force}")
            }
            Kind::Flock { by } => match by.0.iter().find(|process| process.is_guard()) {
                Some(guard) => format!(
                    "its session was killed, and the guard does not put things right: kill -CONT {}",
                    guard.pid
                ),
                None => "ask its user to leave; flock ends with its process".to_owned(),
            },
            Kind::Open { .. } => {
                "two who read one console each get a part of it: ask its user to leave, or use --force"
                    .to_owned()
            }
            Kind::Unevictable { holder, why, guest } => {
                why.hint(console, holder, guest.as_deref())
            }
            Kind::Exclusive { by } if by.0.is_empty() => format!(
                "the flag outlives a program that was killed, while anything else, such as the virtual \
                 machine, has the line open; root clears it: sudo {force}"
            ),
            Kind::Exclusive { .. } => "ask its user to leave".to_owned(),
            Kind::Contended => "try again".to_owned(),
            Kind::Directory { source, .. } => directory_hint(source).to_owned(),
            Kind::Target(error) => error.hint(),
            Kind::Kept { holder, hint, .. } => hint.text(console, holder),
            Kind::Unwatched { .. } | Kind::Unusable(_) | Kind::Cancelled => return None,
        })
    }
}

impl Hint {
    fn text(self, console: &str, holder: &Process) -> String {
        let pid = holder.pid;
        match self {
            Self::AskAgain => format!(
                "try again: vconsole attach --force {console}; if that does not help, end it: kill {pid}"
            ),
            Self::BeRoot => format!("sudo vconsole attach --force {console}"),
            Self::EndHolder => format!("end it, and try again: kill {pid}"),
            Self::Thaw => "thaw it, as `docker unpause` does, and try again".to_owned(),
            Self::ShowStatus => format!("`vconsole status {console}` shows its locks"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum EvictError {
    #[error("it is a daemon, with no terminal of its own")]
    Daemon,
    #[error("it is another user's")]
    AnotherUsers,
    #[error("it is a shell, or leads a session that others are in")]
    Shell,
    #[error("it started this very program")]
    AboveUs,
    #[error("the console is its controlling terminal, and it would end with that")]
    Controlled,
    #[error("its control group {} is frozen", Printable::new(_0))]
    Frozen(String),
    #[error("it has the console open as /dev/console or /dev/tty0, which no hang-up closes")]
    Alias,
    #[error("it went on after SIGHUP and SIGTERM")]
    Stubborn,
    #[error("it came back each time")]
    ComesBack,
    #[error("{0}")]
    Failed(io::Error),
}

impl EvictError {
    fn hint(&self, console: &str, holder: &Process, guest: Option<&str>) -> String {
        let program = holder.program.as_deref().unwrap_or_default();
        // The one of all drivers, and that of QEMU alone, whose name the kernel cuts.
        if matches!(program, "libvirtd" | "virtqemud") {
            let domain = guest.unwrap_or("DOMAIN");
            return format!("this frees it and takes it over: virsh console --force {domain}");
        }
        let as_root = format!("sudo vconsole attach --force {console}");
        match self {
            Self::Frozen(_) => Hint::Thaw.text(console, holder),
            Self::Daemon if geteuid().is_root() => format!(
                "tell {holder} to close the console; root needs CAP_SYS_ADMIN to hang it up"
            ),
            Self::Daemon => format!("tell {holder} to close the console, or: {as_root}"),
            Self::ComesBack | Self::Failed(_) | Self::Controlled | Self::Alias => {
                format!("ask the user of {holder} to end it")
            }
            _ if geteuid().is_root() => {
                "ask its user to leave; root needs CAP_SYS_ADMIN to hang the console up".to_owned()
            }
            _ => format!("ask its user to leave, or: {as_root}"),
        }
    }
}

/// The start of this process is known to a tick of the kernel's clock.
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

impl fmt::Display for PossibleHolders {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, others @ ..] = self.0.as_slice() else {
            return out.write_str("a program that cannot be seen from here");
        };
        write!(out, "{first}")?;
        others.iter().try_for_each(|other| write!(out, " or {other}"))
    }
}
