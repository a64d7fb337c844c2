//! Locks that nobody can vouch for: refused, and broken only by force, without being followed, opened
//! or waited for.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::harness::{Guest, Locks, not_root};
use super::locks::{path_name, try_attach};

/// Refused without force, broken with it; gives the path that the lock had.
#[track_caller]
fn is_suspect(why: &str, make: impl Fn(&Path)) -> PathBuf {
    let (guest, locks) = (Guest::new(), Locks::new());
    let lock = locks.path().join(path_name(&guest));
    make(&lock);
    let before = fs::symlink_metadata(&lock).unwrap();

    for options in [&[][..], &["--locks", "check"]] {
        let output = try_attach(&guest, &locks, options);
        assert_eq!(output.status, 3, "{output:?}");
        assert!(output.stderr().contains(why), "{output:?}");
        assert!(output.stderr().contains("hint: "), "{output:?}");
        let after = fs::symlink_metadata(&lock).unwrap();
        assert_eq!(after.file_type(), before.file_type());
        assert_eq!(after.len(), before.len());
        assert_eq!(locks.names(), [path_name(&guest)]);
    }

    let output = try_attach(&guest, &locks, &["--force"]);
    assert_eq!(output.status, 0, "{output:?}");
    assert!(output.stderr().contains(why), "{output:?}");
    locks.assert_empty();
    lock
}

#[test]
fn empty_files_are_suspect() {
    is_suspect("it is empty", |lock| fs::write(lock, "").unwrap());
}

#[test]
fn what_names_no_process_is_suspect() {
    let contents: [&[u8]; 9] = [
        b"ABC\n",
        b"\xff\xfe\x00\x80 not a number \x1b[2J\n",
        b"-1\n",
        b"0\n",
        b"99999999999999999999\n",
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff",
        b"minicom 4242\n",
        &vec![b'7'; 1_000_000],
    ];
    for contents in contents {
        is_suspect("does not name a process", |lock| fs::write(lock, contents).unwrap());
    }
    // A number, and then a million bytes: no lock file looks so.
    let mut long = b"   4194304\n".to_vec();
    long.resize(1_000_000, b'\n');
    is_suspect("does not name a process", |lock| fs::write(lock, &long).unwrap());
}

#[test]
fn a_symlink_is_suspect_and_never_followed() {
    let directory = tempfile::tempdir().unwrap();
    let precious = directory.path().join("precious");
    fs::write(&precious, super::locks::NOBODY).unwrap();
    is_suspect("it is a symlink", |lock| symlink(&precious, lock).unwrap());
    assert_eq!(fs::read_to_string(&precious).unwrap(), super::locks::NOBODY);
    is_suspect("it is a symlink", |lock| symlink("/nowhere/at/all", lock).unwrap());
    is_suspect("it is a symlink", |lock| symlink("/etc/passwd", lock).unwrap());
    assert!(fs::metadata("/etc/passwd").unwrap().len() > 0);
}

#[test]
fn a_fifo_a_socket_and_a_directory_are_suspect_and_never_opened() {
    is_suspect("it is a fifo", |lock| {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            lock,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
    });
    is_suspect("it is a socket", |lock| drop(UnixListener::bind(lock).unwrap()));
    is_suspect("it is a directory", |lock| fs::create_dir(lock).unwrap());
}

#[test]
fn a_device_is_suspect_and_never_opened() {
    if not_root() {
        return;
    }
    is_suspect("it is a device", |lock| {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            lock,
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::from_raw_mode(0o644),
            rustix::fs::makedev(1, 3),
        )
        .unwrap();
    });
}

#[test]
fn a_directory_with_something_in_it_is_moved_aside_and_that_is_said() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let lock = locks.path().join(path_name(&guest));
    fs::create_dir(&lock).unwrap();
    fs::write(lock.join("precious"), "").unwrap();
    let output = try_attach(&guest, &locks, &["--force"]);
    assert_eq!(output.status, 0, "{output:?}");
    let [left] = locks.names().try_into().unwrap();
    assert!(locks.path().join(&left).join("precious").exists());
    assert!(output.stderr().contains(&left), "{output:?}");
}

#[test]
fn a_lock_that_names_the_very_process_that_looks_at_it_is_not_its_own() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let lock = locks.path().join(path_name(&guest));
    // The shell writes its number, and becomes vconsole with the same number.
    let script = "echo \"$$\" > \"$1\"; shift; exec \"$@\"";
    let output = std::process::Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(&lock)
        .arg(env!("CARGO_BIN_EXE_vconsole"))
        .args(["attach", "--linger", "0", "--lock-dir"])
        .arg(locks.path())
        .arg(guest.path())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("names this very process"), "{said}");
    assert!(lock.exists());
}
