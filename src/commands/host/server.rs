//! The loop of `vconsole host`, from the start to the last byte.

use std::time::{Duration, Instant};
use std::{io, os::fd::AsFd as _};

use rustix::event::PollFlags;
use signal_hook::consts::SIGCHLD;

use crate::commands::host::child::{Attachment, HostedCommand};
use crate::commands::host::exchange::Exchange;
use crate::signals::{Delivery, ENDING, deliver};
use crate::{exit_status::ExitStatus, messages::Messages, poll};

/// The interval of looks at the window size: the master gets no event for it.
const SIZE_INTERVAL: Duration = Duration::from_millis(250);
/// The interval of looks whether the client has read all output of an ended command.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);
/// How long a client that does not read keeps the console of an ended command open.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// The same if host cannot see what the client has read.
const BLIND_DRAIN_TIME: Duration = Duration::from_secs(1);

/// Takes over the ending signals, except those that our parent wants ignored.
pub(super) fn end_signals() -> io::Result<Delivery> {
    // SIGCHLD for its side effect only: while it is ignored, the kernel discards how children ended
    // (wait(2)), and our parent may have ignored it.
    deliver(&ENDING, &[SIGCHLD])
}

/// Dropped in the order of the fields: the lines hang up, the command ends, the session ends.
pub(super) struct Server {
    pub(super) exchange: Exchange,
    pub(super) command: HostedCommand,
    /// The session of `--attach`: its end ends host.
    pub(super) attachment: Option<Attachment>,
    pub(super) signals: Delivery,
    pub(super) messages: Messages,
}

enum HostEvent {
    Signal(i32),
    /// The session of `--attach` ended.
    Left(ExitStatus),
    CommandEnded(ExitStatus),
}

impl Server {
    pub(super) fn serve(mut self) -> io::Result<ExitStatus> {
        loop {
            let limit = self.exchange.offered.is_attached().then_some(SIZE_INTERVAL);
            match self.turn(limit)? {
                None => {}
                Some(HostEvent::CommandEnded(status)) => return self.drain(status),
                Some(HostEvent::Left(status)) => return Ok(status),
                Some(HostEvent::Signal(number)) => return Ok(ExitStatus::Signal(number)),
            }
        }
    }

    fn drain(mut self, status: ExitStatus) -> io::Result<ExitStatus> {
        self.exchange.command_ended()?;
        let mut drain = Drain { since: Instant::now(), was_empty: false };
        while !self.is_drained(&mut drain)? {
            match self.turn(Some(DRAIN_INTERVAL))? {
                None | Some(HostEvent::CommandEnded(_)) => {}
                Some(HostEvent::Left(_)) => break,
                Some(HostEvent::Signal(number)) => return Ok(ExitStatus::Signal(number)),
            }
        }
        Ok(status)
    }

    fn is_drained(&mut self, drain: &mut Drain) -> io::Result<bool> {
        if !self.exchange.offered.is_attached() {
            // The session of `--attach` may not have opened the console yet.
            return Ok(self.attachment.is_none() || drain.since.elapsed() > DRAIN_TIME);
        }
        if self.exchange.made_progress() {
            // A client that reads on gets all the time that it needs.
            *drain = Drain { since: Instant::now(), was_empty: false };
        }
        Ok(match self.exchange.has_unread()? {
            Some(false) if std::mem::replace(&mut drain.was_empty, true) => true,
            Some(_) => drain.since.elapsed() > DRAIN_TIME,
            None => drain.since.elapsed() > BLIND_DRAIN_TIME,
        })
    }

    fn turn(&mut self, limit: Option<Duration>) -> io::Result<Option<HostEvent>> {
        let ready = self.wait(limit)?;
        self.exchange.offered.found(ready.offered);
        if ready.client {
            let dropped = self.exchange.look()?;
            if dropped > 0 {
                let what = format_args!("{dropped} bytes of output dropped");
                self.messages.info(format_args!("{what}: nobody was attached"));
            }
        }
        if let Some(number) = self.signals.pending().find(|signal| *signal != SIGCHLD) {
            return Ok(Some(HostEvent::Signal(number)));
        }
        if self.exchange.offered.is_attached() {
            self.exchange.pass_size()?;
        }
        self.exchange.move_bytes()?;
        self.ended_child()
    }

    fn ended_child(&mut self) -> io::Result<Option<HostEvent>> {
        if let Some(session) = &mut self.attachment
            && let Some(status) = session.0.status()?
        {
            return Ok(Some(HostEvent::Left(status)));
        }
        Ok(self.command.0.status()?.map(HostEvent::CommandEnded))
    }

    fn wait(&self, limit: Option<Duration>) -> io::Result<HostReady> {
        let (command, from_command) = self.exchange.command();
        let (line, from_client) = self.exchange.offered();
        let mut fds = vec![
            poll::readable(self.signals.get_read()),
            poll::readable(&line.events),
            poll::entry(command.master.as_fd(), from_command),
        ];
        let session = self.attachment.as_ref().and_then(|session| session.0.end());
        let ends = [self.command.0.end(), session].into_iter().flatten();
        fds.extend(ends.map(|end| poll::entry(end, PollFlags::IN)));
        fds.extend(from_client.map(|interest| poll::entry(line.master.as_fd(), interest)));
        poll::wait(&mut fds, limit.map(|limit| Instant::now() + limit))?;
        let client = !fds[1].revents().is_empty();
        let offered = from_client.and(fds.last()).map(rustix::event::PollFd::revents);
        Ok(HostReady { client, offered: offered.unwrap_or(PollFlags::empty()) })
    }
}

/// The events that ended a wait. Everything else is simply tried.
struct HostReady {
    /// A client opened the offered console, or reads it.
    client: bool,
    /// The events of the offered console.
    offered: PollFlags,
}

struct Drain {
    /// The last moment when bytes were moved or read.
    since: Instant,
    /// Whether the last look found nothing unread.
    was_empty: bool,
}
