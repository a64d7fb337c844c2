//! What an ordinary user gets where the lock directory is not theirs to write, errno by errno; and
//! what root and `--locks require` get instead.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::harness::{Guest, Locks, Output, SOMEBODY, Vconsole, not_root};
use super::locks::{NOBODY, all_names, number, path_name};

/// A filesystem of a test's own.
struct Mount(TempDir);

impl Mount {
    fn tmpfs(options: &str) -> Self {
        let directory = TempDir::with_prefix("vconsole-mount-").unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(directory.path());
        assert!(mount.status().unwrap().success());
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a guard may still be leaving.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

fn somebodys_guest() -> Guest {
    let guest = Guest::new();
    guest.chown(SOMEBODY);
    guest
}

fn attach(guest: &Guest, user: Option<u32>, directory: &Path, options: &[&str]) -> Output {
    let mut attach = Vconsole::attach(guest).args(["--linger", "0"]).args(options);
    attach = attach.arg("--lock-dir").arg(directory);
    if let Some(user) = user {
        attach = attach.as_user(user, user);
    }
    attach.output()
}

/// Session mode with its one notice for the user, an error for root and for `--locks require`.
#[track_caller]
fn only_session_mode_goes_on(directory: &Path, because: &str) {
    let guest = somebodys_guest();
    let output = attach(&guest, Some(SOMEBODY), directory, &[]);
    assert_eq!(output.status, 0, "{output:?}");
    let said = output.stderr();
    let notices = said.lines().filter(|line| line.contains("session mode")).count();
    assert_eq!(notices, 1, "{said}");
    assert!(said.contains(because) && said.contains("connected"), "{said}");

    let output = attach(&guest, Some(SOMEBODY), directory, &["--quiet"]);
    assert_eq!((output.status, output.stderr().as_str()), (0, ""));

    for (user, options) in
        [(Some(SOMEBODY), &["--locks", "require"][..]), (None, &["--locks", "require"])]
    {
        // Root may write to a directory of its own, whatever the mode.
        if user.is_none() && because.contains("Permission") {
            continue;
        }
        let output = attach(&guest, user, directory, options);
        assert_eq!(output.status, 1, "{output:?}");
        let said = output.stderr();
        assert!(said.contains(because) && said.contains("--locks check"), "{said}");
        assert!(!said.contains("connected"), "{said}");
    }
    if !because.contains("Permission") {
        assert_eq!(attach(&guest, None, directory, &[]).status, 1);
    }
}

#[test]
fn a_directory_that_only_root_writes_to_means_session_mode() {
    if not_root() {
        return;
    }
    let locks = Locks::new().mode(0o755);
    only_session_mode_goes_on(locks.path(), "Permission denied");
    locks.assert_empty();
}

#[test]
fn a_read_only_directory_means_session_mode() {
    if not_root() {
        return;
    }
    let mount = Mount::tmpfs("ro,mode=1777");
    only_session_mode_goes_on(mount.path(), "Read-only file system");
}

#[test]
fn a_missing_directory_means_session_mode() {
    if not_root() {
        return;
    }
    only_session_mode_goes_on(Path::new("/nowhere/at/all"), "No such file or directory");
}

#[test]
fn a_full_directory_is_an_error_for_everybody() {
    if not_root() {
        return;
    }
    // One inode: the directory itself.
    let mount = Mount::tmpfs("nr_inodes=1,mode=1777");
    let guest = somebodys_guest();
    for user in [Some(SOMEBODY), None] {
        let output = attach(&guest, user, mount.path(), &[]);
        assert_eq!(output.status, 1, "{output:?}");
        assert!(output.stderr().contains("No space left on device"), "{output:?}");
        assert!(output.stderr().contains("--locks check"), "{output:?}");
        assert_eq!(attach(&guest, user, mount.path(), &["--locks", "check"]).status, 0);
    }
}

#[test]
fn what_is_no_directory_is_an_error_for_everybody() {
    if not_root() {
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let guest = somebodys_guest();
    for user in [Some(SOMEBODY), None] {
        let output = attach(&guest, user, file.path(), &[]);
        assert_eq!(output.status, 1, "{output:?}");
        assert!(output.stderr().contains("Not a directory"), "{output:?}");
    }
}

#[test]
fn in_session_mode_a_live_lock_of_any_name_refuses_and_its_holder_is_named() {
    if not_root() {
        return;
    }
    let guest = somebodys_guest();
    for name in all_names(&guest) {
        let locks = Locks::new().mode(0o755);
        locks.write(&name, format!("{:>10}\n", std::process::id()));
        for options in [&[][..], &["--force"], &["--locks", "check"]] {
            let output = attach(&guest, Some(SOMEBODY), locks.path(), options);
            assert_eq!(output.status, 3, "{output:?}");
            let holder = format!("(pid {}, root)", std::process::id());
            assert!(output.stderr().contains(&holder), "{output:?}");
            assert!(!output.stderr().contains("connected"), "{output:?}");
        }
    }
}

#[test]
fn in_session_mode_a_dead_lock_is_passed_and_a_suspect_one_only_by_force() {
    if not_root() {
        return;
    }
    let guest = somebodys_guest();
    let locks = Locks::new().mode(0o755);
    locks.write(&path_name(&guest), NOBODY);
    assert_eq!(attach(&guest, Some(SOMEBODY), locks.path(), &[]).status, 0);
    locks.write(&path_name(&guest), "");
    assert_eq!(attach(&guest, Some(SOMEBODY), locks.path(), &[]).status, 3);
    assert_eq!(attach(&guest, Some(SOMEBODY), locks.path(), &["--force"]).status, 0);
    assert_eq!(locks.names(), [path_name(&guest)]);
}

#[test]
fn a_directory_that_may_not_be_searched_is_suspect() {
    if not_root() {
        return;
    }
    let guest = somebodys_guest();
    let locks = Locks::new().mode(0o700);
    let output = attach(&guest, Some(SOMEBODY), locks.path(), &[]);
    assert_eq!(output.status, 3, "{output:?}");
    assert!(output.stderr().contains("may have locks that cannot be seen"), "{output:?}");
    assert_eq!(attach(&guest, Some(SOMEBODY), locks.path(), &["--force"]).status, 0);

    // One that lies in such a directory cannot even be opened.
    let inner = locks.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let output = attach(&guest, Some(SOMEBODY), &inner, &[]);
    assert_eq!(output.status, 3, "{output:?}");
    assert_eq!(attach(&guest, Some(SOMEBODY), &inner, &["--force"]).status, 0);
}

#[test]
fn another_users_unreadable_lock_is_suspect() {
    if not_root() {
        return;
    }
    let guest = somebodys_guest();
    let locks = Locks::new().mode(0o755);
    let lock = locks.write(&path_name(&guest), NOBODY);
    std::fs::set_permissions(&lock, std::fs::Permissions::from_mode(0o600)).unwrap();
    let output = attach(&guest, Some(SOMEBODY), locks.path(), &[]);
    assert_eq!(output.status, 3, "{output:?}");
    assert!(output.stderr().contains("it may not be read"), "{output:?}");
}

#[test]
fn in_a_sticky_directory_another_users_dead_lock_costs_that_one_name() {
    if not_root() {
        return;
    }
    let (guest, locks) = (somebodys_guest(), Locks::new());
    let dead = path_name(&guest);
    locks.write(&dead, NOBODY);
    let mut session = Vconsole::attach(&guest)
        .args(["--linger", "0"])
        .locks(&locks)
        .as_user(SOMEBODY, SOMEBODY)
        .piped();
    session.stderr().receives("connected to");
    assert_eq!(locks.names(), all_names(&guest));
    assert_eq!(locks.read(&dead).unwrap(), NOBODY.as_bytes());
    let base = format!("LCK..{}", number(&guest));
    assert_eq!(locks.read(&base).unwrap(), format!("{:>10}\n", session.pid()).as_bytes());
    session.closes_stdin();
    let output = session.output();
    assert_eq!(output.status, 0, "{output:?}");
    let said = output.stderr();
    assert_eq!(said.matches("going on without the lock").count(), 1, "{said}");
    assert_eq!(locks.names(), [dead]);
}

#[test]
fn check_makes_no_file_and_off_looks_at_none() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let terminal = super::harness::Terminal::new();
    let session = Vconsole::attach(&guest).locks(&locks).args(["--locks", "check"]).on(&terminal);
    terminal.shows("connected to");
    locks.assert_empty();
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);

    locks.write(&path_name(&guest), format!("{:>10}\n", std::process::id()));
    let output = attach(&guest, None, locks.path(), &["--locks", "check"]);
    assert_eq!(output.status, 3, "{output:?}");
    let output = attach(&guest, None, locks.path(), &["--locks", "off"]);
    assert_eq!(output.status, 0, "{output:?}");
}

#[test]
fn the_environment_says_where_and_how_and_the_command_line_overrides_it() {
    let (guest, locks) = (Guest::new(), Locks::new());
    locks.write(&path_name(&guest), "");
    let attach = Vconsole::attach(&guest)
        .args(["--linger", "0"])
        .env("VCONSOLE_LOCK_DIR", locks.path())
        .env("VCONSOLE_LOCKS", "check");
    assert_eq!(attach.output().status, 3);
    assert_eq!(attach.clone().args(["--locks", "off"]).output().status, 0);
    let other = Locks::new();
    assert_eq!(attach.locks(&other).output().status, 0);
}
