//! The commands that follow the escape key: one table for dispatch, `?`, `--help` and the man page.

use std::fmt::Write as _;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::termios::tcsendbreak;

use crate::console::kind::Kind;
use crate::console::open::Console;
use crate::printable::Printable;
use crate::relay::ExitReason;
use crate::relay::event_loop::{LoopExit, Relay, Step};
use crate::sys;

/// How long typed bytes may take to leave a port before a break: enough for a line at 9600 Bd.
const SEND_TIME: Duration = Duration::from_millis(100);

/// Why no break was sent, if the port does not take output.
const STUCK: &str = "the port does not take output now";

pub(crate) struct KeyBinding {
    keys: &'static [u8],
    /// A few words for `?` and `--help`.
    pub(crate) summary: &'static str,
    /// A full sentence for the man page.
    pub(crate) description: &'static str,
    action: fn(&mut Relay<'_>) -> Step,
}

pub(crate) static KEY_BINDINGS: &[KeyBinding] = &[
    KeyBinding {
        keys: b".q",
        summary: "detach",
        description: "Detach: leave the console, release everything, exit with status 0.",
        action: |_| Err(LoopExit::Ended(ExitReason::Detached)),
    },
    KeyBinding {
        keys: b"?",
        summary: "show this help",
        description: "Show these commands.",
        action: |relay| {
            relay.show_help();
            Ok(())
        },
    },
    KeyBinding {
        keys: b"s",
        summary: "show the state and the viewers",
        description: "Show what is held and since when, what is at the other end, how many bytes were \
                      moved, and who watches.",
        action: |relay| {
            relay.show_status();
            Ok(())
        },
    },
    KeyBinding {
        keys: b"b",
        summary: "send a break",
        description: "Send a break, after everything typed before it. A PTY carries none.",
        action: |relay| relay.send_break(),
    },
    KeyBinding {
        keys: b"f",
        summary: "take control, if you only watch",
        description: "Take control of a console that you only watch, as with --force; the former \
                      operator is told who you are.",
        action: |relay| relay.take_control(),
    },
];

impl KeyBinding {
    /// The command of a key. Ctrl may still be held down from the escape key: `^Q` means `q`.
    fn of(byte: u8) -> Option<&'static Self> {
        let is_it = |key: u8| byte == key || Some(byte) == with_ctrl(key);
        KEY_BINDINGS.iter().find(|binding| binding.keys.iter().any(|&key| is_it(key)))
    }

    /// Its keys, as a person reads them: `. or q`.
    pub(crate) fn key_names(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(|&key| char::from(key).to_string()).collect();
        keys.join(" or ")
    }
}

/// The byte that a terminal sends for Ctrl and this key.
fn with_ctrl(key: u8) -> Option<u8> {
    match key {
        b'a'..=b'z' => Some(key & 0x1f),
        b'?' => Some(0x7f),
        _ => None,
    }
}

impl Relay<'_> {
    /// Runs the command of the key that followed the escape key.
    pub(super) fn obey(&mut self, key: u8) -> Step {
        if let Some(binding) = KeyBinding::of(key) {
            return (binding.action)(self);
        }
        let escape = self.setup.settings.options.escape;
        self.setup.messages.important(format_args!(
            "no such command: {}; {escape} ? shows what there is",
            Printable::bytes(&[key])
        ));
        Ok(())
    }

    fn show_help(&mut self) {
        let key = self.setup.settings.options.escape;
        let mut help = format!("{key} and then");
        let names = KEY_BINDINGS.iter().map(|binding| (binding.key_names(), binding.summary));
        let again = (key.to_string(), "send the escape key itself");
        for (names, summary) in names.chain([again]) {
            // A string accepts everything.
            let _ = write!(help, "\n  {names:<7} {summary}");
        }
        self.setup.messages.important(help);
    }

    pub(super) fn explain_escape_key(&mut self) {
        let key = self.setup.settings.options.escape;
        let hint = format_args!("that was {key}: now . detaches, ? shows what else there is");
        self.setup.messages.info(hint);
    }

    fn show_status(&mut self) {
        let state = (self.setup.settings.status_line)();
        let counts = self.setup.settings.counts;
        let (received, sent) = (counts.received(), counts.sent());
        let waiting = match self.typed.len() {
            0 => String::new(),
            count => format!(", {count} more waiting for it"),
        };
        let to_it = if self.setup.settings.can_write.get() {
            format!(", {sent} to it{waiting}")
        } else {
            ", and nothing is typed: read-only".to_owned()
        };
        self.setup.messages.important(format_args!("{state}; {received} bytes from it{to_it}"));
        let others = self.setup.sources.iter().filter_map(|source| source.state());
        others.for_each(|state| self.setup.messages.important(state));
    }

    fn take_control(&mut self) -> Step {
        if self.setup.settings.can_write.get() {
            self.setup.messages.important("you operate the console already");
            return Ok(());
        }
        if self.setup.upstream.console().is_none() {
            return Err(LoopExit::Ended(ExitReason::TakeControl));
        }
        self.setup.settings.can_write.set(true);
        self.setup.messages.important("you operate the console now");
        self.pass_window_size();
        Ok(())
    }

    /// Tells the user, once, that input goes nowhere.
    pub(super) fn refuse_typing(&mut self) {
        if std::mem::replace(&mut self.said.read_only, true) {
            return;
        }
        let key = self.setup.settings.options.escape;
        let messages = &mut *self.setup.messages;
        match self.escape {
            None => messages.info("read-only: nothing is typed"),
            Some(_) => messages.info(format_args!(
                "read-only: nothing is typed; {key} then . leaves, {key} then f takes control"
            )),
        }
    }

    fn send_break(&mut self) -> Step {
        let can_write = self.setup.settings.can_write.get();
        let Some(console) = self.setup.upstream.console().filter(|_| can_write) else {
            self.setup.messages.important("no break sent: read-only");
            return Ok(());
        };
        // After everything typed before it.
        self.write_console()?;
        let stuck = !self.typed.is_empty();
        match if stuck { Err(io::Error::other(STUCK)) } else { send_break(console) } {
            Ok(()) => self.setup.messages.info("break sent"),
            Err(error) => self.setup.messages.important(format_args!("no break sent: {error}")),
        }
        Ok(())
    }
}

/// Holds the line at zero for a quarter of a second or more (tcsendbreak(3)).
fn send_break(console: &Console) -> io::Result<()> {
    match console.kind {
        // The call would succeed, and nothing would arrive (measured).
        Kind::Pty => Err(io::Error::other("a PTY carries none")),
        // The kernel would wait until all is sent, perhaps for ever (TCSBRK in ioctl_tty(2)).
        Kind::Serial if !is_sent(console)? => Err(io::Error::other(STUCK)),
        Kind::Serial => Ok(tcsendbreak(console)?),
    }
}

/// Whether all output has left the port. Waits a moment for what was typed just before.
fn is_sent(console: &Console) -> io::Result<bool> {
    let until = Instant::now() + SEND_TIME;
    while sys::unsent_output(console)? > 0 {
        if Instant::now() >= until {
            return Ok(false);
        }
        thread::sleep(SEND_TIME / 20);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_may_be_held_down() {
        for (key, held) in [(b'q', 0x11), (b's', 0x13), (b'b', 0x02), (b'f', 0x06), (b'?', 0x7f)] {
            let summary = |key| KeyBinding::of(key).map(|binding| binding.summary);
            assert!(summary(key).is_some() && summary(key) == summary(held), "{held}");
        }
        assert!(KeyBinding::of(b'x').is_none());
    }
}
