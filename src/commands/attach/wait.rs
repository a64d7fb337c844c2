//! `attach --wait`: sleeping until the console is free. A wake-up leads to a look, which changes
//! nothing. A claim is tried when no holder can be seen and no waiter is ahead.

use std::time::{Duration, Instant};
use std::{io, mem::MaybeUninit, os::fd::OwnedFd};

use anyhow::Context as _;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use signal_hook::{consts::SIGTSTP, low_level::emulate_default_handler};

use crate::claim::error::{ClaimError, ClaimErrorKind};
use crate::commands::attach::acquire::{Acquired, TakeoverScope, busy, is_reader};
use crate::commands::attach::{context::Attach, options::AttachOptions, outcome::Role};
use crate::poll::{self, Backoff};
use crate::{
    audit::Event,
    console::target::Target,
    exit_status::ExitStatus,
    process::Process,
    process::snapshot::ProcessSnapshot,
    session::wait_queue::{QueuePlace, Ticket},
    signals, terminal,
};

/// Neither inotify nor a pidfd shows a cleared exclusive flag, or a holder that `/proc` hides.
const SLEEP: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
/// A free console is left to the waiters ahead for this time: one of them may be stopped. Each
/// further waiter adds a little, up to the maximum, so that the rest keep their order.
const FIRST_WAITER: Duration = Duration::from_secs(2);
/// Waiters see a console become free at different times: a little less counts as well.
const PASSED_OVER_AFTER: Duration = Duration::from_millis(1500);
const FURTHER_WAITER: Duration = Duration::from_millis(500);
const ALL_WAITERS: Duration = Duration::from_secs(6);
/// A reader that does not answer is asked again after this pause. Each request that it does not read
/// stays in its backlog, which holds 64.
const ASK_AGAIN: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(128));
const MIN_INTERVAL: Duration = Duration::from_millis(50);

struct Wait<'w, 'a> {
    attach: &'w mut Attach<'a>,
    deadline: Option<Instant>,
    ticket: Ticket,
    events: Option<OwnedFd>,
    holders: Vec<OwnedFd>,
    /// The holder as last shown to the user.
    shown: String,
    has_waited: bool,
    forced: Option<String>,
    asked: Option<AskedReader>,
    free_since: Option<Instant>,
    sleep: Backoff,
}

/// A session that only reads, and has not handed its console over yet.
struct AskedReader {
    reader: Process,
    /// When to ask it again.
    again: Instant,
    pause: Backoff,
}

impl AskedReader {
    fn new(reader: Process, now: Instant) -> Self {
        Self { reader, again: now, pause: ASK_AGAIN }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = now >= self.again;
        if is_due {
            self.again = now + self.pause.next();
        }
        is_due
    }
}

impl Attach<'_> {
    pub(super) fn wait(&mut self, limit: Option<Duration>) -> anyhow::Result<Role> {
        let start = Instant::now();
        let mut wait = Wait {
            deadline: limit.and_then(|limit| start.checked_add(limit)),
            ticket: Ticket::take(self.target).context("cannot take a place in the queue")?,
            events: watch(&self.options, self.target).ok(),
            holders: Vec::new(),
            shown: String::new(),
            has_waited: false,
            forced: None,
            asked: None,
            free_since: None,
            sleep: SLEEP,
            attach: self,
        };
        let waited = wait.run();
        if wait.has_waited {
            let end = match &waited {
                Ok(Role::Exit(ExitStatus::Signal(number))) => signals::name_of(*number),
                Ok(Role::Exit(_)) => "the time limit passed".to_owned(),
                Ok(_) => "got it".to_owned(),
                Err(error) => {
                    let signal = self.signals.ending();
                    signal.map_or_else(|| error.to_string(), signals::name_of)
                }
            };
            let seconds = start.elapsed().as_secs();
            self.record(&Event::usual("waited").with("end", end).with("seconds", seconds));
        }
        waited
    }
}

impl Wait<'_, '_> {
    fn run(&mut self) -> anyhow::Result<Role> {
        loop {
            if let Some(signal) = self.attach.signals.obey()?.ending {
                return Ok(Role::Exit(ExitStatus::Signal(signal)));
            }
            let snapshot = self.attach.look_again()?;
            let ahead = self.look_at_queue();
            match self.attempt(&snapshot, ahead) {
                Ok(Some(acquired)) => return Ok(Role::operate(acquired)),
                Ok(None) => {}
                Err(error) => self.wait_for(&busy(error)?, ahead),
            }
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                let Attach { target, messages, .. } = &mut *self.attach;
                messages.important(format_args!("the time limit passed, {target} is busy"));
                return Ok(Role::Exit(ExitStatus::TimeLimit));
            }
            self.sleep(ahead)?;
        }
    }

    /// Returns how many are ahead. Each one that leaves may have the console, and gives the next one
    /// its time.
    fn look_at_queue(&mut self) -> usize {
        let free_for = self.free_since.map(|since| since.elapsed());
        let QueuePlace { ahead, moved } = self.ticket.look(free_for >= Some(PASSED_OVER_AFTER));
        self.free_since = self.free_since.filter(|_| !moved);
        ahead
    }

    /// Acquires a console that is free or only read, if no waiter is ahead; with --force any.
    fn attempt(
        &mut self,
        snapshot: &ProcessSnapshot,
        ahead: usize,
    ) -> anyhow::Result<Option<Acquired>> {
        match self.attach.check_free(snapshot) {
            Ok(()) => {
                self.forced = None;
                // The former holders have ended, and would wake us for ever.
                self.holders.clear();
            }
            Err(error) if self.may_force(&error) => {
                self.forced = Some(holder_of(&error));
                self.shown.clear();
                let session = error.session();
                let scope = session.map_or(TakeoverScope::AsAsked, TakeoverScope::From);
                return self.acquire(snapshot, scope);
            }
            Err(error) if ahead == 0 && self.may_ask_reader(&error) => {
                return self.acquire(snapshot, TakeoverScope::AsAsked);
            }
            Err(error) => return Err(error.into()),
        }
        let free_since = *self.free_since.get_or_insert_with(Instant::now);
        if free_since.elapsed() < time_for(ahead) {
            return Ok(None);
        }
        self.acquire(snapshot, TakeoverScope::AsAsked)
    }

    /// Force is tried once on a holder, which would refuse again, and never on a waiter in its turn.
    fn may_force(&self, error: &ClaimError) -> bool {
        let in_turn = error.session().is_some_and(|session| self.ticket.was_ahead(session));
        let refused = self.forced.as_ref().is_some_and(|forced| *forced == holder_of(error));
        self.attach.options.force && error.is_busy() && !in_turn && !refused
    }

    fn may_ask_reader(&mut self, error: &ClaimError) -> bool {
        let asks = !self.attach.options.force && terminal::in_foreground();
        let Some(reader) = error.session().filter(|holder| asks && is_reader(holder)) else {
            return false;
        };
        if self.asked.as_ref().is_none_or(|asked| !asked.reader.is(reader)) {
            self.asked = Some(AskedReader::new(reader.clone(), Instant::now()));
        }
        self.asked.as_mut().is_some_and(|asked| asked.is_due(Instant::now()))
    }

    fn acquire(
        &mut self,
        snapshot: &ProcessSnapshot,
        scope: TakeoverScope<'_>,
    ) -> anyhow::Result<Option<Acquired>> {
        if !terminal::in_foreground() {
            // In the background the claim would be that of a stopped process.
            let target = self.attach.target;
            self.attach.messages.info(format_args!("{target} can be had: use fg"));
            self.forced = None;
            emulate_default_handler(SIGTSTP)?;
            return Ok(None);
        }
        let acquired = self.attach.acquire(snapshot, scope);
        // Changes that our own attempt made to the locks are no news.
        self.drain_events();
        acquired.map(Some)
    }

    /// Shows a new holder, and watches for the holders' end.
    fn wait_for(&mut self, error: &ClaimError, ahead: usize) {
        self.free_since = None;
        let holder = holder_of(error);
        // The refusal of the force has named the holder already.
        let forced = !self.shown.is_empty() && self.forced.as_ref() == Some(&holder);
        if holder != self.shown && !forced {
            self.has_waited = true;
            let others = if ahead > 0 { format!(", {ahead} ahead of you") } else { String::new() };
            let target = self.attach.target;
            self.attach.messages.info(format_args!("waiting for {target}: {holder}{others}"));
            self.shown = holder;
            self.sleep.reset();
        }
        let pidfd = |pid| pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok();
        let pidfds = error.holders().iter().filter_map(|holder| pidfd(holder.pid));
        // A holder that has ended and is still in the way would wake us for ever.
        self.holders = pidfds.filter(|pidfd| !poll::is_readable(pidfd)).collect();
    }

    fn sleep(&mut self, ahead: usize) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut until = start + self.sleep.next();
        until = self.deadline.map_or(until, |deadline| until.min(deadline));
        let turn = self.free_since.map(|since| since + time_for(ahead).max(MIN_INTERVAL));
        until = turn.map_or(until, |turn| until.min(turn));
        let mut fds = vec![poll::readable(&self.attach.signals)];
        fds.extend(self.events.iter().chain(&self.holders).map(poll::readable));
        let ahead = self.ticket.socket();
        fds.extend(ahead.iter().map(poll::readable));
        if poll::wait(&mut fds, Some(until)).context("cannot wait")? > 0 {
            self.sleep.reset();
        }
        let rest = Some((start + MIN_INTERVAL).min(until));
        poll::wait(&mut [poll::readable(&self.attach.signals)], rest).context("cannot wait")?;
        self.drain_events();
        Ok(())
    }

    fn drain_events(&self) {
        let Some(events) = &self.events else { return };
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(events, &mut space);
        while reader.next().is_ok() {}
    }
}

fn watch(options: &AttachOptions, target: &Target) -> io::Result<OwnedFd> {
    let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let closed = WatchFlags::CLOSE_WRITE | WatchFlags::CLOSE_NOWRITE | WatchFlags::DELETE_SELF;
    let gone = WatchFlags::DELETE | WatchFlags::MOVED_FROM;
    let locks = options.lock_place.path();
    // What cannot be watched is looked at from time to time.
    for node in target.nodes() {
        let _ = inotify::add_watch(&events, node, closed);
    }
    let _ = inotify::add_watch(&events, locks.join("lockdev"), gone);
    let _ = inotify::add_watch(&events, locks, gone);
    Ok(events)
}

/// How long a free console is left to the waiters ahead.
fn time_for(ahead: usize) -> Duration {
    let Some(further) = ahead.checked_sub(1) else { return Duration::ZERO };
    let further = u32::try_from(further).unwrap_or(u32::MAX);
    (FIRST_WAITER + FURTHER_WAITER.saturating_mul(further)).min(ALL_WAITERS)
}

fn holder_of(error: &ClaimError) -> String {
    match &error.kind {
        ClaimErrorKind::Held { holder, .. } => format!("held by {holder}"),
        ClaimErrorKind::Flock { by } => format!("locked with flock by {by}"),
        ClaimErrorKind::Open { by } => format!("open in {by}"),
        ClaimErrorKind::Exclusive { by } => format!("it has the exclusive flag of {by}"),
        ClaimErrorKind::Kept { holder, why, .. } => format!("not given away by {holder}: {why}"),
        ClaimErrorKind::Unevictable { holder, why, .. } => {
            format!("held by {holder}, who cannot be evicted: {why}")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_reader_is_asked_ever_less_often() {
        let start = Instant::now();
        let mut asked = AskedReader::new(Process::default(), start);
        assert!(asked.is_due(start) && !asked.is_due(start));
        let due = (1..3600).filter(|second| asked.is_due(start + Duration::from_secs(*second)));
        assert!((20..50).contains(&due.count()));
    }
}
