//! What the command line asks for: each command reads as its own story.

pub mod attach;
mod guard;
pub mod host;
pub mod status;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};

use crate::claim::Refusal;
use crate::console::NotAConsole;
use crate::exit_status::ExitStatus;
use crate::printable::Printable;
use crate::relay::Notices;

/// How long an error may take to be written: on a terminal that takes nothing, only the exit status is
/// left to say it with.
const PATIENCE: Duration = Duration::from_secs(2);

/// Says on stderr what went wrong and what to type next, and gives the status to end with.
#[must_use]
pub fn report(error: &anyhow::Error) -> ExitStatus {
    let mut notices = Notices::new(false);
    let status = explain(error, &mut notices);
    notices.flush(PATIENCE);
    status
}

/// Says what went wrong and what to type next. Gives the status that it means.
fn explain(error: &anyhow::Error, notices: &mut Notices) -> ExitStatus {
    let (status, hint) = judge(error);
    notices.answer(format_args!("{error:#}"));
    if let Some(hint) = hint {
        notices.answer(format_args!("hint: {hint}"));
    }
    status
}

/// Says what is wrong with the command line, or shows the help that was asked for.
#[must_use]
pub fn report_usage(mut error: clap::Error) -> ExitCode {
    if !error.use_stderr() {
        error.exit();
    }
    if let Some(tip) = usage_tip(&error) {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    // It repeats what was typed, and so what somebody else may have chosen: a file's name, say.
    let text = error.render().to_string();
    let safe: Vec<_> = text.lines().map(|line| Printable::new(line).to_string()).collect();
    let _ = writeln!(io::stderr(), "{}", safe.join("\n"));
    ExitCode::from(2)
}

/// What to type instead of what is right for other programs: picocom, tio, minicom and cu set the speed,
/// and attach to the console that is named, without any other word.
fn usage_tip(error: &clap::Error) -> Option<String> {
    let typed = |kind| match error.get(kind) {
        Some(ContextValue::String(typed)) => Some(typed.as_str()),
        _ => None,
    };
    if let Some("-b" | "--baud" | "--baudrate" | "--speed") = typed(ContextKind::InvalidArg) {
        let tip =
            "vconsole leaves the speed as it is; this sets it beforehand: stty -F DEVICE 115200";
        return Some(tip.to_owned());
    }
    let word = typed(ContextKind::InvalidSubcommand)?;
    let is_console = word.contains('/') || word.starts_with("tty");
    is_console.then(|| format!("to attach to it: vconsole attach {word}"))
}

/// The exit status that an error means, and what to type next.
fn judge(error: &anyhow::Error) -> (ExitStatus, Option<String>) {
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        let status = match refusal {
            Refusal::NotAConsole(_) => ExitStatus::NoConsole,
            refusal if refusal.is_busy() => ExitStatus::Busy,
            _ => ExitStatus::Failed,
        };
        return (status, refusal.hint());
    }
    if let Some(error) = error.downcast_ref::<NotAConsole>() {
        return (ExitStatus::NoConsole, Some(error.hint()));
    }
    (ExitStatus::Failed, None)
}

/// Writes to stdout. That its reader left is no failure, but an end: status 141.
fn print(text: &str) -> anyhow::Result<Option<ExitStatus>> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(Some(ExitStatus::Signal(libc::SIGPIPE)))
        }
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to stdout")),
    }
}
