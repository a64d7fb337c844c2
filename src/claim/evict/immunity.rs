//! Whom nobody may evict, and why.

use std::fmt;
use std::fs;
use std::io;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, geteuid};
use rustix::thread::{CapabilitySet, capabilities};

use crate::console::Device;
use crate::process::Process;

/// Why a holder cannot be evicted.
#[derive(Debug)]
pub enum Immunity {
    /// It has no user at a terminal, who could start it again: to end it is never right.
    Daemon,
    /// It belongs to another user.
    AnotherUsers,
    /// It is a shell, or leads a session that others are in: they would end with it.
    Shell,
    /// It started us.
    AboveUs,
    /// The console is its controlling terminal, by accident or not: a hang-up would end it.
    Controlled,
    /// It took no notice of any signal.
    Stubborn,
    /// It comes back as often as it is evicted.
    ComesBack,
    /// What the kernel said.
    Failed(io::Error),
}

/// How a holder is made to let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// By the signals that end a program.
    Signals,
    /// By hanging the console up for everybody.
    HangUp,
}

impl Means {
    /// The mildest that `holder` can be evicted with from the console `device`.
    pub(super) fn against(holder: &Process, device: Device) -> Result<Self, Immunity> {
        let immunity = if !holder.is_interactive(device) {
            Immunity::Daemon
        } else if is_another_users(holder) {
            Immunity::AnotherUsers
        } else if holder.is_shell() {
            Immunity::Shell
        } else if holder.is_above_us() {
            Immunity::AboveUs
        } else {
            return Ok(Self::Signals);
        };
        if may_hang_up() { Ok(Self::HangUp) } else { Err(immunity) }
    }
}

/// Whether a process belongs to somebody whom we are not to disturb.
pub(super) fn is_another_users(process: &Process) -> bool {
    let own = geteuid();
    !own.is_root()
        && (process.uid != Some(own.as_raw())
            || kill(Pid::from_raw(process.pid), None) == Err(Errno::EPERM))
}

/// Whether we may hang a line up for everybody: root in a container mostly may not, and root in a user
/// namespace of its own never, whatever capabilities it has there.
pub(super) fn may_hang_up() -> bool {
    // The machine's own namespace has all numbers, as they are (user_namespaces(7)).
    const ALL: [&str; 3] = ["0", "0", "4294967295"];
    let users = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let of_the_machine = users.is_empty() || users.split_ascii_whitespace().eq(ALL);
    let capable = || capabilities(None).map(|ours| ours.effective);
    of_the_machine && capable().is_ok_and(|ours| ours.contains(CapabilitySet::SYS_ADMIN))
}

impl Immunity {
    /// What to type next.
    pub(in crate::claim) fn hint(
        &self,
        console: &str,
        holder: &Process,
        guest: Option<&str>,
    ) -> String {
        let program = holder.program.as_deref().unwrap_or_default();
        // The one of all drivers, and that of QEMU alone, whose name the kernel cuts.
        if matches!(program, "libvirtd" | "virtqemud") {
            let domain = guest.unwrap_or("DOMAIN");
            return format!("this frees it and takes it over: virsh console --force {domain}");
        }
        let as_root = format!("sudo vconsole attach --force {console}");
        match self {
            Self::Daemon if geteuid().is_root() => {
                format!(
                    "tell {holder} to close the console; root needs CAP_SYS_ADMIN to hang it up"
                )
            }
            Self::Daemon => format!("tell {holder} to close the console, or: {as_root}"),
            Self::ComesBack | Self::Failed(_) | Self::Controlled => {
                format!("ask the user of {holder} to end it")
            }
            _ if geteuid().is_root() => {
                "ask its user to leave; root needs CAP_SYS_ADMIN to hang the console up".to_owned()
            }
            _ => format!("ask its user to leave, or: {as_root}"),
        }
    }
}

impl fmt::Display for Immunity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon => out.write_str("it is a daemon, with no terminal of its own"),
            Self::AnotherUsers => out.write_str("it is another user's"),
            Self::Shell => out.write_str("it is a shell, or leads a session that others are in"),
            Self::AboveUs => out.write_str("it started this very program"),
            Self::Controlled => {
                out.write_str("the console is its controlling terminal, and it would end with that")
            }
            Self::Stubborn => out.write_str("it went on after SIGHUP and SIGTERM"),
            Self::ComesBack => out.write_str("it came back each time"),
            Self::Failed(error) => error.fmt(out),
        }
    }
}
