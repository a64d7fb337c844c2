//! `--force` against another vconsole: the console passes from one operator to the next, whole.

mod chain;
mod failed;
mod hostile;
mod hung;
mod impostor;
mod killed;
mod patience;
mod stopped;

use std::fmt::Write as _;
use std::path::PathBuf;

use rustix::process::Signal;
use tempfile::TempDir;

use super::harness::{
    Client, Guest, Locks, Pause, Piped, Program, SOMEBODY, Session, Terminal, Vconsole, not_root,
    rounds, until,
};

fn forced(guest: &Guest, locks: &Locks) -> Program {
    Vconsole::attach(guest).arg("--force").locks(locks)
}

/// Where the sockets are that a test's sessions make.
struct Runtime(TempDir);

impl Runtime {
    fn new() -> Self {
        Self(TempDir::with_prefix("vconsole-runtime-").unwrap())
    }

    fn of(&self, program: Program) -> Program {
        program.env("VCONSOLE_TEST_RUNTIME", self.0.path())
    }

    fn directory(&self) -> PathBuf {
        self.0.path().join(rustix::process::geteuid().as_raw().to_string())
    }

    /// The sockets of a session and of its guard.
    fn sockets_of(&self, session: &Piped) -> [PathBuf; 2] {
        let directory = self.directory();
        session.socket_names().map(|name| directory.join(name))
    }
}

/// `session` operates, and nothing of its claim is gone.
#[track_caller]
fn operates(session: &Session, guest: &Guest, locks: &Locks) {
    use rustix::fs::{FlockOperation, flock};
    for name in locks.names() {
        let holder = String::from_utf8(locks.read(&name).unwrap()).unwrap();
        assert_eq!(holder.trim().parse(), Ok(session.pid()), "{name}");
    }
    assert_eq!(locks.names(), super::locks::all_names(guest));
    let line = Client::asleep(guest.path());
    let lock = flock(line.line(), FlockOperation::NonBlockingLockExclusive);
    assert!(lock.is_err(), "flock is free");
    assert_eq!(vconsole::sys::is_exclusive(line.line()).ok(), Some(true), "the flag is gone");
}

/// Whatever happened before, the next one attaches, and leaves nothing behind.
#[track_caller]
fn is_as_new(guest: &Guest, locks: &Locks) {
    locks.become_empty();
    let session = Vconsole::attach(guest).locks(locks).attached_to_pipes();
    guest.say("still here");
    session.stdout().receives("still here");
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
    locks.become_empty();
}

#[test]
fn the_old_operator_is_told_who_came_and_why_and_the_new_one_operates() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let before = desk.settings();
    let old = Vconsole::attach(&guest).locks(&locks).attached_on(&desk);
    let new = forced(&guest, &locks).args(["--reason", "lunch\x1b[2J"]).attached_to_pipes();
    desk.shows(format!("was taken over by vconsole (pid {}, ", new.pid()));
    desk.shows(r"lunch\x1b[2J");
    assert_eq!(old.wait(), 4);
    assert_eq!(desk.settings(), before);
    new.stderr().receives(format!("over from vconsole (pid {}, ", old.pid()));
    new.types("uptime\r");
    guest.receives("uptime\r");
    guest.say("a long time");
    new.stdout().receives("a long time");
    operates(&new, &guest, &locks);
    new.signal(Signal::TERM);
    assert_eq!(new.wait(), 143);
    is_as_new(&guest, &locks);
}

#[test]
fn without_force_a_session_is_left_alone() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let old = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let refused = Vconsole::attach(&guest).locks(&locks).output();
    assert_eq!(refused.status, 3, "{refused:?}");
    assert!(refused.stderr().contains("vconsole attach --force"), "{refused:?}");
    guest.say("undisturbed");
    old.stdout().receives("undisturbed");
}

#[test]
fn nobody_is_told_that_a_session_was_killed_which_took_the_console_over() {
    // The kernel names who took the flock first, which has ended; and only root gets past the flag.
    if not_root() {
        return;
    }
    let off = |program: Program| program.args(["--locks", "off"]);
    let (guest, locks) = (Guest::new(), Locks::new());
    let old = off(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
    let new = off(forced(&guest, &locks)).attached_to_pipes();
    assert_eq!(old.wait(), 4);
    let refused = off(Vconsole::attach(&guest).locks(&locks)).output();
    assert_eq!(refused.status, 3, "{refused:?}");
    let said = refused.stderr();
    assert!(said.contains("locked with flock by vconsole"), "{said}");
    assert!(said.contains(&format!("(pid {}, ", new.pid())), "{said}");
    assert!(said.contains("hint: to operate instead of its user"), "{said}");
    assert!(!said.contains("was killed"), "{said}");
}

#[test]
fn what_the_old_operator_could_not_deliver_the_new_one_delivers() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let old = Vconsole::attach(&guest).locks(&locks).attached_on(&desk);
    desk.freezes();
    let mut text = String::new();
    (0..9000).for_each(|number| write!(text, "{number} ").unwrap());
    guest.say(&text);
    until("the old operator has read it", || old.bytes_read() >= text.len() as u64);
    let new = forced(&guest, &locks).attached_to_pipes();
    desk.thaws();
    assert_eq!(old.wait(), 4);
    guest.say("end");
    new.stdout().receives("end");
    let screen = desk.screen_so_far();
    let new_text = String::from_utf8(new.stdout().so_far()).unwrap();
    let rest = new_text.strip_suffix("end").unwrap();
    let first = text.strip_suffix(rest).expect("the new operator shows the end of it");
    assert!(screen.contains(first), "the old operator showed its beginning");
}

#[test]
fn of_two_at_once_one_wins_and_the_other_is_told_by_whom() {
    for _ in 0..rounds(5) {
        let (guest, locks) = (Guest::new(), Locks::new());
        let old = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
        old.signal(Signal::STOP);
        old.is_stopped();
        // Both have said what they want before it is heard.
        let pause = Pause::at("asked");
        let both = [(); 2].map(|()| {
            let session = pause.of(forced(&guest, &locks)).piped();
            assert_eq!(pause.reached().pid(), session.pid());
            session
        });
        for session in &both {
            session.signal(Signal::CONT);
        }
        old.signal(Signal::CONT);
        assert_eq!(old.wait(), 4);
        until("one has lost", || both.iter().any(|it| it.has_ended()));
        let lost = usize::from(both[1].has_ended());
        let winner = &both[1 - lost];
        assert_eq!(both[lost].wait(), 3);
        both[lost].stderr().receives("hint: try again");
        both[lost].stderr().receives(format!("vconsole (pid {}, ", winner.pid()));
        guest.say("hello");
        winner.stdout().receives("hello");
    }
}

#[test]
fn root_takes_over_from_a_user_and_not_the_other_way_round() {
    if not_root() {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new().mode(0o1777));
    guest.chown(SOMEBODY);
    let users = Vconsole::attach(&guest).locks(&locks).as_user(SOMEBODY, SOMEBODY);
    let user = users.attached_to_pipes();
    let root = forced(&guest, &locks).attached_to_pipes();
    assert_eq!(user.wait(), 4);
    let again = forced(&guest, &locks).as_user(SOMEBODY, SOMEBODY).output();
    assert_eq!(again.status, 3, "{again:?}");
    guest.say("root's");
    root.stdout().receives("root's");
}

#[test]
fn a_reason_however_long_or_strange_is_told_and_keeps_nobody_out() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let old = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let reason = "\x1b".repeat(20_000);
    let newcomer = forced(&guest, &locks).env("SSH_CONNECTION", "y".repeat(20_000));
    let new = newcomer.arg("--reason").arg(reason).attached_to_pipes();
    assert_eq!(old.wait(), 4);
    old.stderr().receives(format!("was taken over by vconsole (pid {}, ", new.pid()));
    old.stderr().receives(r"\x1b\x1b");
}

/// The program once more, as another build or an upgrade of it is: another file of the same name.
fn another_build(directory: &TempDir) -> Program {
    let binary = directory.path().join("vconsole");
    let copied = std::process::Command::new("cp")
        .args([env!("CARGO_BIN_EXE_vconsole").as_ref(), binary.as_os_str()])
        .status();
    assert!(copied.unwrap().success());
    Program::new(&binary)
}

#[test]
fn another_build_is_taken_over_also_where_there_are_no_lock_files() {
    for locking in [&["--locks", "off"][..], &["--locks", "check"], &[]] {
        let (guest, locks, directory) = (Guest::new(), Locks::new(), TempDir::new().unwrap());
        let old = Vconsole::attach(&guest).args(locking).locks(&locks).attached_to_pipes();
        let attach = another_build(&directory).arg("attach").arg(&guest).args(locking);
        let attach = attach.locks(&locks);
        let refused = attach.output();
        assert_eq!(refused.status, 3, "{locking:?}: {refused:?}");
        assert!(refused.stderr().contains("vconsole attach --force"), "{refused:?}");
        let new = attach.arg("--force").attached_to_pipes();
        assert_eq!(old.wait(), 4, "{locking:?}");
        new.stderr().receives(format!("over from vconsole (pid {}, ", old.pid()));
        guest.say("hello");
        new.stdout().receives("hello");
        let newest = forced(&guest, &locks).args(locking).attached_to_pipes();
        assert_eq!(new.wait(), 4, "{locking:?}");
        newest.signal(Signal::TERM);
        assert_eq!(newest.wait(), 143);
        is_as_new(&guest, &locks);
    }
}

#[test]
fn a_session_whose_file_has_another_name_is_taken_over() {
    let (guest, locks, directory) = (Guest::new(), Locks::new(), TempDir::new().unwrap());
    another_build(&directory);
    let renamed = directory.path().join("vc-1.2");
    std::fs::rename(directory.path().join("vconsole"), &renamed).unwrap();
    let old = Program::new(&renamed).arg("attach").arg(&guest).locks(&locks).attached_to_pipes();
    let refused = Vconsole::attach(&guest).locks(&locks).output();
    assert_eq!(refused.status, 3, "{refused:?}");
    assert!(refused.stderr().contains("vconsole attach --force"), "{refused:?}");
    let new = forced(&guest, &locks).attached_to_pipes();
    assert_eq!(old.wait(), 4);
    guest.say("hello");
    new.stdout().receives("hello");
}

#[test]
fn what_the_guest_printed_last_is_shown_though_it_ends_when_the_newcomer_has_just_signed() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let old = Vconsole::attach(&guest).locks(&locks).attached_on(&desk);
    desk.freezes();
    let text = "0123456789".repeat(4000);
    guest.say(format!("{text} last words"));
    until("the old operator has read it", || old.bytes_read() >= text.len() as u64 + 11);
    let pause = Pause::held_at("signed");
    let new = pause.of(forced(&guest, &locks)).piped();
    pause.reached();
    desk.thaws();
    assert_eq!(old.wait(), 4);
    drop(guest);
    pause.is_over(&[&new]);
    let output = new.output();
    assert_eq!(output.status, 5, "{output:?}");
    assert!(output.stdout().ends_with("last words"), "{output:?}");
    locks.become_empty();
}

#[test]
fn who_is_quiet_is_told_as_well_who_took_the_console() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let old = Vconsole::attach(&guest).arg("--quiet").locks(&locks).piped();
    until("it operates", || locks.names() == super::locks::all_names(&guest));
    let new = forced(&guest, &locks).attached_to_pipes();
    let output = old.output();
    assert_eq!(output.status, 4, "{output:?}");
    let told = format!("was taken over by vconsole (pid {}, ", new.pid());
    assert!(output.stderr().contains(&told), "{output:?}");
}

#[test]
fn a_program_that_not_everybody_may_read_is_taken_over_by_its_own_user() {
    if not_root() {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new().mode(0o1777));
    guest.chown(SOMEBODY);
    let directory = TempDir::with_prefix("vconsole-run-").unwrap();
    let _ = another_build(&directory);
    let closed = |path: &std::path::Path, mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, mode).unwrap();
    };
    closed(directory.path(), 0o755);
    closed(&directory.path().join("vconsole"), 0o711);
    let attach = Program::new("env").arg(directory.path().join("vconsole")).arg("attach");
    let attach = attach.arg(&guest).locks(&locks).as_user(SOMEBODY, SOMEBODY);
    let old = attach.attached_to_pipes();
    let new = attach.arg("--force").attached_to_pipes();
    assert_eq!(old.wait(), 4);
    guest.say("hello");
    new.stdout().receives("hello");
}

#[test]
fn a_successor_of_however_much_is_typed_obeys_the_escape_key() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    guest.stops_reading();
    let mut old = Vconsole::attach(&guest).locks(&locks).attached_on(&desk);
    desk.types(vec![b'x'; 900_000]);
    let mut all = 900_000;
    let desks = [(); 5].map(|()| Terminal::new());
    for desk in &desks {
        let new = forced(&guest, &locks).attached_on(desk);
        assert_eq!(old.wait(), 4);
        desk.types(vec![b'x'; 60_000]);
        all += 60_000;
        desk.types("\x1d?");
        desk.shows("this help");
        old = new;
    }
    guest.reads_on();
    guest.receives_exactly(vec![b'x'; all]);
}
