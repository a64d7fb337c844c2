//! What SECURITY.md says, where no other topic says it; and that each of its claims has its test.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind, listen, recv,
    socket_with,
};
use rustix::process::Signal;
use tempfile::TempDir;

use super::guard::awaited_guard;
use super::harness::{
    Bystander, Guest, Locks, Piped, Program, SOMEBODY, Vconsole, missing, not_root, set_mode,
};
use super::locks::path_name;

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
fn operates(session: &Piped, guest: &Guest) {
    guest.say("undisturbed");
    session.stdout().receives("undisturbed");
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
    assert!(directory.join(&session.socket_names()[0]).exists());
    operates(&session, &guest);
}

#[test]
fn containers_that_share_a_directory_leave_each_others_sockets_alone() {
    if not_root() || missing("unshare") || missing("nsenter") {
        return;
    }
    let (guests, locks, runtime) = ([(); 2].map(|()| Guest::new()), Locks::new(), Runtime::new());
    // Each is process 1 there.
    let container = ["unshare", "--pid", "--mount-proc", "--fork", "--kill-child=KILL"];
    let [first, mut second] = guests.each_ref().map(|guest| {
        runtime.attach(guest, &locks).args(["--linger", "0"]).under(container).attached_to_pipes()
    });
    assert_eq!(fs::read_dir(runtime.directory()).unwrap().count(), 4);
    second.closes_stdin();
    assert_eq!(second.wait(), 0);
    let unshare = first.pid();
    let inside = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
    let enter = ["nsenter", "--target", inside.trim(), "--pid", "--mount"];
    let viewer = runtime.attach(&guests[0], &locks).arg("--read-only").under(enter).piped();
    viewer.stderr().receives("watching");
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
        session.stderr().receives("is not a directory of ours alone");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "{mode:o}");
        operates(&session, &guest);
        let _ = fs::remove_dir(&directory);
    }
}

#[test]
fn who_answers_in_a_sessions_place_is_not_asked() {
    let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
    let session = runtime.attach(&guest, &locks).attached_to_pipes();
    let door = runtime.directory().join(&session.socket_names()[0]);
    // Otherwise it would make them again.
    session.signal(rustix::process::Signal::STOP);
    session.is_stopped();
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
    new.stderr().receives("sent SIGTERM");
    new.stderr().receives("nobody answers there");
    assert_eq!(session.wait(), 143);
    // It was called, and nothing was said to it.
    let line = accept(&impostors[0]).unwrap();
    assert_eq!(recv(&line, &mut [0; 1], RecvFlags::empty()).unwrap().0, 0);
    operates(&new, &guest);
}

#[test]
fn a_session_whose_directory_is_not_its_users_alone_is_not_called() {
    let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
    let session = runtime.attach(&guest, &locks).attached_to_pipes();
    set_mode(&runtime.directory(), 0o755);
    let new = runtime.attach(&guest, &locks).arg("--force").attached_to_pipes();
    let said = String::from_utf8(new.stderr().so_far()).unwrap();
    let signal = format!("sent SIGTERM to vconsole (pid {}, ", session.pid());
    assert!(said.contains(&signal) && !said.contains("took "), "{said}");
    assert_eq!(session.wait(), 143);
    operates(&new, &guest);
}

/// Since when a console is held by a lock of 4,000,000,000 seconds after 1970, as it is said in
/// `environment`.
#[track_caller]
fn since(environment: &[(&str, &str)]) -> String {
    let (guest, locks) = (Guest::new(), Locks::new());
    let holder = Bystander::with_open(guest.path());
    let lock = locks.write(&path_name(&guest), holder.lock());
    let lock = fs::File::options().write(true).open(lock).unwrap();
    lock.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000)).unwrap();
    let attach = Vconsole::attach(&guest).locks(&locks);
    let output = environment.iter().fold(attach, |it, (name, value)| it.env(name, value)).output();
    assert_eq!(output.status, 3, "{output:?}");
    let said = output.stderr();
    let (_, since) = said.split_once(" since ").unwrap_or_else(|| panic!("{said}"));
    since.split(": ").next().unwrap().to_owned()
}

/// A time zone five hours east of Greenwich, as a file (`tzfile(5)`).
fn five_hours_east() -> Vec<u8> {
    // One kind of time, no transitions, four bytes of names; once for old programs and once for new.
    let counts = [0_u32, 0, 0, 0, 1, 4].map(u32::to_be_bytes).concat();
    let kind = [&(5 * 3600_i32).to_be_bytes()[..], &[0, 0], b"ODD\0"].concat();
    let block = [b"TZif2", &[0; 15][..], &counts, &kind].concat();
    [&block, &block, &b"\nODD-5\n"[..]].concat()
}

#[test]
fn the_time_zone_says_how_times_are_shown_and_nothing_else() {
    let zones = tempfile::tempdir().unwrap();
    fs::create_dir(zones.path().join("Odd")).unwrap();
    fs::write(zones.path().join("Odd/Place"), five_hours_east()).unwrap();
    let directory = zones.path().to_str().unwrap();
    assert_eq!(since(&[("TZ", "UTC0")]), "2096-10-02 07:06:40");
    assert_eq!(since(&[("TZ", "ODD-5")]), "2096-10-02 12:06:40");
    assert_eq!(since(&[("TZ", "Odd/Place"), ("TZDIR", directory)]), "2096-10-02 12:06:40");
    for odd in ["", "\x1b[2J", "/nowhere", "../../etc/passwd", "<\x1b[2J>-5"] {
        let since = since(&[("TZ", odd), ("TZDIR", "/nowhere")]);
        let is_time = |byte: u8| byte.is_ascii_digit() || b" :-".contains(&byte);
        assert!(since.len() == 19 && since.bytes().all(is_time), "{odd:?}: {since}");
    }
}

#[test]
fn a_guard_has_the_environment_of_its_session_which_its_user_alone_can_read() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let root = rustix::process::geteuid().is_root();
    let attach = Vconsole::attach(&guest).locks(&locks).env("A_SECRET", "in the environment");
    let session = attach.attached_to_pipes();
    let guard = awaited_guard(session.pid());
    let environment = |pid: i32| PathBuf::from(format!("/proc/{pid}/environ"));
    let its = fs::read(environment(guard)).unwrap();
    assert!(String::from_utf8_lossy(&its).contains("A_SECRET=in the environment"));
    assert_eq!(its, fs::read(environment(session.pid())).unwrap());
    for pid in [session.pid(), guard].into_iter().filter(|_| root) {
        let theirs = Program::new("cat").arg(environment(pid)).as_user(SOMEBODY, SOMEBODY).output();
        assert!(theirs.status != 0 && theirs.stdout().is_empty(), "{theirs:?}");
    }
    operates(&session, &guest);
}

/// The tests that a claim names: `room::of::the_test` in backticks.
fn tests_named_in(claim: &str) -> Vec<&str> {
    claim.split('`').skip(1).step_by(2).filter(|quoted| quoted.contains("::")).collect()
}

/// Whether there is a test of this name: of the suite, in the file of its path; or of a property.
fn is_there(name: &str) -> bool {
    let (room, test) = name.rsplit_once("::").unwrap();
    let file = format!("{}.rs", room.replace("::", "/"));
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = |path: &str| fs::read_to_string(top.join(path)).unwrap_or_default();
    if room == "properties" {
        return source("src/properties.rs").contains(&format!("\n        {test}: ["));
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
