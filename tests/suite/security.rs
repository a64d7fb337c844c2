//! What SECURITY.md says, where no other topic says it; and that each of its claims has its test.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind, listen, recv,
    socket_with,
};
use rustix::process::Signal;
use tempfile::TempDir;

use super::harness::{Guest, Locks, Piped, Program, Vconsole};

/// Where the sockets of a test's sessions are.
struct Runtime(TempDir);

impl Runtime {
    fn new() -> Self {
        Self(TempDir::with_prefix("vconsole-runtime-").unwrap())
    }

    fn directory(&self) -> PathBuf {
        self.0.path().join(rustix::process::geteuid().as_raw().to_string())
    }

    fn attach(&self, guest: &Guest, locks: &Locks) -> Program {
        let attach = Vconsole::attach(guest).locks(locks);
        attach.env("VCONSOLE_TEST_RUNTIME", self.0.path())
    }
}

#[track_caller]
fn drives(session: &Piped, guest: &Guest) {
    guest.say("undisturbed");
    session.stdout().hears("undisturbed");
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
}

#[test]
fn the_sockets_directory_is_its_users_alone_whatever_the_umask() {
    let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
    let shell = ["-c", "umask 0; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_vconsole"), "attach"];
    let session = Program::new("sh").args(shell).arg(&guest).locks(&locks);
    let session = session.env("VCONSOLE_TEST_RUNTIME", runtime.0.path()).attached_to_pipes();
    let directory = runtime.directory();
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o7777, 0o700);
    assert!(directory.join(session.pid().to_string()).exists());
    drives(&session, &guest);
}

#[test]
fn a_directory_that_others_can_write_to_gets_no_sockets() {
    let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
    let (directory, elsewhere) = (runtime.directory(), runtime.0.path().join("elsewhere"));
    fs::create_dir(&elsewhere).unwrap();
    for mode in [0o777, 0o770, 0o701, 0o700] {
        if mode == 0o700 {
            // A link to one that would do.
            symlink(&elsewhere, &directory).unwrap();
        } else {
            fs::create_dir(&directory).unwrap();
        }
        fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
        let session = runtime.attach(&guest, &locks).attached_to_pipes();
        session.stderr().hears("is not a directory of ours alone");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "{mode:o}");
        drives(&session, &guest);
        let _ = fs::remove_dir(&directory);
    }
}

#[test]
fn who_answers_in_a_sessions_place_is_not_asked() {
    let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
    let session = runtime.attach(&guest, &locks).attached_to_pipes();
    let door = runtime.directory().join(session.pid().to_string());
    let impostors: Vec<_> = [door.clone(), door.with_extension("guard")]
        .iter()
        .map(|path| {
            fs::remove_file(path).unwrap();
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let kind = SocketType::SEQPACKET;
            let impostor = socket_with(AddressFamily::UNIX, kind, flags, None).unwrap();
            bind(&impostor, &SocketAddrUnix::new(path).unwrap()).unwrap();
            // It is called again and again, for two seconds.
            listen(&impostor, 4096).unwrap();
            impostor
        })
        .collect();
    let new = runtime.attach(&guest, &locks).arg("--force").attached_to_pipes();
    new.stderr().hears("sent SIGTERM");
    new.stderr().hears("nobody answers there");
    assert_eq!(session.wait(), 143);
    // It was called, and nothing was said to it.
    let line = accept(&impostors[0]).unwrap();
    assert_eq!(recv(&line, &mut [0; 1], RecvFlags::empty()).unwrap().0, 0);
    drives(&new, &guest);
}

/// The tests that a claim names: `room::of::the_test` in backticks.
fn tests_named_in(claim: &str) -> Vec<&str> {
    claim.split('`').skip(1).step_by(2).filter(|quoted| quoted.contains("::")).collect()
}

/// Whether there is a test of this name: of the suite, in the file of its path; or a property, which a
/// test of the same name checks.
fn is_there(name: &str) -> bool {
    let (room, test) = name.rsplit_once("::").unwrap();
    let file = format!("{}.rs", room.replace("::", "/"));
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = |path: &str| fs::read_to_string(top.join(path)).unwrap_or_default();
    if room.ends_with("properties") {
        let is_checked = source("src/properties.rs").contains(&format!("\n        {test}: ["));
        return is_checked && source(&format!("src/{file}")).contains(&format!("pub fn {test}("));
    }
    let suite = source(&format!("tests/suite/{file}"));
    suite.contains(&format!("#[test]\nfn {test}() {{"))
}

#[test]
fn every_claim_of_security_md_names_a_test_that_is_there() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("SECURITY.md");
    let text = fs::read_to_string(path).unwrap();
    let claims: Vec<&str> = text.split("\n- ").skip(1).collect();
    assert!(claims.len() > 20, "{claims:?}");
    for claim in claims {
        // The last of a list goes on to the next heading.
        let claim = claim.split("\n\n").next().unwrap();
        let tests = tests_named_in(claim);
        assert!(!tests.is_empty(), "no test holds this: {claim}");
        for test in tests {
            assert!(is_there(test), "there is no test {test}: {claim}");
        }
    }
}
