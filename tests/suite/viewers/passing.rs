//! A newcomer that comes while the console passes from one viewer to the next.

use rustix::process::Signal;

use super::super::harness::{Guest, Locks, Pause, Piped, Vconsole, until};
use super::{viewer, watches};

/// The viewer that reads the console now.
fn reader(viewers: &mut Vec<Piped>) -> Piped {
    let reads = |viewer: &Piped| {
        String::from_utf8_lossy(&viewer.stderr().so_far()).contains("connected to")
    };
    until("a viewer reads", || viewers.iter().any(reads));
    viewers.remove(viewers.iter().position(reads).unwrap())
}

#[test]
fn whoever_reads_and_is_killed_while_a_newcomer_asks_is_in_nobodys_way() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let looked = Pause::at("holder-looked-at");
    let mut operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let mut viewers: Vec<_> = (0..6).map(|_| watches(&guest, &locks)).collect();
    let newcomer = looked.of(Vconsole::attach(&guest).arg("--force").locks(&locks)).piped();
    for _ in 0..5 {
        let asks = looked.reached();
        operator.kill();
        operator = reader(&mut viewers);
        asks.signal(Signal::CONT);
    }
    looked.is_over(&[&looked.reached()]);
    newcomer.stderr().receives("connected to");
    operator.stderr().receives(format!("taken over by vconsole (pid {}, ", newcomer.pid()));
}

#[test]
fn who_was_just_given_the_console_to_read_makes_way_too() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let (given, seen) = (Pause::held_at("given-to-read"), Pause::at("locks-seen"));
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let watcher = given.of(viewer(&guest, &locks)).piped();
    watcher.stderr().receives("watching");
    operator.kill();
    let reader = given.reached();
    let newcomer = seen.of(Vconsole::attach(&guest).locks(&locks)).piped();
    seen.reached().signal(Signal::CONT);
    // It was refused, and tries again.
    let tries = seen.reached();
    given.is_over(&[&reader]);
    seen.is_over(&[&tries]);
    newcomer.stderr().receives("connected to");
    guest.say("for both");
    newcomer.stdout().receives("for both");
    watcher.stdout().receives("for both");
}
