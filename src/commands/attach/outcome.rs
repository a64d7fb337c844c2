//! How an attach goes on or ends, and how that is reported: message, audit trail, exit status.

use crate::audit::{self, Event};
use crate::commands::attach::{acquire::Acquired, context::Attach, view::View};
use crate::relay::{ByteCounts, ExitReason};
use crate::{exit_status::ExitStatus, messages::GOODBYE_TIME, session::client::Client, signals};

pub(super) enum Role {
    /// Without `can_write` the session reads until an operator comes.
    Operate {
        acquired: Box<Acquired>,
        can_write: bool,
    },
    Watch(Box<View>),
    Exit(ExitStatus),
}

impl Role {
    pub(super) fn operate(acquired: Acquired) -> Self {
        Self::Operate { acquired: Box::new(acquired), can_write: true }
    }
}

pub(super) fn with_counts(event: Event, counts: &ByteCounts) -> Event {
    event.with("received", counts.received()).with("sent", counts.sent())
}

impl Attach<'_> {
    pub(super) fn record(&self, event: &Event) {
        audit::record(&self.target.to_string(), event);
    }

    /// For a session that has nothing left to release.
    pub(super) fn leave(&mut self, reason: ExitReason, counts: &ByteCounts) -> Role {
        let why = self.end_message(reason, None);
        self.record(&with_counts(Event::usual("ended").with("why", &why), counts));
        self.messages.info(why);
        self.messages.flush(GOODBYE_TIME);
        Role::Exit(exit_status(reason))
    }

    pub(super) fn end_message(&self, reason: ExitReason, successor: Option<&Client>) -> String {
        let target = self.target;
        match reason {
            ExitReason::Detached => format!("detached from {target}"),
            ExitReason::InputEnded => format!("end of input, left {target}"),
            ExitReason::HungUp => format!("{target} hung up"),
            ExitReason::ReaderGone => format!("nobody reads the output any more, left {target}"),
            ExitReason::TerminalGone => format!("the terminal is gone, left {target}"),
            ExitReason::TimeLimit => format!("the time limit passed, left {target}"),
            ExitReason::HandedOver => match successor {
                Some(client) => format!("{target} was taken over by {client}"),
                None => format!("left {target}"),
            },
            ExitReason::TakeControl => format!("taking control of {target}"),
            ExitReason::Signal(it) => format!("ended by {}, left {target}", signals::name_of(it)),
        }
    }
}

pub(super) fn exit_status(reason: ExitReason) -> ExitStatus {
    match reason {
        ExitReason::Detached | ExitReason::InputEnded | ExitReason::TakeControl => ExitStatus::Done,
        ExitReason::HandedOver => ExitStatus::TakenOver,
        ExitReason::HungUp => ExitStatus::HungUp,
        ExitReason::ReaderGone => ExitStatus::Signal(libc::SIGPIPE),
        ExitReason::TerminalGone => ExitStatus::Signal(libc::SIGHUP),
        ExitReason::TimeLimit => ExitStatus::TimeLimit,
        ExitReason::Signal(number) => ExitStatus::Signal(number),
    }
}
