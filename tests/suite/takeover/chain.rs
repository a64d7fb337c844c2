//! One takeover after the other: no byte is lost, and nobody gets in between.
//!
//! `VCONSOLE_ROUNDS=1000 cargo test takeover::chain -- --nocapture` makes a thousand, and says how long
//! they took.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Gid, Mode, OFlags, Uid, flock};
use rustix::io::Errno;
use rustix::process::Signal;

use super::{forced, is_as_new};
use crate::harness::{Guest, Locks, Program, SOMEBODY, Vconsole, not_root, rounds};

/// As an ordinary user to whom the console belongs: is it ever free, by any convention? `line` is it,
/// opened by root. Gives how often it was tried.
fn keeps_trying(guest: &Guest, locks: &Locks, line: &OwnedFd, over: &AtomicBool) -> u64 {
    // The kernel keeps these for each thread.
    let (user, group) = (Uid::from_raw(SOMEBODY), Gid::from_raw(SOMEBODY));
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_res_gid(group, group, group).unwrap();
    rustix::thread::set_thread_res_uid(user, user, user).unwrap();
    let (names, flags) = (locks.names(), OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK);
    assert!(!names.is_empty());
    let mut tries = 0;
    while !over.load(Ordering::Relaxed) {
        let opened = rustix::fs::open(guest.path(), flags | OFlags::CLOEXEC, Mode::empty());
        assert_eq!(opened.err(), Some(Errno::BUSY), "the console could be opened");
        let locked = flock(line, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(locked, Err(Errno::WOULDBLOCK), "flock was free");
        for name in &names {
            let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let made = rustix::fs::open(locks.path().join(name), new, Mode::RUSR);
            assert_eq!(made.err(), Some(Errno::EXIST), "{name} was free");
            let held = locks.read(name).expect("a name is never gone");
            assert_eq!(held.len(), 11, "{name} was half there");
        }
        tries += 1;
    }
    tries
}

#[test]
fn in_a_chain_of_takeovers_no_byte_is_lost_and_nobody_else_gets_in() {
    if not_root() {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    guest.chown(SOMEBODY);
    let over = AtomicBool::new(false);
    let mut operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let line = rustix::fs::open(guest.path(), flags, Mode::empty()).unwrap();
    let (mut said, mut typed) = (String::new(), String::new());
    let (mut shown, mut number) = (Vec::new(), 0);
    let (start, count) = (Instant::now(), rounds(20));
    std::thread::scope(|threads| {
        let prober = threads.spawn(|| keeps_trying(&guest, &locks, &line, &over));
        for round in 0..count {
            operator.types(format!("<{round}>"));
            write!(typed, "<{round}>").unwrap();
            let next = forced(&guest, &locks).piped();
            while !String::from_utf8_lossy(&next.stderr().so_far()).contains("connected") {
                assert!(!next.has_ended(), "{:?}", next.output());
                let line = format!("{number} ");
                guest.say(&line);
                said += &line;
                number += 1;
            }
            assert_eq!(operator.wait(), 4);
            shown.extend(operator.stdout().to_the_end());
            operator = next;
        }
        over.store(true, Ordering::Relaxed);
        let tries = prober.join().unwrap();
        let time = start.elapsed();
        println!(
            "{count} takeovers in {time:.1?}, {number} pieces; {tries} tries to get in between"
        );
    });
    guest.receives_exactly(&typed);
    guest.say("end");
    operator.stdout().receives("end");
    drop(line);
    operator.signal(Signal::TERM);
    assert_eq!(operator.wait(), 143);
    shown.extend(operator.stdout().to_the_end());
    assert!(
        String::from_utf8(shown).unwrap() == said + "end",
        "the outputs do not make one stream"
    );
    is_as_new(&guest, &locks);
}

/// How long it takes from the start of `program` to the first byte that it shows of a guest that always
/// prints.
fn first_byte(program: &Program) -> (Duration, crate::harness::Piped) {
    let start = Instant::now();
    let session = program.piped();
    session.stdout().receives_at_least(1);
    (start.elapsed(), session)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
fn a_takeover_shows_its_first_byte_about_as_soon_as_a_plain_attach() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let (mut plain, mut taken) = (Vec::new(), Vec::new());
    let _flood = guest.floods();
    for _ in 0..rounds(5) {
        let (time, operator) = first_byte(&Vconsole::attach(&guest).locks(&locks));
        plain.push(time);
        let (time, next) = first_byte(&forced(&guest, &locks));
        taken.push(time);
        assert_eq!(operator.wait(), 4);
        next.signal(Signal::TERM);
        next.wait();
    }
    let (plain, taken) = (median(plain), median(taken));
    let ratio = taken.as_secs_f64() / plain.as_secs_f64();
    println!("first byte: plain attach {plain:.1?}, takeover {taken:.1?}, ratio {ratio:.2}");
    assert!(taken < plain * 10 + Duration::from_secs(1), "{ratio}");
}
