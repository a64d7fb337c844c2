//! Signals (ending, stopping, continuing), and the size of the window.

use rustix::io::Errno;
use rustix::termios::{Winsize, tcgetwinsize};
use signal_hook::consts::SIGTSTP;
use signal_hook::low_level::emulate_default_handler;

use crate::relay::event_loop::{LoopExit, Relay, Step};
use crate::relay::{Error, ExitReason};
use crate::terminal::{self, RawMode};

impl Relay<'_> {
    pub(super) fn obey_signals(&mut self) -> Step {
        let arrived = self.setup.signals.take();
        if let Some(signal) = arrived.ending {
            return Err(LoopExit::Ended(ExitReason::Signal(signal)));
        }
        if arrived.stop || arrived.continued {
            self.stop_and_go_on(arrived.stop)?;
        }
        // The window may also have changed while another job used it.
        if arrived.resized || arrived.stop || arrived.continued {
            self.pass_window_size();
        }
        Ok(())
    }

    /// Stops, if asked to, and goes on when continued. The terminal is restored in between.
    ///
    /// After `bg` in a shell the terminal belongs to another job, and the kernel would stop us with
    /// SIGTTOU: so we stop again. A newcomer that continued us to take over is answered first.
    fn stop_and_go_on(&mut self, asked: bool) -> Step {
        let mut stop = asked;
        while stop || (self.setup.raw.is_some() && !terminal::in_foreground()) {
            self.look_at_sources()?;
            if let Some(raw) = self.setup.raw {
                raw.suspend();
            }
            // Returns when we are continued.
            emulate_default_handler(SIGTSTP).map_err(Error::Wait)?;
            // Signals that arrived meanwhile come before the terminal.
            if let Some(signal) = self.setup.signals.take().ending {
                return Err(LoopExit::Ended(ExitReason::Signal(signal)));
            }
            stop = false;
        }
        self.setup.raw.map_or(Ok(()), resume)
    }

    /// Gives the console the size of its operator's window.
    pub(super) fn pass_window_size(&self) {
        let can_write = self.setup.settings.can_write.get();
        let Some(console) = self.setup.upstream.console().filter(|_| can_write) else { return };
        let window = tcgetwinsize(&self.setup.input).or_else(|_| tcgetwinsize(&self.setup.output));
        let known = |size: &Winsize| size.ws_row > 0 && size.ws_col > 0;
        if let Some(size) = window.ok().filter(known) {
            // poll(2) reports a console that is gone; any other error is no reason to leave.
            let _ = console.set_size(size);
        }
    }
}

/// Makes the terminal raw again.
pub(super) fn resume(raw: &RawMode<'_>) -> Step {
    raw.resume().map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::IO) => LoopExit::Ended(ExitReason::TerminalGone),
        _ => LoopExit::Failed(Error::Terminal(error)),
    })
}
