//! A program of the field has the console, and vconsole comes.

use super::super::harness::{Output, Vconsole};
use super::console::{Console, guest};
use super::peer::Peer;
use super::{User, turn};

/// What vconsole says where `/proc` hides the holder: the convention that refused.
fn convention(peer: Peer) -> Option<&'static str> {
    Some(match peer {
        Peer::Minicom | Peer::Cu | Peer::Kermit | Peer::Virsh => "lock file /",
        Peer::Picocom | Peer::Tio => "is locked with flock by",
        Peer::Screen => "has the exclusive flag",
        Peer::MinicomO | Peer::Socat | Peer::Cat | Peer::Conserver => return None,
    })
}

/// Tries each of the field as `holder`, run as `user`, against vconsoles of all users.
#[track_caller]
fn vconsole_is_kept_out_by(user: User) {
    for holder in Peer::installed(Peer::ON_ANY_PTY) {
        let guest = guest();
        let running = holder.attach(&guest, user);
        let locks = guest.lock_files();
        for newcomer in [User::Root, User::Owner, User::Other] {
            if !newcomer.sees(user) && convention(holder).is_none() {
                continue;
            }
            let openers = guest.openers();
            let output = newcomer.runs(Vconsole::attach(&guest)).output();
            let case = format!("{} of {user:?}, vconsole of {newcomer:?}", holder.name());
            refuses(&output, &case);
            let said = output.stderr();
            let named = openers.iter().any(|opener| said.contains(&opener.named()));
            let hidden = convention(holder).is_some_and(|words| said.contains(words));
            assert!(named || (hidden && !newcomer.sees(user)), "{case}: {openers:?}; {said}");
            assert_eq!(guest.lock_files(), locks, "{case}");
            assert_eq!(guest.openers(), openers, "{case}");
        }
        running.relays(&guest);
        running.end();
        assert_eq!(guest.lock_files(), [""; 0], "left by {}", holder.name());
    }
}

#[track_caller]
fn refuses(output: &Output, case: &str) {
    assert_eq!(output.status, 3, "{case}: {}", output.stderr());
    assert_eq!(output.stdout(), "", "{case}");
}

#[test]
fn vconsole_does_not_get_a_console_that_an_ordinary_user_s_client_holds() {
    let Some(_turn) = turn() else { return };
    vconsole_is_kept_out_by(User::Owner);
}

#[test]
fn vconsole_does_not_get_a_console_that_root_s_client_holds() {
    let Some(_turn) = turn() else { return };
    vconsole_is_kept_out_by(User::Root);
}

/// Nobody can tell an ordinary user that root's `cat` reads the console; but that there is something
/// that could not be seen, a user should know.
#[test]
fn vconsole_says_that_it_could_not_see_who_else_has_the_console() {
    let Some(_turn) = turn() else { return };
    let guest = guest();
    let running = Peer::Cat.attach(&guest, User::Root);
    let output = User::Owner.runs(Vconsole::attach(&guest)).output();
    let said = output.stderr();
    assert!(output.status == 3 || said.contains("/proc"), "{}: {said}", output.status);
    running.end();
}
