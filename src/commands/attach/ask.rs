//! `attach --ask`: the console is busy, and its user says what to do about it.
//!
//! The answer is a line of a terminal that stays as it is, so that there is nothing to give back however
//! we end. It is read byte by byte: what was typed behind it stays in the kernel, for the console.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::isatty;
use signal_hook::consts::{SIGHUP, SIGTSTP};
use signal_hook::low_level::emulate_default_handler;

use super::gain::{MakesWay, busy, claim_now, find_again};
use super::wait::{Wait, Waited};
use super::{LAST_WORDS, name_of};
use crate::audit::{self, Event};
use crate::claim::Refusal;
use crate::cli;
use crate::console::Target;
use crate::exit_status::ExitStatus;
use crate::process::Process;
use crate::relay::{Notices, Signals, Source};
use crate::{terminal, test_point};

/// How long a question stands. Who does not answer has gone away, and the console with its locks is
/// not for them.
const LIMIT: Duration = Duration::from_secs(30);

/// No answer is longer. The rest of a longer line is read, and makes it no answer.
const LONGEST: usize = 16;

/// Whether there is somebody to ask: standard input and error are terminals.
pub(super) fn can_ask() -> bool {
    isatty(io::stdin()) && isatty(io::stderr())
}

/// The offer to who was refused.
pub(super) struct Offer<'a> {
    pub(super) options: &'a cli::Attach,
    pub(super) target: &'a Target,
    pub(super) notices: &'a mut Notices,
    pub(super) signals: &'a mut Signals,
}

/// What the user wants to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Wait,
    TakeOver,
    /// Also by the end of input, by Enter alone, and by saying nothing.
    Quit,
    /// By this signal.
    End(i32),
}

/// What becomes of a question.
enum Reply {
    /// This line, without what ended it.
    Line(Vec<u8>),
    /// The end of input.
    End,
    /// Nothing in time.
    Silence,
    /// The terminal is gone.
    Gone,
    /// A signal that ends us.
    Signal(i32),
    /// We were stopped and go on: the question is to be seen again.
    Continued,
}

impl Offer<'_> {
    /// Says who has the console, asks what to do, and does it. Where force is refused as well, it is not
    /// offered again, unless by now it is another session that has it: then the user is told of that one
    /// first.
    pub(super) fn make(mut self, mut refusal: Refusal) -> anyhow::Result<Waited> {
        let mut may_force = true;
        loop {
            self.notices.answer(&refusal);
            if let Some(hint) = refusal.hint().filter(|_| !may_force) {
                self.notices.answer(format_args!("hint: {hint}"));
            }
            self.record(&Event::Refused { why: &refusal.to_string() });
            let answer = self.ask(may_force)?;
            self.record(&Event::Asked { answer: &answer.name() });
            match answer {
                Answer::Wait => return self.wait(),
                Answer::Quit => return Ok(Waited::Ended(ExitStatus::Busy)),
                Answer::End(signal) => return Ok(Waited::Ended(ExitStatus::Signal(signal))),
                Answer::TakeOver => {}
            }
            let seen = refusal.any_session();
            let again = match self.take_over(seen) {
                Ok(waited) => return Ok(waited),
                Err(error) => busy(error)?,
            };
            let same = |now: &Process| seen.is_some_and(|seen| seen.is(now));
            may_force = again.any_session().is_some_and(|now| !same(now));
            refusal = again;
        }
    }

    fn record(&self, event: &Event<'_>) {
        audit::record(&self.target.to_string(), event);
    }

    fn wait(self) -> anyhow::Result<Waited> {
        let options = cli::Attach { wait: Some(None), ..self.options.clone() };
        Wait::new(&options, self.target, None, self.notices, self.signals)?.run()
    }

    fn take_over(&mut self, seen: Option<&Process>) -> anyhow::Result<Waited> {
        let options = cli::Attach { force: true, ..self.options.clone() };
        // The user may have thought about it for a while.
        let openers = find_again(&options, self.target)?;
        let who = seen.map_or(MakesWay::AsAsked, MakesWay::Seen);
        let gained = claim_now(&options, self.target, &openers, who, self.notices, self.signals)?;
        Ok(Waited::Claimed(Box::new(gained)))
    }

    /// Asks until there is an answer.
    fn ask(&mut self, may_force: bool) -> anyhow::Result<Answer> {
        let mut input = Source::new(io::stdin().as_fd()).context("cannot read from stdin")?;
        let question = if may_force {
            "(w)ait for it, (t)ake it over, or (q)uit?"
        } else {
            "(w)ait for it, or (q)uit?"
        };
        loop {
            self.notices.ask(question);
            self.notices.flush(LAST_WORDS);
            let reply = self.listen(&mut input, Instant::now() + limit())?;
            self.notices.end_line();
            match reply {
                Reply::Line(line) => match Answer::read(&line, may_force) {
                    Some(answer) => return Ok(answer),
                    None => self.notices.answer("answer with one of these letters, then Enter"),
                },
                Reply::Silence => {
                    let seconds = limit().as_secs();
                    self.notices.answer(format_args!("no answer in {seconds} s"));
                    return Ok(Answer::Quit);
                }
                Reply::End => return Ok(Answer::Quit),
                Reply::Gone => return Ok(Answer::End(SIGHUP)),
                Reply::Signal(signal) => return Ok(Answer::End(signal)),
                Reply::Continued => {}
            }
        }
    }

    /// Waits for a line.
    fn listen(&mut self, input: &mut Source, until: Instant) -> anyhow::Result<Reply> {
        let mut line = Vec::new();
        loop {
            let obeyed = self.signals.obey()?;
            if let Some(signal) = obeyed.ending {
                return Ok(Reply::Signal(signal));
            }
            // In the background the terminal is somebody else's.
            if !terminal::in_foreground() {
                emulate_default_handler(SIGTSTP)?;
                continue;
            }
            if obeyed.continued {
                return Ok(Reply::Continued);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Reply::Silence);
            }
            let ready = self.poll(input, left)?;
            self.notices.flush(Duration::ZERO);
            if ready.intersects(PollFlags::HUP | PollFlags::ERR) {
                return Ok(Reply::Gone);
            }
            if !ready.is_empty()
                && let Some(reply) = self.read_on(input, &mut line)?
            {
                return Ok(reply);
            }
        }
    }

    /// Reads one more byte of a line. Gives the reply that is complete by that.
    fn read_on(&mut self, input: &mut Source, line: &mut Vec<u8>) -> anyhow::Result<Option<Reply>> {
        let mut byte = [0];
        let count = match input.read(&mut byte) {
            Ok(Some(count)) => count,
            Ok(None) => return Ok(None),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => {
                return Ok(Some(Reply::Gone));
            }
            Err(error) => return Err(error).context("cannot read from stdin"),
        };
        if count == 0 && line.is_empty() {
            return Ok(Some(Reply::End));
        }
        // A terminal that somebody left raw has no new lines.
        if count == 0 || matches!(byte, [b'\n' | b'\r']) {
            if count > 0 {
                self.notices.shown(b'\n');
            }
            return Ok(Some(Reply::Line(std::mem::take(line))));
        }
        if line.len() < LONGEST {
            line.extend(byte);
        }
        Ok(None)
    }

    /// Waits for input, a signal, or room for the question, and gives what there is of input.
    fn poll(&self, input: &Source, left: Duration) -> anyhow::Result<PollFlags> {
        let mut fds = vec![
            PollFd::from_borrowed_fd(input.as_fd(), PollFlags::IN),
            PollFd::new(&*self.signals, PollFlags::IN),
        ];
        // A terminal that was stopped with ^S shows the question later.
        let stderr = self.notices.waiting_for();
        fds.extend(stderr.map(|stderr| PollFd::from_borrowed_fd(stderr, PollFlags::OUT)));
        let left = Timespec::try_from(left).context("cannot wait for an answer")?;
        match poll(&mut fds, Some(&left)) {
            Ok(_) => Ok(fds[0].revents()),
            Err(Errno::INTR) => Ok(PollFlags::empty()),
            Err(error) => Err(error).context("cannot wait for an answer"),
        }
    }
}

impl Answer {
    /// What a line says. Only the letter itself counts, since it may have been typed for the console
    /// before there was a question.
    fn read(line: &[u8], may_force: bool) -> Option<Self> {
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
            Self::End(signal) => name_of(signal),
        }
    }
}

fn limit() -> Duration {
    let shorter = test_point::value("VCONSOLE_TEST_ASK_LIMIT");
    let shorter = shorter.and_then(|text| text.to_str()?.parse().ok());
    shorter.map_or(LIMIT, Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::Answer;

    #[test]
    fn only_a_letter_alone_is_an_answer() {
        assert_eq!(Answer::read(b"w", true), Some(Answer::Wait));
        assert_eq!(Answer::read(b" T ", true), Some(Answer::TakeOver));
        assert_eq!(Answer::read(b"t", false), None);
        assert_eq!(Answer::read(b"", true), Some(Answer::Quit));
        for typed_ahead in [&b"top"[..], b"wq", b"tt", b"quit!"] {
            assert_eq!(Answer::read(typed_ahead, true), None);
        }
    }
}
