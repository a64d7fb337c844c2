//! The queue of those who wait for a console: first come, first served among the vconsoles of all
//! users. It only says who tries first; the claim itself stays the judge.
//!
//! Each who waits has an abstract unix socket, named by the console and the time of coming. It is gone
//! with its process, however that ends, and `/proc/net/unix` shows it to everybody.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
    socket_with,
};

use crate::console::{Kind, Target};
use crate::process::{Presence, Process};
use crate::wire::{self, Peer};

/// So many can connect between two looks.
const BACKLOG: i32 = 128;

/// So many of those ahead are looked at. More are nobody's but a joker's.
const MOST: usize = 64;

/// A place in the queue, until it is dropped.
#[derive(Debug)]
pub struct Place {
    queue: String,
    ticket: String,
    socket: OwnedFd,
    /// Those behind who wait for our end, and hear of it when these are closed.
    behind: Vec<OwnedFd>,
    /// Those ahead who are what they say, the nearest first.
    ahead: Vec<Ahead>,
    /// The processes that were ahead at any time, by number and start.
    predecessors: Vec<(i32, Option<SystemTime>)>,
}

/// Somebody ahead.
#[derive(Debug)]
struct Ahead {
    ticket: String,
    /// It hangs up when that one leaves.
    wire: OwnedFd,
    peer: Peer,
}

impl Place {
    /// Takes the last place in the queue for a console.
    pub fn take(target: &Target) -> io::Result<Self> {
        let queue = queue_for(target);
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let ticket = format!("{:012}{:09}-{}", now.tv_sec, now.tv_nsec, Process::own_pid());
        let socket = new_socket()?;
        bind(&socket, &SocketAddrUnix::new_abstract_name(format!("{queue}{ticket}").as_bytes())?)?;
        listen(&socket, BACKLOG)?;
        let (behind, ahead, predecessors) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { queue, ticket, socket, behind, ahead, predecessors })
    }

    /// Looks who is ahead, and how many they are.
    pub fn look(&mut self) -> usize {
        self.make_room();
        let table = fs::read("/proc/net/unix").unwrap_or_default();
        let mut tickets = tickets(&String::from_utf8_lossy(&table), &self.queue);
        tickets.retain(|ticket| *ticket < self.ticket);
        tickets.sort();
        tickets.reverse();
        tickets.truncate(MOST);
        let mut known = std::mem::take(&mut self.ahead);
        for ticket in tickets {
            let before = known.iter().position(|it| it.ticket == ticket);
            let ahead = before.map(|at| known.swap_remove(at)).or_else(|| self.connect(ticket));
            // Nobody has two places.
            if let Some(ahead) = ahead
                && self.ahead.iter().all(|nearer| nearer.peer != ahead.peer)
            {
                self.ahead.push(ahead);
            }
        }
        self.ahead.len()
    }

    /// Makes room for those who are still to connect: who has left again takes some until it is accepted.
    fn make_room(&mut self) {
        self.behind.retain(|wire| !has_left(wire));
        while self.behind.len() < MOST
            && let Ok(wire) = accept_with(&self.socket, SocketFlags::CLOEXEC)
        {
            self.behind.extend(Some(wire).filter(|wire| !has_left(wire)));
        }
    }

    /// Whether this process was ahead once: if it has the console now, it was its turn.
    #[must_use]
    pub fn was_ahead(&self, process: &Process) -> bool {
        self.predecessors.contains(&(process.pid, process.started))
    }

    /// What hangs up when the one right ahead leaves.
    #[must_use]
    pub fn wire(&self) -> Option<BorrowedFd<'_>> {
        self.ahead.first().map(|ahead| ahead.wire.as_fd())
    }

    /// Connects to the one with this ticket. Nothing where it is gone, or not who took the ticket.
    fn connect(&mut self, ticket: String) -> Option<Ahead> {
        let wire = new_socket().ok()?;
        let name = format!("{}{ticket}", self.queue);
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).ok()?;
        retry_on_intr(|| connect(&wire, &address)).ok()?;
        let peer = Peer::of(&wire).ok()?;
        // From another pid namespace the number is 0 (unix(7)): then the ticket has to do, one of each
        // user.
        if peer.pid != 0 {
            let (taken, pid) = read_ticket(&ticket)?;
            let Presence::Alive(process) = Process::find(peer.pid) else { return None };
            if pid != peer.pid || !process.is_vconsole() || !process.was_there(taken) {
                return None;
            }
            self.predecessors.push((process.pid, process.started));
        }
        Some(Ahead { ticket, wire, peer })
    }
}

/// Whether the other side of a wire is at its end: nobody ever says anything here.
fn has_left(wire: &OwnedFd) -> bool {
    wire::wait(wire, Some(Instant::now()))
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// What the names of a console's queue begin with. A port may have several nodes; a PTY's number can be
/// another's a moment later.
fn queue_for(target: &Target) -> String {
    let device = target.device();
    match target.kind() {
        Kind::Serial => format!("vconsole-wait-{}/", device.number),
        Kind::Pty => {
            let (seconds, nanoseconds) = target.changed();
            let (filesystem, number) = (device.filesystem, device.number);
            format!("vconsole-wait-{filesystem}-{number}-{seconds}.{nanoseconds}/")
        }
    }
}

/// When a ticket was taken, since the machine started, and by which process.
pub(super) fn read_ticket(ticket: &str) -> Option<(Duration, i32)> {
    let (time, pid) = ticket.split_once('-')?;
    let (seconds, nanoseconds) = time.split_at_checked(12)?;
    Some((Duration::new(seconds.parse().ok()?, nanoseconds.parse().ok()?), pid.parse().ok()?))
}

/// The tickets of a queue in the kernel's table: the last field of a line is the name, with `@` for an
/// abstract one; in the fourth a flag tells who listens (`__SO_ACCEPTCON`).
pub(super) fn tickets(table: &str, queue: &str) -> Vec<String> {
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
