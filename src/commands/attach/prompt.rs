//! `attach --ask`: the console is busy, and the user decides what to do. The terminal's settings
//! stay: nothing is to be restored. The answer is read byte by byte: the rest is for the console.

use std::time::{Duration, Instant};
use std::{io, os::fd::AsFd as _};

use anyhow::Context as _;
use rustix::{event::PollFlags, io::Errno, termios::isatty};
use signal_hook::consts::{SIGHUP, SIGTSTP};
use signal_hook::low_level::emulate_default_handler;

use crate::commands::attach::acquire::{TakeoverScope, busy};
use crate::commands::attach::{context::Attach, outcome::Role};
use crate::poll::{self, GONE};
use crate::{
    audit::Event, claim::error::ClaimError, endpoint::Source, exit_status::ExitStatus,
    messages::GOODBYE_TIME, process::Process, signals, terminal, test_point,
};

/// A user who does not answer is away, and should not get the console and its locks.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// A longer line is read whole, and is no answer.
const LONGEST: usize = 16;

/// Whether there is a user to ask.
pub(super) fn can_ask() -> bool {
    isatty(io::stdin()) && isatty(io::stderr())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Wait,
    TakeOver,
    /// Also chosen by the end of input, by Enter alone, and by no answer.
    Quit,
    Signal(i32),
}

enum PromptInput {
    /// A line without its end.
    Text(Vec<u8>),
    /// The end of input, or a signal, instead of a line.
    End(Choice),
    Timeout,
    /// The process was stopped and continued: the question has to be shown again.
    Continued,
}

const TERMINAL_GONE: PromptInput = PromptInput::End(Choice::Signal(SIGHUP));

impl Attach<'_> {
    /// Shows the holder, asks the user, and obeys. A takeover that failed is offered again only if
    /// another session holds the console now: the user is told about that one first.
    pub(super) fn prompt(&mut self, mut error: ClaimError) -> anyhow::Result<Role> {
        let mut may_force = true;
        loop {
            self.messages.important(&error);
            if let Some(hint) = error.hint().filter(|_| !may_force) {
                self.messages.important(format_args!("hint: {hint}"));
            }
            self.record(&Event::notable("refused").with("why", &error));
            let choice = self.ask(may_force)?;
            self.record(&Event::notable("asked").with("answer", choice.name()));
            match choice {
                Choice::Wait => {
                    self.options.wait = Some(None);
                    return self.wait(None);
                }
                Choice::Quit => return Ok(Role::Exit(ExitStatus::Busy)),
                Choice::Signal(signal) => return Ok(Role::Exit(ExitStatus::Signal(signal))),
                Choice::TakeOver => {}
            }
            let session = error.session();
            let now = match self.take_over_from(session) {
                Ok(role) => return Ok(role),
                Err(error) => busy(error)?,
            };
            let same = |now: &Process| session.is_some_and(|session| session.is(now));
            may_force = now.session().is_some_and(|now| !same(now));
            error = now;
        }
    }

    fn take_over_from(&mut self, session: Option<&Process>) -> anyhow::Result<Role> {
        let snapshot = self.look_again()?;
        let scope = session.map_or(TakeoverScope::AsAsked, TakeoverScope::From);
        self.options.force = true;
        let acquired = self.acquire(&snapshot, scope);
        self.options.force = false;
        Ok(Role::operate(acquired?))
    }

    fn ask(&mut self, may_force: bool) -> anyhow::Result<Choice> {
        let mut input = Source::new(io::stdin().as_fd()).context("cannot read from stdin")?;
        let take = if may_force { "(t)ake it over, " } else { "" };
        let question = format!("(w)ait for it, {take}or (q)uit?");
        loop {
            self.messages.ask(&question);
            self.messages.flush(GOODBYE_TIME);
            let answer = self.read_line(&mut input, Instant::now() + time_limit())?;
            self.messages.end_line();
            match answer {
                PromptInput::Text(line) => match Choice::parse(&line, may_force) {
                    Some(choice) => return Ok(choice),
                    None => self.messages.important("answer with one of these letters, then Enter"),
                },
                PromptInput::Timeout => {
                    let seconds = time_limit().as_secs();
                    self.messages.important(format_args!("no answer in {seconds} s"));
                    return Ok(Choice::Quit);
                }
                PromptInput::End(choice) => return Ok(choice),
                PromptInput::Continued => {}
            }
        }
    }

    fn read_line(&mut self, input: &mut Source, deadline: Instant) -> anyhow::Result<PromptInput> {
        let mut line = Vec::new();
        loop {
            let obeyed = self.signals.obey()?;
            if let Some(signal) = obeyed.ending {
                return Ok(PromptInput::End(Choice::Signal(signal)));
            }
            // In the background the terminal belongs to another job.
            if !terminal::in_foreground() {
                emulate_default_handler(SIGTSTP)?;
                continue;
            }
            if obeyed.continued {
                return Ok(PromptInput::Continued);
            }
            if Instant::now() >= deadline {
                return Ok(PromptInput::Timeout);
            }
            let ready = self.wait_for_answer(input, deadline)?;
            self.messages.write();
            if ready.intersects(GONE) {
                return Ok(TERMINAL_GONE);
            }
            if !ready.is_empty()
                && let Some(answer) = self.read_byte(input, &mut line)?
            {
                return Ok(answer);
            }
        }
    }

    /// Returns the input that this byte completes.
    fn read_byte(
        &mut self,
        input: &mut Source,
        line: &mut Vec<u8>,
    ) -> anyhow::Result<Option<PromptInput>> {
        let mut byte = [0];
        let count = match input.read(&mut byte) {
            Ok(Some(count)) => count,
            Ok(None) => return Ok(None),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => {
                return Ok(Some(TERMINAL_GONE));
            }
            Err(error) => return Err(error).context("cannot read from stdin"),
        };
        if count == 0 && line.is_empty() {
            return Ok(Some(PromptInput::End(Choice::Quit)));
        }
        // A terminal that was left raw sends no newlines.
        if count == 0 || matches!(byte, [b'\n' | b'\r']) {
            if count > 0 {
                self.messages.shown(b'\n');
            }
            return Ok(Some(PromptInput::Text(std::mem::take(line))));
        }
        if line.len() < LONGEST {
            line.extend(byte);
        }
        Ok(None)
    }

    /// Returns the events of the input.
    fn wait_for_answer(&self, input: &Source, deadline: Instant) -> anyhow::Result<PollFlags> {
        let mut fds = vec![poll::readable(input), poll::readable(&self.signals)];
        // A terminal that was stopped with ^S shows the question later.
        let stderr = self.messages.waiting_for();
        fds.extend(stderr.map(|stderr| poll::entry(stderr, PollFlags::OUT)));
        poll::wait(&mut fds, Some(deadline)).context("cannot wait for an answer")?;
        Ok(fds[0].revents())
    }
}

impl Choice {
    /// Only the letter alone counts: a longer line may have been typed ahead, for the console.
    fn parse(line: &[u8], may_force: bool) -> Option<Self> {
        match line.trim_ascii() {
            b"" | b"q" | b"Q" => Some(Self::Quit),
            b"w" | b"W" => Some(Self::Wait),
            b"t" | b"T" if may_force => Some(Self::TakeOver),
            _ => None,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Wait => "wait".to_owned(),
            Self::TakeOver => "take over".to_owned(),
            Self::Quit => "quit".to_owned(),
            Self::Signal(signal) => signals::name_of(signal),
        }
    }
}

fn time_limit() -> Duration {
    let shorter = test_point::value("VCONSOLE_TEST_ASK_LIMIT");
    let shorter = shorter.and_then(|text| text.to_str()?.parse().ok());
    shorter.map_or(TIME_LIMIT, Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::Choice;

    #[test]
    fn only_a_letter_alone_is_an_answer() {
        assert_eq!(Choice::parse(b"w", true), Some(Choice::Wait));
        assert_eq!(Choice::parse(b" T ", true), Some(Choice::TakeOver));
        assert_eq!(Choice::parse(b"t", false), None);
        assert_eq!(Choice::parse(b"", true), Some(Choice::Quit));
        for typed_ahead in [&b"top"[..], b"wq", b"tt", b"quit!"] {
            assert_eq!(Choice::parse(typed_ahead, true), None);
        }
    }
}
