//! `--link`.

use std::fs::{read_link, symlink_metadata};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;

use super::Hosted;
use crate::harness::{Client, Guest, Output, Vconsole};

/// A directory, and a name in it for the link.
fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().join("console");
    (directory, name)
}

fn hosted(link: &Path) -> Hosted {
    Hosted::start(&Vconsole::host().arg("--link").arg(link).running(["cat"]))
}

/// Tries to host with a link where it cannot be made.
fn refused(link: &Path) -> Output {
    let output = Vconsole::host().arg("--link").arg(link).running(["cat"]).output();
    assert_eq!((output.status, output.stdout()), (1, String::new()), "{output:?}");
    assert!(output.stderr().starts_with("vconsole: "), "{output:?}");
    output
}

#[test]
fn the_link_leads_to_the_console_and_goes_at_the_end() {
    let (directory, link) = place();
    let hosted = hosted(&link);
    assert_eq!(read_link(&link).unwrap(), hosted.console);
    let client = Client::of(&link);
    client.types("hello\r");
    client.shows("hello\r\nhello\r\n");
    client.types("\x04");
    assert_eq!(hosted.host.wait(), 0);
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 0);
}

#[test]
fn a_signal_takes_the_link_away_too() {
    for signal in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM] {
        let (_directory, link) = place();
        let hosted = hosted(&link);
        hosted.host.signal(signal);
        assert_eq!(hosted.host.wait(), 128 + signal.as_raw());
        assert!(symlink_metadata(&link).is_err());
    }
}

#[test]
fn a_command_that_cannot_be_run_leaves_no_link() {
    let (_directory, link) = place();
    let host = Vconsole::host().arg("--link").arg(&link).running(["/no/such/program"]);
    assert_eq!(host.output().status, 127);
    assert!(symlink_metadata(&link).is_err());
}

#[test]
fn nothing_that_exists_is_replaced() {
    let (_directory, link) = place();
    std::fs::write(&link, "precious").unwrap();
    let output = refused(&link);
    assert!(output.stderr().contains("exists"), "{output:?}");
    assert_eq!(std::fs::read(&link).unwrap(), b"precious");

    let (_directory, link) = place();
    std::fs::create_dir(&link).unwrap();
    refused(&link);
    assert!(link.is_dir());
}

#[test]
fn a_link_that_leads_elsewhere_is_not_replaced() {
    let guest = Guest::new();
    let targets = ["/no/such/file", "/dev/pts/", "/dev/pts/x1", "/dev/pts/../pts/999999"];
    for target in targets.into_iter().map(Path::new).chain([guest.path()]) {
        let (_directory, link) = place();
        symlink(target, &link).unwrap();
        refused(&link);
        assert_eq!(read_link(&link).unwrap(), target);
    }
}

#[test]
fn what_a_killed_host_left_behind_is_replaced() {
    let (directory, link) = place();
    let killed = hosted(&link);
    killed.host.signal(Signal::KILL);
    assert_eq!(killed.host.wait(), 137);
    assert_eq!(read_link(&link).unwrap(), killed.console);
    // Another test may have a PTY of that number by now; of this one never.
    std::fs::remove_file(&link).unwrap();
    symlink("/dev/pts/99999999", &link).unwrap();
    let next = hosted(&link);
    assert_eq!(read_link(&link).unwrap(), next.console);
    next.host.signal(Signal::TERM);
    next.host.wait();
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 0);
}

#[test]
fn two_hosts_do_not_share_a_link() {
    let (_directory, link) = place();
    let first = hosted(&link);
    refused(&link);
    assert_eq!(read_link(&link).unwrap(), first.console);
}

#[test]
fn what_somebody_else_put_in_its_place_stays() {
    let (_directory, link) = place();
    let host = hosted(&link);
    std::fs::remove_file(&link).unwrap();
    symlink("/somewhere/else", &link).unwrap();
    host.host.signal(Signal::TERM);
    assert_eq!(host.host.wait(), 143);
    assert_eq!(read_link(&link).unwrap(), Path::new("/somewhere/else"));
}

#[test]
fn a_link_in_a_directory_that_is_not_there_is_an_error_in_one_line() {
    let output = refused(Path::new("/no/such/directory/console"));
    assert_eq!(output.stderr().lines().count(), 1, "{output:?}");
}
