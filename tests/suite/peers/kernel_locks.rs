//! Without lock files the kernel's own locks hold: the exclusive flag against ordinary users, `flock`
//! against those who ask for it, and the look at who has the console open.

use super::super::harness::{Locks, Vconsole};
use super::console::{Console, guest};
use super::peer::Peer;
use super::running::Outcome;
use super::{Attached, User, turn};

/// None of `newcomers`, run as `user`, gets a console that a vconsole has which made no lock file that
/// they know.
#[track_caller]
fn keeps_out(options: &[&str], user: User, newcomers: impl Iterator<Item = Peer>) {
    let guest = guest();
    let held = Attached::start(&guest, User::Owner, options);
    assert_eq!(guest.lock_files(), [""; 0]);
    for peer in newcomers {
        let newcomer = peer.start(&guest, user);
        let outcome = newcomer.outcome(&guest);
        assert_eq!(outcome, Outcome::KeptOut, "{} got it: {}", peer.name(), newcomer.screen());
        newcomer.end();
    }
    held.relays(&guest);
    held.leaves(&guest);
}

#[test]
fn without_lock_files_no_ordinary_user_s_client_gets_in() {
    let Some(_turn) = turn() else { return };
    keeps_out(&["--locks", "off"], User::Owner, Peer::installed(Peer::ON_ANY_PTY));
}

#[test]
fn in_session_mode_no_ordinary_user_s_client_gets_in() {
    let Some(_turn) = turn() else { return };
    let locks = Locks::new().mode(0o755);
    let directory = locks.path().to_str().unwrap();
    keeps_out(&["--lock-dir", directory], User::Other, Peer::installed(Peer::ON_ANY_PTY));
    locks.assert_empty();
}

#[test]
fn without_lock_files_flock_keeps_root_s_picocom_and_tio_out() {
    let Some(_turn) = turn() else { return };
    let asking = [Peer::Picocom, Peer::Tio];
    keeps_out(&["--locks", "off"], User::Root, Peer::installed(asking));
}

#[test]
fn without_lock_files_whoever_has_the_console_open_is_named() {
    let Some(_turn) = turn() else { return };
    for holder in Peer::installed(Peer::ON_ANY_PTY) {
        let guest = guest();
        let running = holder.attach(&guest, User::Owner);
        let openers = guest.openers();
        let attach = User::Owner.runs(Vconsole::attach(&guest).args(["--locks", "off"]));
        let output = attach.output();
        let said = output.stderr();
        assert_eq!(output.status, 3, "{}: {said}", holder.name());
        let named = openers.iter().any(|opener| said.contains(&opener.named()));
        assert!(named, "{}: {openers:?}; {said}", holder.name());
        running.relays(&guest);
        running.end();
    }
}
