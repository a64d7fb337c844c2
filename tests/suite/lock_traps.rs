//! Traps around lock files that a claim must not fall into.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use super::harness::{
    Bystander, Guest, Locks, SOMEBODY, Terminal, Vconsole, missing, not_root, until,
};
use super::locks::{NOBODY, path_name, try_attach};

#[test]
fn lockdev_is_no_way_out_of_the_lock_directory() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), locks.path().join("lockdev")).unwrap();
    let session = super::locks::attached(&guest, &locks, &terminal);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

#[test]
fn a_lockdev_that_somebody_made_is_nobodys_lock_directory() {
    if not_root() {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    let theirs = locks.path().join("lockdev");
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    fs::write(theirs.join(path_name(&guest)), "").unwrap();
    assert_eq!(try_attach(&guest, &locks, &[]).status, 0);
    assert_eq!(fs::read_dir(&theirs).unwrap().count(), 1);
}

#[test]
fn a_number_in_the_text_behind_the_holders_makes_it_no_garbage() {
    let (guest, locks, holder) = (Guest::new(), Locks::new(), Bystander::new());
    for text in ["0", "20261123", "115200000", "9600 baud"] {
        locks.write(&path_name(&guest), format!("{:>10} {text}\n", holder.pid()));
        let output = try_attach(&guest, &locks, &[]);
        assert_eq!(output.status, 3, "{text}: {output:?}");
        assert!(output.stderr().contains(&format!("sleep (pid {}", holder.pid())), "{output:?}");
    }
}

#[test]
fn a_console_named_through_a_linked_directory_has_that_name_locked() {
    if not_root() {
        return;
    }
    // Only below /dev does a path have a name of its own.
    let directory = tempfile::Builder::new().prefix("vconsole-").tempdir_in("/dev").unwrap();
    let (guest, locks, holder) = (Guest::new(), Locks::new(), Bystander::new());
    let link = directory.path().join("vms");
    symlink("/dev/pts", &link).unwrap();
    let name = super::locks::number(&guest);
    let given = link.join(&name);
    let base = directory.path().file_name().unwrap().to_str().unwrap();
    locks.write(&format!("LCK..{base}_vms_{name}"), format!("{:>10}\n", holder.pid()));
    let output = Vconsole::attach(&given).locks(&locks).args(["--linger", "0"]).output();
    assert_eq!(output.status, 3, "{output:?}");
    assert!(output.stderr().contains("held by sleep"), "{output:?}");
}

#[test]
fn what_cannot_be_removed_is_an_error_for_who_insists() {
    if not_root() {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    guest.chown(SOMEBODY);
    locks.write(&path_name(&guest), NOBODY);
    let attach = Vconsole::attach(&guest).locks(&locks).args(["--linger", "0"]);
    let attach = attach.as_user(SOMEBODY, SOMEBODY);
    let output = attach.clone().args(["--locks", "require"]).output();
    assert_eq!(output.status, 1, "{output:?}");
    assert_eq!(locks.names(), [path_name(&guest)], "nothing else is left");
    assert_eq!(attach.output().status, 0);
}

#[test]
fn in_another_pid_namespace_a_process_that_is_not_there_is_not_dead() {
    if not_root() || missing("unshare") {
        return;
    }
    let (guest, locks, holder) = (Guest::new(), Locks::new(), Bystander::new());
    let run = |script: &str, options: &[&str]| {
        Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "sh", "-c", script, "sh"])
            .arg(locks.path().join(path_name(&guest)))
            .arg(env!("CARGO_BIN_EXE_vconsole"))
            .args(["attach", "--linger", "0", "--lock-dir"])
            .arg(locks.path())
            .args(options)
            .arg(guest.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let lock = format!("{:>10}\n", holder.pid());
    // Written before the namespace began, and after.
    locks.write(&path_name(&guest), &lock);
    let before = run("shift; exec \"$@\"", &[]);
    let after = run("touch \"$1\"; shift; exec \"$@\"", &[]);
    for output in [before, after] {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains("may live in another pid namespace"), "{said}");
        assert_eq!(locks.read(&path_name(&guest)).unwrap(), lock.as_bytes());
    }
    assert_eq!(run("shift; exec \"$@\"", &["--force"]).status.code(), Some(0));
}

/// From there the holder's locks look like anybody's, and only its flock refuses.
#[test]
fn a_force_that_fails_in_another_pid_namespace_leaves_the_locks_to_their_holder() {
    if not_root() || missing("unshare") {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    let holder = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let names = locks.names();
    for _ in 0..3 {
        let forced = Vconsole::attach(&guest).arg("--force").locks(&locks);
        let refused = forced.under(["unshare", "--pid", "--fork"]).output();
        assert_eq!(refused.status, 3, "{refused:?}");
        assert!(refused.stderr().contains("locked with flock"), "{refused:?}");
        assert_eq!(locks.names(), names);
    }
    holder.stderr().receives("is ours again");
    holder.signal(rustix::process::Signal::TERM);
    assert_eq!(holder.wait(), 143);
    locks.assert_empty();
}

#[test]
fn a_console_whose_number_was_given_to_another_is_not_attached_to() {
    // Judging a lock whose number was recycled takes half a second: time enough to be replaced.
    let (mut guest, locks, other) = (Guest::new(), Locks::new(), Bystander::new());
    let path = guest.path().to_path_buf();
    let lock = locks.write(&path_name(&guest), format!("{:>10}\n", other.pid()));
    let file = fs::File::options().write(true).open(&lock).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(60)).unwrap();
    let attach = Vconsole::attach(&path).locks(&locks).args(["--linger", "forever"]).piped();
    until("it looks at the lock", || {
        let open =
            fs::read_dir(format!("/proc/{}/fd", attach.pid())).into_iter().flatten().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|path| path == lock)
    });
    guest.hang_up();
    // Its number is free now; the kernel gives the lowest first.
    let strangers: Vec<Guest> = (0..8).map(|_| Guest::new()).collect();
    let taken = strangers.iter().any(|stranger| stranger.path() == path);
    assert_eq!(attach.wait(), 6, "taken: {taken}, {}", attach.output().stderr());
    assert!(!attach.output().stderr().contains("connected"));
}

#[test]
fn of_two_that_make_files_and_none_at_once_one_has_the_console() {
    for _ in 0..super::harness::rounds(10) {
        let (guest, locks) = (Guest::new(), Locks::new());
        let attach = |mode: &str| {
            Vconsole::attach(&guest).locks(&locks).args(["--linger", "0", "--locks", mode]).piped()
        };
        let mut both = [attach("check"), attach("auto")];
        until("one has lost", || both.iter().any(|session| session.has_ended()));
        for session in &mut both {
            session.closes_stdin();
        }
        let mut statuses = both.each_ref().map(|session| session.output().status);
        statuses.sort_unstable();
        assert_eq!(statuses, [0, 3]);
    }
}

#[test]
fn a_lock_that_somebody_removes_is_made_again() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = super::locks::attached(&guest, &locks, &terminal);
    let names = super::locks::all_names(&guest);
    fs::remove_file(locks.path().join(path_name(&guest))).unwrap();
    terminal.shows("it is there again");
    assert_eq!(locks.names(), names);
    // All at once: there is no link left to make another of.
    for name in &names {
        fs::remove_file(locks.path().join(name)).unwrap();
    }
    until("all names are there again", || locks.names() == names);
    let lock = format!("{:>10}\n", session.pid());
    assert!(names.iter().all(|name| locks.read(name).unwrap() == lock.as_bytes()));
    // One that somebody else has taken meanwhile is theirs.
    let theirs = locks.path().join("new");
    fs::write(&theirs, NOBODY).unwrap();
    fs::rename(&theirs, locks.path().join(path_name(&guest))).unwrap();
    terminal.shows("somebody changed the lock");
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    assert_eq!(locks.names(), [path_name(&guest)]);
}

#[test]
fn what_was_typed_is_shown_escaped_also_where_the_command_line_is_wrong() {
    for arguments in
        [&["attach", "a", "b\x1b]0;x\x07"][..], &["attach", "--escape", "\x1b[2J", "a"]]
    {
        let output = Vconsole::with(arguments).output();
        assert_eq!(output.status, 2);
        assert!(output.stderr.iter().all(|&byte| byte == b'\n' || byte >= b' '), "{output:?}");
    }
}
