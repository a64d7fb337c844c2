//! The two ways bytes go: up, from the input to the console, and down, from the console to the output.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr, write};

use super::buffer::Buffer;
use super::endpoint::Kind;
use super::escape::{Escape, Piece};
use super::event_loop::{BUFFER, GONE, Relay, Step, Stop, is_readable};
use super::{Ending, Error, timeout};
use crate::{terminal, test_point};

/// After so many reads of one thing the others have a look in, however much more there is.
const BURST: usize = 64;
/// A lone escape key is explained after this time.
const HINT_AFTER: Duration = Duration::from_secs(1);
/// At the end both ways have so long to deliver what was read.
const GRACE: Duration = Duration::from_millis(200);

impl Relay<'_> {
    /// From the input to the console, as far as both go without waiting.
    pub(super) fn move_up(&mut self, ready: PollFlags) -> Step {
        if self.input.kind() == Kind::Terminal && ready.intersects(GONE) {
            return Err(Stop::Ended(Ending::TerminalGone));
        }
        self.write_console()?;
        if !ready.is_empty() {
            for _ in 0..BURST {
                if !self.read_input()? {
                    break;
                }
                self.write_console()?;
                // What is not read yet stays for whoever shares our input.
                if self.hung_up {
                    break;
                }
            }
        }
        if self.input_ended && self.typed.is_empty() {
            self.linger.all_delivered(Instant::now());
        }
        Ok(())
    }

    /// From the console to the output, as far as both go without waiting.
    pub(super) fn move_down(&mut self, ready: PollFlags) -> Step {
        self.write_output()?;
        if ready.intersects(PollFlags::IN | GONE) {
            for _ in 0..BURST {
                if !self.read_console()? {
                    break;
                }
                self.write_output()?;
            }
        }
        // What the kernel still had it has thrown away by now, and what there is no room for cannot be
        // waited for: a hang-up wakes poll again and again. A pipe keeps what is in it.
        if ready.intersects(GONE) && self.line.console().is_some() {
            self.hang_up();
        }
        Ok(())
    }

    /// Reads from the input once. Tells whether there may be more.
    fn read_input(&mut self) -> Step<bool> {
        if self.typed.room() == 0 || self.input_ended {
            return Ok(false);
        }
        test_point::reached("typed");
        match self.input.read(self.typed.free()) {
            Ok(None) => return Ok(false),
            Ok(Some(0)) => return self.end_input().map(|()| false),
            Ok(Some(count)) => self.take_in(count)?,
            Err(error) if self.is_terminal_gone(&error) => {
                let gone = !self.is_somebody_elses();
                return if gone { self.end_input().map(|()| false) } else { Ok(false) };
            }
            // Who is at the other end of a socket left without reading all that we said.
            Err(error) if self.is_peer_gone(&error) => return self.end_input().map(|()| false),
            Err(error) => return Err(Error::Stdin(error).into()),
        }
        if self.hung_up {
            self.typed.clear();
        }
        Ok(true)
    }

    fn is_terminal_gone(&self, error: &io::Error) -> bool {
        self.input.kind() == Kind::Terminal && Errno::from_io_error(error) == Some(Errno::IO)
    }

    fn is_peer_gone(&self, error: &io::Error) -> bool {
        self.input.kind() == Kind::Stream && Errno::from_io_error(error) == Some(Errno::CONNRESET)
    }

    /// Whether the terminal was not ours to read: we were stopped just before, and continued in the
    /// background. Then we stop again, as anybody does, and see first what has come with the signal.
    fn is_somebody_elses(&self) -> bool {
        if !is_readable(self.signals.as_fd()) && !terminal::in_foreground() {
            terminal::stop_as_a_reader();
        }
        is_readable(self.signals.as_fd())
    }

    fn end_input(&mut self) -> Step {
        // In raw mode a terminal's input ends only when the terminal is gone.
        if self.input.kind() == Kind::Terminal {
            return Err(Stop::Ended(Ending::TerminalGone));
        }
        self.input_ended = true;
        self.linger.input_ended(Instant::now());
        Ok(())
    }

    /// Takes in the `count` bytes that were just read into the free room. They stay where they are,
    /// unless some of them are for us.
    fn take_in(&mut self, count: usize) -> Step {
        let typed = &self.typed.free()[..count];
        if self.escape.as_ref().is_some_and(|escape| escape.concerns(typed)) {
            let typed = typed.to_vec();
            return self.sort_out(&typed);
        }
        if self.settings.typing.get() {
            self.typed.filled(count);
        } else {
            self.refuse_typing();
        }
        Ok(())
    }

    /// Sorts what was typed: for the console or for us. There is room for all of it.
    fn sort_out(&mut self, mut typed: &[u8]) -> Step {
        while let Some(piece) = self.escape.as_mut().and_then(|escape| escape.next(&mut typed)) {
            match piece {
                Piece::Typed(_) if !self.settings.typing.get() => self.refuse_typing(),
                Piece::Typed(bytes) => self.typed.push(bytes),
                Piece::Command(command) => {
                    let obeyed = self.obey(command);
                    if matches!(obeyed, Err(Stop::Ended(Ending::Wheel))) {
                        self.type_ahead(typed);
                    }
                    obeyed?;
                }
            }
        }
        let armed = self.escape.as_ref().is_some_and(Escape::is_armed);
        self.hint_at = armed.then(|| Instant::now() + HINT_AFTER);
        Ok(())
    }

    /// What follows the wish to drive is for the console that we do not have yet. Commands in it are of
    /// no use by then.
    fn type_ahead(&mut self, mut typed: &[u8]) {
        while let Some(piece) = self.escape.as_mut().and_then(|escape| escape.next(&mut typed)) {
            if let Piece::Typed(bytes) = piece {
                self.typed.push(bytes);
            }
        }
    }

    /// Writes what the console takes now.
    pub(super) fn write_console(&mut self) -> Step {
        while !self.typed.is_empty() && !self.hung_up {
            match retry_on_intr(|| write(self.line, self.typed.oldest())) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(count) => {
                    self.typed.consume(count);
                    self.taken_at = Instant::now();
                    self.settings.traffic.add_sent(count);
                }
                Err(error) if is_hang_up(error) => self.hang_up(),
                Err(error) => return Err(Error::Console(error.into()).into()),
            }
        }
        // The console goes on: it needs no more than usual.
        if self.typed.is_empty() && self.typed.capacity() > BUFFER {
            self.typed = Buffer::new(BUFFER);
        }
        Ok(())
    }

    /// Reads from the console once. Tells whether there may be more.
    fn read_console(&mut self) -> Step<bool> {
        if self.printed.room() == 0 || self.hung_up {
            return Ok(false);
        }
        match retry_on_intr(|| self.line.read(self.printed.free())) {
            Ok(0) => self.hang_up(),
            Ok(count) => {
                let new = &self.printed.free()[..count];
                self.watchers.iter_mut().for_each(|watcher| watcher.hears(new));
                self.printed.filled(count);
                self.settings.traffic.add_received(count);
                self.linger.heard(Instant::now());
                return Ok(true);
            }
            Err(Errno::AGAIN) => {}
            Err(error) if is_hang_up(error) => self.hang_up(),
            Err(error) => return Err(Error::Console(error.into()).into()),
        }
        Ok(false)
    }

    /// Writes what the output takes now.
    fn write_output(&mut self) -> Step {
        while !self.printed.is_empty() {
            match self.output.write(self.printed.oldest()) {
                Ok(None | Some(0)) => break,
                Ok(Some(count)) => {
                    if self.output.kind() == Kind::Terminal {
                        self.notices.shown(self.printed.oldest()[count - 1]);
                    }
                    self.printed.consume(count);
                    self.linger.shown(Instant::now());
                }
                Err(error) => return Err(self.output_failed(error)),
            }
        }
        Ok(())
    }

    fn output_failed(&self, error: io::Error) -> Stop {
        match (self.output.kind(), Errno::from_io_error(&error)) {
            (Kind::Stream, Some(Errno::PIPE | Errno::CONNRESET)) => Stop::Ended(Ending::ReaderGone),
            (Kind::Terminal, Some(Errno::IO)) => Stop::Ended(Ending::TerminalGone),
            _ => Stop::Failed(Error::Stdout(error)),
        }
    }

    /// The console's other end closed it. What it said is still shown; what it did not take is lost.
    fn hang_up(&mut self) {
        self.hung_up = true;
        self.refused += self.typed.len();
        self.typed.clear();
    }

    /// At the end: writes what was read, both ways, and says what is lost.
    pub(super) fn wind_up(&mut self, stop: &Stop) {
        use Stop::{Ended, Failed};
        // Who drives by now, or next, has all that was left.
        if matches!(stop, Ended(Ending::HandedOver | Ending::Wheel)) {
            return;
        }
        let output_broken = matches!(
            stop,
            Ended(Ending::ReaderGone | Ending::TerminalGone) | Failed(Error::Stdout(_))
        );
        if output_broken {
            self.printed.clear();
        }
        self.deliver_the_rest();
        self.refused += self.typed.len();
        self.tell_losses();
    }

    /// Writes what was read, both ways, for [`GRACE`] at most. An error on one way is none on the other.
    pub(super) fn deliver_the_rest(&mut self) {
        let until = Instant::now() + GRACE;
        let (mut up, mut down) = (true, true);
        loop {
            up = up && self.write_console().is_ok();
            down = down && self.write_output().is_ok();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.wait_for_room(up, down, left) {
                break;
            }
        }
    }

    /// Waits until more can be written, on the ways that go. False where there is nothing more to write.
    fn wait_for_room(&self, up: bool, down: bool, patience: Duration) -> bool {
        let up = (up && !self.typed.is_empty()).then(|| self.line.as_fd());
        let down = (down && !self.printed.is_empty()).then(|| self.output.as_fd());
        let out = |fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT);
        let patience = timeout(patience);
        // All that can go wrong is an interruption, and the caller looks at the clock anyway.
        let _ = match (up, down) {
            (Some(up), Some(down)) => poll(&mut [out(up), out(down)], Some(&patience)),
            (Some(fd), None) | (None, Some(fd)) => poll(&mut [out(fd)], Some(&patience)),
            (None, None) => return false,
        };
        true
    }

    fn tell_losses(&mut self) {
        if self.refused > 0 {
            let refused = self.refused;
            self.notices.answer(format_args!(
                "{refused} bytes of input lost: the console did not take them"
            ));
        }
        if !self.printed.is_empty() {
            let lost = self.printed.len();
            self.notices
                .answer(format_args!("{lost} bytes of output lost: they could not be shown"));
        }
    }
}

/// How a console says that its other end is gone: a hang-up by EIO, an unplugged port by the others.
fn is_hang_up(error: Errno) -> bool {
    matches!(error, Errno::IO | Errno::NXIO | Errno::NODEV)
}
