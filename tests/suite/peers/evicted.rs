//! `attach --force` against each program of the field: one operator afterwards, and nobody harmed who is
//! not to be.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::super::harness::{
    DEADLINE, Guest, Output, Process, Vconsole, in_time, lies_between, rounds,
};
use super::console::{Console, guest};
use super::libvirt::Libvirt;
use super::peer::Peer;
use super::running::{Running, Shape};
use super::{Attached, User, token, turn};

/// Those that a user sits at: conserver is a server, and starts its processes again.
const CLIENTS: [Peer; 9] = [
    Peer::Minicom,
    Peer::MinicomO,
    Peer::Picocom,
    Peer::Tio,
    Peer::Cu,
    Peer::Kermit,
    Peer::Screen,
    Peer::Socat,
    Peer::Cat,
];

/// Nobody but a vconsole has `console` open, and goes on being alone: for 10 s in a long run, else for
/// longer than tio takes to come back.
#[track_caller]
fn stays_alone(console: &dyn Console, held: &Attached) {
    let length = if rounds(1) > 1 { Duration::from_secs(10) } else { Duration::from_millis(1500) };
    let start = Instant::now();
    while start.elapsed() < length {
        let openers = console.openers();
        // A stopped program cannot close the descriptor that a hang-up has revoked.
        let is_stopped = |pid| Process::find(pid).is_some_and(|process| process.is_stopped_now());
        let alone = openers.iter().all(|opener| {
            opener.program.starts_with("vconsole")
                || Pid::from_raw(opener.pid).is_some_and(is_stopped)
        });
        assert!(alone && !openers.is_empty(), "{openers:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let screen = held.terminal.screen_so_far();
    assert!(!screen.contains("has opened the console"), "{screen}");
}

/// What is left of `holder` when a vconsole of `user` has come with `--force`.
#[track_caller]
fn is_evicted(
    (holder, shape): (Peer, Shape),
    console: &dyn Console,
    owner: User,
    user: User,
) -> String {
    let running = holder.attach_as(shape, console, owner);
    let before = console.openers();
    let start = Instant::now();
    let held = Attached::start(console, user, &["--force"]);
    let took = start.elapsed();
    let screen = held.terminal.screen_so_far();
    let named = before.iter().any(|it| screen.contains(&format!("evicted {}", it.named())));
    assert!(named, "{}: {before:?}; {screen}", holder.name());
    lies_between(Duration::ZERO, Duration::from_secs(9), took);
    stays_alone(console, &held);
    // cu that was hung up instead of signalled spins.
    Running::do_not_spin(&running.pids());
    Running::do_not_spin(&before.iter().map(|opener| opener.pid).collect::<Vec<_>>());
    held.relays(console);
    running.end();
    assert_eq!(console.lock_files().len(), 4, "{:?}", console.lock_files());
    held.leaves(console);
    screen
}

/// What the guest prints all the while, and no terminal sends, does not come back to it.
#[track_caller]
fn is_evicted_without_echo(holder: (Peer, Shape), owner: User, user: User) -> String {
    let (guest, over) = (guest(), AtomicBool::new(false));
    let screen = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                guest.say(b"\xff");
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let _over = Over(&over);
        is_evicted(holder, &guest, owner, user)
    });
    assert!(!screen.contains("going on without"), "{holder:?}: {screen}");
    let heard = guest.ear().so_far();
    assert!(heard.is_ascii(), "{holder:?}: {}", String::from_utf8_lossy(&heard));
    screen
}

/// Says that it is over when it is dropped, by a panic as well.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `--force` of `user` against `holder`, and says what came of it: a line of the table.
#[track_caller]
fn is_evicted_or_refused(holder: (Peer, Shape), owner: User, user: User) -> String {
    let (peer, shape) = holder;
    if user == User::Root || peer != Peer::Screen {
        let screen = is_evicted_without_echo(holder, owner, user);
        let evicted = screen.lines().find_map(|line| line.split_once("evicted ")).unwrap().1;
        let (_, how) = evicted.split_once(") ").unwrap();
        return how.split(" /dev").next().unwrap().trim_end().to_owned();
    }
    let guest = guest();
    let running = peer.attach_as(shape, &guest, owner);
    let (openers, locks) = (guest.openers(), guest.lock_files());
    let output = user.runs(Vconsole::attach(guest.path()).arg("--force")).output();
    assert_eq!(output.status, 3, "{output:?}");
    assert!(output.stderr().contains("it is a daemon"), "{output:?}");
    assert_eq!((guest.openers(), guest.lock_files()), (openers, locks));
    Running::do_not_spin(&running.pids());
    "refused: a daemon".to_owned()
}

/// The users who own the client and who force: a user cannot force root's.
const OWN_AND_ROOT: [(User, User); 3] =
    [(User::Owner, User::Owner), (User::Owner, User::Root), (User::Root, User::Root)];

/// Each on a console of its own, and all at once: they take seconds to heed a signal.
#[test]
fn every_client_in_every_shape_is_evicted_or_refused_and_none_is_left_spinning() {
    let Some(_turn) = turn() else { return };
    for shape in Shape::ALL.into_iter().filter(|shape| !shape.is_missing()) {
        std::thread::scope(|scope| {
            for peer in Peer::installed(CLIENTS) {
                for (owner, user) in OWN_AND_ROOT {
                    scope.spawn(move || {
                        in_time(|| {
                            let how = is_evicted_or_refused((peer, shape), owner, user);
                            let peer = peer.name();
                            eprintln!("| {peer} of {owner:?} | {shape:?} | {user:?} | {how} |");
                        });
                    });
                }
            }
        });
    }
}

/// `--force` of `user` is refused, and `holder` did not even notice.
#[track_caller]
fn is_refused(holder: &Running, console: &dyn Console, user: User) -> Output {
    let (openers, locks) = (console.openers(), console.lock_files());
    let output = user.runs(Vconsole::attach(console.path()).arg("--force")).output();
    assert_eq!(output.status, 3, "{output:?}");
    assert!(output.stderr().contains("hint: "), "{output:?}");
    assert_eq!((console.openers(), console.lock_files()), (openers, locks));
    holder.relays(console);
    output
}

#[test]
fn an_ordinary_user_s_force_leaves_other_users_clients_alone() {
    let Some(_turn) = turn() else { return };
    // Whoever asks for a lock or sets the exclusive flag is noticed; nobody else can be.
    let asking = [Peer::Minicom, Peer::Picocom, Peer::Tio, Peer::Cu, Peer::Kermit, Peer::Screen];
    for peer in Peer::installed(asking) {
        for holder in [User::Root, User::Other] {
            let guest = guest();
            let running = peer.attach(&guest, holder);
            let output = is_refused(&running, &guest, User::Owner);
            let said = output.stderr();
            assert!(said.contains("sudo vconsole attach --force"), "{}: {said}", peer.name());
            running.end();
        }
    }
}

#[test]
fn an_ordinary_user_s_force_leaves_screen_s_daemon_alone() {
    let Some(_turn) = turn() else { return };
    if Peer::Screen.is_missing() {
        return;
    }
    let guest = guest();
    let running = Peer::Screen.attach(&guest, User::Owner);
    let said = is_refused(&running, &guest, User::Owner).stderr();
    assert!(said.contains("it is a daemon"), "{said}");
    assert!(said.contains("tell screen (pid "), "{said}");
}

/// How often the guest has said `word`.
fn count(libvirt: &Libvirt, word: &str) -> usize {
    String::from_utf8_lossy(&libvirt.heard()).matches(word).count()
}

#[test]
fn root_evicts_virsh_and_neither_guest_nor_daemon_notice() {
    in_time(|| {
        let Some(_turn) = turn() else { return };
        if Peer::Virsh.is_missing() {
            return;
        }
        for daemon in [User::Root, User::Owner] {
            let libvirt = Libvirt::start(daemon);
            let before = libvirt.pids();
            let screen = is_evicted((Peer::Virsh, Shape::Job), &libvirt, daemon, User::Root);
            let by_hanging_up = format!("by hanging up {}", libvirt.path().display());
            assert!(screen.contains(&by_hanging_up), "{screen}");
            assert!(screen.contains("may be gone"), "{screen}");
            // The guest says what it hears: had it heard what it says, it would say that again.
            let word = token();
            let virsh = Peer::Virsh.attach(&libvirt, daemon);
            virsh.types(&word.repeat(50));
            let held = Attached::start(&libvirt, User::Root, &["--force"]);
            held.relays(&libvirt);
            assert!(count(&libvirt, &word) <= 50, "{}", count(&libvirt, &word));
            held.leaves(&libvirt);
            assert_eq!(libvirt.pids(), before);
            virsh.end();
            // It can be had the other way again.
            let again = Peer::Virsh.attach(&libvirt, daemon);
            again.end();
            assert_eq!(libvirt.lock_files(), [""; 0]);
        }
    });
}

#[test]
fn an_ordinary_user_s_force_leaves_libvirtd_alone_and_says_what_frees_it() {
    let Some(_turn) = turn() else { return };
    if Peer::Virsh.is_missing() {
        return;
    }
    for (daemon, domain) in [(User::Root, "DOMAIN"), (User::Owner, super::libvirt::DOMAIN)] {
        let libvirt = Libvirt::start(daemon);
        let virsh = Peer::Virsh.attach(&libvirt, daemon);
        let said = is_refused(&virsh, &libvirt, User::Owner).stderr();
        assert!(said.contains("it is a daemon"), "{said}");
        assert!(said.contains(&format!("virsh console --force {domain}")), "{said}");
        virsh.end();
    }
}

/// The guest prints from before the eviction until after it.
#[test]
fn a_hang_up_gives_the_guest_none_of_its_own_output_back() {
    let Some(_turn) = turn() else { return };
    if Peer::Screen.is_missing() {
        return;
    }
    for _ in 0..rounds(3) {
        let guest = guest();
        let running = Peer::Screen.attach(&guest, User::Owner);
        let heard = guest.ear().forget();
        let flood = guest.floods();
        flood.pours(10_000);
        let held = Attached::start(&guest, User::Root, &["--force"]);
        held.terminal.shows("no play");
        drop(flood);
        let typed = token();
        held.terminal.types(&typed);
        wait_until_heard(&guest, &typed);
        assert_eq!(String::from_utf8_lossy(&guest.ear().so_far()), typed, "after {heard:?}");
        running.end();
        held.leaves(&guest);
    }
}

#[track_caller]
fn wait_until_heard(guest: &Guest, text: &str) {
    let start = Instant::now();
    while !guest.has_heard(text) {
        assert!(start.elapsed() < DEADLINE, "{:?}", guest.ear().so_far());
        std::thread::sleep(Duration::from_millis(2));
    }
}
