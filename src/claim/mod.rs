//! The right to drive a console, under every convention of the field at once.

mod directory;
mod evict;
pub mod guard;
mod holders;
mod hung_up;
mod inherit;
mod intruders;
mod judge;
mod ledger;
mod lock_file;
mod lock_set;
mod mend;
mod names;
mod obstacle;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod properties;
mod queue;
mod refusal;
mod remarks;
mod standing;
mod survey;

use std::cell::RefCell;
use std::ffi::OsString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::console::{Console, OpenError, Target};
use crate::process::{Openers, Process};
use crate::test_point;
use evict::Eviction;
use guard::Guard;
use lock_set::{LockSet, Stop};

pub use evict::{Immunity, end_session};
pub use inherit::{Borrowed, Inheritance};
pub use intruders::{Intruder, Intruders};
pub use judge::{Death, Suspicion, Verdict};
pub use names::{Convention, LockName, lock_names, read_name};
pub use queue::Place;
pub use refusal::{Refusal, Remedy, Suspects};
pub use standing::{Holder, Standing, State, Way};
pub use survey::{Found, Overview, Survey};

/// What to do about lock files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LockMode {
    /// Take them; an ordinary user who may not write to the lock directory checks them.
    Auto,
    /// Take them, or fail.
    Require,
    /// Check them, make none.
    Check,
    /// Do without.
    Off,
}

/// Where lock files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockPlace {
    /// The system's directory.
    Auto,
    /// This directory.
    Directory(PathBuf),
}

impl From<OsString> for LockPlace {
    fn from(text: OsString) -> Self {
        let auto = text.is_empty() || text == "auto";
        if auto { Self::Auto } else { Self::Directory(text.into()) }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The console.
    pub target: &'a Target,
    /// What to do about lock files.
    pub mode: LockMode,
    /// Where they are.
    pub place: &'a LockPlace,
    /// Whether locks that nobody can vouch for are broken, and whoever has it is evicted.
    pub force: bool,
    /// The process whose live session gives the console to us, if one does.
    pub heir_of: Option<i32>,
    /// Who is told what is done, so as to undo it if we are killed.
    pub guard: &'a Guard,
    /// Who asks.
    pub asker: &'a dyn Asker,
}

/// Who asks for a claim: to evict others takes its time.
pub trait Asker: fmt::Debug {
    /// Learns what is going on: a line, safe to show.
    fn hears(&self, line: &str);
    /// Whether there is no more use in going on.
    fn gives_up(&self) -> bool;
}

impl Request<'_> {
    /// Whether the user goes on without those lock files that the system does not let them make.
    fn in_session_mode(&self) -> bool {
        self.mode == LockMode::Auto && !nix::unistd::geteuid().is_root()
    }
}

/// The right to drive a console. It exists only while everything is held; dropping it gives everything
/// back.
#[derive(Debug)]
pub struct Claim {
    // Dropped first: `flock` still keeps others out while the lock files go.
    locks: RefCell<LockSet>,
    console: Console,
    intruders: Option<Intruders>,
    /// The watch of `intruders` once more, for a guard.
    watch: Option<OwnedFd>,
    remarks: Vec<String>,
}

/// How long we go on when others want the console at the same moment.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long another vconsole may take to give its lock files back when `flock` is ours.
const FAREWELL: Duration = Duration::from_millis(500);

impl Claim {
    /// Claims a console: looks at its lock files and takes them, opens it, takes `flock` and the
    /// exclusive flag, and looks again. The console is not opened before its lock files say that it is free.
    ///
    /// `openers` are those who have it open now; it is refused where one of them goes on using it.
    pub fn acquire(request: &Request<'_>, openers: &Openers) -> Result<Self, Refusal> {
        let mut openers = Some(openers);
        // From the first time on: an eviction before it takes as long as it takes.
        let mut deadline = None;
        loop {
            match Self::attempt(request, openers.take()) {
                Ok(claim) => return Ok(claim),
                Err(Stop::Refused(refusal)) => return Err(refusal),
                Err(Stop::LookAgain) => {
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
                    if Instant::now() >= deadline {
                        return Err(Refusal::Contended { console: request.target.to_string() });
                    }
                    // Others who lost the same race wait for another time than we do.
                    let odd = u64::from(Process::own_pid().unsigned_abs() % 7);
                    thread::sleep(Duration::from_millis(1 + odd));
                }
            }
        }
    }

    /// `openers` are looked at once: they have been counted before the first attempt.
    fn attempt(request: &Request<'_>, openers: Option<&Openers>) -> Result<Self, Stop> {
        let unusable = |source| Refusal::Unusable { console: request.target.to_string(), source };
        let (mut locks, ways) = LockSet::look(request)?;
        test_point::reached("locks-seen");
        let mut eviction = None;
        if request.force {
            eviction = Eviction::plan(request, &ways, openers)?;
        } else if let Some(openers) = openers {
            refuse_if_open(request.target, openers)?;
        }
        locks.take(request, ways)?;
        let mut console = open(request.target)?;
        if let Some(eviction) = eviction {
            eviction.carry_out(&mut console, &mut locks)?;
        }
        let has_flock = console.lock().map_err(unusable)?;
        let hung_up = if has_flock { None } else { holders::of_flock_and_hung_up(request.target) };
        if !has_flock && hung_up.is_none() {
            return Err(evict::flock(request).into());
        }
        let mut claim = Self::over(request, locks, console);
        let ours = claim.console.has_own_flag();
        let stuck = !ours && claim.console.is_exclusive().map_err(unusable)?;
        // It was left behind only if nobody has the line open any more but its other end. A vconsole
        // that came by another node of the same port has another flock.
        if stuck && !(request.force && openers_but_the_other_end(request.target).is_empty()) {
            return Err(exclusive(request.target).into());
        }
        // The flag outlives who sets it: not without somebody to clear it.
        request.guard.tell_console(&claim.console);
        if request.guard.is_up() {
            claim.console.set_exclusive().map_err(unusable)?;
        }
        refuse_if_open(request.target, &Openers::of(request.target.device()))?;
        claim.look_again(request)?;
        // Without flock nothing else tells two of us apart.
        let one_of_us = |process: &Process| process.is_one_of_us() && !process.is_guard();
        if hung_up.is_some() && openers_but_the_other_end(request.target).iter().any(one_of_us) {
            return Err(Stop::LookAgain);
        }
        claim.remarks.extend(claim.locks.get_mut().settle(request));
        if stuck {
            claim.remarks.push("took over an exclusive flag that somebody left behind".to_owned());
        }
        claim.remarks.extend(hung_up.map(|process| {
            format!("going on without flock: {process} was hung up, and keeps it until it ends")
        }));
        Ok(claim)
    }

    /// What is held so far, watched. Before the last look, so that whoever comes after it is seen. The
    /// remarks say what cannot be watched.
    fn over(request: &Request<'_>, locks: LockSet, console: Console) -> Self {
        let (intruders, remarks) = Intruders::watch(request.target, locks.directories());
        let watch = intruders.as_ref().and_then(|intruders| intruders.copy().ok());
        let claim = Self { locks: locks.into(), console, intruders, watch, remarks };
        claim.tell_watch(request.guard);
        claim
    }

    /// Evicts who else has the console open, beside us and the session that gave it to us. The claim stands
    /// whatever comes of it.
    pub fn evict_the_rest(&mut self, request: &Request<'_>) -> Result<(), Refusal> {
        let carry_out =
            |eviction: Eviction<'_>| eviction.carry_out(&mut self.console, self.locks.get_mut());
        match Eviction::plan(request, &[], None).and_then(|it| it.map_or(Ok(()), carry_out)) {
            Err(Stop::Refused(refusal)) => Err(refusal),
            // There are no names to take, and so none that changed.
            Ok(()) | Err(Stop::LookAgain) => Ok(()),
        }
    }

    /// Has those told of as well who had the console open before we watched it.
    pub fn look_who_else_has_it(&mut self) {
        if let Some(intruders) = &mut self.intruders {
            intruders.suspect();
        }
    }

    /// Looks at the lock files once more. A vconsole that has some is refused by our `flock`, and will
    /// give them back: who has `flock` stays.
    fn look_again(&mut self, request: &Request<'_>) -> Result<(), Stop> {
        let until = Instant::now() + FAREWELL;
        loop {
            match self.locks.get_mut().look_again(request) {
                Err(Stop::Refused(Refusal::Held { holder, .. }))
                    if holder.is_vconsole() && Instant::now() < until =>
                {
                    thread::sleep(Duration::from_millis(10));
                }
                done => return done,
            }
        }
    }

    /// The console.
    #[must_use]
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Those who open the console while it is ours, for whoever looks after them.
    pub fn take_intruders(&mut self) -> Option<Intruders> {
        self.intruders.take()
    }

    /// Tells a new guard what it has to undo.
    pub fn tell_again(&self, guard: &Guard) {
        self.locks.borrow().tell_again(guard);
        guard.tell_console(&self.console);
        self.tell_watch(guard);
    }

    fn tell_watch(&self, guard: &Guard) {
        if let Some(watch) = &self.watch {
            guard.tell_watch(watch);
        }
    }

    /// Makes the lock files again that somebody removed or overwrote behind our back, or took away with
    /// their directory, which `intruders` watches. Gives what the user should know of it.
    pub fn mend_locks(&self, guard: &Guard, intruders: &mut Intruders) -> Vec<String> {
        let mut locks = self.locks.borrow_mut();
        let mut said = locks.mend(guard);
        said.extend(intruders.watch_locks(locks.directories()));
        said
    }

    /// Whether a directory of lock files is gone, and to be looked for again.
    #[must_use]
    pub fn misses_a_directory(&self) -> bool {
        self.locks.borrow().misses_a_directory()
    }

    /// Sets the exclusive flag where it could not be set before: there was nobody who would have cleared it
    /// if we had been killed.
    pub fn set_flag(&self) -> std::io::Result<()> {
        if self.console.has_own_flag() { Ok(()) } else { self.console.set_exclusive() }
    }

    /// Gives up the exclusive flag: there is nobody who would clear it if we were killed.
    pub fn do_without_flag(&self) {
        self.console.clear_exclusive();
    }

    /// What the user should know of how it was claimed: a line each.
    #[must_use]
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// The lock files that we hold.
    #[must_use]
    pub fn lock_files(&self) -> Vec<PathBuf> {
        self.locks.borrow().paths()
    }
}

fn open(target: &Target) -> Result<Console, Refusal> {
    Console::open(target).map_err(|error| not_opened(target, error))
}

fn not_opened(target: &Target, error: OpenError) -> Refusal {
    match error {
        OpenError::NotAConsole(error) => error.into(),
        OpenError::Exclusive => exclusive(target),
        OpenError::Failed(source) => Refusal::Unusable { console: target.to_string(), source },
    }
}

/// Refuses a console that somebody uses without a lock.
fn refuse_if_open(target: &Target, openers: &Openers) -> Result<(), Refusal> {
    let holders = holders::who_stay(target.device(), openers);
    if holders.is_empty() {
        return Ok(());
    }
    Err(Refusal::Open { console: target.to_string(), by: Suspects(holders) })
}

fn exclusive(target: &Target) -> Refusal {
    let by = Suspects(openers_but_the_other_end(target));
    Refusal::Exclusive { console: target.to_string(), by }
}

/// Those who have a console open, vconsoles and their guards as well, but our own: that only has what
/// we have.
fn openers_but_the_other_end(target: &Target) -> Vec<Process> {
    let openers = Openers::of(target.device()).processes.into_iter();
    let own_guard = |process: &Process| process.is_guard() && process.is_child_of_ours();
    openers
        .filter(|process| !own_guard(process) && !process.has_master_of(target.device()))
        .filter(|process| process.can_use(target.device()) != Some(false))
        .collect()
}
