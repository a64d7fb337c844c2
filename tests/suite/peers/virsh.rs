//! `virsh console`, on either side: it attaches to the consoles of libvirt's own guests, and it is
//! libvirtd that opens them.

use super::super::harness::Vconsole;
use super::console::Console;
use super::libvirt::Libvirt;
use super::peer::Peer;
use super::running::Outcome;
use super::{Attached, User, turn};

/// The libvirtd of `daemon`, with a guest, against a vconsole of each of `users`.
#[track_caller]
fn each_keeps_the_other_out(daemon: User, users: &[User]) {
    let Some(_turn) = turn() else { return };
    if Peer::Virsh.is_missing() {
        return;
    }
    let libvirt = Libvirt::start(daemon);
    for &user in users {
        let held = Attached::start(&libvirt, user, &[]);
        let newcomer = Peer::Virsh.start(&libvirt, daemon);
        let outcome = newcomer.outcome(&libvirt);
        assert_eq!(outcome, Outcome::KeptOut, "against {user:?}: {}", newcomer.screen());
        newcomer.end();
        held.relays(&libvirt);
        held.leaves(&libvirt);

        let holder = Peer::Virsh.attach(&libvirt, daemon);
        let locks = libvirt.lock_files();
        let attach = user.runs(Vconsole::attach(libvirt.path()));
        let output = attach.output();
        let said = output.stderr();
        assert_eq!(output.status, 3, "{said}");
        // The process in the lock file is libvirtd, not virsh.
        let opener = libvirt.openers().into_iter().next().unwrap();
        assert_eq!(opener.program, "libvirtd");
        assert!(said.contains(&opener.named()), "{} is not in {said}", opener.named());
        assert_eq!(libvirt.lock_files(), locks);
        holder.relays(&libvirt);
        holder.end();
    }
    assert_eq!(libvirt.lock_files(), [""; 0]);
}

#[test]
fn vconsole_and_virsh_of_the_system_keep_each_other_out() {
    each_keeps_the_other_out(User::Root, &[User::Root, User::Owner]);
}

#[test]
fn vconsole_and_virsh_of_a_session_keep_each_other_out() {
    each_keeps_the_other_out(User::Owner, &[User::Root, User::Owner, User::Other]);
}
