//! Who gets a console that another has: the table of README.md, measured.

use std::fmt::Write as _;
use std::io::Write as _;

use super::super::harness::Vconsole;
use super::console::{Console, guest};
use super::libvirt::Libvirt;
use super::peer::Peer;
use super::running::{Outcome, Running};
use super::{Attached, User, turn};

/// One side of a pair.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    Vconsole,
    Peer(Peer),
}

impl Client {
    fn name(self) -> &'static str {
        match self {
            Self::Vconsole => "**vconsole**",
            Self::Peer(peer) => peer.name(),
        }
    }
}

/// What happened to a newcomer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cell {
    Refused,
    Both,
    /// It got in, and the holder said so.
    Reported,
    Unmeasured,
}

impl Cell {
    fn text(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Both => "BOTH",
            Self::Reported => "reported",
            Self::Unmeasured => "",
        }
    }
}

/// Who has the console, until it is dropped or ended.
enum Holder {
    Vconsole(Attached),
    Peer(Running),
}

impl Holder {
    #[track_caller]
    fn attach(client: Client, console: &dyn Console, user: User) -> Self {
        match client {
            Client::Vconsole => Self::Vconsole(Attached::start(console, user, &[])),
            Client::Peer(peer) => Self::Peer(peer.attach(console, user)),
        }
    }

    /// What it makes of somebody who got in.
    #[track_caller]
    fn not_alone(&self) -> Cell {
        match self {
            Self::Vconsole(held) => {
                held.terminal.shows("has opened the console as well");
                Cell::Reported
            }
            Self::Peer(_) => Cell::Both,
        }
    }

    #[track_caller]
    fn end(self, console: &dyn Console) {
        match self {
            Self::Vconsole(held) => held.leaves(console),
            Self::Peer(running) => running.end(),
        }
    }
}

/// Where pairs meet: on a fresh PTY each, or where one of them is virsh, on the console of libvirt's
/// guest.
struct Field {
    user: User,
    libvirt: Option<Libvirt>,
}

impl Field {
    fn of(user: User) -> Self {
        let libvirt = (!Peer::Virsh.is_missing()).then(|| Libvirt::start(user));
        Self { user, libvirt }
    }

    /// All clients that are installed, vconsole first.
    fn clients(&self) -> Vec<Client> {
        let virsh = self.libvirt.is_some().then_some(Peer::Virsh);
        let peers = Peer::installed(Peer::ON_ANY_PTY).chain(virsh).map(Client::Peer);
        std::iter::once(Client::Vconsole).chain(peers).collect()
    }

    /// One pair: the holder is this field's user's, or whose the table says.
    #[track_caller]
    fn pair(&self, holder: Client, newcomer: Client) -> Cell {
        match &self.libvirt {
            Some(libvirt) if [holder, newcomer].contains(&Client::Peer(Peer::Virsh)) => {
                meet(libvirt, (holder, self.user), (newcomer, self.user))
            }
            _ => meet(&guest(), (holder, self.user), (newcomer, self.user)),
        }
    }

    /// Measures those pairs that are `wanted`, and prints them as a table.
    fn measure(&self, title: &str, wanted: impl Fn(Client, Client) -> bool) -> Vec<Cell> {
        let clients = self.clients();
        let mut table = format!("\n{title}\n\n| holder \\ newcomer |");
        for client in &clients {
            write!(table, " {} |", client.name()).unwrap();
        }
        write!(table, "\n|---|{}", "---|".repeat(clients.len())).unwrap();
        let mut cells = Vec::new();
        for &holder in clients.iter().filter(|&&it| clients.iter().any(|&by| wanted(it, by))) {
            write!(table, "\n| {} |", holder.name()).unwrap();
            for &newcomer in &clients {
                let measured = wanted(holder, newcomer).then(|| self.pair(holder, newcomer));
                let cell = measured.unwrap_or(Cell::Unmeasured);
                write!(table, " {} |", cell.text()).unwrap();
                cells.push(cell);
            }
        }
        // Past the test runner's capture: the table is what the test is for.
        drop(writeln!(std::io::stderr(), "{table}\n"));
        cells
    }
}

/// Lets the one take the console, and the other try.
#[track_caller]
fn meet(console: &dyn Console, holder: (Client, User), newcomer: (Client, User)) -> Cell {
    let held = Holder::attach(holder.0, console, holder.1);
    let cell = match newcomer {
        (Client::Vconsole, user) => {
            let output = user.runs(Vconsole::attach(console.path())).output();
            match output.status {
                3 => Cell::Refused,
                0 => held.not_alone(),
                other => panic!("{other}: {}", output.stderr()),
            }
        }
        (Client::Peer(peer), user) => {
            let running = peer.start(console, user);
            let cell = match running.outcome(console) {
                Outcome::KeptOut => Cell::Refused,
                Outcome::Attached => held.not_alone(),
            };
            running.end();
            cell
        }
    };
    held.end(console);
    cell
}

#[test]
fn the_matrix_of_one_ordinary_user() {
    let Some(_turn) = turn() else { return };
    let with_vconsole = |holder, newcomer| [holder, newcomer].contains(&Client::Vconsole);
    let title = "All as one ordinary user:";
    let cells = Field::of(User::Owner).measure(title, with_vconsole);
    assert!(cells.iter().all(|cell| matches!(cell, Cell::Refused | Cell::Unmeasured)));
}

#[test]
fn the_matrix_of_root() {
    let Some(_turn) = turn() else { return };
    let with_vconsole = |holder, newcomer| [holder, newcomer].contains(&Client::Vconsole);
    let cells = Field::of(User::Root).measure("All as root:", with_vconsole);
    assert!(!cells.contains(&Cell::Both));
}

#[test]
#[ignore = "takes minutes: every pair of all programs"]
fn the_whole_matrix() {
    let Some(_turn) = turn() else { return };
    Field::of(User::Owner).measure("All as one ordinary user:", |_, _| true);
}
