//! The guard as a process: a child of its session, that ends when it is to and is then forgotten.

use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::guard::awaited_guard_of;
use super::harness::{Guest, Locks, Process, Terminal, Vconsole, is_alive, missing, until};
use super::locks::all_names;

#[test]
fn a_newcomer_waits_for_the_guard_of_a_session_that_was_killed() {
    for options in [&[][..], &["--force"]] {
        let (guest, locks) = (Guest::new(), Locks::new());
        let killed = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
        let guard = Process::find(Pid::from_raw(awaited_guard_of(&killed)).unwrap()).unwrap();
        guard.signal(Signal::STOP);
        guard.is_stopped();
        killed.kill();
        let newcomer = Vconsole::attach(&guest).args(options).locks(&locks).piped();
        // It has met the guard by then, and was refused if it did not wait.
        std::thread::sleep(Duration::from_millis(300));
        guard.signal(Signal::CONT);
        newcomer.stderr().receives("connected to");
        newcomer.signal(Signal::TERM);
        assert_eq!(newcomer.wait(), 143);
    }
}

#[test]
fn a_guard_of_which_no_descriptor_can_be_had_is_ended_all_the_same() {
    if missing("strace") {
        return;
    }
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let old = ["strace", "-DDD", "-o", "/dev/null", "-e", "inject=pidfd_open:error=ENOSYS"];
    let session = Vconsole::attach(&guest).locks(&locks).under(old).attached_on(&terminal);
    let guard = Process::find(Pid::from_raw(awaited_guard_of(&session)).unwrap()).unwrap();
    guard.signal(Signal::STOP);
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    until("the stopped guard has ended", || !is_alive(guard.pid()));
    locks.become_empty();
}

#[test]
fn what_cannot_be_said_to_a_guard_costs_the_session_nothing_but_the_guard() {
    if missing("strace") {
        return;
    }
    // Too many descriptors on their way, at one time or another. And the guard is quicker than its end.
    for nth in 1..12 {
        let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
        let failing = [
            format!("inject=sendmsg:error=ETOOMANYREFS:when={nth}"),
            "inject=pidfd_send_signal:delay_enter=100000".to_owned(),
        ];
        let strace = ["strace", "-DDD", "-o", "/dev/null"].into_iter();
        let strace = strace.chain(failing.iter().flat_map(|it| ["-e", it.as_str()]));
        let session = Vconsole::attach(&guest).locks(&locks).under(strace).attached_on(&terminal);
        assert_eq!(locks.names(), all_names(&guest), "{nth}");
        terminal.types("\x1d.");
        assert_eq!(session.wait(), 0, "{nth}");
        locks.become_empty();
    }
}
