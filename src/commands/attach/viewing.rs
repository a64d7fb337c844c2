//! Watching a console, from session to session, and taking control of it. Viewers must never cost
//! the operator a processor. A priority belongs to a thread and cannot be raised (setpriority(2)):
//! so a thread of its own watches, and a user who takes control operates at full speed.

use std::{io, panic, thread};

use anyhow::Context as _;
use rustix::termios::isatty;

use crate::claim::error::{ClaimError, ClaimErrorKind};
use crate::commands::attach::sources::{WITHOUT_TERMINAL_GUARD, start_guard};
use crate::commands::attach::{acquire::TakeoverScope, context::Attach, outcome::Role, view::View};
use crate::relay::{ByteCounts, ExitReason};
use crate::session::protocol::{EndReason, StreamPos};
use crate::terminal::{DetachedRawMode, RawMode};
use crate::{
    audit::Event, commands, console::target::TargetError, guard::client::Guard, process::Process,
    session::subscription::ViewerEvent,
};

/// The lowest priority (setpriority(2)).
const LOWEST: i32 = 19;

enum ViewEnd {
    Exit(ExitReason, ByteCounts),
    TakeControl(Box<View>, Option<DetachedRawMode>),
    /// The operator left, and the user saw all before the position. `is_end`: the operator said that
    /// it had printed no more.
    Left {
        operator: Process,
        at: StreamPos,
        is_end: bool,
    },
    /// The same, after which a session with this pid could not be watched.
    Alone(StreamPos, i32),
}

impl Attach<'_> {
    pub(super) fn watch(&mut self, view: View) -> anyhow::Result<Role> {
        let event = Event::usual("watches").with("whom", &view.operator);
        self.record(&event.with_reason(self.options.reason.as_deref()));
        let on_terminal = isatty(io::stdin());
        let mut guard = if on_terminal {
            start_guard(&mut self.messages, WITHOUT_TERMINAL_GUARD)
        } else {
            Guard::none()
        };
        let mut view = Some(view);
        let mut watching = {
            let (attach, guard, view) = (&mut *self, &mut guard, &mut view);
            move || {
                let view = view.take().context("it is watched already")?;
                attach.follow_operators(view, &*guard)
            }
        };
        let ended = thread::scope(|scope| {
            let thread = thread::Builder::new().spawn_scoped(scope, || {
                let _ = rustix::process::setpriority_process(None, LOWEST);
                watching()
            });
            let joined = thread.ok().map(thread::ScopedJoinHandle::join);
            joined.map(|ended| ended.unwrap_or_else(|cause| panic::resume_unwind(cause)))
        });
        // Without a thread the watching keeps its priority.
        match ended.unwrap_or_else(watching)? {
            ViewEnd::TakeControl(view, terminal) => {
                // Bytes typed from here on are for the console.
                let raw = terminal.map(|terminal| terminal.attach(&guard));
                self.take_control(*view, raw)
            }
            ViewEnd::Exit(reason, counts) => {
                drop(guard);
                Ok(self.leave(reason, &counts))
            }
            ViewEnd::Left { operator, at, is_end } => {
                drop(guard);
                match self.next_reader(&operator, at, is_end)? {
                    Some(role) => Ok(role),
                    None => self.watch_after(None, at),
                }
            }
            ViewEnd::Alone(at, successor) => {
                drop(guard);
                self.watch_after(Some(successor), at)
            }
        }
    }

    fn watch_after(&mut self, successor: Option<i32>, at: StreamPos) -> anyhow::Result<Role> {
        let role = self.open_view_after(successor, Some(at));
        if !role.as_ref().is_err_and(is_gone) {
            return role;
        }
        Ok(self.leave(ExitReason::HungUp, &ByteCounts::default()))
    }

    fn follow_operators(&mut self, mut view: View, guard: &Guard) -> anyhow::Result<ViewEnd> {
        let raw = RawMode::enter(guard).context("cannot set the terminal raw")?;
        loop {
            let (messages, signals) = (&mut self.messages, &mut self.signals);
            let options = self.options.relay;
            match view.show(options, guard, raw.as_ref(), messages, signals)? {
                ExitReason::TakeControl => {
                    return Ok(ViewEnd::TakeControl(Box::new(view), raw.map(RawMode::detach)));
                }
                ExitReason::HungUp => {}
                other => return Ok(ViewEnd::Exit(other, view.counts)),
            }
            match view.last_event(&mut self.messages) {
                ViewerEvent::Ended { why: EndReason::HungUp, .. } => {
                    return Ok(ViewEnd::Exit(ExitReason::HungUp, view.counts));
                }
                ViewerEvent::Ended { why: EndReason::TakenOver { pid, uid }, at, .. } => {
                    let next = self.follow(pid, uid, Some(at))?;
                    let Some(next) = next else { return Ok(ViewEnd::Alone(at, pid)) };
                    view = next;
                }
                ViewerEvent::Ended { why: EndReason::Left, at, .. } => {
                    self.messages.info(format_args!("{} left {}", view.operator, self.target));
                    return Ok(ViewEnd::Left { operator: view.operator, at, is_end: true });
                }
                ViewerEvent::Gone | ViewerEvent::Missed(_) => {
                    self.messages.info(format_args!(
                        "{} ended without a word: what it read last may be missing",
                        view.operator
                    ));
                    let at = view.position();
                    return Ok(ViewEnd::Left { operator: view.operator, at, is_end: false });
                }
            }
        }
    }

    /// If the takeover fails, goes on watching.
    fn take_control(&mut self, mut view: View, raw: Option<RawMode<'_>>) -> anyhow::Result<Role> {
        let snapshot = self.look_again().map_err(anyhow::Error::new);
        let acquired = snapshot
            .and_then(|snapshot| self.acquire(&snapshot, TakeoverScope::Watched(&view.operator)));
        match acquired {
            Ok(mut acquired) => {
                let taken = &mut acquired.taken;
                taken.pending.printed = view.take_unseen(&taken.scrollback, &mut self.messages);
                taken.pending.typed.append(&mut view.pending.typed);
                // From here on the guard of the claim restores the terminal.
                acquired.terminal = raw.map(|raw| raw.detach().attach(&acquired.guard).detach());
                Ok(Role::operate(acquired))
            }
            Err(error) => {
                let busy = error.downcast_ref().is_some_and(ClaimError::is_busy);
                if busy {
                    commands::explain(&error, &mut self.messages);
                }
                // If the console is gone or we are to end, what came is still shown first.
                if !busy && !is_gone(&error) && self.signals.ending().is_none() {
                    return Err(error);
                }
                view.pending.typed.clear();
                Ok(Role::Watch(Box::new(view)))
            }
        }
    }
}

/// Whether the console does not exist any more: not if it is a login terminal or not permitted.
fn is_gone(error: &anyhow::Error) -> bool {
    let why = match error.downcast_ref() {
        Some(ClaimError { kind: ClaimErrorKind::Target(why), .. }) => Some(why),
        _ => error.downcast_ref(),
    };
    matches!(why, Some(TargetError::Missing { .. } | TargetError::Replaced { .. }))
}
