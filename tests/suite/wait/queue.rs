//! The queue of those who wait, and who would abuse it.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use rustix::process::Signal;

use super::super::harness::{Guest, Locks, Piped, Vconsole, in_time, took_less_than, until};
use super::{leaves, waiting, waits};

/// The name of the queue in which `waiter` is.
fn queue_of(waiter: &Piped) -> String {
    let name = place_of(waiter);
    name[..=name.rfind('/').unwrap()].to_owned()
}

/// The name of its place in that.
fn place_of(waiter: &Piped) -> String {
    let (table, own) =
        (fs::read_to_string("/proc/net/unix").unwrap(), format!("-{}", waiter.pid()));
    let line = table.lines().find(|line| line.contains("@vconsole-wait-") && line.ends_with(&own));
    line.unwrap().split_once('@').unwrap().1.to_owned()
}

/// Comes to a socket of the queue, and leaves; gives false where there is no room to come.
fn comes_and_leaves(name: &str) -> bool {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let name = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
    match connect(&socket, &name) {
        Ok(()) => true,
        Err(Errno::AGAIN) => false,
        Err(errno) => panic!("{errno}"),
    }
}

/// A ticket that somebody made who does not wait: the `n`th since the machine started.
fn forged(queue: &str, n: u32, pid: i32) -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let name = SocketAddrUnix::new_abstract_name(format!("{queue}{n:021}-{pid}").as_bytes());
    bind(&socket, &name.unwrap()).unwrap();
    listen(&socket, 128).unwrap();
    socket
}

#[test]
fn a_forged_ticket_does_not_make_a_holder_s_turn_of_it() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let queue = queue_of(&waits(&guest, &locks));
    let _forged = forged(&queue, 1, operator.pid());
    let session = waiting(&guest, &locks).arg("--force").attached_to_pipes();
    assert_eq!(operator.wait(), 4);
    leaves(&session);
}

#[test]
fn who_came_and_left_takes_no_room_from_those_who_come() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let first = waits(&guest, &locks);
    let place = place_of(&first);
    while comes_and_leaves(&place) {}
    until("there is room again", || comes_and_leaves(&place));
    let second = waits(&guest, &locks);
    second.stderr().receives("1 ahead of you");
    leaves(&operator);
    first.stderr().receives("connected to");
    leaves(&second);
    leaves(&first);
}

#[test]
fn forged_tickets_hold_nobody_up() {
    in_time(|| {
        let (guest, locks) = (Guest::new(), Locks::new());
        let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
        let session = waits(&guest, &locks);
        let queue = queue_of(&session);
        let own = std::process::id().cast_signed();
        let _forged: Vec<_> = (0..64).map(|n| forged(&queue, n, own)).collect();
        let start = Instant::now();
        leaves(&operator);
        session.stderr().receives("connected to");
        took_less_than(Duration::from_millis(1900), start);
    });
}

#[test]
fn who_leaves_a_free_console_to_others_sleeps_meanwhile() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let (first, second) = (waits(&guest, &locks), waits(&guest, &locks));
    first.signal(Signal::STOP);
    first.is_stopped();
    leaves(&operator);
    let before = second.naps();
    // Only for proving that something does not come.
    std::thread::sleep(Duration::from_secs(1));
    let naps = second.naps() - before;
    assert!(naps <= 10, "woken {naps} times in a second");
    second.stderr().receives("connected to");
}

#[test]
fn a_stopped_waiter_delays_the_others_once_and_scrambles_no_order() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let [stopped, rest @ ..] = [(); 7].map(|()| waits(&guest, &locks));
    stopped.signal(Signal::STOP);
    stopped.is_stopped();
    leaves(&operator);
    let connected = |waiter: &Piped| {
        String::from_utf8_lossy(&waiter.stderr().so_far()).contains("connected to")
    };
    let mut passed_over = None;
    for (place, waiter) in rest.iter().enumerate() {
        until("the next one has it", || rest[place..].iter().any(connected));
        let others = rest[place..].iter().map(connected).collect::<Vec<_>>();
        assert!(connected(waiter), "not in the order of coming: {others:?}");
        passed_over.get_or_insert_with(Instant::now);
        guest.say("yours");
        waiter.stdout().receives("yours");
        // The others see that it is taken, and have to wait anew.
        std::thread::sleep(Duration::from_millis(200));
        leaves(waiter);
    }
    took_less_than(Duration::from_secs(5), passed_over.unwrap());
    stopped.signal(Signal::CONT);
    stopped.stderr().receives("connected to");
    leaves(&stopped);
}
