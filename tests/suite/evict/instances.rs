//! PTYs of the same number in another devpts instance, as containers have them: which of two is a
//! process's terminal, and whom a hang-up ends.

use super::super::harness::{Bystander, Guest, Locks, Piped, Program, missing, not_root};
use super::{assert_refused, console, forced};

/// Leads a session in a mount namespace with a devpts instance of its own, which has a PTY of the
/// console's number. Its terminal is the console, or that PTY.
fn leader(guest: &Guest, its: &str) -> Piped {
    let script = "import ctypes, fcntl, os, signal, struct, sys
libc, number = ctypes.CDLL(None), int(sys.argv[1].split('/')[-1])
console = os.open(sys.argv[1], os.O_RDWR) if sys.argv[2] == 'console' else None
libc.unshare(0x20000)  # CLONE_NEWNS
libc.mount(b'none', b'/', None, 0x44000, None)  # MS_REC | MS_PRIVATE
libc.mount(b'devpts', b'/dev/pts', b'devpts', 0, b'newinstance,ptmxmode=0666')
while True:
    master = os.open('/dev/pts/ptmx', os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(master, 0x40045431, struct.pack('i', 0))  # TIOCSPTLCK
    if os.path.exists(sys.argv[1]): break
slave = os.open(sys.argv[1], os.O_RDWR)
print('ready', flush=True)
signal.pause()";
    let leader = Program::new("python3").args(["-c", script]).arg(guest).arg(its).piped();
    leader.stdout().receives("ready");
    leader
}

#[test]
fn a_leader_whose_terminal_has_the_same_number_elsewhere_is_spared_by_a_hang_up() {
    if not_root() || missing("python3") {
        return;
    }
    let (guest, locks) = (console(), Locks::new());
    let leader = leader(&guest, "own");
    let daemon = Bystander::daemon_with_open(guest.path());
    let output = forced(&guest, &locks).output();
    assert_eq!(output.status, 0, "{}", output.stderr());
    let line = format!("evicted sleep (pid {}, root) by hanging up", daemon.pid());
    assert!(output.stderr().contains(&line), "{}", output.stderr());
    assert!(!leader.has_ended());
}

#[test]
fn a_leader_that_has_the_console_is_not_hung_up_whatever_else_has_its_number() {
    if not_root() || missing("python3") {
        return;
    }
    let (guest, locks) = (console(), Locks::new());
    let leader = leader(&guest, "console");
    let output = forced(&guest, &locks).output();
    assert_refused(&output, "the console is its controlling terminal", "ask the user of python3");
    assert!(!leader.has_ended());
}
