//! `attach --wait`: sleeping until the console is free.
//!
//! Whatever wakes us, we only look, which touches nothing; a claim is tried when nobody can be seen in
//! the way and nobody came before us.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use signal_hook::consts::SIGTSTP;
use signal_hook::low_level::emulate_default_handler;

use super::gain::{Gained, MakesWay, User, busy, claim_now, find_again, request};
use super::name_of;
use crate::audit::{self, Event};
use crate::claim::guard::Guard;
use crate::claim::{Place, Refusal, Request};
use crate::cli;
use crate::console::Target;
use crate::exit_status::ExitStatus;
use crate::process::{Openers, Process};
use crate::relay::{Notices, Signals};
use crate::terminal;

/// How the waiting ended.
pub(super) enum Waited {
    /// The console is ours.
    Claimed(Box<Gained>),
    /// Otherwise.
    Ended(ExitStatus),
}

/// When to look though nothing woke us: first, and at the longest. It is for what neither inotify nor
/// a pidfd shows: an exclusive flag, and holders that `/proc` hides.
const BETWEEN_LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// For so long a free console is left to those ahead: one of them may be stopped. Each further one
/// ahead adds a little, so that the rest keep their order, but not for ever.
const COURTESY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(500));

/// No free console is left to others for longer, however many they are.
const MOST_COURTESY: Duration = Duration::from_secs(6);

/// No more often than so, whatever wakes us.
const REST: Duration = Duration::from_millis(50);

/// A session that did not make way is not asked again sooner; each time it is left alone for twice as
/// long, up to the second. It drives, most likely, and asking costs a guard and a file among the locks.
const RETICENCE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(120));

/// Waits for one console.
pub(super) struct Wait<'a> {
    options: &'a cli::Attach,
    target: &'a Target,
    notices: &'a mut Notices,
    signals: &'a mut Signals,
    deadline: Option<Instant>,
    place: Place,
    events: Option<OwnedFd>,
    /// Those who are in the way, by their pidfds.
    holders: Vec<OwnedFd>,
    said: String,
    has_waited: bool,
    /// Who refused though force was tried.
    forced: Option<String>,
    free_since: Option<Instant>,
    pause: Duration,
    /// The session that was last asked to make way.
    asked: Option<Asked>,
}

/// A session that was asked to make way.
#[derive(Debug)]
struct Asked {
    session: Process,
    /// When it may be asked again, and how long that was.
    again: Instant,
    reticence: Duration,
}

impl Asked {
    /// Whether `session` is to be asked at a moment, who was asked before as `last` says; then notes it.
    fn is_due(last: &mut Option<Self>, session: &Process, now: Instant) -> bool {
        let reticence = match last {
            Some(asked) if asked.session.is(session) && now < asked.again => return false,
            Some(asked) if asked.session.is(session) => (asked.reticence * 2).min(RETICENCE.1),
            _ => RETICENCE.0,
        };
        *last = Some(Self { session: session.clone(), again: now + reticence, reticence });
        true
    }
}

impl<'a> Wait<'a> {
    pub(super) fn new(
        options: &'a cli::Attach,
        target: &'a Target,
        limit: Option<Duration>,
        notices: &'a mut Notices,
        signals: &'a mut Signals,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            options,
            target,
            notices,
            signals,
            deadline: limit.and_then(|limit| Instant::now().checked_add(limit)),
            place: Place::take(target).context("cannot take a place in the queue")?,
            events: watch(options, target).ok(),
            holders: Vec::new(),
            said: String::new(),
            has_waited: false,
            forced: None,
            free_since: None,
            pause: BETWEEN_LOOKS.0,
            asked: None,
        })
    }

    /// Waits until the console is ours, or there is a reason to end.
    pub(super) fn run(mut self) -> anyhow::Result<Waited> {
        let start = Instant::now();
        let waited = self.wait();
        if self.has_waited {
            let end = match &waited {
                Ok(Waited::Claimed(_)) => "got it".to_owned(),
                Ok(Waited::Ended(ExitStatus::Signal(number))) => name_of(*number),
                Ok(Waited::Ended(_)) => "the time limit passed".to_owned(),
                Err(error) => self.signals.ending().map_or_else(|| error.to_string(), name_of),
            };
            let event = Event::Waited { end: &end, seconds: start.elapsed().as_secs() };
            audit::record(&self.target.to_string(), &event);
        }
        waited
    }

    fn wait(&mut self) -> anyhow::Result<Waited> {
        loop {
            if let Some(signal) = self.signals.obey()?.ending {
                return Ok(Waited::Ended(ExitStatus::Signal(signal)));
            }
            let openers = find_again(self.options, self.target)?;
            let ahead = self.place.look();
            match self.attempt(&openers, ahead) {
                Ok(Some(gained)) => return Ok(Waited::Claimed(Box::new(gained))),
                Ok(None) => {}
                Err(error) => self.wait_for(&busy(error)?, ahead),
            }
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.notices.answer(format_args!("the time limit passed, {} is busy", self.target));
                return Ok(Waited::Ended(ExitStatus::TimeLimit));
            }
            self.sleep(ahead)?;
        }
    }

    /// Claims the console if nobody is in the way, or only who makes way, and nobody ahead wants it; by
    /// force, from who is in the way.
    fn attempt(&mut self, openers: &Openers, ahead: usize) -> anyhow::Result<Option<Gained>> {
        match self.look(openers) {
            Ok(()) => {
                self.forced = None;
                // Those who had it would wake us for ever: they have ended.
                self.holders.clear();
            }
            Err(refusal) if self.may_force(&refusal) => {
                self.forced = Some(in_the_way(&refusal));
                self.said.clear();
                let seen = refusal.any_session();
                return self.claim(openers, seen.map_or(MakesWay::AsAsked, MakesWay::Seen));
            }
            Err(refusal) if ahead == 0 && self.may_be_asked(&refusal) => {
                return self.claim(openers, MakesWay::AsAsked);
            }
            Err(refusal) => return Err(refusal.into()),
        }
        let free_since = *self.free_since.get_or_insert_with(Instant::now);
        if free_since.elapsed() < courtesy(ahead) {
            return Ok(None);
        }
        self.claim(openers, MakesWay::AsAsked)
    }

    /// Whether somebody can be seen in the way, whatever force would do about it.
    fn look(&mut self, openers: &Openers) -> Result<(), Refusal> {
        let (guard, user) = (Guard::none(), User::new(self.notices, self.signals));
        let request = request(self.options, self.target, &guard, &user);
        Request { force: false, ..request }.look(openers)
    }

    /// Whether force is tried on who is in the way: once, since what refuses will refuse again; and not
    /// on who waited before us, and has it in turn.
    fn may_force(&self, refusal: &Refusal) -> bool {
        let in_turn = refusal.any_session().is_some_and(|session| self.place.was_ahead(session));
        let refused = self.forced.as_ref().is_some_and(|forced| *forced == in_the_way(refusal));
        self.options.force && refusal.is_busy() && !in_turn && !refused
    }

    fn claim(&mut self, openers: &Openers, who: MakesWay<'_>) -> anyhow::Result<Option<Gained>> {
        if !terminal::in_foreground() {
            // A claim in the background would be that of a stopped process: its user has to come first.
            self.notices.say(format_args!("{} can be had: use fg", self.target));
            self.forced = None;
            emulate_default_handler(SIGTSTP)?;
            return Ok(None);
        }
        let claimed =
            claim_now(self.options, self.target, openers, who, self.notices, self.signals);
        // What our own attempt did to the locks is no news.
        self.forget_events();
        claimed.map(Some)
    }

    /// Whether a session has the console that makes way where it only reads, and was not asked of late.
    fn may_be_asked(&mut self, refusal: &Refusal) -> bool {
        let holder =
            refusal.any_session().filter(|_| !self.options.force && terminal::in_foreground());
        holder.is_some_and(|holder| Asked::is_due(&mut self.asked, holder, Instant::now()))
    }

    /// Says who is in the way, if that is new, and watches for their end.
    fn wait_for(&mut self, refusal: &Refusal, ahead: usize) {
        self.free_since = None;
        let in_the_way = in_the_way(refusal);
        // What was in the way of the force was named by what refused it.
        let forced = !self.said.is_empty() && self.forced.as_ref() == Some(&in_the_way);
        if in_the_way != self.said && !forced {
            self.has_waited = true;
            let others = if ahead > 0 { format!(", {ahead} ahead of you") } else { String::new() };
            self.notices.say(format_args!("waiting for {}: {in_the_way}{others}", self.target));
            self.said = in_the_way;
            self.pause = BETWEEN_LOOKS.0;
        }
        let pidfds = holders(refusal)
            .into_iter()
            .filter_map(|holder| pidfd_open(Pid::from_raw(holder.pid)?, PidfdFlags::empty()).ok());
        // One that has ended and is still in the way would wake us for ever.
        self.holders = pidfds.filter(|pidfd| !is_ready(pidfd)).collect();
    }

    /// Sleeps until something may have changed.
    fn sleep(&mut self, ahead: usize) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut until = start + self.pause;
        until = self.deadline.map_or(until, |deadline| until.min(deadline));
        until = self.free_since.map_or(until, |since| until.min(since + courtesy(ahead).max(REST)));
        let woken = self.poll(until, true)?;
        self.pause = if woken { BETWEEN_LOOKS.0 } else { (self.pause * 2).min(BETWEEN_LOOKS.1) };
        self.poll((start + REST).min(until), false)?;
        self.forget_events();
        Ok(())
    }

    /// Waits for news, or for a signal alone. Tells whether anything came.
    fn poll(&self, until: Instant, news: bool) -> anyhow::Result<bool> {
        let mut fds = vec![PollFd::new(&*self.signals, PollFlags::IN)];
        if news {
            let others = self.events.iter().chain(&self.holders).map(|fd| fd.as_fd());
            let others = others.chain(self.place.wire());
            fds.extend(others.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        }
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 5, tv_nsec: 0 });
        match poll(&mut fds, Some(&left)) {
            Ok(count) => Ok(count > 0),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(anyhow::Error::new(error).context("cannot wait")),
        }
    }

    fn forget_events(&self) {
        let Some(events) = &self.events else { return };
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(events, &mut space);
        while let Ok(event) = reader.next() {
            let _: ReadFlags = event.events();
        }
    }
}

/// Watches what is done to the console and to names in the lock directory.
fn watch(options: &cli::Attach, target: &Target) -> io::Result<OwnedFd> {
    let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let closed = WatchFlags::CLOSE_WRITE | WatchFlags::CLOSE_NOWRITE | WatchFlags::DELETE_SELF;
    let gone = WatchFlags::DELETE | WatchFlags::MOVED_FROM;
    let place = options.locks.place.directory.path();
    // What cannot be watched is looked at from time to time.
    let _ = inotify::add_watch(&events, target.path(), closed);
    let _ = inotify::add_watch(&events, place.join("lockdev"), gone);
    let _ = inotify::add_watch(&events, place, gone);
    Ok(events)
}

fn courtesy(ahead: usize) -> Duration {
    let further = u32::try_from(ahead.saturating_sub(1)).unwrap_or(u32::MAX);
    if ahead == 0 {
        Duration::ZERO
    } else {
        (COURTESY.0 + COURTESY.1.saturating_mul(further)).min(MOST_COURTESY)
    }
}

fn is_ready(pidfd: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)).is_ok_and(|count| count > 0)
}

fn holders(refusal: &Refusal) -> Vec<&Process> {
    match refusal {
        Refusal::Held { holder, .. }
        | Refusal::Kept { holder, .. }
        | Refusal::Unevictable { holder, .. } => vec![holder],
        Refusal::Flock { by, .. } | Refusal::Open { by, .. } | Refusal::Exclusive { by, .. } => {
            by.0.iter().collect()
        }
        _ => Vec::new(),
    }
}

fn in_the_way(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Held { holder, .. } => format!("held by {holder}"),
        Refusal::Flock { by, .. } => format!("locked with flock by {by}"),
        Refusal::Open { by, .. } => format!("open in {by}"),
        Refusal::Exclusive { by, .. } => format!("it has the exclusive flag of {by}"),
        Refusal::Kept { holder, why, .. } => format!("not given away by {holder}: {why}"),
        Refusal::Unevictable { holder, why, .. } => {
            format!("held by {holder}, who cannot be evicted: {why}")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Presence;

    #[test]
    fn who_drives_is_asked_less_and_less_often_and_who_comes_then_at_once() {
        let (start, mut asked) = (Instant::now(), None);
        let Presence::Alive(own) = Process::find(Process::own_pid()) else { panic!() };
        let session = |pid| {
            let mut session = own.clone();
            session.pid = pid;
            session
        };
        let mut times = 0;
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            times += u32::from(Asked::is_due(&mut asked, &session(7), now));
        }
        assert_eq!(times, 35);
        let now = start + Duration::from_secs(3600);
        assert!(Asked::is_due(&mut asked, &session(8), now));
        assert!(!Asked::is_due(&mut asked, &session(8), now));
    }
}
