//! vconsole has the console, and a program of the field comes.

use std::time::{Duration, Instant};

use super::super::harness::{DEADLINE, Guest, in_time, took_less_than};
use super::console::{Console, Opener, guest};
use super::peer::Peer;
use super::running::{Outcome, Running};
use super::{Attached, User, turn};

/// How soon those who cannot be kept out are reported.
const SOON: Duration = Duration::from_secs(1);

/// `newcomers`, run as `user` one after the other, do not get the console that a vconsole of `holder`
/// has, and do it no harm.
#[track_caller]
fn keeps_out(holder: User, user: User, newcomers: impl Iterator<Item = Peer>) {
    let guest = guest();
    let held = Attached::start(&guest, holder, &[]);
    let locks = guest.lock_files();
    assert_eq!(locks.len(), 4, "{locks:?}");
    for peer in newcomers {
        let newcomer = peer.start(&guest, user);
        let outcome = newcomer.outcome(&guest);
        assert_eq!(outcome, Outcome::KeptOut, "{} got it: {}", peer.name(), newcomer.screen());
        newcomer.end();
        assert_eq!(guest.lock_files(), locks, "after {} was kept out", peer.name());
    }
    held.relays(&guest);
    let screen = held.terminal.screen_so_far();
    assert!(!screen.contains("has opened"), "{screen}");
    held.leaves(&guest);
}

#[test]
fn no_client_of_the_same_user_gets_a_console_that_vconsole_holds() {
    let Some(_turn) = turn() else { return };
    keeps_out(User::Owner, User::Owner, but_minicom_o());
}

#[test]
fn no_client_of_another_user_gets_a_console_that_vconsole_holds() {
    let Some(_turn) = turn() else { return };
    keeps_out(User::Owner, User::Other, Peer::installed(Peer::ON_ANY_PTY));
}

#[test]
fn no_ordinary_user_s_client_gets_a_console_that_root_s_vconsole_holds() {
    let Some(_turn) = turn() else { return };
    keeps_out(User::Root, User::Owner, Peer::installed(Peer::ON_ANY_PTY));
}

#[test]
fn root_s_clients_that_ask_for_a_lock_do_not_get_a_console_that_vconsole_holds() {
    let Some(_turn) = turn() else { return };
    keeps_out(User::Owner, User::Root, Peer::installed(Peer::ASK_FOR_A_LOCK));
    keeps_out(User::Root, User::Root, Peer::installed(Peer::ASK_FOR_A_LOCK));
}

/// `minicom -o` takes no lock, but when it cannot open the console it removes minicom's by name, if
/// it may. Then nothing would keep root's minicom out.
#[test]
fn what_minicom_o_of_the_same_user_removes_keeps_others_out_all_the_same() {
    let Some(_turn) = turn() else { return };
    if Peer::Minicom.is_missing() {
        return;
    }
    let guest = guest();
    let held = Attached::start(&guest, User::Owner, &[]);
    let without_lock = Peer::MinicomO.start(&guest, User::Owner);
    assert_eq!(without_lock.outcome(&guest), Outcome::KeptOut);
    without_lock.end();
    let root_s = Peer::Minicom.start(&guest, User::Root);
    assert_eq!(root_s.outcome(&guest), Outcome::KeptOut, "{:?}", guest.lock_files());
    root_s.end();
    held.leaves(&guest);
}

fn but_minicom_o() -> impl Iterator<Item = Peer> {
    Peer::installed(Peer::ON_ANY_PTY).filter(|peer| *peer != Peer::MinicomO)
}

/// Waits until `intruder` has the console open. The guard of who holds it may come later than the words
/// that it is held.
#[track_caller]
fn comes_in(intruder: &Running, guest: &Guest, before: &[Opener]) -> Opener {
    let start = Instant::now();
    loop {
        let is_new = |it: &Opener| !before.contains(it) && !it.program.starts_with("vconsole");
        if let Some(opener) = guest.openers().into_iter().find(is_new) {
            return opener;
        }
        assert!(start.elapsed() < DEADLINE, "it does not come in: {}", intruder.screen());
    }
}

/// `intruder`, which root runs, gets in, and `held` says so soon.
#[track_caller]
fn is_reported(intruder: Peer, guest: &Guest, held: &Attached, holder: User) {
    held.terminal.clear();
    let before = guest.openers();
    let running = intruder.start(guest, User::Root);
    let opener = comes_in(&running, guest, &before);
    let since = Instant::now();
    let notice = " has opened the console as well";
    held.terminal.shows(notice);
    took_less_than(SOON, since);
    if holder.sees(User::Root) {
        // It may be another of its processes by now: screen's and conserver's are several.
        let program = format!("{} (pid ", opener.program);
        assert!(held.terminal.screen_so_far().contains(&program), "{program}");
        assert!(held.terminal.screen_so_far().contains(", root)"), "{program}");
    } else {
        held.terminal.shows("somebody whom /proc hides from you");
    }
    assert_eq!(running.outcome(guest), Outcome::Attached, "{}", running.screen());
    running.end();
}

#[test]
fn root_s_clients_that_ask_for_no_lock_are_reported_by_name_to_root() {
    in_time(|| {
        let Some(_turn) = turn() else { return };
        let guest = guest();
        let held = Attached::start(&guest, User::Root, &[]);
        for intruder in Peer::installed(Peer::ASK_FOR_NO_LOCK) {
            is_reported(intruder, &guest, &held, User::Root);
        }
        held.relays(&guest);
    });
}

#[test]
fn root_s_clients_that_ask_for_no_lock_are_reported_to_an_ordinary_user() {
    in_time(|| {
        let Some(_turn) = turn() else { return };
        for intruder in Peer::installed(Peer::ASK_FOR_NO_LOCK) {
            let guest = guest();
            let held = Attached::start(&guest, User::Owner, &[]);
            is_reported(intruder, &guest, &held, User::Owner);
            held.relays(&guest);
        }
    });
}

#[test]
fn each_of_two_intruders_is_reported_to_an_ordinary_user() {
    in_time(|| {
        let Some(_turn) = turn() else { return };
        if Peer::Socat.is_missing() {
            return;
        }
        let guest = guest();
        let held = Attached::start(&guest, User::Owner, &[]);
        is_reported(Peer::Cat, &guest, &held, User::Owner);
        is_reported(Peer::Socat, &guest, &held, User::Owner);
    });
}
