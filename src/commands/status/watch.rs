//! `vconsole status --watch`: looks again and again, until it is told to end.

use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::termios::{isatty, tcgetwinsize};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGWINCH};

use super::table::{self, Look};
use super::{json, look};
use crate::cli;
use crate::commands::guard;
use crate::exit_status::ExitStatus;
use crate::signals::{Delivery, ENDING, deliver};
use crate::terminal::{self, RawMode};

/// Looking more often than this would show nobody more.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// Home and clear all; home alone; clear the rest of the line; clear what is below (ECMA-48).
const CLEAR: &str = "\x1b[H\x1b[2J";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Runs `vconsole status --watch`.
pub(super) fn run(options: &cli::Status, pause: Duration) -> anyhow::Result<ExitStatus> {
    // Before the terminal is touched: a signal then waits until it can be given back.
    let signals = deliver(&ENDING, &[SIGWINCH, SIGCONT]).context("cannot watch for signals")?;
    let in_place = !options.json && isatty(io::stdout());
    let guard = in_place.then(guard::start).map(|(guard, _)| guard);
    let keys = match &guard {
        Some(guard) if terminal::in_foreground() => {
            RawMode::enter(guard).context("cannot set the terminal raw")?
        }
        _ => None,
    };
    let writer = Writer::start().context("cannot write to stdout")?;
    let mut watch = Watch { options, in_place, signals, keys, writer, first: true };
    watch.run(pause.max(SHORTEST_PAUSE))
}

/// What a signal, a key or an answer of the writer means.
enum Event {
    Nothing,
    /// Something makes it worth while to look again at once.
    Look,
    /// It is to end so.
    End(ExitStatus),
}

/// What there is to be read.
struct Ready {
    answer: bool,
    key: bool,
}

struct Watch<'a> {
    options: &'a cli::Status,
    /// Whether a table takes the place of the last one.
    in_place: bool,
    signals: Delivery,
    /// The terminal on standard input, while its keys come one by one.
    keys: Option<RawMode<'a>>,
    writer: Writer,
    first: bool,
}

impl Watch<'_> {
    fn run(&mut self, pause: Duration) -> anyhow::Result<ExitStatus> {
        loop {
            let next = Instant::now() + pause;
            let text = self.frame()?;
            self.writer.write(text);
            if let Some(status) = self.wait(next)? {
                return Ok(status);
            }
        }
    }

    /// What is to be written now.
    fn frame(&mut self) -> anyhow::Result<String> {
        let report = look(self.options)?;
        if self.options.json {
            return Ok(json::line(&report)? + "\n");
        }
        let table = table::of(&report, &Look::of_stdout());
        if !self.in_place {
            // A line between two tables, to tell them apart.
            let gap = if std::mem::take(&mut self.first) { "" } else { "\n" };
            return Ok(format!("{gap}{table}"));
        }
        let begin = if std::mem::take(&mut self.first) { CLEAR } else { HOME };
        let rows = tcgetwinsize(io::stdout()).map_or(24, |size| usize::from(size.ws_row));
        let mut frame = begin.to_owned();
        // The last row stays free: to write to its end would scroll.
        for line in table.lines().take(rows.saturating_sub(1).max(1)) {
            frame += &[line, CLEAR_LINE, "\r\n"].concat();
        }
        Ok(frame + CLEAR_BELOW)
    }

    /// Waits until it is time for the next look and the last one was written. Gives the status to end
    /// with, if something ends it.
    fn wait(&mut self, mut next: Instant) -> anyhow::Result<Option<ExitStatus>> {
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() && !self.writer.is_busy {
                return Ok(None);
            }
            let ready = self.poll(left)?;
            let mut events = vec![self.signals()?];
            if ready.answer {
                events.push(self.writer.answer()?);
            }
            if ready.key {
                events.push(self.key(io::stdin().as_fd())?);
            }
            for event in events {
                match event {
                    Event::End(status) => return Ok(Some(status)),
                    Event::Look => next = Instant::now(),
                    Event::Nothing => {}
                }
            }
        }
    }

    /// Waits until something has come, or `left` is over; where it is over already, only for something
    /// to come. Signals are looked for in any case.
    fn poll(&self, left: Duration) -> anyhow::Result<Ready> {
        let stdin = io::stdin();
        let mut fds = vec![
            PollFd::new(&self.writer.answers, PollFlags::IN),
            PollFd::new(self.signals.get_read(), PollFlags::IN),
        ];
        // In the background, to read the terminal would stop us.
        if self.keys.is_some() && terminal::in_foreground() {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        let limit = (!left.is_zero()).then(|| Timespec::try_from(left)).transpose()?;
        retry_on_intr(|| poll(&mut fds, limit.as_ref())).context("cannot wait")?;
        let came = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Ready { answer: came(0), key: came(2) })
    }

    /// Obeys the signals that have come.
    fn signals(&mut self) -> anyhow::Result<Event> {
        let mut event = Event::Nothing;
        for signal in self.signals.pending() {
            match signal {
                SIGWINCH => event = Event::Look,
                SIGCONT => {
                    self.resume()?;
                    event = Event::Look;
                }
                ending => return Ok(Event::End(ExitStatus::Signal(ending))),
            }
        }
        Ok(event)
    }

    /// Obeys a key: q and Ctrl-C end, Ctrl-Z stops as it does elsewhere, all others look again.
    fn key(&mut self, stdin: BorrowedFd<'_>) -> anyhow::Result<Event> {
        let mut keys = [0; 64];
        let count = match rustix::io::read(stdin, &mut keys) {
            Ok(0) | Err(Errno::IO) => return Ok(Event::End(ExitStatus::Signal(SIGHUP))),
            Ok(count) => count,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(Event::Nothing),
            Err(error) => return Err(error).context("cannot read the terminal"),
        };
        for key in &keys[..count] {
            match key {
                b'q' | b'Q' => return Ok(Event::End(ExitStatus::Done)),
                0x03 => return Ok(Event::End(ExitStatus::Signal(SIGINT))),
                0x1c => return Ok(Event::End(ExitStatus::Signal(SIGQUIT))),
                0x1a => self.stop()?,
                _ => {}
            }
        }
        Ok(Event::Look)
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(keys) = &self.keys {
            keys.suspend();
        }
        nix::sys::signal::raise(nix::sys::signal::SIGSTOP).context("cannot stop")?;
        self.resume()
    }

    /// Running again, somebody else may have used the terminal meanwhile.
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

/// Writes to stdout in a thread of its own: a terminal or a reader that takes nothing keeps nobody from
/// leaving.
struct Writer {
    texts: Sender<String>,
    /// A byte comes when a text was written; the end, when none can be written any more.
    answers: UnixStream,
    is_busy: bool,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Writer {
    fn start() -> io::Result<Self> {
        let (texts, to_write) = mpsc::channel();
        let (answers, to_answer) = UnixStream::pair()?;
        let thread = thread::Builder::new().spawn(move || write_all(&to_write, to_answer))?;
        Ok(Self { texts, answers, is_busy: false, thread: Some(thread) })
    }

    fn write(&mut self, text: String) {
        // Where nobody takes it any more, the answer says so.
        self.is_busy = self.texts.send(text).is_ok();
    }

    /// Takes an answer; the last one ends us.
    fn answer(&mut self) -> anyhow::Result<Event> {
        let mut answer = [0];
        if retry_on_intr(|| rustix::io::read(&self.answers, &mut answer))? > 0 {
            self.is_busy = false;
            return Ok(Event::Nothing);
        }
        let result = self.thread.take().and_then(|thread| thread.join().ok());
        match result.unwrap_or(Ok(())) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Ok(Event::End(ExitStatus::Signal(libc::SIGPIPE)))
            }
            // A terminal that is gone.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                Ok(Event::End(ExitStatus::Signal(SIGHUP)))
            }
            Err(error) => Err(error).context("cannot write to stdout"),
            Ok(()) => Ok(Event::End(ExitStatus::Done)),
        }
    }
}

fn write_all(texts: &Receiver<String>, mut answers: UnixStream) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    for text in texts {
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
        answers.write_all(b".")?;
    }
    Ok(())
}
