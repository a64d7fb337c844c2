//! Moving bytes: up, from the input to the console, and down, from the console to the output.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::{Errno, retry_on_intr, write};

use crate::endpoint::EndpointKind;
use crate::poll::GONE;
use crate::relay::escape::{Escape, Piece};
use crate::relay::event_loop::{BUFFER, LoopExit, Relay, Step};
use crate::relay::job_control::resume;
use crate::relay::{Error, ExitReason};
use crate::ring_buffer::Buffer;
use crate::{poll, terminal, test_point};

/// After this many reads of one descriptor it is the turn of the others.
const BURST: usize = 64;
/// When to explain an escape key that no command follows.
const HINT_AFTER: Duration = Duration::from_secs(1);
/// How long both directions may take at the end to deliver what was read.
const FLUSH_TIME: Duration = Duration::from_millis(200);

impl Relay<'_> {
    /// Moves input to the console, as far as possible without blocking.
    pub(super) fn move_up(&mut self, ready: PollFlags) -> Step {
        if self.setup.input.kind() == EndpointKind::Terminal && ready.intersects(GONE) {
            return Err(LoopExit::Ended(ExitReason::TerminalGone));
        }
        self.write_console()?;
        if !ready.is_empty() {
            for _ in 0..BURST {
                if !self.read_input()? {
                    break;
                }
                self.write_console()?;
                // Unread input stays for others that share it.
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

    /// Moves output of the console, as far as possible without blocking.
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
        // Poll repeats a hang-up, and the kernel has discarded unread output. A pipe keeps it.
        if ready.intersects(GONE) && self.setup.upstream.console().is_some() {
            self.hang_up();
        }
        Ok(())
    }

    /// Reads from the input once. Returns whether there may be more.
    fn read_input(&mut self) -> Step<bool> {
        if self.typed.room() == 0 || self.input_ended {
            return Ok(false);
        }
        test_point::reached("typed");
        match self.setup.input.read(self.typed.free()) {
            Ok(None) => return Ok(false),
            Ok(Some(0)) => return self.end_input(),
            Ok(Some(count)) => self.take_in(count)?,
            Err(error) => {
                return match (self.setup.input.kind(), Errno::from_io_error(&error)) {
                    (EndpointKind::Terminal, Some(Errno::IO)) if self.is_somebody_elses() => {
                        Ok(false)
                    }
                    (EndpointKind::Terminal, Some(Errno::IO)) => {
                        Err(LoopExit::Ended(ExitReason::TerminalGone))
                    }
                    // The other end left without reading everything that we wrote.
                    (EndpointKind::Stream, Some(Errno::CONNRESET)) => self.end_input(),
                    _ => Err(Error::Stdin(error).into()),
                };
            }
        }
        if self.hung_up {
            self.typed.clear();
        }
        Ok(true)
    }

    /// Whether the terminal belongs to another job, since we were stopped and continued in the
    /// background. Then we stop again like any program that reads it, and handle first what came
    /// with the signal.
    fn is_somebody_elses(&self) -> bool {
        if !poll::is_readable(&*self.setup.signals) && !terminal::in_foreground() {
            terminal::stop_as_a_reader();
        }
        poll::is_readable(&*self.setup.signals)
    }

    /// Notes the end of input. Returns false, since there is no more.
    fn end_input(&mut self) -> Step<bool> {
        if self.setup.input.kind() == EndpointKind::Terminal {
            return self.mend_terminal();
        }
        self.input_ended = true;
        self.linger.input_ended(Instant::now());
        Ok(false)
    }

    /// In raw mode a terminal's input ends only when the terminal is gone. Otherwise another program
    /// has set `VMIN` to 0, or canonical mode.
    fn mend_terminal(&mut self) -> Step<bool> {
        let hung_up = terminal::is_hung_up(&self.setup.input);
        let Some(raw) = self.setup.raw.filter(|_| !hung_up) else {
            return Err(LoopExit::Ended(ExitReason::TerminalGone));
        };
        resume(raw)?;
        if !std::mem::replace(&mut self.said.raw_again, true) {
            let what = "another program changed the settings of your terminal: it is raw again";
            self.setup.messages.info(what);
        }
        Ok(false)
    }

    /// Takes the `count` bytes just read into the free room, in place if none is a command.
    fn take_in(&mut self, count: usize) -> Step {
        let typed = &self.typed.free()[..count];
        if self.escape.as_ref().is_some_and(|escape| escape.concerns(typed)) {
            let typed = typed.to_vec();
            return self.sort_out(&typed);
        }
        if self.setup.settings.can_write.get() {
            self.typed.filled(count);
        } else {
            self.refuse_typing();
        }
        Ok(())
    }

    /// Splits input into bytes for the console and commands. The buffer has room for all of it.
    fn sort_out(&mut self, mut typed: &[u8]) -> Step {
        while let Some(piece) = self.escape.as_mut().and_then(|escape| escape.next(&mut typed)) {
            match piece {
                Piece::Typed(_) if !self.setup.settings.can_write.get() => self.refuse_typing(),
                Piece::Typed(bytes) => self.typed.push(bytes),
                Piece::Command(command) => {
                    let obeyed = self.obey(command);
                    if matches!(obeyed, Err(LoopExit::Ended(ExitReason::TakeControl))) {
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

    /// Keeps bytes typed after the command to take control for the console. Drops commands.
    fn type_ahead(&mut self, mut typed: &[u8]) {
        while let Some(piece) = self.escape.as_mut().and_then(|escape| escape.next(&mut typed)) {
            if let Piece::Typed(bytes) = piece {
                self.typed.push(bytes);
            }
        }
    }

    pub(super) fn write_console(&mut self) -> Step {
        while !self.typed.is_empty() && !self.hung_up {
            match retry_on_intr(|| write(self.setup.upstream, self.typed.oldest())) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(count) => {
                    self.typed.consume(count);
                    self.accepted_at = Instant::now();
                    let sent = &self.setup.settings.counts.sent;
                    sent.set(sent.get() + count as u64);
                }
                Err(error) if is_hang_up(error) => self.hang_up(),
                Err(error) => return Err(Error::Console(error.into()).into()),
            }
        }
        // The console accepts input again: back to the usual size.
        if self.typed.is_empty() && self.typed.capacity() > BUFFER {
            self.typed = Buffer::new(BUFFER);
        }
        Ok(())
    }

    /// Reads from the console once. Returns whether there may be more.
    fn read_console(&mut self) -> Step<bool> {
        if self.printed.room() == 0 || self.hung_up {
            return Ok(false);
        }
        match retry_on_intr(|| self.setup.upstream.read(self.printed.free())) {
            Ok(0) => self.read_nothing()?,
            Ok(count) => {
                let new = &self.printed.free()[..count];
                self.setup.taps.iter_mut().for_each(|tap| tap.write(new));
                self.printed.filled(count);
                let received = &self.setup.settings.counts.received;
                received.set(received.get() + count as u64);
                self.linger.heard(Instant::now());
                return Ok(true);
            }
            Err(Errno::AGAIN) => {}
            Err(error) if is_hang_up(error) => self.hang_up(),
            Err(error) => return Err(Error::Console(error.into()).into()),
        }
        Ok(false)
    }

    /// A pipe has ended. A console has hung up, or another program changed its settings.
    fn read_nothing(&mut self) -> Step {
        match self.setup.upstream.console().filter(|console| !console.is_hung_up()) {
            Some(console) => match console.check_settings() {
                Ok(lines) => lines.iter().for_each(|line| self.setup.messages.info(line)),
                Err(error) if Errno::from_io_error(&error).is_some_and(is_hang_up) => {
                    self.hang_up();
                }
                Err(error) => return Err(Error::Console(error).into()),
            },
            None => self.hang_up(),
        }
        Ok(())
    }

    fn write_output(&mut self) -> Step {
        while !self.printed.is_empty() {
            match self.setup.output.write(self.printed.oldest()) {
                Ok(None | Some(0)) => break,
                Ok(Some(count)) => {
                    if self.setup.output.kind() == EndpointKind::Terminal {
                        self.setup.messages.shown(self.printed.oldest()[count - 1]);
                    }
                    self.printed.consume(count);
                    self.linger.shown(Instant::now());
                }
                Err(error) => return Err(self.output_failed(error)),
            }
        }
        Ok(())
    }

    fn output_failed(&self, error: io::Error) -> LoopExit {
        match (self.setup.output.kind(), Errno::from_io_error(&error)) {
            (EndpointKind::Stream, Some(Errno::PIPE | Errno::CONNRESET)) => {
                LoopExit::Ended(ExitReason::ReaderGone)
            }
            (EndpointKind::Terminal, Some(Errno::IO)) => LoopExit::Ended(ExitReason::TerminalGone),
            _ => LoopExit::Failed(Error::Stdout(error)),
        }
    }

    /// Notes that the other end of the console was closed. Its output is still shown.
    fn hang_up(&mut self) {
        self.hung_up = true;
        self.refused += self.typed.len();
        self.typed.clear();
    }

    /// At the end, delivers what was read in both directions, and reports what is lost.
    pub(super) fn wind_up(&mut self, exit: &LoopExit) {
        use ExitReason::{ReaderGone, TerminalGone};
        use LoopExit::{Ended, Failed};
        // The next operator gets everything that is left.
        if matches!(exit, Ended(ExitReason::HandedOver | ExitReason::TakeControl)) {
            return;
        }
        if matches!(exit, Ended(ReaderGone | TerminalGone) | Failed(Error::Stdout(_))) {
            self.printed.clear();
        }
        self.deliver_the_rest();
        let (refused, lost) = (self.refused + self.typed.len(), self.printed.len());
        let messages = &mut *self.setup.messages;
        if refused > 0 {
            messages.important(format_args!(
                "{refused} bytes of input lost: the console did not take them"
            ));
        }
        if lost > 0 {
            messages
                .important(format_args!("{lost} bytes of output lost: they could not be shown"));
        }
    }

    /// Delivers what was read, for up to [`FLUSH_TIME`]. An error stops only its own direction.
    pub(super) fn deliver_the_rest(&mut self) {
        let deadline = Instant::now() + FLUSH_TIME;
        let (mut up, mut down) = (true, true);
        loop {
            up = up && self.write_console().is_ok();
            down = down && self.write_output().is_ok();
            let upstream = (up && !self.typed.is_empty()).then(|| self.setup.upstream.as_fd());
            let output = (down && !self.printed.is_empty()).then(|| self.setup.output.as_fd());
            let wanted = [upstream, output].into_iter().flatten();
            let mut fds: Vec<_> = wanted.map(|fd| poll::entry(fd, PollFlags::OUT)).collect();
            if fds.is_empty() || Instant::now() >= deadline {
                break;
            }
            // After an error both are tried again until the deadline.
            let _ = poll::wait(&mut fds, Some(deadline));
        }
    }
}

/// Whether the other end is gone: `EIO` after a hang-up, the others if the port is unplugged.
fn is_hang_up(error: Errno) -> bool {
    matches!(error, Errno::IO | Errno::NXIO | Errno::NODEV)
}
