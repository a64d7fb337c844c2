//! The lock table: what attach does with every lock that can stand in its way.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::harness::{
    Bystander, Client, Guest, Locks, Output, Session, Terminal, Vconsole, in_time, not_root,
    took_less_than,
};

/// No process ever has this number: all are below `pid_max`, and that is 4194304 at most.
pub(crate) const NOBODY: &str = "   4194304\n";

/// The console's lock name after its path, as minicom has it: `LCK..pts_5`.
pub(crate) fn path_name(guest: &Guest) -> String {
    format!("LCK..pts_{}", number(guest))
}

/// The four names of `/dev/pts/N`, sorted.
pub(crate) fn all_names(guest: &Guest) -> Vec<String> {
    let number = number(guest);
    let minor: u32 = number.parse().unwrap();
    let mut names = vec![
        format!("LCK..{number}"),
        format!("LCK.._pts_{number}"),
        format!("LCK..pts_{number}"),
        format!("LK.000.136.{minor:03}"),
    ];
    names.sort();
    names
}

pub(crate) fn number(guest: &Guest) -> String {
    guest.path().file_name().unwrap().to_str().unwrap().to_owned()
}

/// Attaches on a terminal, and waits until it says so.
pub(crate) fn attached(guest: &Guest, locks: &Locks, terminal: &Terminal) -> Session {
    let session = Vconsole::attach(guest).locks(locks).on(terminal);
    terminal.shows("connected to");
    session
}

/// Attaches with nothing on standard input, and gives how that went.
pub(crate) fn try_attach(guest: &Guest, locks: &Locks, options: &[&str]) -> Output {
    let quick = ["--linger", "0"];
    Vconsole::attach(guest).locks(locks).args(quick).args(options).output()
}

fn make_older(path: &Path, by: Duration) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - by).unwrap();
}

#[track_caller]
fn assert_refused(output: &Output, because: &str) {
    assert_eq!(output.status, 3, "{output:?}");
    assert!(output.stderr().contains(because), "{}", output.stderr());
    assert!(output.stderr().contains("hint: "), "{}", output.stderr());
    assert!(!output.stderr().contains("connected"), "{}", output.stderr());
}

#[test]
fn a_session_holds_every_name_and_gives_each_back() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = attached(&guest, &locks, &terminal);
    assert_eq!(locks.names(), all_names(&guest));
    for name in locks.names() {
        let contents = locks.read(&name).unwrap();
        assert_eq!(contents, format!("{:>10}\n", session.pid()).as_bytes());
        assert_eq!(fs::metadata(locks.path().join(&name)).unwrap().mode() & 0o7777, 0o644);
    }
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    locks.assert_empty();
}

#[test]
fn a_lock_file_is_0644_whatever_the_umask() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let terminal = Terminal::new();
    let shell = super::harness::Program::new("sh").args([
        "-c",
        "umask 077; exec \"$@\"",
        "sh",
        env!("CARGO_BIN_EXE_vconsole"),
        "attach",
    ]);
    let session = shell.arg(&guest).locks(&locks).on(&terminal);
    terminal.shows("connected to");
    for name in locks.names() {
        assert_eq!(fs::metadata(locks.path().join(&name)).unwrap().mode() & 0o7777, 0o644);
    }
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

#[test]
fn a_symlink_is_locked_under_its_own_name_as_well() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("vm0");
    let other = directory.path().join("modem");
    symlink(guest.path(), &link).unwrap();
    symlink("vm0", &other).unwrap();
    let session = Vconsole::attach(&other).locks(&locks).on(&terminal);
    terminal.shows("connected to");
    let mut expected = all_names(&guest);
    expected.extend(["LCK..modem".to_owned(), "LCK..vm0".to_owned()]);
    expected.sort();
    assert_eq!(locks.names(), expected);
    assert_refused(&try_attach(&guest, &locks, &[]), "is held by vconsole");
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    locks.assert_empty();
}

#[test]
fn the_directory_of_lockdev_is_used_where_it_exists() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    fs::create_dir(locks.path().join("lockdev")).unwrap();
    let session = attached(&guest, &locks, &terminal);
    for name in all_names(&guest) {
        assert!(locks.read(&name).is_some() && locks.read(&format!("lockdev/{name}")).is_some());
    }
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    assert_eq!(locks.names(), ["lockdev"]);
    assert_eq!(fs::read_dir(locks.path().join("lockdev")).unwrap().count(), 0);

    let dead = format!("lockdev/{}", path_name(&guest));
    let holder = Bystander::new();
    locks.write(&dead, holder.lock());
    assert_refused(&try_attach(&guest, &locks, &[]), "sleep (pid ");
}

#[test]
fn a_live_vconsole_is_named_and_refuses_others_whatever_they_say() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = attached(&guest, &locks, &terminal);
    for options in [&[][..], &["--locks", "check"], &["--locks", "require"]] {
        let output = try_attach(&guest, &locks, options);
        assert_refused(&output, &format!("held by vconsole (pid {}", session.pid()));
    }
    let output = try_attach(&guest, &locks, &["--locks", "off"]);
    assert_refused(&output, &format!("locked with flock by vconsole (pid {}", session.pid()));
    assert_eq!(locks.names(), all_names(&guest), "nothing was touched");
    guest.say("still here");
    terminal.shows("still here");
}

#[test]
fn a_live_program_that_does_not_have_it_open_is_left_alone() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let holder = Bystander::new();
    for name in all_names(&guest) {
        let lock = locks.write(&name, holder.lock());
        let because = format!("held by sleep (pid {}", holder.pid());
        assert_refused(&try_attach(&guest, &locks, &[]), &because);
        assert_eq!(fs::read(&lock).unwrap(), holder.lock().as_bytes());
        assert_eq!(locks.names(), [name]);
        fs::remove_file(lock).unwrap();
    }
}

#[test]
fn every_way_to_write_a_number_names_the_holder() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let holder = Bystander::new();
    let pid = holder.pid();
    let forms = [
        format!("{pid}").into_bytes(),
        i32::try_from(pid).unwrap().to_ne_bytes().to_vec(),
        format!("{pid:010}\n").into_bytes(),
        format!("{pid:>10} minicom bob\n").into_bytes(),
        format!("{pid:>10} {pid:>10}\n").into_bytes(),
        format!("   4194304 {pid:>10}\n").into_bytes(),
        format!("{pid}\0\0\0\n").into_bytes(),
    ];
    for way in forms {
        locks.write(&path_name(&guest), way);
        assert_refused(&try_attach(&guest, &locks, &[]), &format!("sleep (pid {pid}"));
    }
}

#[test]
fn a_dead_lock_is_reclaimed_and_one_line_says_so() {
    for options in [&[][..], &["--force"]] {
        let (guest, locks) = (Guest::new(), Locks::new());
        for name in all_names(&guest) {
            locks.write(&name, NOBODY);
        }
        let output = try_attach(&guest, &locks, options);
        assert_eq!(output.status, 0, "{output:?}");
        let removed: Vec<_> = output
            .stderr()
            .lines()
            .filter(|line| line.contains("removed the lock"))
            .map(str::to_owned)
            .collect();
        assert_eq!(removed.len(), 1, "{output:?}");
        assert!(removed[0].contains("its process 4194304 is gone"), "{removed:?}");
        locks.assert_empty();
    }
}

#[test]
fn the_names_that_a_killed_session_left_are_one_file_and_reclaimed_together() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let [first, others @ ..] = &all_names(&guest)[..] else { panic!("no names") };
    let file = locks.write(first, NOBODY);
    for name in others {
        fs::hard_link(&file, locks.path().join(name)).unwrap();
    }
    let output = try_attach(&guest, &locks, &[]);
    assert_eq!(output.status, 0, "{output:?}");
    locks.assert_empty();
}

#[test]
fn a_lock_whose_number_was_given_to_another_process_is_dead() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let other = Bystander::new();
    let lock = locks.write(&path_name(&guest), other.lock());
    make_older(&lock, Duration::from_secs(60));
    let output = try_attach(&guest, &locks, &[]);
    assert_eq!(output.status, 0, "{output:?}");
    assert!(output.stderr().contains("the number is another's now"), "{output:?}");
    locks.assert_empty();
}

#[test]
fn a_lock_whose_number_was_given_to_a_vconsole_elsewhere_is_dead() {
    for options in [&[][..], &["--force"]] {
        let (guest, elsewhere, locks) = (Guest::new(), Guest::new(), Locks::new());
        let theirs = Locks::new();
        let session = Vconsole::attach(&elsewhere).locks(&theirs).attached_to_pipes();
        let [first, others @ ..] = &all_names(&guest)[..] else { panic!("no names") };
        let lock = locks.write(first, format!("{:>10}\n", session.pid()));
        make_older(&lock, Duration::from_secs(60));
        for name in others {
            fs::hard_link(&lock, locks.path().join(name)).unwrap();
        }
        let output = try_attach(&guest, &locks, options);
        assert_eq!(output.status, 0, "{output:?}");
        assert!(output.stderr().contains("the number is another's now"), "{output:?}");
        locks.assert_empty();
        elsewhere.say("undisturbed");
        session.stdout().receives("undisturbed");
    }
}

#[test]
fn a_number_that_was_given_to_another_process_is_looked_into_once_for_all_names() {
    in_time(|| {
        let (guest, locks) = (Guest::new(), Locks::new());
        fs::create_dir(locks.path().join("lockdev")).unwrap();
        let other = Bystander::new();
        for name in all_names(&guest) {
            for name in [format!("lockdev/{name}"), name] {
                make_older(&locks.write(&name, other.lock()), Duration::from_secs(60));
            }
        }
        let start = Instant::now();
        let output = try_attach(&guest, &locks, &[]);
        // Half a second each time: eight names would take four.
        took_less_than(Duration::from_millis(2500), start);
        assert_eq!(output.status, 0, "{output:?}");
        assert_eq!(locks.names(), ["lockdev"]);
    });
}

#[test]
fn a_process_that_has_the_console_open_is_no_recycled_number() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let holder = Bystander::with_open(guest.path());
    let lock = locks.write(&path_name(&guest), holder.lock());
    make_older(&lock, Duration::from_secs(60));
    assert_refused(&try_attach(&guest, &locks, &[]), "held by sleep (pid ");
    assert!(lock.exists());
}

#[test]
fn a_holder_of_another_device_with_the_same_last_part_is_not_in_the_way() {
    if not_root() {
        return;
    }
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    // A device in another place with the same last part.
    let base = number(&guest);
    let directory = tempfile::tempdir().unwrap();
    let node = directory.path().join(&base);
    let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, &node, kind, mode, rustix::fs::makedev(1, 3)).unwrap();
    let holder = Bystander::with_open(&node);
    let lock = locks.write(&format!("LCK..{base}"), holder.lock());

    let session = attached(&guest, &locks, &terminal);
    terminal.shows("has another device of that name");
    assert_eq!(fs::read(&lock).unwrap(), holder.lock().as_bytes());
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    assert_eq!(locks.names(), [format!("LCK..{base}")]);

    // Under any other name the same holder is in the way.
    locks.write(&path_name(&guest), holder.lock());
    assert_refused(&try_attach(&guest, &locks, &[]), "held by sleep");
}

#[test]
fn a_program_that_uses_flock_alone_is_named() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let client = Client::asleep(guest.path());
    rustix::fs::flock(client.line(), rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let output = try_attach(&guest, &locks, &[]);
    assert_refused(&output, &format!("(pid {}", std::process::id()));
    assert!(output.stderr().contains("locked with flock"), "{output:?}");
    locks.assert_empty();
}

#[test]
fn a_lock_that_was_replaced_behind_our_back_is_not_removed() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = attached(&guest, &locks, &terminal);
    let name = path_name(&guest);
    // In one move: between removing and writing it would be made again.
    let other = locks.write("other", NOBODY);
    fs::rename(other, locks.path().join(&name)).unwrap();
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    assert_eq!(locks.names(), [name]);
}

#[test]
fn a_claim_that_fails_puts_the_broken_locks_back() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let client = Client::asleep(guest.path());
    rustix::fs::flock(client.line(), rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    for contents in [NOBODY, ""] {
        let lock = locks.write(&path_name(&guest), contents);
        let before = fs::metadata(&lock).unwrap().ino();
        let output = try_attach(&guest, &locks, &["--force"]);
        assert_refused(&output, "flock");
        assert!(!output.stderr().contains("removed"), "{output:?}");
        assert_eq!(locks.names(), [path_name(&guest)]);
        assert_eq!(fs::metadata(&lock).unwrap().ino(), before);
    }
}
