//! Many viewers at once: none is dropped when the operator leaves, whichever way.
//!
//! `VCONSOLE_VIEWERS=500` has as many of them; `VCONSOLE_ROUNDS` repeats it.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tempfile::TempDir;

use super::super::harness::{
    DEADLINE, Guest, Locks, Piped, Terminal, Vconsole, in_time, ready, rounds, until, until_within,
};

/// For each viewer its session has two descriptors.
const DESCRIPTORS: u64 = 4096;

/// Viewers whose output goes to files.
struct Viewers {
    directory: TempDir,
    all: Vec<Child>,
}

impl Viewers {
    fn of(guest: &Guest, locks: &Locks) -> Self {
        let count = std::env::var("VCONSOLE_VIEWERS").ok().and_then(|count| count.parse().ok());
        let directory = TempDir::with_prefix("vconsole-viewers-").unwrap();
        let mut viewers = Self { directory, all: Vec::new() };
        for number in 0..count.unwrap_or(30) {
            let [out, error] = ["out", "error"].map(|kind| viewers.file(kind, number));
            let mut command = Command::new(env!("CARGO_BIN_EXE_vconsole"));
            command
                .args(["attach", "--read-only", "--lock-dir"])
                .arg(locks.path())
                .arg(guest.path());
            command.stdin(Stdio::null()).stdout(File::create(out).unwrap());
            viewers.all.push(command.stderr(File::create(error).unwrap()).spawn().unwrap());
        }
        viewers.all_say("watching");
        viewers
    }

    fn file(&self, kind: &str, number: usize) -> PathBuf {
        self.directory.path().join(format!("{kind}.{number}"))
    }

    fn said(&self, kind: &str, number: usize) -> String {
        String::from_utf8_lossy(&fs::read(self.file(kind, number)).unwrap()).into_owned()
    }

    #[track_caller]
    fn all_say(&self, text: &str) {
        for number in 0..self.all.len() {
            until_within(Duration::from_secs(120), &format!("viewer {number} says {text}"), || {
                self.said("error", number).contains(text)
            });
        }
    }

    /// All have shown all that the guest said, once and in order, and none has ended.
    #[track_caller]
    fn all_have_shown(&mut self, text: &str) {
        for number in 0..self.all.len() {
            let ended = self.all[number].try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", self.said("error", number));
            let start = Instant::now();
            while self.said("out", number) != text {
                let (shown, said) = (self.said("out", number), self.said("error", number));
                assert!(start.elapsed() < DEADLINE, "viewer {number} has shown {shown}: {said}");
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

impl Drop for Viewers {
    fn drop(&mut self) {
        for viewer in &mut self.all {
            let _ = viewer.kill();
        }
        for viewer in &mut self.all {
            let _ = viewer.wait();
        }
    }
}

/// Counts the opens of a console. Closing and opening a serial port would move its modem lines.
struct Opens(OwnedFd);

impl Opens {
    fn of(guest: &Guest) -> Self {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&events, guest.path(), WatchFlags::OPEN).unwrap();
        Self(events)
    }

    #[track_caller]
    fn are_none(&self) {
        assert!(!ready(&self.0, PollFlags::IN, Duration::ZERO), "the console was opened again");
    }
}

/// One that reads or operates after `gone` takes what the guest prints within two seconds.
#[track_caller]
fn somebody_reads(guest: &Guest, viewers: &Viewers, gone: Instant) {
    guest.say("read this\r\n");
    until("somebody reads", || {
        (0..viewers.all.len()).any(|number| viewers.said("out", number).contains("read this"))
    });
    assert!(gone.elapsed() < Duration::from_secs(2), "{:?}", gone.elapsed());
}

fn descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let enough = limit.maximum.map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(enough), ..limit });
}

#[track_caller]
fn follow(leave: impl Fn(&Guest, &Locks) -> Box<dyn FnOnce() -> Option<Piped>>) {
    in_time(|| {
        descriptors();
        for _ in 0..rounds(1) {
            let (guest, locks) = (Guest::new(), Locks::new());
            let leaves = leave(&guest, &locks);
            let mut viewers = Viewers::of(&guest, &locks);
            guest.say("said before\r\n");
            viewers.all_have_shown("said before\r\n");
            let opens = Opens::of(&guest);
            let gone = Instant::now();
            let next = leaves();
            somebody_reads(&guest, &viewers, gone);
            guest.say("and the end\r\n");
            viewers.all_have_shown("said before\r\nread this\r\nand the end\r\n");
            opens.are_none();
            for number in 0..viewers.all.len() {
                let said = viewers.said("error", number);
                assert!(!said.contains("removed the lock"), "{said}");
            }
            drop((next, viewers));
            locks.become_empty();
        }
    });
}

#[test]
fn none_is_dropped_when_the_operator_detaches() {
    follow(|guest, locks| {
        let desk = Terminal::new();
        let operator = Vconsole::attach(guest).locks(locks).attached_on(&desk);
        Box::new(move || {
            desk.types("\x1d.");
            assert_eq!(operator.wait(), 0);
            None
        })
    });
}

#[test]
fn none_is_dropped_when_the_operator_is_killed() {
    follow(|guest, locks| {
        let operator = Vconsole::attach(guest).locks(locks).attached_to_pipes();
        Box::new(move || {
            operator.signal(Signal::KILL);
            assert_eq!(operator.wait(), 137);
            None
        })
    });
}

#[test]
fn none_is_dropped_when_the_operator_is_taken_over() {
    follow(|guest, locks| {
        let operator = Vconsole::attach(guest).locks(locks).attached_to_pipes();
        let forced = Vconsole::attach(guest).arg("--force").locks(locks);
        Box::new(move || {
            let next = forced.attached_to_pipes();
            assert_eq!(operator.wait(), 4);
            Some(next)
        })
    });
}

#[test]
fn none_is_dropped_when_the_operator_fails() {
    in_time(|| {
        descriptors();
        for _ in 0..rounds(1) {
            let (guest, locks) = (Guest::new(), Locks::new());
            let full = Vconsole::attach(&guest).locks(&locks).redirected("> /dev/full");
            let operator = full.attached_to_pipes();
            let mut viewers = Viewers::of(&guest, &locks);
            let opens = Opens::of(&guest);
            guest.say("too much\r\n");
            assert_eq!(operator.wait(), 1);
            somebody_reads(&guest, &viewers, Instant::now());
            viewers.all_have_shown("too much\r\nread this\r\n");
            opens.are_none();
        }
    });
}
