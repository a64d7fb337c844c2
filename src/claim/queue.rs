//! The queue of those who wait for a console: first come, first served among the vconsoles of all
//! users. It only says who tries first; the claim itself stays the judge.
//!
//! Each who waits has an abstract unix socket, named by the console and the time of coming. It is gone
//! with its process, however that ends, and `/proc/net/unix` shows it to everybody.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::console::{Kind, Target};
use crate::process::{Presence, Process};

/// So many can connect to one socket, which never accepts.
const BACKLOG: i32 = 128;

/// So many of those ahead are looked at. More are nobody's but a joker's.
const MOST: usize = 64;

/// A place in the queue, until it is dropped.
#[derive(Debug)]
pub struct Place {
    queue: String,
    ticket: String,
    _socket: OwnedFd,
    ahead: Option<Ahead>,
    /// The processes that were ahead at any time.
    predecessors: BTreeSet<i32>,
}

/// Who is right ahead.
#[derive(Debug)]
struct Ahead {
    ticket: String,
    /// It hangs up when that one leaves.
    wire: OwnedFd,
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
        Ok(Self { queue, ticket, _socket: socket, ahead: None, predecessors: BTreeSet::new() })
    }

    /// Looks who is ahead, and how many they are.
    pub fn look(&mut self) -> usize {
        let table = fs::read("/proc/net/unix").unwrap_or_default();
        let mut tickets = tickets(&String::from_utf8_lossy(&table), &self.queue);
        tickets.retain(|ticket| *ticket < self.ticket);
        tickets.sort();
        tickets.reverse();
        tickets.truncate(MOST);
        self.predecessors.extend(tickets.iter().filter_map(|ticket| pid_in(ticket)));
        let known = self.ahead.take();
        while let Some(ticket) = tickets.first() {
            self.ahead = match &known {
                Some(known) if known.ticket == *ticket => known.copy(),
                _ => self.connect(ticket),
            };
            if self.ahead.is_some() {
                break;
            }
            tickets.remove(0);
        }
        tickets.len()
    }

    /// Whether this process was ahead once: if it has the console now, it was its turn.
    #[must_use]
    pub fn was_ahead(&self, process: &Process) -> bool {
        self.predecessors.contains(&process.pid)
    }

    /// What hangs up when the one right ahead leaves.
    #[must_use]
    pub fn wire(&self) -> Option<BorrowedFd<'_>> {
        self.ahead.as_ref().map(|ahead| ahead.wire.as_fd())
    }

    /// Connects to the one with this ticket. Nothing where it is gone, or no vconsole.
    fn connect(&self, ticket: &str) -> Option<Ahead> {
        let wire = new_socket().ok()?;
        let name = format!("{}{ticket}", self.queue);
        connect(&wire, &SocketAddrUnix::new_abstract_name(name.as_bytes()).ok()?).ok()?;
        // From another pid namespace the number is 0 (unix(7)): then the ticket has to do.
        let peer = getsockopt(&wire, PeerCredentials).ok()?.pid();
        let honest = peer == 0
            || (pid_in(ticket) == Some(peer)
                && matches!(Process::find(peer), Presence::Alive(process) if process.is_vconsole()));
        honest.then(|| Ahead { ticket: ticket.to_owned(), wire })
    }
}

impl Ahead {
    fn copy(&self) -> Option<Self> {
        Some(Self { ticket: self.ticket.clone(), wire: self.wire.try_clone().ok()? })
    }
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

/// The process that a ticket names.
fn pid_in(ticket: &str) -> Option<i32> {
    ticket.rsplit_once('-').and_then(|(_, pid)| pid.parse().ok())
}

/// The tickets of a queue in the kernel's table: the last field of a line is the name, with `@` for an
/// abstract one; in the fourth a flag tells who listens (`__SO_ACCEPTCON`).
fn tickets(table: &str, queue: &str) -> Vec<String> {
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
