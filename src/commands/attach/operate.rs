//! Operating a console that is ours, or only reading it.

use std::{cell::Cell, time::SystemTime};

use anyhow::Context as _;

use crate::commands::attach::outcome::{Role, exit_status, with_counts};
use crate::commands::attach::session_server::{SessionServer, Viewers};
use crate::commands::attach::sources::{GuardSource, MonitorSource};
use crate::commands::attach::{acquire::Acquired, context::Attach, takeover::Taken};
use crate::console::{kind::Kind, peer::Peer, target::Target, tty::unless_hung_up};
use crate::printable::{Printable, local_time};
use crate::process::{Process, snapshot::ProcessSnapshot};
use crate::relay::event_loop::{self, Setup};
use crate::relay::{ByteCounts, ExitReason, PendingBytes, Settings, upstream::Upstream};
use crate::session::protocol::{EndReason, StreamPos};
use crate::terminal::{DetachedRawMode, RawMode};
use crate::user_name::Unasked;
use crate::{
    audit::Event, claim::Claim, exit_status::ExitStatus, guard::client::Guard,
    messages::GOODBYE_TIME, session::client::Client, test_point,
};

struct OperateOutcome {
    reason: ExitReason,
    /// The new holder, and the position of the first byte that our user has not seen.
    successor: Option<(Client, Option<StreamPos>)>,
    /// Sent to the viewers after everything is released: then they may claim the console.
    end_reason: EndReason,
}

impl Attach<'_> {
    pub(super) fn operate(&mut self, acquired: Acquired, can_write: bool) -> anyhow::Result<Role> {
        let _unasked = Unasked::begin();
        self.record_acquired(&acquired);
        test_point::reached("claimed");
        if let Some(signal) = self.signals.ending() {
            self.report_lost(&acquired.taken.pending);
            drop(acquired);
            return Ok(self.leave(ExitReason::Signal(signal), &ByteCounts::default()));
        }
        if let Some(from) = &acquired.taken.from {
            self.messages.info(format_args!("took {} over from {from}", self.target));
        }
        let (counts, viewers) = (ByteCounts::default(), Viewers::default());
        let can_write = Cell::new(can_write);
        let ended = self.relay_console(acquired, &can_write, &counts, &viewers);
        let successor = ended.as_ref().ok().and_then(|ended| Some(&ended.successor.as_ref()?.0));
        let why = match &ended {
            Ok(ended) => self.end_message(ended.reason, successor),
            Err(error) => error.to_string(),
        };
        let event = match successor {
            Some(successor) => Event::notable("taken-over").with("by", successor),
            None => Event::usual("ended").with("why", &why),
        };
        self.record(&with_counts(event, &counts));
        let OperateOutcome { reason, successor, end_reason } =
            ended.inspect_err(|_| viewers.close(EndReason::Left))?;
        test_point::reached("closing");
        viewers.close(end_reason);
        match successor {
            Some(_) => self.messages.important(why),
            None => self.messages.info(why),
        }
        self.messages.flush(GOODBYE_TIME);
        let stays = self.options.stay || self.options.read_only;
        Ok(match successor.filter(|_| stays) {
            Some((successor, seen)) => self.continue_as_viewer(&successor, seen),
            None => Role::Exit(exit_status(reason)),
        })
    }

    /// Watches the new holder, or exits if that is not possible.
    fn continue_as_viewer(&mut self, successor: &Client, seen: Option<StreamPos>) -> Role {
        let pid = successor.process.pid;
        let next = match self.follow(pid, successor.process.uid.unwrap_or_default(), seen) {
            Ok(Some(view)) => Ok(Role::Watch(Box::new(view))),
            Ok(None) => self.open_view_after(Some(pid), seen),
            Err(error) => Err(error.into()),
        };
        next.unwrap_or_else(|error| {
            if let Some(signal) = self.signals.ending() {
                return Role::Exit(ExitStatus::Signal(signal));
            }
            self.messages.info(format_args!("{error:#}"));
            self.messages.flush(GOODBYE_TIME);
            Role::Exit(ExitStatus::TakenOver)
        })
    }

    fn record_acquired(&self, acquired: &Acquired) {
        let event = match &acquired.taken.from {
            Some(from) => Event::notable("took-over").with("from", from),
            None => Event::usual("attached").with("how", acquired.how),
        };
        self.record(&event.with_reason(self.options.reason.as_deref()));
    }

    /// Relays until there is a reason to end. Restores the terminal, then releases the claim.
    fn relay_console(
        &mut self,
        acquired: Acquired,
        can_write: &Cell<bool>,
        counts: &ByteCounts,
        viewers: &Viewers,
    ) -> anyhow::Result<OperateOutcome> {
        // The guard comes first: dropped last, it is told goodbye when everything is released.
        let Acquired { guard, reader: _reader, taken, terminal, .. } = acquired;
        let Taken { mut claim, pending, scrollback, .. } = taken;
        let monitor = claim.take_monitor();
        let (claim, target) = (claim, self.target);
        // A process that sees the claim finds the session's sockets.
        let mut server = SessionServer::start(
            &claim,
            &guard,
            self.options.private,
            can_write,
            viewers,
            scrollback,
            &mut self.messages,
        );
        let mut monitor_source = MonitorSource { monitor, claim: &claim, guard: &guard };
        let raw = make_raw(&claim, &guard, terminal).inspect_err(|_| self.report_lost(&pending))?;

        claim.notes().iter().for_each(|note| self.messages.info(note));
        let connected = self.connected_message(raw.is_some(), can_write.get());
        self.messages.info(connected);
        let since = SystemTime::now();
        let settings = Settings {
            options: self.options.relay,
            can_write,
            status_line: &|| status_line(target, &claim, since, can_write.get()),
            counts,
        };
        let mut guard_source = GuardSource::new(&guard, Some(&claim), raw.as_ref());
        guard_source.replace_if_lost(&mut self.messages);
        let mut tap = viewers;
        let (input, output) = Setup::stdio()?;
        let setup = Setup {
            upstream: Upstream::Console(claim.console()),
            raw: raw.as_ref(),
            input,
            output,
            messages: &mut self.messages,
            signals: &mut self.signals,
            sources: vec![&mut guard_source, &mut monitor_source, &mut server],
            taps: vec![&mut tap],
            settings: &settings,
        };
        let ended = event_loop::run(setup, &pending).map(|(reason, _)| reason);
        if matches!(ended, Ok(ExitReason::HungUp))
            && let Some(message) = claim.clear_flag_after_hang_up(target)
        {
            self.messages.important(message);
        }
        let ends_here = matches!(ended, Ok(ExitReason::HungUp | ExitReason::HandedOver));
        if !ends_here && guard.leave_to_viewers() {
            claim.leave_to_guard();
            server.leaves_to_viewers = true;
        }
        let reason = ended?;
        let (successor, end_reason) = (server.successor.clone(), server.end_reason(reason));
        Ok(OperateOutcome { reason, successor, end_reason })
    }

    /// Reports the previous operator's bytes, which are lost if we end before we relay.
    fn report_lost(&mut self, pending: &PendingBytes) {
        let (typed, printed) = (pending.typed.len(), pending.printed.len());
        if typed + printed > 0 {
            self.messages.important(format_args!(
                "{typed} bytes of input and {printed} bytes of output lost, which the operator before us left"
            ));
            self.messages.flush(GOODBYE_TIME);
        }
    }

    fn connected_message(&self, on_terminal: bool, can_write: bool) -> String {
        let (target, key) = (self.target, self.options.relay.escape);
        let how = if can_write { "" } else { ", read-only: nobody operates it" };
        let helps = if can_write { "? helps" } else { "f takes control" };
        if on_terminal && key.byte().is_some() {
            format!("connected to {target}{how}; {key} then . leaves, {key} then {helps}")
        } else {
            format!("connected to {target}{how}")
        }
    }
}

/// The terminal may be raw already.
fn make_raw<'g>(
    claim: &Claim,
    guard: &'g Guard,
    terminal: Option<DetachedRawMode>,
) -> anyhow::Result<Option<RawMode<'g>>> {
    let console = claim.console();
    let raw = console.set_raw().or_else(unless_hung_up);
    raw.with_context(|| format!("cannot set {console} raw"))?;
    match terminal {
        Some(terminal) => {
            let raw = terminal.attach(guard);
            raw.resume().map(|()| Some(raw))
        }
        None => RawMode::enter(guard),
    }
    .context("cannot set the terminal raw")
}

fn status_line(target: &Target, claim: &Claim, since: SystemTime, can_write: bool) -> String {
    let console = claim.console();
    let kind = match console.kind {
        Kind::Pty => "a PTY",
        Kind::Serial => "a serial port",
    };
    let files = claim.lock_files();
    let mut held: Vec<_> = files.iter().map(|file| Printable::new(file).to_string()).collect();
    held.push("flock".to_owned());
    held.extend(console.has_own_flag().then(|| "the exclusive flag".to_owned()));
    let held = held.join(", ");
    let snapshot = ProcessSnapshot::of_all_lines();
    let peer = snapshot.masters(target.device()).first().map_or_else(String::new, |process| {
        format!("\nat its other end: {}", Peer::of((*process).clone()))
    });
    let (pid, since) = (Process::own_pid(), local_time(since));
    let action = if can_write { "operated" } else { "read" };
    format!("{console}, {kind}, {action} by pid {pid} since {since}{peer}\nheld by {held}")
}
