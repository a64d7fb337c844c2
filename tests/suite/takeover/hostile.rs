//! Processes of the same user that come to a session's sockets and mean no good: they cost it nothing.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown,
    SocketAddrUnix, SocketFlags, SocketType, connect, recv, send, sendmsg, shutdown, socket_with,
};
use rustix::process::{Pid, Signal};

use super::{Runtime, forced, is_as_new, operates};
use crate::audit::Log;
use crate::guard::awaited_guard_of;
use crate::harness::{
    Guest, Locks, Pause, Process, Terminal, Vconsole, in_time, rounds, silence, took_less_than,
    until,
};

/// Comes to a socket, and waits in the queue before it.
pub(super) fn comes_to(door: &Path) -> Option<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let line = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    connect(&line, &SocketAddrUnix::new(door).unwrap()).ok()?;
    Some(line)
}

const TAKEOVER: &str = r#"{"takeover":{"version":4,"info":{"host":null,"reason":null}}}"#;
const WRONG_VERSION: &str = r#"{"takeover":{"version":7,"info":{"host":null,"reason":null}}}"#;

/// Comes and misbehaves, in another way each time. Gives the line where it stays.
fn misbehaves(door: &Path, number: usize) -> Option<OwnedFd> {
    let line = comes_to(door)?;
    let say = |text: &[u8]| {
        let _ = send(&line, text, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    };
    match number % 200 {
        0 => return Some(line),
        1 => {
            // It never reads the answer, and never stops.
            (0..1000).for_each(|_| say(WRONG_VERSION.as_bytes()));
            return Some(line);
        }
        odd => match odd % 8 {
            0 => {}
            1 => say(b"\x1b[2J\0garbage\xff"),
            2 => say(&TAKEOVER.as_bytes()[..20]),
            3 => say(&[b'['; 8192]),
            4 => say(&vec![b'x'; 100_000]),
            5 => say(TAKEOVER.as_bytes()),
            6 => say(b"\"done\""),
            _ => brings_descriptors(&line),
        },
    }
    None
}

fn brings_descriptors(line: &OwnedFd) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [line.as_fd(); 8];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let _ = sendmsg(line, &[IoSlice::new(b"take these")], &mut ancillary, flags);
}

#[test]
fn hostile_peers_leak_no_descriptor_and_a_takeover_still_works() {
    const MANY: usize = 10_000;
    let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
    let session = runtime.of(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
    let guard = awaited_guard_of(&session);
    let guard = Process::find(Pid::from_raw(guard).unwrap()).unwrap();
    let [door, side_door] = runtime.sockets_of(&session);
    // The wrong kind of socket.
    assert!(UnixStream::connect(&door).is_err());
    guest.say("relaying");
    session.stdout().receives("relaying");
    // By then the guard has all that the session hands over to it.
    let line = comes_to(&side_door).unwrap();
    send(&line, b"garbage", SendFlags::NOSIGNAL).unwrap();
    while recv(&line, &mut [0; 200], RecvFlags::empty()).unwrap().0 > 0 {}
    let files = [session.open_files().len(), guard.open_files().len()];
    let number = AtomicUsize::new(0);
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let mut staying = Vec::new();
                loop {
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    if number >= MANY {
                        break;
                    }
                    // The guard ends a session for whoever asks it to.
                    let quiet = number % 8 != 5 && number.is_multiple_of(10);
                    staying.extend(misbehaves(if quiet { &side_door } else { &door }, number));
                }
            });
        }
    });
    until("nothing of them is left in the session", || session.open_files().len() <= files[0]);
    until("nothing of them is left in its guard", || guard.open_files().len() <= files[1]);
    assert!(!session.has_ended() && !guard.has_ended());
    operates(&session, &guest, &locks);
    guest.say("hello");
    session.stdout().receives("hello");
    let new = runtime.of(forced(&guest, &locks)).attached_to_pipes();
    assert_eq!(session.wait(), 4);
    for socket in [door, side_door] {
        until("the sockets are gone", || !socket.exists());
    }
    new.signal(Signal::TERM);
    assert_eq!(new.wait(), 143);
    is_as_new(&guest, &locks);
}

#[test]
fn of_many_newcomers_that_never_take_the_console_most_are_refused() {
    in_time(|| {
        let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
        let session = runtime.of(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
        let [door, _] = runtime.sockets_of(&session);
        let lines: Vec<_> = (0..20)
            .map(|_| {
                let line = comes_to(&door).unwrap();
                send(&line, TAKEOVER.as_bytes(), SendFlags::NOSIGNAL).unwrap();
                line
            })
            .collect();
        let start = Instant::now();
        session.stderr().receives("did not take it");
        let answers = lines.iter().map(|line| {
            let mut answer = [0; 200];
            let (count, _) = recv(line, &mut answer, RecvFlags::empty()).unwrap();
            String::from_utf8(answer[..count].to_vec()).unwrap()
        });
        let answers: Vec<_> = answers.collect();
        let count = |what| answers.iter().filter(|answer| answer.contains(what)).count();
        // Four wait at a time. How many come before the first is offered the console is a matter of luck.
        let (offered, refused) = (count("console"), count("too many others ask for it"));
        assert!((4..=8).contains(&offered), "{answers:?}");
        assert_eq!(offered + refused, 20, "{answers:?}");
        guest.say("hello");
        session.stdout().receives("hello");
        took_less_than(Duration::from_secs(5), start);
        drop(lines);
        operates(&session, &guest, &locks);
    });
}

#[test]
fn newcomers_that_fail_again_and_again_do_not_fill_the_screen() {
    let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
    let session = runtime.of(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
    let [socket, _] = runtime.sockets_of(&session);
    let start = Instant::now();
    for _ in 0..200 {
        let newcomer = comes_to(&socket).unwrap();
        send(&newcomer, TAKEOVER.as_bytes(), SendFlags::NOSIGNAL).unwrap();
        let mut answer = [0; 200];
        let (count, _) = recv(&newcomer, &mut answer, RecvFlags::empty()).unwrap();
        assert!(String::from_utf8_lossy(&answer[..count]).contains("console"));
        shutdown(&newcomer, Shutdown::Both).unwrap();
    }
    operates(&session, &guest, &locks);
    guest.say("still here");
    session.stdout().receives("still here");
    let said = String::from_utf8(session.stderr().so_far()).unwrap();
    let lines = said.matches("did not take it").count() as u64;
    let most = 20 * (start.elapsed().as_secs() + 1);
    assert!(lines > 0 && lines <= most, "{lines} lines, at most {most}");
}

#[test]
fn a_stopped_session_hands_over_to_a_newcomer_behind_a_silent_one() {
    in_time(|| {
        let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
        let desk = Terminal::new();
        let old = runtime.of(Vconsole::attach(&guest).locks(&locks)).attached_on(&desk);
        let socket = runtime.directory().join(&old.socket_names()[0]);
        old.signal(Signal::TSTP);
        old.is_stopped();
        guest.say("while nobody looked");
        let silent = comes_to(&socket).unwrap();
        send(&silent, TAKEOVER.as_bytes(), SendFlags::NOSIGNAL).unwrap();
        let new = runtime.of(forced(&guest, &locks)).attached_to_pipes();
        assert_eq!(old.wait(), 4);
        new.stdout().receives("while nobody looked");
        drop(silent);
    });
}

#[test]
fn silent_newcomers_keep_no_honest_one_out_and_cost_nobody_their_session() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let (asked, given) = (Pause::at("asked"), Pause::held_at("given-to-us"));
    let busy = Pause::held_at("relay");
    let old = busy.of(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
    busy.reached();
    // All have asked before it is heard, the honest one last. Each is another process.
    let silent = [(); 2].map(|()| {
        let newcomer = given.of(asked.of(forced(&guest, &locks))).piped();
        assert_eq!(asked.reached().pid(), newcomer.pid());
        newcomer
    });
    let honest = asked.of(forced(&guest, &locks)).piped();
    asked.reached();
    for newcomer in silent.iter().chain([&honest]) {
        newcomer.signal(Signal::CONT);
    }
    busy.is_over(&[&old]);
    honest.stderr().receives("connected to");
    assert_eq!(old.wait(), 4);
    given.is_over(&[&silent[0], &silent[1]]);
    for newcomer in &silent {
        assert_eq!(newcomer.wait(), 3);
    }
    operates(&honest, &guest, &locks);
}

#[test]
fn who_says_that_it_has_everything_before_it_was_given_anything_has_nothing() {
    let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
    let (pause, log) = (Pause::held_at("handing-over"), Log::new());
    let session = log.of(pause.of(runtime.of(Vconsole::attach(&guest).locks(&locks))));
    let session = session.attached_to_pipes();
    log.says("event=attached");
    let [door, _] = runtime.sockets_of(&session);
    let line = comes_to(&door).unwrap();
    send(&line, TAKEOVER.as_bytes(), SendFlags::NOSIGNAL).unwrap();
    pause.reached();
    send(&line, b"\"done\"", SendFlags::NOSIGNAL).unwrap();
    // To close it alone does not do: a child that another test forks just now has it as well.
    shutdown(&line, Shutdown::Both).unwrap();
    pause.is_over(&[&session]);
    session.stderr().receives("did not take it");
    log.says("event=not-taken by=\"suite-");
    operates(&session, &guest, &locks);
    guest.say("hello");
    session.stdout().receives("hello");
}

#[test]
fn callers_who_say_nothing_cost_no_processor_time() {
    let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
    let session = runtime.of(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
    let [door, _] = runtime.sockets_of(&session);
    // More than are let in at a time.
    let lines: Vec<_> = (0..60).map(|_| comes_to(&door).unwrap()).collect();
    let before = session.cpu_time();
    silence(session.stdout(), Duration::from_secs(1));
    let used = session.cpu_time().saturating_sub(before);
    assert!(used < Duration::from_millis(300), "{used:?}");
    // And they keep nobody else waiting for long.
    let new = runtime.of(forced(&guest, &locks)).attached_to_pipes();
    assert_eq!(session.wait(), 4);
    drop(lines);
    operates(&new, &guest, &locks);
}

#[test]
fn beside_hostile_peers_the_console_goes_on() {
    const MB: u64 = 1_000_000;
    let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
    let session = runtime.of(Vconsole::attach(&guest).locks(&locks)).redirected("> /dev/null");
    let session = session.piped();
    session.stderr().receives("connected to");
    let [door, _] = runtime.sockets_of(&session);
    let flood = guest.floods();
    for round in 0..rounds(6) {
        let over = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let mut staying = Vec::new();
                let numbers = (1000 * round..).take(20_000);
                for number in numbers.take_while(|_| !over.load(Ordering::Relaxed)) {
                    staying.extend(misbehaves(&door, number));
                }
            });
            let before = flood.taken();
            until("more comes", || flood.taken() > before + MB);
            over.store(true, Ordering::Relaxed);
        });
    }
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
}

#[test]
fn a_request_to_take_over_from_a_reader_is_refused_once_it_operates() {
    in_time(|| {
        let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
        let desk = Terminal::new();
        let attach = Vconsole::attach(&guest).arg("--read-only").locks(&locks);
        let reader = runtime.of(attach).on(&desk);
        desk.shows("nobody operates it");
        let door = runtime.directory().join(&reader.socket_names()[0]);
        // Both are there when it looks: the first never takes it, and the second has to wait.
        reader.signal(Signal::STOP);
        reader.is_stopped();
        let request =
            TAKEOVER.replace(r#"{"takeover":{"#, r#"{"takeover":{"only_if_reading":true,"#);
        let [first, second] = [(); 2].map(|()| {
            let line = comes_to(&door).unwrap();
            send(&line, request.as_bytes(), SendFlags::NOSIGNAL).unwrap();
            line
        });
        reader.fg();
        let answer = |line| {
            let mut answer = [0; 200];
            let (count, _) = recv(line, &mut answer, RecvFlags::empty()).unwrap();
            String::from_utf8(answer[..count].to_vec()).unwrap()
        };
        let given = answer(&first);
        assert!(given.contains("console"), "{given}");
        let start = Instant::now();
        desk.types("\x1df");
        desk.shows("you operate the console now");
        // By then the first has had its half a second, and the second waits as long.
        took_less_than(Duration::from_millis(900), start);
        let refused = answer(&second);
        assert!(refused.contains("it has an operator"), "{refused}");
        assert!(!reader.has_ended());
    });
}
