//! Watching a console that another session drives.
//!
//! Those who watch must never cost the driver a processor. A priority is a thread's on Linux, and who is
//! no longer to wait for others cannot take it back (setpriority(2)): so the watching is done by a thread
//! of its own, and who takes the wheel after it drives as fast as ever.

use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant, SystemTime};
use std::{io, panic, thread};

use anyhow::Context as _;
use rustix::termios::isatty;

use super::gain::{Gained, MakesWay, claim_now, find_again};
use super::look_on::{follow, is_gone, look_on_after};
use super::watch::{GuardWatch, terminal_guard};
use super::{Role, leave};
use crate::audit::{self, Event};
use crate::claim::Refusal;
use crate::claim::guard::Guard;
use crate::cli;
use crate::commands;
use crate::console::Target;
use crate::printable::local_time;
use crate::process::Process;
use crate::relay::{
    self, Ending, Line, Nobody, Notices, Settings, Signals, Source, Traffic, Undelivered, Watcher,
    Wish,
};
use crate::session::Seat;
use crate::session::protocol::{Leave, Place};
use crate::session::seat::Word;
use crate::terminal::{LeftRaw, RawMode};
use crate::wire;

/// The lowest priority (setpriority(2)).
const LOWEST: i32 = 19;
/// How long the last bytes and words of a session may take that gave us its console.
const PATIENCE: Duration = Duration::from_secs(2);
/// So much of it is taken at most: more than a pipe and a tape have in them.
const MOST: usize = 4 << 20;
/// So many words are heard at one look. A session has one in a second to say.
const WORDS: usize = 16;

/// A console that another session drives, as we see it.
#[derive(Debug)]
pub(super) struct View {
    seat: Seat,
    driver: Process,
    console: String,
    /// What came and was not shown yet.
    left: Vec<u8>,
    /// What was typed behind the wish to drive.
    typed: Vec<u8>,
    /// So many bytes were left out of the pipe, as we were told.
    missed: u64,
    /// The last word of the session that we watch.
    last: Option<Word>,
    traffic: Traffic,
}

/// How watching ended.
enum Seen {
    /// We leave.
    Ended(Ending, Traffic),
    /// Our user wants to drive.
    Wheel(Box<View>, Option<LeftRaw>),
    /// The driver left, and this heir of it, if any. What came before the place was seen.
    Alone(Place, Option<i32>),
}

/// Watches, and gives what comes after it.
pub(super) fn watch(
    options: &cli::Attach,
    target: &Target,
    view: View,
    notices: &mut Notices,
    signals: &mut Signals,
) -> anyhow::Result<Role> {
    let (whom, reason) = (view.driver.to_string(), options.reason.as_deref());
    audit::record(&target.to_string(), &Event::Watches { whom: &whom, reason });
    // There is nothing to put right but the terminal.
    let mut guard = if isatty(io::stdin()) { terminal_guard(notices) } else { Guard::none() };
    let mut view = Some(view);
    let mut watching = {
        let (guard, view, notices, signals) = (&mut guard, &mut view, &mut *notices, &mut *signals);
        move || {
            let view = view.take().context("it is watched already")?;
            watch_one_after_another(options, target, view, &*guard, notices, signals)
        }
    };
    let seen = thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, || {
            let _ = rustix::process::setpriority_process(None, LOWEST);
            watching()
        });
        let joined = thread.ok().map(thread::ScopedJoinHandle::join);
        joined.map(|seen| seen.unwrap_or_else(|cause| panic::resume_unwind(cause)))
    });
    // Where there can be no thread it is done without the priority.
    let seen = seen.unwrap_or_else(watching)?;
    match seen {
        Seen::Wheel(view, terminal) => {
            // What is typed from here on is for the console, as it is.
            let raw = terminal.map(|terminal| terminal.take_up(&guard));
            take_the_wheel(options, target, *view, raw, notices, signals)
        }
        Seen::Ended(ending, traffic) => {
            drop(guard);
            Ok(leave(target, ending, &traffic, notices))
        }
        Seen::Alone(from, heir) => {
            drop(guard);
            let role = look_on_after(heir, options, target, Some(from), notices, signals);
            if !role.as_ref().is_err_and(is_gone) {
                return role;
            }
            Ok(leave(target, Ending::HungUp, &Traffic::default(), notices))
        }
    }
}

/// Watches whoever drives, and after a takeover whoever drives then.
fn watch_one_after_another(
    options: &cli::Attach,
    target: &Target,
    mut view: View,
    guard: &Guard,
    notices: &mut Notices,
    signals: &mut Signals,
) -> anyhow::Result<Seen> {
    let raw = RawMode::enter(guard).context("cannot set the terminal raw")?;
    loop {
        let ending = view.show(options, guard, raw.as_ref(), notices, signals)?;
        match ending {
            Ending::Wheel => {
                return Ok(Seen::Wheel(Box::new(view), raw.map(RawMode::leave)));
            }
            Ending::HungUp => {}
            other => return Ok(Seen::Ended(other, view.traffic)),
        }
        match view.last_word(notices) {
            Word::Ended { why: Leave::HungUp, .. } => {
                return Ok(Seen::Ended(Ending::HungUp, view.traffic));
            }
            Word::Ended { why: Leave::TakenOver { pid, uid }, at, .. } => {
                let next = follow(options, target, (pid, uid), Some(at), notices, signals)?;
                let Some(next) = next else { return Ok(Seen::Alone(at, Some(pid))) };
                view = next;
            }
            Word::Ended { why: Leave::Left, at, .. } => {
                notices.say(format_args!("{} left {target}", view.driver));
                return Ok(Seen::Alone(at, None));
            }
            Word::Gone | Word::Missed(_) => {
                notices.say(format_args!(
                    "{} ended without a word: what it read last may be missing",
                    view.driver
                ));
                return Ok(Seen::Alone(view.place(), None));
            }
        }
    }
}

/// Takes the console over from whoever drives. Where that cannot be, goes on watching.
fn take_the_wheel(
    options: &cli::Attach,
    target: &Target,
    mut view: View,
    raw: Option<RawMode<'_>>,
    notices: &mut Notices,
    signals: &mut Signals,
) -> anyhow::Result<Role> {
    let gained = find_again(options, target).map_err(anyhow::Error::new).and_then(|openers| {
        claim_now(options, target, &openers, MakesWay::Watched(&view.driver), notices, signals)
    });
    match gained {
        Ok(mut gained) => {
            gained.left.printed = view.what_was_not_shown(&gained, notices);
            gained.left.typed.append(&mut view.typed);
            // From here on it is for the guard of what was gained to give back.
            gained.terminal = raw.map(|raw| raw.leave().take_up(&gained.guard).leave());
            Ok(Role::Drive { gained: Box::new(gained), typing: true })
        }
        Err(error) if error.downcast_ref().is_some_and(Refusal::is_busy) => {
            commands::explain(&error, notices);
            view.typed.clear();
            Ok(Role::Watch(Box::new(view)))
        }
        // It has ended, or we are to: what came is still shown first.
        Err(error) if is_gone(&error) || signals.ending().is_some() => {
            view.typed.clear();
            Ok(Role::Watch(Box::new(view)))
        }
        Err(error) => Err(error),
    }
}

impl View {
    pub(super) fn new(seat: Seat, driver: Process, target: &Target) -> Self {
        let (console, traffic) = (target.to_string(), Traffic::default());
        let (left, typed) = (Vec::new(), Vec::new());
        Self { seat, driver, console, left, typed, missed: 0, last: None, traffic }
    }

    /// The tape that is seen.
    pub(super) fn reel(&self) -> u64 {
        self.seat.from().reel
    }

    /// Shows what comes, until there is a reason to end.
    fn show(
        &mut self,
        options: &cli::Attach,
        guard: &Guard,
        raw: Option<&RawMode<'_>>,
        notices: &mut Notices,
        signals: &mut Signals,
    ) -> anyhow::Result<Ending> {
        notices.say(self.introduction(options, raw.is_some()));
        let left = Undelivered { typed: Vec::new(), printed: std::mem::take(&mut self.left) };
        let since = SystemTime::now();
        let state = || format!("{}, watched since {}", self.what_is_seen(), local_time(since));
        let settings = Settings {
            escape: options.escape,
            linger: None,
            linger_max: None,
            typing: &Cell::new(false),
            status_line: &state,
            traffic: &self.traffic,
        };
        let mut guard_watch = GuardWatch::new(guard, None, raw, None);
        guard_watch.see_that_it_is_up(notices);
        let mut words = self.words();
        let watchers: [&mut dyn Watcher; 3] = [&mut guard_watch, &mut words, &mut Nobody];
        let line = Line::Feed(self.seat.feed());
        let (ending, left) = relay::run(line, raw, notices, signals, watchers, &settings, &left)?;
        (self.last, self.missed) = (words.last, words.missed);
        (self.left, self.typed) = (left.printed, left.typed);
        Ok(ending)
    }

    fn words(&self) -> Words<'_> {
        Words { seat: &self.seat, last: self.last, missed: self.missed }
    }

    /// The place of the next byte that comes through the pipe, as far as it is known.
    fn place(&self) -> Place {
        let (from, came) = (self.seat.from(), self.traffic.received().saturating_add(self.missed));
        Place { at: from.at.saturating_add(came), ..from }
    }

    fn introduction(&self, options: &cli::Attach, on_terminal: bool) -> String {
        let what = self.what_is_seen();
        match options.escape.byte() {
            Some(_) if on_terminal => {
                let key = options.escape;
                format!("watching {what}; {key} then . leaves, {key} then f takes the wheel")
            }
            _ => format!("watching {what}"),
        }
    }

    fn what_is_seen(&self) -> String {
        format!("{}, held by {}", self.console, self.driver)
    }

    /// The last word of a session, which has closed its pipe.
    fn last_word(&mut self, notices: &mut Notices) -> Word {
        let until = Instant::now() + PATIENCE;
        while !matches!(self.last, Some(Word::Ended { .. } | Word::Gone)) {
            if Instant::now() >= until || !wire::wait(self.seat.wire(), Some(until)) {
                return Word::Gone;
            }
            let mut words = self.words();
            let _ = words.look(notices);
            (self.last, self.missed) = (words.last, words.missed);
        }
        self.last.unwrap_or(Word::Gone)
    }

    /// When the console is ours: all that was printed and that we have not shown. The session that gave
    /// it to us has closed the pipe, and said up to where it was filled.
    fn what_was_not_shown(&mut self, gained: &Gained, notices: &mut Notices) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.left);
        let more = read_to_the_end(self.seat.feed(), &mut bytes);
        let at = match self.last_word(notices) {
            Word::Ended { at, .. } => at,
            // It was killed before it said so.
            Word::Missed(_) | Word::Gone => {
                let place = self.place();
                Place { at: place.at.saturating_add(more as u64), ..place }
            }
        };
        // Another tape began after ours had ended: all of it is news.
        let goes_on = at.reel == gained.tape.end().reel;
        let (at, oldest) = (if goes_on { at.at } else { 0 }, gained.tape.oldest());
        tell_what_was_missed(oldest.saturating_sub(at), notices);
        bytes.extend(gained.tape.all_from(at.max(oldest)));
        bytes
    }
}

/// Reads a pipe until whoever fills it closes it, and gives how much came. Who does not close it, or
/// fills it for ever, is not waited for.
fn read_to_the_end(pipe: BorrowedFd<'_>, bytes: &mut Vec<u8>) -> usize {
    let until = Instant::now() + PATIENCE;
    let before = bytes.len();
    let Ok(mut source) = Source::new(pipe) else { return 0 };
    while bytes.len() - before < MOST && Instant::now() < until && wire::wait(pipe, Some(until)) {
        let mut piece = [0; 4096];
        match source.read(&mut piece) {
            Ok(Some(0)) | Err(_) => break,
            Ok(Some(count)) => bytes.extend(&piece[..count]),
            Ok(None) => {}
        }
    }
    bytes.len() - before
}

fn tell_what_was_missed(bytes: u64, notices: &mut Notices) {
    if bytes > 0 {
        notices.answer(format_args!("missed {bytes} bytes: they came faster than they were shown"));
    }
}

/// Hears what the session says to those who watch it.
#[derive(Debug)]
struct Words<'a> {
    seat: &'a Seat,
    last: Option<Word>,
    missed: u64,
}

impl Watcher for Words<'_> {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        let over = matches!(self.last, Some(Word::Ended { .. } | Word::Gone));
        (!over).then(|| self.seat.wire())
    }

    fn next_look(&self) -> Option<Instant> {
        None
    }

    fn look(&mut self, notices: &mut Notices) -> Wish {
        // Whatever is left wakes us again: the user has a look in before.
        for _ in 0..WORDS {
            let word = self.descriptor().and_then(|_| self.seat.word());
            let Some(word) = word else { break };
            self.last = Some(word);
            if let Word::Missed(bytes) | Word::Ended { missed: bytes, .. } = word {
                self.missed = self.missed.saturating_add(bytes);
                tell_what_was_missed(bytes, notices);
            }
        }
        Wish::GoOn
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;
    use crate::session::protocol::Answer;

    #[test]
    fn one_look_hears_a_few_words_however_many_there_are() {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (theirs, ours) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let (feed, _end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let seat = Seat::at(ours, feed);
        for _ in 0..20 {
            wire::send(&theirs, &Answer::Missed(1), &[]).unwrap();
        }
        let mut words = Words { seat: &seat, last: None, missed: 0 };
        let mut notices = Notices::new(true);
        for heard in [16, 20] {
            assert_eq!(words.look(&mut notices), Wish::GoOn);
            assert_eq!(words.missed, heard);
        }
    }
}
