//! The queue of sessions that wait for a console: first come, first served among all users. It only
//! decides who tries first; the claim itself stays authoritative.
//!
//! Each waiting session has an abstract unix socket, named by the console and the time of arrival.
//! The kernel removes it when its process ends, and shows it to everybody in `/proc/net/unix`.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io};

use rustix::io::retry_on_intr;
use rustix::net::{SocketAddrUnix, SocketFlags, accept_with, bind, connect, listen};

use crate::console::kind::Kind;
use crate::console::target::Target;
use crate::poll;
use crate::process::{Presence, Process};
use crate::seqpacket::{PeerCredentials, new_socket};

/// How many sessions can connect between two looks.
const BACKLOG: i32 = 128;
/// The most tickets ahead that are looked at: more can only be an attack.
const MOST: usize = 64;

/// A place in the queue, until it is dropped.
pub(crate) struct Ticket {
    queue: String,
    name: String,
    socket: OwnedFd,
    /// The connections of those behind, which are closed with the ticket.
    behind: Vec<OwnedFd>,
    /// The verified tickets ahead, the nearest first.
    ahead: Vec<Ahead>,
    /// The processes that were ahead at any time, by pid and start.
    predecessors: Vec<(i32, Option<SystemTime>)>,
}

/// The result of a look at the queue.
#[derive(Clone, Copy)]
pub(crate) struct QueuePlace {
    /// How many are ahead and were not passed over.
    pub(crate) ahead: usize,
    /// Whether one of those ahead has left since the last look.
    pub(crate) moved: bool,
}

struct Ahead {
    ticket: String,
    /// Hangs up when that session leaves the queue.
    socket: OwnedFd,
    peer: PeerCredentials,
    /// Whether a later waiter got the console because this one did not take its turn.
    passed_over: bool,
}

impl Ticket {
    /// Takes the last place in the queue for a console.
    pub(crate) fn take(target: &Target) -> io::Result<Self> {
        let queue = queue_for(target);
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let name = format!("{:012}{:09}-{}", now.tv_sec, now.tv_nsec, Process::own_pid());
        let socket = new_socket()?;
        bind(&socket, &SocketAddrUnix::new_abstract_name(format!("{queue}{name}").as_bytes())?)?;
        listen(&socket, BACKLOG)?;
        let (behind, ahead, predecessors) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { queue, name, socket, behind, ahead, predecessors })
    }

    /// Finds the tickets ahead. `left_to_them`: whether the console has been free for long enough
    /// that the first of them would have taken it. If one leaves then, because it has the console,
    /// those before it were passed over. They may be stopped: they keep their place, and nobody waits
    /// for them any more.
    pub(crate) fn look(&mut self, left_to_them: bool) -> QueuePlace {
        self.make_room();
        // The table is not read at once, and may lack a ticket: the connection says whether it is gone.
        let known = std::mem::take(&mut self.ahead).into_iter();
        let (gone, here): (Vec<_>, Vec<_>) = known.partition(|ahead| has_left(&ahead.socket));
        self.ahead = here;
        let table = fs::read("/proc/net/unix").unwrap_or_default();
        let mut tickets = tickets(&String::from_utf8_lossy(&table), &self.queue);
        tickets.retain(|ticket| *ticket < self.name);
        tickets.sort();
        for ticket in tickets.into_iter().rev().take(MOST) {
            let is_known = self.ahead.iter().any(|ahead| ahead.ticket == ticket);
            // A process counts once.
            if !is_known
                && let Some(ahead) = self.connect(ticket)
                && self.ahead.iter().all(|nearer| nearer.peer != ahead.peer)
            {
                self.ahead.push(ahead);
            }
        }
        self.ahead.sort_by(|one, other| other.ticket.cmp(&one.ticket));
        let last_gone = gone.into_iter().map(|gone| gone.ticket).max();
        if let Some(gone) = last_gone.as_ref().filter(|_| left_to_them) {
            self.ahead.iter_mut().for_each(|ahead| ahead.passed_over |= ahead.ticket < *gone);
        }
        let ahead = self.ahead.iter().filter(|ahead| !ahead.passed_over).count();
        QueuePlace { ahead, moved: last_gone.is_some() }
    }

    /// Accepts those behind. Those that left again also take room in the backlog until accepted.
    fn make_room(&mut self) {
        self.behind.retain(|socket| !has_left(socket));
        while self.behind.len() < MOST
            && let Ok(socket) = accept_with(&self.socket, SocketFlags::CLOEXEC)
        {
            self.behind.extend(Some(socket).filter(|socket| !has_left(socket)));
        }
    }

    /// Whether this process was ahead once: if it has the console now, it was its turn.
    pub(crate) fn was_ahead(&self, process: &Process) -> bool {
        self.predecessors.contains(&(process.pid, process.started))
    }

    /// Hangs up when the next session ahead leaves the queue.
    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        let next = self.ahead.iter().find(|ahead| !ahead.passed_over);
        next.map(|ahead| ahead.socket.as_fd())
    }

    /// Connects to the owner of a ticket ahead. `None` if it is gone, or did not take the ticket.
    fn connect(&mut self, ticket: String) -> Option<Ahead> {
        let socket = new_socket().ok()?;
        let name = format!("{}{ticket}", self.queue);
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).ok()?;
        retry_on_intr(|| connect(&socket, &address)).ok()?;
        let peer = PeerCredentials::of(&socket).ok()?;
        // The pid of another namespace is 0 (unix(7)): then the ticket must do, one for each user.
        if peer.pid != 0 {
            let (taken, pid) = read_ticket(&ticket)?;
            let Presence::Alive(process) = Process::find(peer.pid) else { return None };
            if pid != peer.pid || !process.is_vconsole() || !process.was_there(taken) {
                return None;
            }
            self.predecessors.push((process.pid, process.started));
        }
        Some(Ahead { ticket, socket, peer, passed_over: false })
    }
}

/// Whether the other end is closed: nobody ever sends anything here.
fn has_left(socket: &OwnedFd) -> bool {
    poll::wait_readable(socket, Some(Instant::now()))
}

/// The prefix of the names in a console's queue. A port may have several nodes. A waiter for a PTY
/// that is gone leaves by itself, also if another PTY has its number by now.
fn queue_for(target: &Target) -> String {
    let device = target.device();
    match target.kind {
        Kind::Serial => format!("vconsole-wait-{}/", device.number),
        Kind::Pty => format!("vconsole-wait-{}-{}/", device.filesystem, device.number),
    }
}

/// When a ticket was taken (time since boot), and by which pid.
pub(crate) fn read_ticket(ticket: &str) -> Option<(Duration, i32)> {
    let (time, pid) = ticket.split_once('-')?;
    let (seconds, nanoseconds) = time.split_at_checked(12)?;
    Some((Duration::new(seconds.parse().ok()?, nanoseconds.parse().ok()?), pid.parse().ok()?))
}

/// The tickets of a queue in `/proc/net/unix`: the last field of a line is the name, with `@` for
/// an abstract one; the fourth has a flag for a listening socket (`__SO_ACCEPTCON`).
pub(crate) fn tickets(table: &str, queue: &str) -> Vec<String> {
    let ticket = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, _, _, "00010000", _, _, _, name] = fields[..] else { return None };
        let ticket = name.strip_prefix('@')?.strip_prefix(queue)?;
        let (time, pid) = ticket.split_once('-')?;
        let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        (time.len() == 21 && number(time) && number(pid)).then(|| ticket.to_owned())
    };
    table.lines().filter_map(ticket).collect()
}
