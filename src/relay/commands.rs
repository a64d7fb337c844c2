//! What is asked of the relay itself: by the escape key, and by signals.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::termios::{Winsize, tcgetwinsize, tcsendbreak};
use signal_hook::consts::SIGTSTP;
use signal_hook::low_level::emulate_default_handler;

use super::escape::Command;
use super::event_loop::{Relay, Step, Stop};
use super::{Ending, Error};
use crate::console::{Console, Kind};
use crate::printable::Printable;
use crate::sys;
use crate::terminal::{self, RawMode};

/// How long what was typed may take to leave a port before a break: a line at 9600 Bd does.
const TO_BE_SENT: Duration = Duration::from_millis(100);

impl Relay<'_> {
    /// Does what the key after the escape key says.
    pub(super) fn obey(&mut self, command: Command) -> Step {
        let key = self.settings.escape;
        match command {
            Command::Detach => return Err(Stop::Ended(Ending::Detached)),
            Command::Help => self.notices.answer(format_args!(
                "{key} and then\n  . or q  detach\n  ?       this help\n  s       how things stand\n  \
                 b       send a break\n  f       take the wheel, from whoever drives\n  {key}      send {key} itself"
            )),
            Command::Status => self.tell_state(),
            Command::Break => self.send_break()?,
            Command::Wheel => self.take_the_wheel()?,
            Command::Unknown(byte) => self.notices.answer(format_args!(
                "no such command: {}; {key} ? shows what there is",
                Printable::bytes(&[byte])
            )),
        }
        Ok(())
    }

    pub(super) fn explain_escape_key(&mut self) {
        let key = self.settings.escape;
        self.notices
            .say(format_args!("that was {key}: now . detaches, ? shows what else there is"));
    }

    fn tell_state(&mut self) {
        let state = (self.settings.status_line)();
        let traffic = self.settings.traffic;
        let (received, sent) = (traffic.received(), traffic.sent());
        let waiting = match self.typed.len() {
            0 => String::new(),
            count => format!(", {count} more waiting for it"),
        };
        let to_it = if self.settings.typing.get() {
            format!(", {sent} to it{waiting}")
        } else {
            ", and nothing is typed: read-only".to_owned()
        };
        self.notices.answer(format_args!("{state}; {received} bytes from it{to_it}"));
        let others = self.watchers.iter().filter_map(|watcher| watcher.state());
        others.for_each(|state| self.notices.answer(state));
    }

    /// Lets the user type, who only read so far.
    fn take_the_wheel(&mut self) -> Step {
        if self.settings.typing.get() {
            self.notices.answer("you drive already");
            return Ok(());
        }
        if self.line.console().is_none() {
            return Err(Stop::Ended(Ending::Wheel));
        }
        self.settings.typing.set(true);
        self.notices.answer("you drive now");
        self.pass_window_size();
        Ok(())
    }

    /// What is typed goes nowhere. Said once.
    pub(super) fn refuse_typing(&mut self) {
        if std::mem::replace(&mut self.said_read_only, true) {
            return;
        }
        let Some(_) = self.escape else { return self.notices.say("read-only: nothing is typed") };
        let key = self.settings.escape;
        self.notices.say(format_args!(
            "read-only: nothing is typed; {key} then . leaves, {key} then f takes the wheel"
        ));
    }

    fn send_break(&mut self) -> Step {
        let typing = self.settings.typing.get();
        let Some(console) = self.line.console().filter(|_| typing) else {
            self.notices.answer(format_args!("no break sent: {}", NoBreak::ReadOnly));
            return Ok(());
        };
        // After what was typed before it.
        self.write_console()?;
        if self.typed.is_empty() {
            match send_break(console) {
                Ok(()) => self.notices.say("break sent"),
                Err(refusal) => self.notices.answer(format_args!("no break sent: {refusal}")),
            }
        } else {
            self.notices.answer(format_args!("no break sent: {}", NoBreak::Stuck));
        }
        Ok(())
    }

    /// Does what the signals say that have come.
    pub(super) fn obey_signals(&mut self) -> Step {
        let arrived = self.signals.take();
        if let Some(signal) = arrived.ending {
            return Err(Stop::Ended(Ending::Signal(signal)));
        }
        if arrived.stop || arrived.continued {
            self.stop_and_go_on(arrived.stop)?;
        }
        // The window may also have changed while it was somebody else's.
        if arrived.resized || arrived.stop || arrived.continued {
            self.pass_window_size();
        }
        Ok(())
    }

    /// Stops, if asked to, and goes on when somebody continues us. The terminal is given back before
    /// and taken again after.
    ///
    /// In the background it is not ours to take (`bg` in a shell): the kernel would stop us with
    /// SIGTTOU, so we stop again. But whoever wants to take over, and continued us, is answered first.
    fn stop_and_go_on(&mut self, asked: bool) -> Step {
        let mut stop = asked;
        while stop || (self.raw.is_some() && !terminal::in_foreground()) {
            self.look_around()?;
            if let Some(raw) = self.raw {
                raw.suspend();
            }
            // Returns when we are continued.
            emulate_default_handler(SIGTSTP).map_err(Error::Wait)?;
            // What came meanwhile is obeyed before the terminal is touched again.
            if let Some(signal) = self.signals.take().ending {
                return Err(Stop::Ended(Ending::Signal(signal)));
            }
            stop = false;
        }
        self.raw.map_or(Ok(()), resume)
    }

    /// Tells the console the size of the user's window, if there is one.
    pub(super) fn pass_window_size(&self) {
        // The size is the driver's.
        let Some(console) = self.line.console().filter(|_| self.settings.typing.get()) else {
            return;
        };
        let window = tcgetwinsize(io::stdin()).or_else(|_| tcgetwinsize(io::stdout()));
        let known = |size: &Winsize| size.ws_row > 0 && size.ws_col > 0;
        if let Some(size) = window.ok().filter(known) {
            // A console that is gone shows in poll; another reason to refuse a size is no reason to
            // leave.
            let _ = console.set_size(size);
        }
    }
}

fn resume(raw: &RawMode<'_>) -> Step {
    raw.resume().map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::IO) => Stop::Ended(Ending::TerminalGone),
        _ => Stop::Failed(Error::Terminal(error)),
    })
}

/// Why a break is not sent.
#[derive(Debug, thiserror::Error)]
enum NoBreak {
    #[error("read-only")]
    ReadOnly,
    #[error("a PTY carries none")]
    Pty,
    #[error("the port does not take output now")]
    Stuck,
    #[error(transparent)]
    Failed(#[from] io::Error),
}

/// Holds the line at zero for a quarter of a second or more (tcsendbreak(3)).
fn send_break(console: &Console) -> Result<(), NoBreak> {
    match console.kind() {
        // The call succeeds, and nothing arrives (measured).
        Kind::Pty => Err(NoBreak::Pty),
        // The kernel first waits until all is sent, for ever if flow control holds it (TCSBRK in
        // ioctl_tty(2)).
        Kind::Serial if !is_sent(console)? => Err(NoBreak::Stuck),
        Kind::Serial => Ok(tcsendbreak(console).map_err(io::Error::from)?),
    }
}

/// Whether all output has left the port. What was typed just before has a moment to.
fn is_sent(console: &Console) -> io::Result<bool> {
    let until = Instant::now() + TO_BE_SENT;
    while sys::unsent_output(console)? > 0 {
        if Instant::now() >= until {
            return Ok(false);
        }
        thread::sleep(TO_BE_SENT / 20);
    }
    Ok(true)
}
