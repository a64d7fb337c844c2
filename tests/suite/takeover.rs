//! `--force` against another vconsole: the console passes from one driver to the next, whole.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;

use tempfile::TempDir;

use super::harness::{
    Guest, Locks, Piped, Program, SOMEBODY, Terminal, Vconsole, not_root, rounds, until,
};

fn forced(guest: &Guest, locks: &Locks) -> Program {
    Vconsole::attach(guest).arg("--force").locks(locks)
}

fn sockets_of(session: &Piped) -> [PathBuf; 2] {
    let directory = PathBuf::from("/run/vconsole");
    [session.pid().to_string(), format!("{}.guard", session.pid())].map(|it| directory.join(it))
}

/// A point at which programs stop.
struct Pause {
    directory: TempDir,
    point: &'static str,
}

impl Pause {
    fn at(point: &'static str) -> Self {
        let pause = Self { directory: tempfile::tempdir().unwrap(), point };
        assert!(Command::new("mkfifo").arg(pause.fifo()).status().unwrap().success());
        pause
    }

    fn fifo(&self) -> PathBuf {
        self.directory.path().join("reached")
    }

    fn of(&self, program: Program) -> Program {
        program.env("VCONSOLE_TEST_PAUSE", format!("{}={}", self.point, self.fifo().display()))
    }

    /// Waits until one of them gets there, and gives its number.
    fn reached(&self) -> i32 {
        fs::read_to_string(self.fifo()).unwrap().trim().parse().unwrap()
    }
}

/// Whatever happened before, the next one attaches, and leaves nothing behind.
#[track_caller]
fn is_as_new(guest: &Guest, locks: &Locks) {
    locks.become_empty();
    let session = Vconsole::attach(guest).locks(locks).attached_to_pipes();
    guest.say("still here");
    session.stdout().hears("still here");
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
    locks.become_empty();
}

#[test]
fn the_old_driver_is_told_who_came_and_why_and_the_new_one_drives() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let before = desk.settings();
    let old = Vconsole::attach(&guest).locks(&locks).attached_on(&desk);
    let new = forced(&guest, &locks).args(["--reason", "lunch\x1b[2J"]).attached_to_pipes();
    desk.shows(format!("was taken over by vconsole (pid {}, ", new.pid()));
    desk.shows(r"lunch\x1b[2J");
    assert_eq!(old.wait(), 4);
    assert_eq!(desk.settings(), before);
    new.stderr().hears(format!("over from vconsole (pid {}, ", old.pid()));
    new.types("uptime\r");
    guest.hears("uptime\r");
    guest.say("a long time");
    new.stdout().hears("a long time");
    for name in locks.names() {
        let holder = String::from_utf8(locks.read(&name).unwrap()).unwrap();
        assert_eq!(holder.trim().parse(), Ok(new.pid()), "{name}");
    }
    assert!(!locks.names().is_empty());
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
    old.stdout().hears("undisturbed");
}

/// While it passes from hand to hand: is the console ever free, by any convention?
fn keeps_trying(guest: &Guest, locks: &Locks, over: &AtomicBool) {
    let nonblocking = 0o4000;
    let noctty = 0o400;
    let mut options = fs::File::options();
    let line = options.read(true).custom_flags(nonblocking | noctty).open(guest.path()).unwrap();
    let names = locks.names();
    while !over.load(Ordering::Relaxed) {
        assert!(flock(&line, FlockOperation::NonBlockingLockExclusive).is_err(), "flock was free");
        assert_eq!(vconsole::sys::is_exclusive(&line).ok(), Some(true), "the flag was gone");
        for name in &names {
            assert!(locks.read(name).is_some_and(|it| it.len() == 11), "{name} was free");
        }
    }
}

#[test]
fn in_a_chain_of_takeovers_no_byte_is_lost_and_the_console_is_never_free() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let over = AtomicBool::new(false);
    let mut driver = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let (mut said, mut typed) = (String::new(), String::new());
    let (mut shown, mut number) = (Vec::new(), 0);
    std::thread::scope(|threads| {
        let prober = threads.spawn(|| keeps_trying(&guest, &locks, &over));
        for round in 0..rounds(20) {
            driver.types(format!("<{round}>"));
            write!(typed, "<{round}>").unwrap();
            let next = forced(&guest, &locks).piped();
            while !String::from_utf8_lossy(&next.stderr().so_far()).contains("connected") {
                let line = format!("{number} ");
                guest.say(&line);
                said += &line;
                number += 1;
            }
            assert_eq!(driver.wait(), 4);
            shown.extend(driver.stdout().to_the_end());
            driver = next;
        }
        over.store(true, Ordering::Relaxed);
        prober.join().unwrap();
    });
    guest.hears_exactly(&typed);
    guest.say("end");
    driver.stdout().hears("end");
    driver.signal(Signal::TERM);
    assert_eq!(driver.wait(), 143);
    shown.extend(driver.stdout().to_the_end());
    assert!(
        String::from_utf8(shown).unwrap() == said + "end",
        "the outputs do not make one stream"
    );
    is_as_new(&guest, &locks);
}

#[test]
fn what_the_old_driver_could_not_deliver_the_new_one_delivers() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let old = Vconsole::attach(&guest).locks(&locks).attached_on(&desk);
    desk.freezes();
    let mut text = String::new();
    (0..9000).for_each(|number| write!(text, "{number} ").unwrap());
    guest.say(&text);
    until("the old driver has read it", || old.bytes_read() >= text.len() as u64);
    let new = forced(&guest, &locks).attached_to_pipes();
    desk.thaws();
    assert_eq!(old.wait(), 4);
    guest.say("end");
    new.stdout().hears("end");
    let screen = desk.screen_so_far();
    let new_text = String::from_utf8(new.stdout().so_far()).unwrap();
    let rest = new_text.strip_suffix("end").unwrap();
    let first = text.strip_suffix(rest).expect("the new driver shows the end of it");
    assert!(screen.contains(first), "the old driver showed its beginning");
}

#[test]
fn a_stopped_session_is_ended_by_its_guard_which_hands_over() {
    for _ in 0..rounds(1) {
        let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
        let before = desk.settings();
        let old = Vconsole::attach(&guest).locks(&locks).attached_on(&desk);
        old.signal(Signal::STOP);
        old.is_stopped();
        let start = Instant::now();
        let new = forced(&guest, &locks).attached_to_pipes();
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        desk.shows("this session did not answer, and was ended");
        until("the stopped session has ended", || old.has_ended());
        assert_eq!(desk.settings(), before);
        guest.say("hello");
        new.stdout().hears("hello");
        new.signal(Signal::TERM);
        assert_eq!(new.wait(), 143);
        is_as_new(&guest, &locks);
    }
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
            assert_eq!(pause.reached(), session.pid());
            session.is_stopped();
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
        both[lost].stderr().hears(format!("vconsole (pid {}, ", winner.pid()));
        guest.say("hello");
        winner.stdout().hears("hello");
    }
}

#[test]
fn whoever_is_killed_in_the_middle_leaves_no_wreck() {
    for point in ["handing-over", "given", "given-to-us", "taken"] {
        for victims in ["holder", "newcomer", "both"] {
            let (guest, locks) = (Guest::new(), Locks::new());
            let pause = Pause::at(point);
            let old = pause.of(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
            let new = pause.of(forced(&guest, &locks)).piped();
            let stopped = if pause.reached() == old.pid() { &old } else { &new };
            stopped.is_stopped();
            if victims != "newcomer" {
                old.kill();
            }
            if victims != "holder" {
                new.kill();
            }
            for session in [&old, &new] {
                session.signal(Signal::CONT);
            }
            if victims == "holder" {
                // The newcomer has it, or was told that the other ended and has claimed it.
                new.stderr().hears("connected");
                guest.say("one driver");
                new.stdout().hears("one driver");
                new.signal(Signal::TERM);
                new.wait();
            }
            until("the old session has ended", || old.has_ended());
            until("the new session has ended", || new.has_ended());
            is_as_new(&guest, &locks);
        }
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
    root.stdout().hears("root's");
}

#[test]
fn whoever_comes_with_garbage_disturbs_nobody() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let session = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    if not_root() {
        return;
    }
    let door = sockets_of(&session)[0].clone();
    // The wrong kind of socket, and then the right one with nothing to say, or with nonsense.
    assert!(UnixStream::connect(&door).is_err());
    guest.say("relaying");
    session.stdout().hears("relaying");
    let files = session.open_files().len();
    for text in
        [&b""[..], b"{}", b"\0\0\0", b"{\"takeover\":{\"version\":7,\"about\":{}}}", &[b'['; 8192]]
    {
        let line = rustix::net::socket(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            None,
        )
        .unwrap();
        rustix::net::connect(&line, &rustix::net::SocketAddrUnix::new(&door).unwrap()).unwrap();
        let _ = rustix::net::send(&line, text, rustix::net::SendFlags::NOSIGNAL);
    }
    guest.say("hello");
    session.stdout().hears("hello");
    until("nothing of them is left", || session.open_files().len() <= files);
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
    for socket in [door.clone(), door.with_extension("guard")] {
        until("the sockets are gone", || !socket.exists());
    }
    is_as_new(&guest, &locks);
}
