//! Waiting, and moving what can be moved without waiting.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};

use super::buffer::Buffer;
use super::endpoint::{Kind, Sink, Source};
use super::escape::Escape;
use super::linger::Clock;
use super::{
    Ending, Error, Line, Notices, Settings, Signals, Undelivered, WATCHERS, Watcher, Wish, timeout,
};
use crate::terminal::{self, RawMode};
use crate::test_point;

/// So much may wait each way.
pub(super) const BUFFER: usize = 64 * 1024;
/// So much may wait for a console that takes nothing, where the input is typed: the escape key behind
/// a large paste has to be read to be obeyed.
const TYPED_BUFFER: usize = 1024 * 1024;
/// A console that takes nothing for so long is stuck.
const STUCK: Duration = Duration::from_millis(100);

/// Why the loop stops. An `Err`, so that `?` leaves it from any depth.
#[derive(Debug)]
pub(super) enum Stop {
    Ended(Ending),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

pub(super) type Step<T = ()> = Result<T, Stop>;

/// A session's bytes, and where they are.
#[derive(Debug)]
pub(super) struct Relay<'a> {
    pub(super) line: Line<'a>,
    pub(super) raw: Option<&'a RawMode<'a>>,
    pub(super) notices: &'a mut Notices,
    pub(super) signals: &'a mut Signals,
    pub(super) watchers: [&'a mut dyn Watcher; WATCHERS],
    pub(super) settings: &'a Settings<'a>,

    pub(super) input: Source,
    /// Finds commands in the input, if it is a terminal and has an escape key.
    pub(super) escape: Option<Escape>,
    /// When to explain the escape key that was pressed and nothing after it.
    pub(super) hint_at: Option<Instant>,
    /// From the input, for the console.
    pub(super) typed: Buffer,
    /// When the console last took some of it.
    pub(super) taken_at: Instant,

    pub(super) output: Sink,
    /// From the console, for the output.
    pub(super) printed: Buffer,

    /// Whether the user knows that what they type goes nowhere.
    pub(super) said_read_only: bool,
    /// The console's other end closed it: nothing more comes, nothing more goes.
    pub(super) hung_up: bool,
    /// No more comes from the input.
    pub(super) input_ended: bool,
    pub(super) linger: Clock,
    /// How many bytes of input the console did not take before it hung up.
    pub(super) refused: usize,
}

/// What poll says of each descriptor; nothing of those that were left out.
#[derive(Debug)]
struct Ready {
    signals: bool,
    input: PollFlags,
    output: PollFlags,
    console: PollFlags,
    watchers: [bool; WATCHERS],
}

/// So often watchers are looked after before something else is done that cannot wait.
const LOOKS: usize = 8;

pub(super) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let at_once = timeout(Duration::ZERO);
    retry_on_intr(|| poll(&mut fds, Some(&at_once))).is_ok_and(|count| count > 0)
}

/// Something to read, or the news that there will be no more.
const READABLE: PollFlags = PollFlags::IN.union(GONE);

/// How a terminal, or a PTY's other end, says that it is gone. Poll reports these unasked.
pub(super) const GONE: PollFlags = PollFlags::HUP.union(PollFlags::ERR);

impl<'a> Relay<'a> {
    pub(super) fn new(
        line: Line<'a>,
        raw: Option<&'a RawMode<'a>>,
        notices: &'a mut Notices,
        signals: &'a mut Signals,
        watchers: [&'a mut dyn Watcher; WATCHERS],
        settings: &'a Settings<'a>,
    ) -> Result<Self, Error> {
        Ok(Self {
            line,
            raw,
            notices,
            signals,
            watchers,
            settings,
            input: Source::new(io::stdin().as_fd()).map_err(Error::Stdin)?,
            escape: raw.and(settings.escape.byte()).map(Escape::new),
            hint_at: None,
            typed: Buffer::new(BUFFER),
            taken_at: Instant::now(),
            output: Sink::new(io::stdout().as_fd()).map_err(Error::Stdout)?,
            printed: Buffer::new(BUFFER),
            said_read_only: false,
            hung_up: false,
            input_ended: false,
            linger: Clock::new(settings.linger, settings.linger_max),
            refused: 0,
        })
    }

    /// Takes up what the driver before us did not deliver. Where there is an escape key there is room for
    /// what is typed here as well, or it could not be heard; but not from heir to heir without end.
    pub(super) fn take_up(mut self, left: &Undelivered) -> Self {
        let listens = self.raw.is_some() && left.typed.len() < 4 * TYPED_BUFFER;
        let needed = left.typed.len() + if listens { BUFFER } else { 0 };
        if needed > self.typed.room() {
            self.typed = Buffer::new(needed);
        }
        if left.printed.len() > self.printed.room() {
            self.printed = Buffer::new(left.printed.len());
        }
        self.typed.push(&left.typed);
        self.printed.push(&left.printed);
        self
    }

    /// Moves bytes until there is a reason to end, and gives what was not delivered then.
    pub(super) fn run(mut self) -> Result<(Ending, Undelivered), Error> {
        self.pass_window_size();
        let _unstopped = self.raw.map(|_| terminal::Unstopped::new());
        test_point::reached("relay");
        // Who waited for something else before may have looked at the signals, and left one for us.
        let mut done = self.obey_signals();
        let stop = loop {
            match done {
                Ok(()) => done = self.turn(),
                Err(stop) => break stop,
            }
        };
        self.wind_up(&stop);
        match stop {
            Stop::Ended(ending) => {
                let (typed, printed) = (self.typed.contents(), self.printed.contents());
                Ok((ending, Undelivered { typed, printed }))
            }
            Stop::Failed(error) => Err(error),
        }
    }

    /// Waits until something can be done, and does it: first what the user wants of us.
    fn turn(&mut self) -> Step {
        let ready = self.wait()?;
        if ready.signals {
            self.obey_signals()?;
        }
        self.move_up(ready.input)?;
        self.look_at_output(ready.output)?;
        self.move_down(ready.console)?;
        self.wake_watchers(ready.watchers, Instant::now())?;
        self.notices.write();
        self.look_at_the_clock(Instant::now())
    }

    /// Waits for whatever could be moved, and for the next time to look at the clock.
    ///
    /// What cannot be moved must not be waited for: a hang-up is reported even to who asks for nothing
    /// (poll(2)), so that the loop would never sleep.
    fn wait(&self) -> Step<Ready> {
        let signals = self.signals.as_fd();
        // What is left out is the signals' descriptor once more, asked for nothing.
        let entry = |fd, events: Option<PollFlags>| match events {
            Some(events) => PollFd::from_borrowed_fd(fd, events),
            None => PollFd::from_borrowed_fd(signals, PollFlags::empty()),
        };
        let stderr = self.notices.waiting_for();
        let watched = |watcher: usize| {
            let fd = self.watchers[watcher].descriptor();
            entry(fd.unwrap_or(signals), fd.map(|_| PollFlags::IN))
        };
        let mut fds = [
            PollFd::from_borrowed_fd(signals, PollFlags::IN),
            entry(self.input.as_fd(), self.input_interest()),
            entry(self.output.as_fd(), self.output_interest()),
            entry(self.line.as_fd(), self.line_interest()),
            entry(stderr.unwrap_or(signals), stderr.map(|_| PollFlags::OUT)),
            watched(0),
            watched(1),
            watched(2),
        ];
        let now = Instant::now();
        let watchers = self.watchers.iter().filter_map(|watcher| watcher.next_look());
        let next = watchers.chain(self.next_look()).min();
        let left = next.map(|at| timeout(at.saturating_duration_since(now)));
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Error::Wait(error.into()).into()),
        }
        Ok(Ready {
            signals: !fds[0].revents().is_empty(),
            input: fds[1].revents(),
            output: fds[2].revents(),
            console: fds[3].revents(),
            watchers: [5, 6, 7].map(|watched: usize| fds[watched].revents().intersects(READABLE)),
        })
    }

    fn wake_watchers(&mut self, ready: [bool; WATCHERS], now: Instant) -> Step {
        for (watcher, ready) in ready.into_iter().enumerate() {
            let watched = &mut self.watchers[watcher];
            let due = ready || watched.next_look().is_some_and(|at| at <= now);
            if due && watched.look(self.notices) == Wish::HandOver {
                self.hand_over(watcher)?;
            }
        }
        Ok(())
    }

    /// Lets a watcher hand the console over. Where nobody takes it we go on, and nothing is lost.
    fn hand_over(&mut self, watcher: usize) -> Step {
        // What is shown on a terminal that others use by now comes from none of us.
        if self.raw.is_none() || terminal::in_foreground() {
            self.deliver_the_rest();
        }
        let left = Undelivered { typed: self.typed.contents(), printed: self.printed.contents() };
        if self.watchers[watcher].hand_over(&left, self.notices) {
            return Err(Stop::Ended(Ending::HandedOver));
        }
        Ok(())
    }

    /// Looks after the watchers alone, without waiting: who wants to take over may have woken us for it.
    pub(super) fn look_around(&mut self) -> Step {
        // Whoever is at the door is let in at one look, and heard at the next.
        for _ in 0..LOOKS {
            let ready = [0, 1, 2].map(|watcher: usize| {
                self.watchers[watcher].descriptor().is_some_and(|fd| is_readable(fd))
            });
            if ready == [false; WATCHERS] {
                return Ok(());
            }
            self.wake_watchers(ready, Instant::now())?;
        }
        Ok(())
    }

    fn input_interest(&self) -> Option<PollFlags> {
        match self.input.kind() {
            // Asked for nothing it still says when it is gone.
            Kind::Terminal if self.typed.room() == 0 => Some(PollFlags::empty()),
            // After a hang-up what is typed goes nowhere, but the escape key still works.
            Kind::Terminal => Some(PollFlags::IN),
            // What is not read stays for whoever shares our input.
            _ if !self.settings.typing.get() => None,
            _ if self.typed.room() == 0 || self.input_ended || self.hung_up => None,
            _ => Some(PollFlags::IN),
        }
    }

    fn output_interest(&self) -> Option<PollFlags> {
        match (self.printed.is_empty(), self.output.kind()) {
            (false, _) => Some(PollFlags::OUT),
            (true, Kind::Terminal | Kind::Stream) => Some(PollFlags::empty()),
            (true, Kind::Other) => None,
        }
    }

    fn line_interest(&self) -> Option<PollFlags> {
        // Who passes a console on can have left while there is more to read than we have room for.
        if self.line.console().is_none() && self.printed.room() == 0 {
            return None;
        }
        let mut events = PollFlags::empty();
        events.set(PollFlags::IN, self.printed.room() > 0);
        events.set(PollFlags::OUT, !self.typed.is_empty());
        (!self.hung_up).then_some(events)
    }

    /// When to leave if the console says nothing more. Its silence means nothing while we do not listen:
    /// not before all that it said is shown.
    fn quiet_until(&self) -> Option<Instant> {
        self.linger.quiet_until().filter(|_| self.printed.is_empty() && !self.hung_up)
    }

    fn next_look(&self) -> Option<Instant> {
        let times =
            [self.hint_at, self.quiet_until(), self.linger.limit_at(), self.read_ahead_at()];
        times.into_iter().flatten().min()
    }

    /// When to read on though there is no room for more: the console is stuck, and the escape key may be
    /// behind what it does not take.
    fn read_ahead_at(&self) -> Option<Instant> {
        let full = self.typed.room() == 0 && self.typed.capacity() < TYPED_BUFFER;
        (self.raw.is_some() && full && !self.hung_up).then(|| self.taken_at + STUCK)
    }

    fn look_at_the_clock(&mut self, now: Instant) -> Step {
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if self.hung_up && self.printed.is_empty() {
            return Err(Stop::Ended(Ending::HungUp));
        }
        if passed(self.linger.limit_at()) {
            return Err(Stop::Ended(Ending::TimeLimit));
        }
        // Time also passes while we are stopped, or hand the console over in vain: what came meanwhile is
        // still unread.
        if passed(self.quiet_until()) && !is_readable(self.line.as_fd()) {
            return Err(Stop::Ended(Ending::InputEnded));
        }
        if passed(self.read_ahead_at()) {
            self.typed.grow(TYPED_BUFFER);
        }
        if passed(self.hint_at) {
            self.hint_at = None;
            self.explain_escape_key();
        }
        Ok(())
    }

    /// Whether who reads our output left. A file or device says so when it is written to.
    fn look_at_output(&self, ready: PollFlags) -> Step {
        match self.output.kind() {
            Kind::Terminal if ready.intersects(GONE) => Err(Stop::Ended(Ending::TerminalGone)),
            Kind::Stream if ready.intersects(GONE) => Err(Stop::Ended(Ending::ReaderGone)),
            _ => Ok(()),
        }
    }
}
