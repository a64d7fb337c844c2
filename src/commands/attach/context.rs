//! The context of every part of `vconsole attach`: options, console, messages and signals.

use std::cell::RefCell;

use crate::claim::error::{ClaimError, ClaimErrorKind};
use crate::claim::monitor::EarlyWatch;
use crate::claim::request::{Progress, Request};
use crate::console::target::{Target, TargetError};
use crate::{
    commands::attach::options::AttachOptions, guard::client::Guard, messages::Messages,
    process::snapshot::ProcessSnapshot, session::protocol::ClientInfo, signals::Signals,
};

/// The context of one `vconsole attach`.
pub(super) struct Attach<'a> {
    pub(super) options: AttachOptions,
    pub(super) target: &'a Target,
    pub(super) messages: Messages,
    pub(super) signals: Signals,
    pub(super) early_watch: EarlyWatch,
}

impl Attach<'_> {
    /// Lists the processes that have the console open. Its path must still lead to the same device.
    pub(super) fn look_again(&self) -> Result<ProcessSnapshot, TargetError> {
        let now = Target::find(&self.options.console)?;
        if !self.target.is_still(now.device()) {
            return Err(TargetError::Replaced { name: self.target.to_string() });
        }
        let snapshot = ProcessSnapshot::of(now.device());
        now.check_access(&snapshot)?;
        Ok(snapshot)
    }

    /// Fails if a holder can be seen. Nothing is opened or taken.
    pub(super) fn check_free(&mut self, snapshot: &ProcessSnapshot) -> Result<(), ClaimError> {
        let guard = Guard::none();
        let progress = UserProgress::new(&mut self.messages, &mut self.signals);
        let request = request(&self.options, self.target, &guard, &progress, &self.early_watch);
        Request { force: false, ..request }.check_free(snapshot)
    }

    /// Our introduction to other sessions. The environment may name any host.
    pub(super) fn client_info(&self) -> ClientInfo {
        let connection = std::env::var("SSH_CONNECTION").unwrap_or_default();
        let host = connection.split_ascii_whitespace().next().map(str::to_owned);
        ClientInfo { host, reason: self.options.reason.clone() }.shortened()
    }

    pub(super) fn cancelled(&self) -> ClaimError {
        ClaimErrorKind::Cancelled.on(self.target)
    }
}

pub(super) fn request<'a>(
    options: &'a AttachOptions,
    target: &'a Target,
    guard: &'a Guard,
    progress: &'a dyn Progress,
    early_watch: &'a EarlyWatch,
) -> Request<'a> {
    let (mode, place, force) = (options.lock_mode, &options.lock_place, options.force);
    Request { target, mode, place, force, handoff_from: None, guard, progress, early_watch }
}

/// Shows the progress of a claim to the user, who can cancel it by a signal.
#[derive(Debug)]
pub(super) struct UserProgress<'a> {
    messages: RefCell<&'a mut Messages>,
    signals: RefCell<&'a mut Signals>,
}

impl<'a> UserProgress<'a> {
    pub(super) fn new(messages: &'a mut Messages, signals: &'a mut Signals) -> Self {
        Self { messages: messages.into(), signals: signals.into() }
    }
}

impl Progress for UserProgress<'_> {
    fn report(&self, line: &str) {
        self.messages.borrow_mut().info(line);
    }

    fn cancelled(&self) -> bool {
        self.signals.borrow_mut().ending().is_some()
    }
}
