//! `vconsole attach`: one console, one operator.

pub(crate) mod acquire;
pub(crate) mod context;
mod next_reader;
pub(crate) mod open_view;
pub(crate) mod operate;
pub(crate) mod options;
pub(crate) mod outcome;
pub(crate) mod prompt;
pub(crate) mod session_server;
mod sockets;
pub(crate) mod sources;
pub(crate) mod takeover;
pub(crate) mod takeover_queue;
pub(crate) mod view;
pub(crate) mod viewing;
pub(crate) mod wait;

use std::fs::File;
use std::io;

use anyhow::{Context as _, bail};
use rustix::stdio::dup2_stdin;
use rustix::termios::isatty;

use crate::claim::error::{ClaimError, ClaimErrorKind};
use crate::claim::monitor::EarlyWatch;
use crate::commands::attach::acquire::{TakeoverScope, busy};
use crate::commands::attach::{
    context::Attach, options::AttachOptions, outcome::Role, prompt::can_ask,
};
use crate::{
    audit::Event, console::target::Target, exit_status::ExitStatus, messages::Messages,
    process::snapshot::ProcessSnapshot, signals::Signals, terminal, user_name,
};

pub(crate) fn run(options: &AttachOptions) -> anyhow::Result<ExitStatus> {
    // From here on a signal waits until everything can be released.
    let signals = Signals::new().context("cannot watch for signals")?;
    let messages = Messages::new(options.quiet);
    user_name::learn_ours();
    // The file may have any name, such as that of a version.
    let _ = rustix::thread::set_name(c"vconsole");
    if options.read_only && !terminal::in_foreground() && !isatty(io::stdout()) {
        // As `attach --read-only X > log &`: the terminal is left to the shell.
        dup2_stdin(File::open("/dev/null")?)?;
    }
    if !terminal::in_foreground() {
        bail!(
            "started in the background of a terminal that it would have to read: use fg, or `< /dev/null`"
        );
    }
    let target = Target::find(&options.console)?;
    // Before the snapshot: nobody can open the console unseen in between.
    let claims_at_once = !options.read_only && options.wait.is_none();
    let early_watch = if claims_at_once { EarlyWatch::on(&target) } else { EarlyWatch::default() };
    let snapshot = ProcessSnapshot::of(target.device());
    target.check_access(&snapshot)?;
    let mut attach =
        Attach { options: options.clone(), target: &target, messages, signals, early_watch };
    let first = attach.first_role(&snapshot);
    if let Ok(Role::Operate { .. }) = first {
        attach.report_hidden_processes(&snapshot);
    }
    attach.run(first)
}

impl Attach<'_> {
    fn run(&mut self, mut next: anyhow::Result<Role>) -> anyhow::Result<ExitStatus> {
        loop {
            if let Err(error) = &next {
                let kind = error.downcast_ref().map(|error: &ClaimError| &error.kind);
                let cancelled = matches!(kind, Some(ClaimErrorKind::Cancelled));
                if let Some(signal) = self.signals.ending().filter(|_| cancelled) {
                    return Ok(ExitStatus::Signal(signal));
                }
                self.record(&Event::notable("refused").with("why", error));
            }
            next = match next? {
                Role::Exit(status) => return Ok(status),
                Role::Watch(view) => self.watch(*view),
                Role::Operate { acquired, can_write } => Ok(self.operate(*acquired, can_write)?),
            };
        }
    }

    fn first_role(&mut self, snapshot: &ProcessSnapshot) -> anyhow::Result<Role> {
        if self.options.read_only {
            return self.open_view(None);
        }
        if let Some(limit) = self.options.wait {
            return self.wait(limit);
        }
        match self.acquire(snapshot, TakeoverScope::AsAsked) {
            Ok(acquired) => Ok(Role::operate(acquired)),
            Err(error) if self.options.ask && can_ask() => self.prompt(busy(error)?),
            Err(error) => Err(error),
        }
    }

    /// A holder without a lock can be seen only as far as `/proc` shows it.
    fn report_hidden_processes(&mut self, snapshot: &ProcessSnapshot) {
        let hidden = snapshot.hidden();
        if snapshot.proc_unavailable {
            self.messages.info("without /proc nobody can be seen who has the console open");
        } else if hidden > 0 {
            let processes = if hidden == 1 { "process has" } else { "processes have" };
            let what = format_args!("what {hidden} other {processes} open");
            self.messages.info(format_args!("/proc hides from you {what}"));
        }
    }
}
