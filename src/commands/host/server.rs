//! The loop that runs host, from its start to the last byte.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::attachment::Attachment;
use super::command::HostedCommand;
use super::exchange::Exchange;
use super::signals::Signals;
use crate::exit_status::ExitStatus;
use crate::relay::Notices;

/// How often the size of the client's window is looked at: nothing tells the master that it changed.
const SIZE: Duration = Duration::from_millis(250);

/// How often to look whether the client has read all of the command's last words.
const GLANCE: Duration = Duration::from_millis(10);

/// How long a client that reads nothing keeps an ended command's console open.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same where nobody can see whether it reads.
const BLIND_PATIENCE: Duration = Duration::from_secs(1);

/// A command, and the console that it is offered on. The order of the fields is the order of the end:
/// the lines are hung up, the command ends, the session of `--attach` ends.
pub(super) struct Server {
    exchange: Exchange,
    command: HostedCommand,
    attachment: Option<Attachment>,
    signals: Signals,
}

/// What happened that changes what host does.
enum Event {
    /// A signal told us to end.
    Signal(i32),
    /// The session of `--attach` ended.
    Left(ExitStatus),
    /// The command ended.
    Ended(ExitStatus),
}

impl Server {
    pub(super) fn new(exchange: Exchange, command: HostedCommand, signals: Signals) -> Self {
        Self { exchange, command, attachment: None, signals }
    }

    /// From here on the end of `attachment` ends host.
    pub(super) fn attach(&mut self, attachment: Attachment) {
        self.attachment = Some(attachment);
    }

    /// Serves clients until the command ends, or something ends it; the status is to be ours.
    pub(super) fn serve(mut self, notices: &mut Notices) -> io::Result<ExitStatus> {
        loop {
            // Nobody attached: nothing to look at, and so no reason to wake up.
            let limit = self.exchange.is_attached().then_some(SIZE);
            match self.turn(limit, notices)? {
                None => {}
                Some(Event::Ended(status)) => return self.see_off(status, notices),
                Some(Event::Left(status)) => return Ok(status),
                Some(Event::Signal(number)) => return Ok(ExitStatus::Signal(number)),
            }
        }
    }

    /// The command ended with `status`: stays until whoever is attached has read everything.
    fn see_off(mut self, status: ExitStatus, notices: &mut Notices) -> io::Result<ExitStatus> {
        self.exchange.command_ended()?;
        let mut farewell = Farewell::new();
        while !self.all_is_said(&mut farewell)? {
            match self.turn(Some(GLANCE), notices)? {
                None | Some(Event::Ended(_)) => {}
                Some(Event::Left(_)) => break,
                Some(Event::Signal(number)) => return Ok(ExitStatus::Signal(number)),
            }
        }
        Ok(status)
    }

    /// Whether there is nothing left to deliver, or nobody to deliver it to.
    fn all_is_said(&mut self, farewell: &mut Farewell) -> io::Result<bool> {
        if !self.exchange.is_attached() {
            // A session that we started comes for what is there, even if it is not here yet.
            let awaited = self.attachment.is_some();
            return Ok(!awaited || farewell.lasts_longer_than(PATIENCE));
        }
        let words = self.exchange.last_words()?;
        if words.moved {
            // Whoever reads on has all the time they need.
            *farewell = Farewell::new();
        }
        farewell.looks += 1;
        Ok(match words.unread {
            Some(false) if farewell.looks > 1 => true,
            Some(_) => farewell.lasts_longer_than(PATIENCE),
            None => farewell.lasts_longer_than(BLIND_PATIENCE),
        })
    }

    /// Waits until there is something to do, at most for `limit`, and does it.
    fn turn(
        &mut self,
        limit: Option<Duration>,
        notices: &mut Notices,
    ) -> io::Result<Option<Event>> {
        let woken = self.wait(limit)?;
        self.exchange.found_on_offered(woken.offered);
        if woken.by_a_client {
            let dropped = self.exchange.look()?;
            if dropped > 0 {
                notices.say(format_args!("{dropped} bytes of output dropped: nobody was attached"));
            }
        }
        if let Some(number) = self.signals.received() {
            return Ok(Some(Event::Signal(number)));
        }
        if self.exchange.is_attached() {
            self.exchange.pass_size()?;
        }
        self.exchange.move_bytes()?;
        self.ended_child()
    }

    fn ended_child(&mut self) -> io::Result<Option<Event>> {
        if let Some(session) = &mut self.attachment
            && let Some(status) = session.status()?
        {
            return Ok(Some(Event::Left(status)));
        }
        Ok(self.command.status()?.map(Event::Ended))
    }

    fn wait(&self, limit: Option<Duration>) -> io::Result<Woken> {
        let (command, from_command) = self.exchange.command();
        let (line, from_client) = self.exchange.offered();
        let mut set = vec![
            PollFd::new(self.signals.arrival(), PollFlags::IN),
            PollFd::new(line.events(), PollFlags::IN),
            PollFd::new(command, from_command),
        ];
        let offered = from_client.map(|interest| {
            set.push(PollFd::new(line, interest));
            set.len() - 1
        });
        let session = self.attachment.as_ref().and_then(Attachment::end);
        let ends = [self.command.end(), session].into_iter().flatten();
        set.extend(ends.map(|end| PollFd::from_borrowed_fd(end, PollFlags::IN)));
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        match poll(&mut set, limit.as_ref()) {
            // A signal: its handler has made `arrival` readable.
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let offered = offered.map_or(PollFlags::empty(), |index| set[index].revents());
        Ok(Woken { by_a_client: !set[1].revents().is_empty(), offered })
    }
}

/// What ended a wait. The rest is simply tried.
struct Woken {
    /// Somebody opened the offered console, or reads it.
    by_a_client: bool,
    /// What was found on its master.
    offered: PollFlags,
}

/// How long the last words of a command have been waiting for a client.
struct Farewell {
    since: Instant,
    looks: usize,
}

impl Farewell {
    fn new() -> Self {
        Self { since: Instant::now(), looks: 0 }
    }

    fn lasts_longer_than(&self, patience: Duration) -> bool {
        self.since.elapsed() > patience
    }
}
