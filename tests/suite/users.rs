//! Sessions of other users: who may take them over, how they are found, and who is turned away.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, connect, recv, send, socket,
};
use rustix::process::Signal;
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

use super::audit::Log;
use super::harness::{
    Guest, Locks, Piped, Program, SOMEBODY, Terminal, Vconsole, missing, not_root, until,
};

/// Another ordinary user.
const STRANGER: u32 = SOMEBODY - 1;

/// A user with a runtime directory, as a login makes it. No other test may use the number.
const LOGGED_IN: u32 = 64_999;

/// A console of `user`'s, that everybody may open.
fn console_of(user: u32) -> Guest {
    let guest = Guest::new();
    guest.chown(user);
    fs::set_permissions(guest.path(), Permissions::from_mode(0o666)).unwrap();
    guest
}

fn attach(guest: &Guest, locks: &Locks, user: u32) -> Program {
    Vconsole::attach(guest).locks(locks).as_user(user, user)
}

/// Does `what` as another user: in a thread, since to the kernel each has its own.
fn as_user<T: Send>(user: u32, what: impl FnOnce() -> T + Send) -> T {
    let become_them = || {
        let group = Gid::from_raw(user);
        set_thread_res_gid(group, group, group).unwrap();
        let user = Uid::from_raw(user);
        set_thread_res_uid(user, user, user).unwrap();
        what()
    };
    std::thread::scope(|threads| threads.spawn(become_them).join().unwrap())
}

/// Calls at a session's socket.
fn call(path: &Path) -> io::Result<OwnedFd> {
    let line = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
    connect(&line, &SocketAddrUnix::new(path)?)?;
    Ok(line)
}

#[track_caller]
fn is_undisturbed(guest: &Guest, session: &Piped) {
    guest.say("undisturbed");
    session.stdout().receives("undisturbed");
    session.types("typed");
    guest.receives("typed");
}

#[test]
fn another_user_does_not_reach_the_socket() {
    if not_root() {
        return;
    }
    let (guest, locks, log) = (console_of(SOMEBODY), Locks::new(), Log::new());
    let session = log.of(attach(&guest, &locks, SOMEBODY)).attached_to_pipes();
    log.says("event=attached");
    let directory = PathBuf::from(format!("/tmp/vconsole-{SOMEBODY}"));
    for socket in session.socket_names() {
        let socket = directory.join(socket);
        assert!(socket.exists(), "{}", socket.display());
        let refused = as_user(STRANGER, || call(&socket)).unwrap_err();
        assert_eq!(Errno::from_io_error(&refused), Some(Errno::ACCESS));
    }
    is_undisturbed(&guest, &session);
    log.is_silent();
}

#[test]
fn another_user_who_reaches_the_socket_is_turned_away_and_it_is_recorded() {
    if not_root() {
        return;
    }
    let (guest, locks, log) = (console_of(SOMEBODY), Locks::new(), Log::new());
    let runtime = tempfile::tempdir().unwrap();
    fs::set_permissions(runtime.path(), Permissions::from_mode(0o777)).unwrap();
    let session = log.of(attach(&guest, &locks, SOMEBODY));
    let session = session.env("VCONSOLE_TEST_RUNTIME", runtime.path()).attached_to_pipes();
    log.says("event=attached");
    let directory = runtime.path().join(SOMEBODY.to_string());
    let door = directory.join(&session.socket_names()[0]);
    let side_door = door.with_extension("guard");
    // Somebody has opened what was closed.
    for (path, mode) in [(&directory, 0o755), (&door, 0o777), (&side_door, 0o777)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    // By now it has all the descriptors that it needs.
    is_undisturbed(&guest, &session);
    let request = br#"{"takeover":{"version":2,"about":{"host":null,"reason":"mine"}}}"#;
    let files = session.open_files().len();
    for _ in 0..3 {
        let answer = as_user(STRANGER, || {
            let line = call(&door).unwrap();
            let _ = send(&line, request, SendFlags::NOSIGNAL);
            let mut answer = [0; 512];
            let mut hear = || recv(&line, &mut answer, RecvFlags::empty());
            // That nobody reads what it said is reported first.
            let (length, _) = hear().or_else(|_| hear()).unwrap();
            String::from_utf8(answer[..length].to_vec()).unwrap()
        });
        assert_eq!(answer, r#"{"refused":"this session is another user's"}"#);
        let peer =
            format!("event=peer-refused peer=\"pid {} of uid {STRANGER}\"", std::process::id());
        let line = log.says(&peer);
        assert!(
            line.starts_with("<85>") && line.contains(guest.path().to_str().unwrap()),
            "{line}"
        );
    }
    session.stderr().receives("turned away another user: pid ");
    is_undisturbed(&guest, &session);
    // The guard hangs up, with or without a word, and records it as well.
    let end = as_user(STRANGER, || {
        let line = call(&side_door).unwrap();
        let _ = send(&line, request, SendFlags::NOSIGNAL);
        let mut answer = [0; 512];
        let answered = recv(&line, &mut answer, RecvFlags::empty());
        answered.map(|(length, _)| String::from_utf8(answer[..length].to_vec()).unwrap())
    });
    let refused = |answer: &String| answer.is_empty() || answer.starts_with(r#"{"refused":"#);
    assert!(end.as_ref().map_or(true, refused), "{end:?}");
    let line = log.says("event=peer-refused peer=\"pid ");
    assert!(line.contains(guest.path().to_str().unwrap()), "{line}");
    until("nothing of them is left", || session.open_files().len() <= files);
    is_undisturbed(&guest, &session);
    log.is_silent();
}

/// What runs `vconsole` as root by way of another program, after which nothing of the user's
/// environment is left, or not what it was.
fn ways_to_root(attach: &Program) -> Vec<(&'static str, Program)> {
    let line = attach.as_a_shell_would_type_it();
    let cleaned = ["-i", "SUDO_USER=somebody", "SUDO_UID=1000", "HOME=/root", "PATH=/usr/bin:/bin"];
    let misled =
        ["XDG_RUNTIME_DIR=/nonexistent", "HOME=/nonexistent", "TMPDIR=/nonexistent", "USER=nobody"];
    let shell = ["sh", "-c", &line];
    vec![
        ("su -c", Program::new("su").args(["-c", &line, "root"])),
        ("su - -c", Program::new("su").args(["-", "root", "-c", &line])),
        ("as sudo does", Program::new("env").args(cleaned).args(shell)),
        ("misled", Program::new("env").args(misled).args(shell)),
        ("setpriv", Program::new("setpriv").args(["--reuid=0", "--reset-env"]).args(shell)),
    ]
}

#[test]
fn root_by_way_of_su_finds_the_session_of_a_user() {
    if not_root() || missing("su") || missing("setpriv") {
        return;
    }
    let (guest, locks) = (console_of(SOMEBODY), Locks::new());
    let forced = Vconsole::attach(&guest).args(["--force", "--linger", "0"]).locks(&locks);
    for (how, newcomer) in ways_to_root(&forced) {
        let user = attach(&guest, &locks, SOMEBODY).attached_to_pipes();
        let output = newcomer.output();
        assert_eq!(output.status, 0, "{how}: {output:?}");
        let from = format!("over from vconsole (pid {}, ", user.pid());
        assert!(output.stderr().contains(&from), "{how}: {output:?}");
        assert_eq!(user.wait(), 4, "{how}");
        user.stderr().receives("was taken over by vconsole (pid ");
        locks.become_empty();
    }
}

#[test]
fn su_on_a_terminal_takes_over_and_gives_the_terminal_back() {
    if not_root() || missing("su") {
        return;
    }
    let (guest, locks, desk) = (console_of(SOMEBODY), Locks::new(), Terminal::new());
    let user = attach(&guest, &locks, SOMEBODY).attached_to_pipes();
    let before = desk.settings();
    let forced = Vconsole::attach(&guest).arg("--force").locks(&locks);
    let su = Program::new("su").args(["-c", &forced.as_a_shell_would_type_it(), "root"]);
    let session = su.attached_on(&desk);
    assert_eq!(user.wait(), 4);
    desk.types("uptime\r");
    guest.receives("uptime\r");
    desk.types("\x1d.");
    assert_eq!(session.wait(), 0);
    assert_eq!(desk.settings(), before);
    locks.become_empty();
}

/// A runtime directory, as a login makes it, for as long as this lives.
struct Login(PathBuf);

impl Login {
    fn of(user: u32) -> Self {
        let login = Self(PathBuf::from(format!("/run/user/{user}")));
        fs::create_dir_all(&login.0).unwrap();
        chown(&login.0, Some(user), Some(user)).unwrap();
        fs::set_permissions(&login.0, Permissions::from_mode(0o700)).unwrap();
        login
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[test]
fn the_session_of_a_user_who_is_logged_in_is_found_in_their_runtime_directory() {
    if not_root() || missing("su") {
        return;
    }
    let login = Login::of(LOGGED_IN);
    let (guest, locks) = (console_of(LOGGED_IN), Locks::new());
    // Not by this variable, which another user's session has not.
    let user = attach(&guest, &locks, LOGGED_IN).env("XDG_RUNTIME_DIR", "/nonexistent");
    let user = user.attached_to_pipes();
    let door = login.0.join("vconsole").join(&user.socket_names()[0]);
    assert!(door.exists(), "{}", door.display());
    let forced = Vconsole::attach(&guest).args(["--force", "--linger", "0"]).locks(&locks);
    let output =
        Program::new("su").args(["-c", &forced.as_a_shell_would_type_it(), "root"]).output();
    assert_eq!(output.status, 0, "{output:?}");
    assert_eq!(user.wait(), 4);
    until("its sockets are gone", || fs::read_dir(door.parent().unwrap()).unwrap().count() == 0);
    // And the user finds their own.
    let user = attach(&guest, &locks, LOGGED_IN).attached_to_pipes();
    let again = attach(&guest, &locks, LOGGED_IN).arg("--force").attached_to_pipes();
    assert_eq!(user.wait(), 4);
    again.signal(Signal::TERM);
    assert_eq!(again.wait(), 143);
}

#[test]
fn a_user_is_refused_the_session_of_root_and_of_another_user() {
    if not_root() {
        return;
    }
    let (guest, locks) = (console_of(SOMEBODY), Locks::new());
    for (whose, program) in [
        ("root's", Vconsole::attach(&guest).locks(&locks)),
        ("another's", attach(&guest, &locks, STRANGER)),
    ] {
        let session = program.attached_to_pipes();
        let refused = attach(&guest, &locks, SOMEBODY).arg("--force").output();
        assert_eq!(refused.status, 3, "{whose}: {refused:?}");
        let why = "it is another user's: root can take it over";
        assert!(refused.stderr().contains(why), "{whose}: {refused:?}");
        let hint = "hint: sudo vconsole attach --force";
        assert!(refused.stderr().contains(hint), "{whose}: {refused:?}");
        assert!(refused.stderr().contains(&format!("vconsole (pid {}, ", session.pid())));
        is_undisturbed(&guest, &session);
        session.signal(Signal::TERM);
        assert_eq!(session.wait(), 143);
        locks.become_empty();
    }
}

/// A directory service that never answers: a FIFO that nobody writes to in the place of the file of
/// users, in a mount namespace of its own.
#[test]
fn a_directory_service_that_does_not_answer_stops_no_session() {
    if not_root() || missing("unshare") {
        return;
    }
    let (guest, locks, directory) = (Guest::new(), Locks::new(), tempfile::tempdir().unwrap());
    let users = directory.path().join("passwd");
    assert_eq!(Program::new("mkfifo").arg(&users).output().status, 0);
    let script = format!("mount --bind {} /etc/passwd && exec \"$@\"", users.display());
    let attach = Vconsole::attach(&guest).locks(&locks);
    let session = attach.under(["unshare", "-m", "sh", "-c", &script, "sh"]).attached_to_pipes();
    // A user's process that root has given the console.
    let open = format!(
        "exec setpriv --reuid {STRANGER} --clear-groups sleep 1000 3<>{}",
        guest.path().display()
    );
    let intruder = Program::new("sh").args(["-c", &open]).piped();
    session.stderr().receives(format!(", {STRANGER}) has opened the console as well"));
    guest.say("still relayed");
    session.stdout().receives("still relayed");
    let viewer = Vconsole::attach(&guest).arg("--read-only").locks(&locks).piped();
    viewer.stderr().receives("watching");
    drop(intruder);
    let new = Vconsole::attach(&guest).arg("--force").locks(&locks).attached_to_pipes();
    assert_eq!(session.wait(), 4);
    drop((viewer, new));
}
