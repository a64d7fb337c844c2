//! The commands, and how they report errors.

pub(crate) mod attach;
pub(crate) mod host;
pub(crate) mod status;

use std::io::{self, Write as _};
use std::{process::ExitCode, time::Duration};

use clap::error::{ContextKind, ContextValue};

use crate::claim::error::{ClaimError, ClaimErrorKind};
use crate::{
    console::target::TargetError, exit_status::ExitStatus, messages::Messages, printable::Printable,
};

pub(crate) const ERROR_TIME: Duration = Duration::from_secs(2);

/// Shows an error and a hint on stderr.
pub(crate) fn report(error: &anyhow::Error) -> ExitStatus {
    let mut messages = Messages::new(false);
    let status = explain(error, &mut messages);
    messages.flush(ERROR_TIME);
    status
}

/// Shows an error and a hint.
pub(crate) fn explain(error: &anyhow::Error, messages: &mut Messages) -> ExitStatus {
    let (status, hint) = status_and_hint(error);
    messages.important(format_args!("{error:#}"));
    if let Some(hint) = hint {
        messages.important(format_args!("hint: {hint}"));
    }
    status
}

pub(crate) fn report_usage(mut error: clap::Error) -> ExitCode {
    if !error.use_stderr() {
        error.exit();
    }
    if let Some(tip) = usage_tip(&error) {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    // The text repeats the input, perhaps a file name that another user chose.
    let text = error.render().to_string();
    let safe: Vec<_> = text.lines().map(|line| Printable::new(line).to_string()).collect();
    let _ = writeln!(io::stderr(), "{}", safe.join("\n"));
    ExitCode::from(2)
}

/// A tip for the speed options of picocom, tio, minicom and cu, and for a missing command.
fn usage_tip(error: &clap::Error) -> Option<String> {
    let typed = |kind| match error.get(kind) {
        Some(ContextValue::String(typed)) => Some(typed.as_str()),
        _ => None,
    };
    if let Some("-b" | "--baud" | "--baudrate" | "--speed") = typed(ContextKind::InvalidArg) {
        let tip = "this sets it beforehand: stty -F DEVICE 115200";
        return Some(format!("vconsole leaves the speed as it is; {tip}"));
    }
    let word = typed(ContextKind::InvalidSubcommand)?;
    let is_console = word.contains('/') || word.starts_with("tty");
    is_console.then(|| format!("to attach to it: vconsole attach {word}"))
}

fn status_and_hint(error: &anyhow::Error) -> (ExitStatus, Option<String>) {
    if let Some(refusal) = error.downcast_ref::<ClaimError>() {
        let status = match refusal.kind {
            _ if refusal.is_busy() => ExitStatus::Busy,
            ClaimErrorKind::Target(_) => ExitStatus::NoConsole,
            _ => ExitStatus::Failed,
        };
        return (status, refusal.hint());
    }
    if let Some(error) = error.downcast_ref::<TargetError>() {
        return (ExitStatus::NoConsole, Some(error.hint()));
    }
    (ExitStatus::Failed, None)
}

/// A stdout whose reader left is no failure, but an end: status 141.
pub(crate) fn print(text: &str) -> anyhow::Result<Option<ExitStatus>> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(Some(ExitStatus::Signal(libc::SIGPIPE)))
        }
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to stdout")),
    }
}
