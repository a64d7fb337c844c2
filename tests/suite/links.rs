//! Consoles that are reached through links of one name, and so want one lock name: two consoles all the
//! same, each with its own operator.

use std::fs::{self, File, hard_link};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::guard::awaited_guard_of;
use super::harness::{Bystander, Guest, Locks, Piped, Process, SOMEBODY, Vconsole, not_root};
use super::locks::{all_names, path_name};

const SHARED: &str = "LCK..console";

/// A console behind a link that is called as the other's is.
struct Linked {
    guest: Guest,
    _directory: TempDir,
    link: PathBuf,
}

impl Linked {
    fn new() -> Self {
        let (guest, directory) = (Guest::new(), TempDir::with_prefix("vconsole-link-").unwrap());
        let link = directory.path().join("console");
        symlink(guest.path(), &link).unwrap();
        Self { guest, _directory: directory, link }
    }

    fn attach(&self, locks: &Locks, options: &[&str]) -> Piped {
        Vconsole::attach(&self.link).args(options).locks(locks).attached_to_pipes()
    }

    #[track_caller]
    fn is_operated_by(&self, session: &Piped) {
        self.guest.say("hello");
        session.stdout().receives("hello");
        session.types("you");
        self.guest.receives("you");
    }
}

#[track_caller]
fn belongs_to(locks: &Locks, name: &str, session: &Piped) {
    let holder = locks.read(name).expect("the lock is there");
    assert_eq!(String::from_utf8(holder).unwrap().trim(), session.pid().to_string(), "{name}");
}

#[track_caller]
fn leaves(session: &Piped) {
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
}

#[test]
fn a_session_behind_a_link_of_the_same_name_is_not_in_the_way_nor_disturbed_by_force() {
    for options in [&[][..], &["--force"]] {
        let (alpha, beta, locks) = (Linked::new(), Linked::new(), Locks::new());
        let one = alpha.attach(&locks, &[]);
        let other = beta.attach(&locks, options);
        let passed = format!("{SHARED}: vconsole (pid {}", one.pid());
        other.stderr().receives(&passed);
        other.stderr().receives("has another device of that name");
        alpha.is_operated_by(&one);
        beta.is_operated_by(&other);
        belongs_to(&locks, SHARED, &one);
        for name in all_names(&alpha.guest) {
            belongs_to(&locks, &name, &one);
        }
        for name in all_names(&beta.guest) {
            belongs_to(&locks, &name, &other);
        }
        // Each console refuses others as before.
        for console in [&alpha, &beta] {
            let refused = Vconsole::attach(&console.link).locks(&locks).output();
            assert_eq!(refused.status, 3, "{refused:?}");
        }
        leaves(&other);
        belongs_to(&locks, SHARED, &one);
        leaves(&one);
        locks.become_empty();
    }
}

#[test]
fn a_stopped_session_behind_a_link_of_the_same_name_is_not_woken_nor_ended_by_force() {
    let (alpha, beta, locks) = (Linked::new(), Linked::new(), Locks::new());
    let one = alpha.attach(&locks, &[]);
    let guard = Process::find(Pid::from_raw(awaited_guard_of(&one)).unwrap()).unwrap();
    one.signal(Signal::STOP);
    one.is_stopped();
    let other = beta.attach(&locks, &["--force"]);
    beta.is_operated_by(&other);
    assert!(one.is_stopped_now() && !guard.has_ended());
    one.signal(Signal::CONT);
    alpha.is_operated_by(&one);
}

#[test]
fn of_whatever_date_the_lock_of_a_session_behind_a_link_of_the_same_name_is_it_stays() {
    // The clock was set since: the session looks younger than its lock.
    let (alpha, beta, locks) = (Linked::new(), Linked::new(), Locks::new());
    let one = alpha.attach(&locks, &[]);
    let lock = File::options().write(true).open(locks.path().join(SHARED)).unwrap();
    lock.set_modified(SystemTime::now() - Duration::from_secs(86_400)).unwrap();
    let other = beta.attach(&locks, &[]);
    beta.is_operated_by(&other);
    belongs_to(&locks, SHARED, &one);
    alpha.is_operated_by(&one);
}

/// All names of a console, as one file that is as old as a session of another console.
fn claimed_by(session: &Piped, console: &Guest, locks: &Locks) {
    let [first, others @ ..] = &all_names(console)[..] else { panic!("no names") };
    let file = locks.write(first, format!("{:>10}\n", session.pid()));
    for name in others {
        hard_link(&file, locks.path().join(name)).unwrap();
    }
}

#[test]
fn force_asks_no_session_that_does_not_have_the_console() {
    // It hangs: asked, it would be ended by its guard.
    let (guest, elsewhere, locks) = (Guest::new(), Guest::new(), Locks::new());
    let hung = Vconsole::attach(&elsewhere).locks(&locks).env("VCONSOLE_TEST_HANG", "relay");
    let hung = hung.attached_to_pipes();
    let guard = Process::find(Pid::from_raw(awaited_guard_of(&hung)).unwrap()).unwrap();
    hung.signal(Signal::STOP);
    hung.is_stopped();
    claimed_by(&hung, &guest, &locks);
    let before = locks.names();
    let refused = Vconsole::attach(&guest).arg("--force").locks(&locks).output();
    assert_eq!(refused.status, 3, "{refused:?}");
    let said = refused.stderr();
    assert!(said.contains(&format!("by vconsole (pid {}, ", hung.pid())), "{said}");
    assert!(said.contains("it does not have the console open"), "{said}");
    assert!(said.contains("hint: `vconsole status "), "{said}");
    assert!(hung.is_stopped_now() && !guard.has_ended());
    assert_eq!(locks.names(), before);
}

#[test]
fn force_names_the_program_that_has_a_name_beside_a_session_of_another_console() {
    // Root breaks the lock of such a program.
    if not_root() {
        return;
    }
    let (guest, elsewhere) = (Guest::new(), Guest::new());
    let locks = Locks::new().mode(0o1777);
    let attach = |guest: &Guest| {
        guest.chown(SOMEBODY);
        Vconsole::attach(guest).locks(&locks).as_user(SOMEBODY, SOMEBODY)
    };
    let other = attach(&elsewhere).attached_to_pipes();
    claimed_by(&other, &guest, &locks);
    let program = Bystander::daemon_of(SOMEBODY, "/dev/null");
    let [first, ..] = &all_names(&guest)[..] else { panic!("no names") };
    fs::remove_file(locks.path().join(first)).unwrap();
    locks.write(first, program.lock());
    let refused = attach(&guest).arg("--force").output();
    assert_eq!(refused.status, 3, "{refused:?}");
    let said = refused.stderr();
    assert!(said.contains(&format!("held by sleep (pid {}, ", program.pid())), "{said}");
    assert!(said.contains("ask its user to end it"), "{said}");
}

#[test]
fn who_only_reads_another_console_is_not_asked_for_it() {
    let (guest, elsewhere, locks) = (Guest::new(), Guest::new(), Locks::new());
    let reader = Vconsole::attach(&elsewhere).arg("--read-only").locks(&locks).piped();
    elsewhere.say("before");
    reader.stdout().receives("before");
    locks.write(&path_name(&guest), format!("{:>10}\n", reader.pid()));
    let refused = Vconsole::attach(&guest).locks(&locks).output();
    assert_eq!(refused.status, 3, "{refused:?}");
    assert!(refused.stderr().contains(&format!("held by vconsole (pid {}", reader.pid())));
    elsewhere.say("after");
    reader.stdout().receives("after");
    assert!(fs::exists(locks.path().join(path_name(&guest))).unwrap());
}

#[test]
fn nobody_is_shown_another_console_because_a_lock_names_its_operator() {
    let (guest, elsewhere, locks) = (Guest::new(), Guest::new(), Locks::new());
    let operator = Vconsole::attach(&elsewhere).locks(&locks).attached_to_pipes();
    claimed_by(&operator, &guest, &locks);
    let refused = Vconsole::attach(&guest).arg("--read-only").locks(&locks).output();
    assert_eq!(refused.status, 3, "{refused:?}");
    assert!(!refused.stderr().contains("watching"), "{refused:?}");
    assert!(!String::from_utf8_lossy(&operator.stderr().so_far()).contains("watched by"));
}
