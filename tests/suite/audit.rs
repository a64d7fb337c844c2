//! The audit trail in the system's log.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::harness::{DEADLINE, Guest, Locks, Vconsole};

#[test]
fn attaching_leaving_and_being_refused_are_recorded() {
    let (guest, locks, directory) = (Guest::new(), Locks::new(), tempfile::tempdir().unwrap());
    let path = directory.path().join("log");
    let log = UnixDatagram::bind(&path).unwrap();
    log.set_read_timeout(Some(DEADLINE)).unwrap();
    let next = || {
        let mut line = [0; 4096];
        let length = log.recv(&mut line).unwrap();
        String::from_utf8(line[..length].to_vec()).unwrap()
    };
    let attach = Vconsole::attach(&guest).locks(&locks).env("VCONSOLE_TEST_SYSLOG", &path);
    let attach =
        attach.args(["--reason", "a \"b\" \x1b[c"]).env("SSH_CONNECTION", "192.0.2.1 1 2 3");
    let mut driver = attach.attached_to_pipes();
    let line = next();
    assert!(line.starts_with("<86>") && line.contains(&format!("vconsole[{}]: ", driver.pid())));
    for part in ["event=attached how=plain", r#"reason="a \"b\" \\x1b[c""#, "ssh=192.0.2.1", "uid="]
    {
        assert!(line.contains(&part.replace(r"\\x", r"\x")), "{line}");
    }
    assert!(line.contains(guest.path().to_str().unwrap()), "{line}");
    assert_eq!(attach.output().status, 3);
    let line = next();
    assert!(line.starts_with("<85>") && line.contains("event=refused why="), "{line}");
    driver.closes_stdin();
    assert_eq!(driver.wait(), 0);
    let line = next();
    assert!(line.contains("event=ended why=\"end of input"), "{line}");
}

#[test]
fn a_log_that_takes_nothing_holds_nobody_up() {
    let (guest, locks, directory) = (Guest::new(), Locks::new(), tempfile::tempdir().unwrap());
    let path = directory.path().join("log");
    let _log = UnixDatagram::bind(&path).unwrap();
    let full = UnixDatagram::unbound().unwrap();
    full.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    while full.send_to(b"x", &path).is_ok() {}
    for path in [path.as_path(), std::path::Path::new("/nowhere/log")] {
        let attach = Vconsole::attach(&guest).locks(&locks).env("VCONSOLE_TEST_SYSLOG", path);
        assert_eq!(attach.args(["--linger", "0"]).output().status, 0);
    }
}
