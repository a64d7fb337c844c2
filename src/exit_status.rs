//! The exit statuses of the program. The numbers are a promise to scripts.

use std::process::ExitCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// 0: detached, or the input ended as asked.
    Done,
    /// 1: something failed.
    Failed,
    /// 3: the console has a holder; nothing was touched, except holders reported as evicted.
    Busy,
    /// 4: another session took the console over.
    TakenOver,
    /// 5: the console hung up.
    HungUp,
    /// 6: no such console, not a console, or not permitted.
    NoConsole,
    /// 124: a time limit passed, as `timeout` of GNU coreutils says it.
    TimeLimit,
    /// 128+N: ended by signal N, after cleaning up, as shells say it.
    Signal(i32),
    /// The status of the command that `host` ran, passed on.
    Command(u8),
}

impl ExitStatus {
    /// Wrong usage (2) and a panic (101) never get here: clap and the Rust runtime end the program.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Busy => 3,
            Self::TakenOver => 4,
            Self::HungUp => 5,
            Self::NoConsole => 6,
            Self::TimeLimit => 124,
            Self::Signal(number) => 128 | u8::try_from(number & 0x7f).unwrap_or(0),
            Self::Command(code) => code,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}
