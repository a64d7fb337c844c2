//! Eviction: making programs that are no vconsoles let go of a console.
//!
//! Programs that a user sits at are told that their terminal hung up (SIGHUP), which most understand,
//! and then to end (SIGTERM). Daemons and shells are sent nothing: too much would end with them. For
//! these, and for whoever heeds no signal, root hangs the console up.

mod immunity;
mod session;
mod victim;

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;

use super::holders::{self, who_stay};
use super::lock_set::{LockSet, Slot, Stop, Way};
use super::{Refusal, Request, Suspects, not_opened};
use crate::audit::{self, Event};
use crate::console::{Console, Device, Kind, OpenError, OtherEnd, Role, Target};
use crate::printable::Printable;
use crate::process::{Census, Openers, Process};
use crate::test_point;
use immunity::{Means, is_another_users};
use victim::Victim;

pub use immunity::Immunity;
pub use session::end_session;

/// How long a program may take to end on a signal: on SIGHUP minicom takes 3.0 s and cu 2.0 s
/// (measured), and picocom ignores it.
const SIGNALS: [(Signal, &str, Duration); 2] = [
    (Signal::HUP, "SIGHUP", Duration::from_secs(4)),
    (Signal::TERM, "SIGTERM", Duration::from_secs(2)),
];

/// From then on whoever waits wants to know what for.
const SILENCE: Duration = Duration::from_millis(500);

/// How often to look whether somebody has let go, which the kernel sends no event about.
const GLANCE: Duration = Duration::from_millis(20);

/// How often the console is hung up for those who come back: root's minicom opens it again within a
/// millisecond.
const ROUNDS: usize = 3;

/// Those who are to let go of a console, and can be made to.
#[derive(Debug)]
pub(super) struct Eviction<'a> {
    request: &'a Request<'a>,
    victims: Vec<Victim>,
    /// Those who have let go.
    evicted: Vec<Process>,
}

impl<'a> Eviction<'a> {
    /// Finds who is in the way, in what was found at the lock names, `ways`, and among those who have
    /// the console open. Nobody has been disturbed when one of them refuses it all. Nothing where
    /// nobody is in the way.
    pub(super) fn plan(
        request: &'a Request<'a>,
        ways: &[(Slot, Way)],
        openers: Option<&Openers>,
    ) -> Result<Option<Self>, Stop> {
        let device = request.target.device();
        let stay = match openers {
            Some(openers) => who_stay(device, openers),
            None => who_stay(device, &Openers::of(device)),
        };
        let mut eviction = Self { request, victims: Vec::new(), evicted: Vec::new() };
        for (_, way) in ways {
            let Way::Held(held) = way else { continue };
            let holder = &held.holder;
            if stay.iter().any(|process| process.pid == holder.pid) {
                continue;
            }
            let revoked = holder.can_use(device) == Some(false);
            match holder.has_open(device) {
                // It was hung up before.
                Some(true) if revoked => eviction.evicted.push(holder.clone()),
                // It has left since its lock was looked at.
                _ if !holder.is_alive() => return Err(Stop::LookAgain),
                None if is_another_users(holder) => {
                    let why = immunity_of_hidden(holder, request);
                    return Err(eviction.unevictable(holder, why).into());
                }
                // It is not known what it has to do with the console: it is not signalled.
                _ => return Err(held.refusal(request).into()),
            }
        }
        test_point::reached("holders-seen");
        eviction.add(&stay)?;
        if !eviction.victims.is_empty() || !eviction.evicted.is_empty() {
            return Ok(Some(eviction));
        }
        // Whose lock was found has let go since, and nobody would take its name.
        let held = ways.iter().any(|(_, way)| matches!(way, Way::Held(_)));
        if held { Err(Stop::LookAgain) } else { Ok(None) }
    }

    /// Takes hold of all `holders`, or says which of them cannot be evicted.
    fn add(&mut self, holders: &[Process]) -> Result<(), Refusal> {
        let device = self.request.target.device();
        // Between vconsoles there is no eviction. What only calls itself one is as any other program.
        if holders.iter().any(Process::is_surely_vconsole) {
            let console = self.request.target.to_string();
            return Err(Refusal::Open { console, by: Suspects(holders.to_vec()) });
        }
        let mut all = Vec::new();
        for holder in holders {
            match Means::against(holder, device) {
                Ok(means) => all.push((holder, means)),
                Err(_) if !holder.is_alive() => {}
                Err(immunity) => return Err(self.unevictable(holder, immunity)),
            }
        }
        if all.iter().any(|(_, means)| *means == Means::HangUp) {
            self.check_that_a_hang_up_ends_nobody()?;
        }
        for (holder, means) in all {
            match Victim::identify(holder, means, device) {
                Ok(victim) => self.victims.extend(victim),
                Err(error) => return Err(self.unevictable(holder, Immunity::Failed(error))),
            }
        }
        Ok(())
    }

    /// Evicts them all. What locks could be had are held; `console` is opened again where it had to be
    /// hung up.
    pub(super) fn carry_out(
        mut self,
        console: &mut Console,
        locks: &mut LockSet,
    ) -> Result<(), Stop> {
        self.secure(console)?;
        for _ in 0..ROUNDS {
            if self.victims.is_empty() {
                break;
            }
            // Whom a hang-up reaches anyway gets no signal: it may have the console from a shell.
            if self.victims.iter().all(|victim| victim.means == Means::Signals) {
                self.signal_all(console)?;
            }
            if !self.victims.is_empty() {
                self.hang_up(console)?;
            }
            // Whoever came back, or was left behind by one who ended.
            let there = who_stay(self.device(), &Openers::of(self.device()));
            // One who had come back in no time can have left since.
            self.let_go(&self.by_hanging_up());
            self.victims.clear();
            self.add(&there)?;
        }
        if let Some(victim) = self.victims.first() {
            return Err(self.unevictable(&victim.process, Immunity::ComesBack).into());
        }
        locks.take_from(self.request, &self.evicted)
    }

    /// Takes what keeps others out meanwhile, as far as it can be had, and sees that nobody else has it.
    fn secure(&self, console: &Console) -> Result<(), Refusal> {
        let target = self.request.target;
        let unusable = |source| Refusal::Unusable { console: target.to_string(), source };
        if !console.lock().map_err(unusable)? {
            let mut pids: Vec<i32> = self.victims.iter().map(|it| it.process.pid).collect();
            pids.extend(self.evicted.iter().map(|process| process.pid));
            let known = holders::flock_is_of(target, &pids)
                || holders::of_flock_and_hung_up(target).is_some();
            return if known { Ok(()) } else { Err(flock(self.request)) };
        }
        // The guard clears the flag of a session that was killed only where that had `flock`.
        if self.request.guard.is_up() && !console.is_exclusive().map_err(unusable)? {
            self.request.guard.tell_console(console);
            console.set_exclusive().map_err(unusable)?;
        }
        Ok(())
    }

    /// Sends them what ends most programs, until nobody is left or nothing more can be sent.
    fn signal_all(&mut self, console: &Console) -> Result<(), Refusal> {
        for (signal, name, patience) in SIGNALS {
            for victim in self.victims.iter().filter(|victim| victim.has_it()) {
                if let Err(error) = victim.send(signal) {
                    return Err(self.unevictable(&victim.process, Immunity::Failed(error)));
                }
            }
            self.wait(name, patience)?;
            // They leave the line as they found it: with echo, often.
            let _ = console.set_raw();
        }
        Ok(())
    }

    /// Waits until they have let go because of `signal`, and tells the user whom for.
    fn wait(&mut self, signal: &str, patience: Duration) -> Result<(), Refusal> {
        let start = Instant::now();
        let mut told = false;
        loop {
            self.let_go(&format!("by {signal}"));
            let Some(victim) = self.victims.first() else { return Ok(()) };
            if start.elapsed() >= patience {
                return Ok(());
            }
            if !told && start.elapsed() >= SILENCE {
                told = true;
                let line = format!("sent {signal} to {}: waiting for it to leave", victim.process);
                self.request.asker.hears(&line);
            }
            self.pause()?;
        }
    }

    /// Hangs the console up for everybody, and opens it again.
    fn hang_up(&mut self, console: &mut Console) -> Result<(), Refusal> {
        let target = self.request.target;
        let Some(victim) = self.victims.first() else { return Ok(()) };
        if !immunity::may_hang_up() {
            return Err(self.unevictable(&victim.process, Immunity::Stubborn));
        }
        // Somebody may have logged in on it since we looked.
        target.check_that_it_may_be_driven(&Openers::of(self.device()))?;
        self.check_that_a_hang_up_ends_nobody()?;
        let unusable = |source| Refusal::Unusable { console: target.to_string(), source };
        let had_flag = console.has_own_flag();
        self.request.guard.tell_hanging_up(target);
        match console.hang_up(target) {
            // Root in a user namespace of its own.
            Err(OpenError::Failed(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(self.unevictable(&victim.process, Immunity::Failed(error)));
            }
            done => done.map_err(|error| not_opened(target, error))?,
        }
        // Who was hung up may still have flock; then there is no other use for it.
        let _ = console.lock().map_err(unusable)?;
        self.request.guard.tell_console(console);
        if had_flag {
            // It is still set: the hang-up does not clear it.
            console.set_exclusive().map_err(unusable)?;
        }
        self.let_go(&self.by_hanging_up());
        self.request.asker.hears(match target.kind() {
            Kind::Pty => "what nobody had read of the console's output may be gone",
            Kind::Serial => {
                "DTR and RTS fell for a moment, and what nobody had read of the console's output may \
                 be gone"
            }
        });
        // They need a moment to come back.
        thread::sleep(holders::LONG_ENOUGH);
        Ok(())
    }

    fn by_hanging_up(&self) -> String {
        format!("by hanging up {}", Printable::new(self.request.target.path()))
    }

    /// Whoever leads a session that the console controls is ended by a hang-up, even where it has closed
    /// the console itself.
    fn check_that_a_hang_up_ends_nobody(&self) -> Result<(), Refusal> {
        match Process::leading_on(self.device()) {
            Some(leader) => Err(self.unevictable(&leader, Immunity::Controlled)),
            None => Ok(()),
        }
    }

    /// Sees who has let go, and says so.
    fn let_go(&mut self, how: &str) {
        let all = std::mem::take(&mut self.victims).into_iter();
        let (stay, left): (Vec<_>, Vec<_>) = all.partition(Victim::has_it);
        self.victims = stay;
        for Victim { process, .. } in left {
            self.request.asker.hears(&format!("evicted {process} {how}"));
            let event = Event::Evicted { whom: &process.to_string(), how };
            audit::record(&self.request.target.to_string(), &event);
            self.evicted.push(process);
        }
    }

    /// Waits for a moment, or until one of them ends.
    fn pause(&self) -> Result<(), Refusal> {
        if self.request.asker.gives_up() {
            return Err(Refusal::GivenUp { console: self.request.target.to_string() });
        }
        let fds = self.victims.iter().map(|victim| PollFd::new(victim, PollFlags::IN));
        let mut fds: Vec<PollFd<'_>> = fds.collect();
        // An interruption only means to look earlier.
        let _ = poll(&mut fds, GLANCE.try_into().ok().as_ref());
        Ok(())
    }

    fn device(&self) -> Device {
        self.request.target.device()
    }

    fn unevictable(&self, holder: &Process, why: Immunity) -> Refusal {
        unevictable(self.request, holder, why)
    }
}

fn unevictable(request: &Request<'_>, holder: &Process, why: Immunity) -> Refusal {
    Refusal::Unevictable {
        console: request.target.to_string(),
        holder: Box::new(holder.clone()),
        why,
        guest: guest_of(request.target),
    }
}

/// Another has the console's `flock`, and was not evicted.
pub(super) fn flock(request: &Request<'_>) -> Refusal {
    let by = holders::of_flock(request.target).processes;
    match by.as_slice() {
        [other] if request.force && is_another_users(other) && !other.is_surely_vconsole() => {
            unevictable(request, other, immunity_of_hidden(other, request))
        }
        _ => Refusal::Flock { console: request.target.to_string(), by: Suspects(by) },
    }
}

/// Why one that hides what it has open cannot be evicted.
fn immunity_of_hidden(holder: &Process, request: &Request<'_>) -> Immunity {
    let daemon = !holder.is_interactive(request.target.device());
    if daemon { Immunity::Daemon } else { Immunity::AnotherUsers }
}

/// The name of the guest at the other end, safe to show.
fn guest_of(target: &Target) -> Option<String> {
    let census = Census::take();
    let masters = census.masters(target.device()).processes.into_iter();
    let mut roles = masters.map(|process| OtherEnd::of(process.clone()).role);
    roles.find_map(|role| match role {
        Role::Guest(name) => name.map(|name| Printable::new(&name).to_string()),
        _ => None,
    })
}
