//! `vconsole status --watch`: looks again and again until it is told to end.

use std::time::{Duration, Instant};
use std::{io, os::fd::AsFd as _};

use anyhow::Context as _;
use rustix::termios::{isatty, tcgetwinsize};
use rustix::{event::PollFlags, io::Errno};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGWINCH};

use crate::commands::status::report::{Report, to_json};
use crate::commands::status::table::{self, TableStyle};
use crate::signals::{Delivery, ENDING, deliver};
use crate::terminal::{self, RawMode};
use crate::{endpoint::Sink, exit_status::ExitStatus, guard::client::Guard, poll};

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// Home and clear all; home; clear the rest of the line; clear everything below (ECMA-48).
const CLEAR: &str = "\x1b[H\x1b[2J";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

pub(super) fn run(
    pause: Duration,
    look: impl Fn() -> anyhow::Result<Report>,
    json: bool,
) -> anyhow::Result<ExitStatus> {
    // Before the terminal is raw: a signal then waits until it can be restored.
    let signals = deliver(&ENDING, &[SIGWINCH, SIGCONT]).context("cannot watch for signals")?;
    let in_place = !json && isatty(io::stdout());
    let guard = in_place.then(Guard::start).map(|(guard, _)| guard);
    let keys = match &guard {
        Some(guard) if terminal::in_foreground() => {
            RawMode::enter(guard).context("cannot set the terminal raw")?
        }
        _ => None,
    };
    let output = Sink::new(io::stdout().as_fd()).context("cannot write to stdout")?;
    let (pause, next) = (pause.max(SHORTEST_PAUSE), Instant::now());
    let (pending, first) = (Vec::new(), true);
    Watch { look, pause, next, json, in_place, signals, keys, output, pending, first }.run()
}

struct Watch<'a, L> {
    look: L,
    pause: Duration,
    /// When to look again.
    next: Instant,
    json: bool,
    in_place: bool,
    signals: Delivery,
    keys: Option<RawMode<'a>>,
    output: Sink,
    pending: Vec<u8>,
    first: bool,
}

impl<L: Fn() -> anyhow::Result<Report>> Watch<'_, L> {
    fn run(&mut self) -> anyhow::Result<ExitStatus> {
        loop {
            if self.pending.is_empty() && Instant::now() >= self.next {
                self.next = Instant::now() + self.pause;
                self.pending = self.frame()?.into_bytes();
            }
            // A reader that accepts nothing must not keep the user from leaving.
            let ends = [self.write()?, self.read_keys()?, self.handle_signals()?];
            if let Some(status) = ends.into_iter().flatten().next() {
                return Ok(status);
            }
        }
    }

    fn frame(&mut self) -> anyhow::Result<String> {
        let report = (self.look)()?;
        let first = std::mem::take(&mut self.first);
        if self.json {
            return to_json(&report, serde_json::to_string);
        }
        let table = table::render(&report, &TableStyle::of_stdout());
        if !self.in_place {
            let gap = if first { "" } else { "\n" };
            return Ok(format!("{gap}{table}"));
        }
        let rows = tcgetwinsize(io::stdout()).map_or(24, |size| usize::from(size.ws_row));
        let mut frame = if first { CLEAR } else { HOME }.to_owned();
        // The last row stays free: writing to its end would scroll.
        for line in table.lines().take(rows.saturating_sub(1).max(1)) {
            frame += &[line, CLEAR_LINE, "\r\n"].concat();
        }
        Ok(frame + CLEAR_BELOW)
    }

    /// Returns the exit status, as the functions below, if the watch is over.
    fn write(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        while !self.pending.is_empty() {
            match self.output.write(&self.pending) {
                Ok(Some(count)) => drop(self.pending.drain(..count)),
                Ok(None) => break,
                Err(error) => {
                    let signal = match Errno::from_io_error(&error) {
                        Some(Errno::PIPE | Errno::CONNRESET) => libc::SIGPIPE,
                        Some(Errno::IO) => SIGHUP,
                        _ => return Err(error).context("cannot write to stdout"),
                    };
                    return Ok(Some(ExitStatus::Signal(signal)));
                }
            }
        }
        Ok(None)
    }

    /// Returns whether there are keys.
    fn wait(&self) -> anyhow::Result<bool> {
        let stdin = io::stdin();
        let mut fds = vec![poll::readable(self.signals.get_read())];
        let busy = !self.pending.is_empty();
        if busy {
            fds.push(poll::entry(self.output.as_fd(), PollFlags::OUT));
        }
        // In the background, reading the terminal would stop us.
        let keys = self.keys.is_some() && terminal::in_foreground();
        if keys {
            fds.push(poll::readable(&stdin));
        }
        poll::wait(&mut fds, (!busy).then_some(self.next)).context("cannot wait")?;
        Ok(keys && fds.last().is_some_and(|fd| !fd.revents().is_empty()))
    }

    fn handle_signals(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        for signal in self.signals.pending() {
            match signal {
                SIGWINCH => {}
                SIGCONT => self.resume()?,
                ending => return Ok(Some(ExitStatus::Signal(ending))),
            }
            self.next = Instant::now();
        }
        Ok(None)
    }

    /// Waits. q and Ctrl-C end, Ctrl-Z stops, and any other key looks again.
    fn read_keys(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if !self.wait()? {
            return Ok(None);
        }
        let mut keys = [0; 64];
        let count = match rustix::io::read(io::stdin(), &mut keys) {
            Ok(0) | Err(Errno::IO) => return Ok(Some(ExitStatus::Signal(SIGHUP))),
            Ok(count) => count,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error).context("cannot read the terminal"),
        };
        for key in &keys[..count] {
            match key {
                b'q' | b'Q' => return Ok(Some(ExitStatus::Done)),
                0x03 => return Ok(Some(ExitStatus::Signal(SIGINT))),
                0x1c => return Ok(Some(ExitStatus::Signal(SIGQUIT))),
                0x1a => self.stop()?,
                _ => {}
            }
        }
        self.next = Instant::now();
        Ok(None)
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(keys) = &self.keys {
            keys.suspend();
        }
        nix::sys::signal::raise(nix::sys::signal::SIGSTOP).context("cannot stop")?;
        self.resume()
    }

    /// Another program may have used the terminal meanwhile.
    fn resume(&mut self) -> anyhow::Result<()> {
        self.first = true;
        match &self.keys {
            Some(keys) if terminal::in_foreground() => {
                keys.resume().context("cannot set the terminal raw")
            }
            _ => Ok(()),
        }
    }
}
