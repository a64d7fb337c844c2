//! Who answers in a session's place, and not as a session does.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, fcntl_getfl, open};
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, accept_with,
    getsockname, recv, send, sendmsg,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};
use tempfile::TempDir;

use super::hostile::comes_to;
use super::{Runtime, another_build, forced, is_as_new, operates};
use crate::guard::awaited_guard_of;
use crate::harness::{Guest, Locks, Output, Piped, Program, Vconsole, not_root, until};

/// A session that hangs. To who calls at its socket the kernel says that it answers there, and a test
/// does.
pub(super) struct Impostor {
    pub(super) session: Piped,
    listener: OwnedFd,
}

impl Impostor {
    pub(super) fn of(program: Program, runtime: &Runtime) -> Self {
        let program = runtime.of(program).env("VCONSOLE_TEST_HANG", "relay");
        let session = program.attached_to_pipes();
        let [door, _] = runtime.sockets_of(&session);
        let listener = socket_of(&session, &door);
        Self { session, listener }
    }

    /// Waits for a caller, and answers. What the caller said is read, as a session does.
    pub(super) fn answers(&self, answer: &str, descriptors: &[BorrowedFd<'_>]) -> OwnedFd {
        crate::harness::ready(
            &self.listener,
            rustix::event::PollFlags::IN,
            crate::harness::DEADLINE,
        );
        let line = accept_with(&self.listener, SocketFlags::CLOEXEC).unwrap();
        recv(&line, &mut [0_u8; 8192], RecvFlags::empty()).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let text = [IoSlice::new(answer.as_bytes())];
        sendmsg(&line, &text, &mut ancillary, SendFlags::NOSIGNAL).unwrap();
        line
    }
}

/// The socket of a session at `path`, which it has as a descriptor.
fn socket_of(session: &Piped, path: &Path) -> OwnedFd {
    let process = pidfd_open(Pid::from_raw(session.pid()).unwrap(), PidfdFlags::empty()).unwrap();
    let private = path.with_file_name(format!(".{}", session.pid()));
    let is_it = |socket: &OwnedFd| {
        getsockname(socket)
            .ok()
            .and_then(|name| rustix::net::SocketAddrUnix::try_from(name).ok())
            .and_then(|name| name.path_bytes().map(<[u8]>::to_vec))
            .is_some_and(|name| name == private.as_os_str().as_encoded_bytes())
    };
    (3..100)
        .filter_map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok())
        .find(is_it)
        .expect("it has a socket")
}

#[test]
fn what_a_session_says_cannot_drive_the_terminal_of_who_asked() {
    let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
    let fake = Impostor::of(Vconsole::attach(&guest).locks(&locks), &runtime);
    let long = "x".repeat(1000);
    let answer = format!(r#"{{"refused":"\u001b]0;mine\u0007\u001b[2J\r\n\u009bm {long}"}}"#);
    for option in ["--force", "--read-only"] {
        let program = Vconsole::attach(&guest).arg(option).locks(&locks);
        let newcomer = runtime.of(program).piped();
        let _line = fake.answers(&answer, &[]);
        let told: Output = newcomer.output();
        assert_eq!(told.status, 3, "{option}: {told:?}");
        let said = told.stderr();
        assert!(said.contains(r"\x1b]0;mine\x07\x1b[2J\r\n\u{9b}m xxx"), "{option}: {said}");
        assert!(!said.contains(['\x1b', '\x07', '\r', '\u{9b}']), "{option}: {said}");
        assert!(said.contains(&format!("(pid {}, ", fake.session.pid())), "{option}: {said}");
        assert!(said.len() < 1000, "{option}: {said}");
    }
}

/// `new` operates, and the session that it could not ask has ended.
#[track_caller]
fn ends_it(new: &Piped, old: &Piped, status: i32, why: &str, guest: &Guest, locks: &Locks) {
    new.stderr().receives(format!("to vconsole (pid {}, ", old.pid()));
    new.stderr().receives(why);
    new.stderr().receives("connected to");
    assert_eq!(old.wait(), status);
    operates(new, guest, locks);
    guest.say("hello");
    new.stdout().receives("hello");
    new.signal(Signal::TERM);
    assert_eq!(new.wait(), 143);
    is_as_new(guest, locks);
}

#[test]
fn a_session_without_a_socket_is_ended_and_gives_everything_back_itself() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let nowhere = |program: Program| program.env("VCONSOLE_TEST_RUNTIME", "/nonexistent");
    let old = nowhere(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
    old.stderr().receives("cannot create the sockets of this session");
    let new = nowhere(forced(&guest, &locks)).piped();
    ends_it(&new, &old, 143, "sent SIGTERM", &guest, &locks);
}

#[test]
fn a_session_of_another_build_that_cannot_be_asked_is_ended_as_well() {
    // Its file is another than ours: it has a guard, which who only calls itself vconsole has not.
    let (guest, locks, directory) = (Guest::new(), Locks::new(), TempDir::new().unwrap());
    let nowhere = |program: Program| program.env("VCONSOLE_TEST_RUNTIME", "/nonexistent");
    let old = another_build(&directory).arg("attach").arg(&guest).locks(&locks);
    let old = nowhere(old).attached_to_pipes();
    let new = nowhere(forced(&guest, &locks)).piped();
    ends_it(&new, &old, 143, "sent SIGTERM", &guest, &locks);
}

#[test]
fn a_session_that_hangs_and_has_no_guard_is_killed_by_root() {
    // Nobody clears the flag.
    if not_root() {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    let old = Vconsole::attach(&guest).locks(&locks).env("VCONSOLE_TEST_HANG", "relay");
    let old = old.attached_to_pipes();
    let guard = awaited_guard_of(&old);
    crate::guard::kill(guard);
    until("it has no guard", || !crate::harness::is_alive(guard));
    let new = forced(&guest, &locks).piped();
    ends_it(&new, &old, 137, "sent SIGKILL", &guest, &locks);
}

#[test]
fn a_session_of_another_version_is_ended_and_its_guard_gives_everything_back() {
    let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
    let fake = Impostor::of(Vconsole::attach(&guest).locks(&locks), &runtime);
    let new = runtime.of(forced(&guest, &locks)).piped();
    let _line = fake.answers(r#"{"unsupported":{"version":7}}"#, &[]);
    ends_it(&new, &fake.session, 137, "which speaks version 7 of the", &guest, &locks);
}

#[test]
fn who_answers_as_no_session_does_is_ended() {
    for answer in [r#"{"welcome":"to the future"}"#, r#"{"refused":7}"#] {
        let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
        let fake = Impostor::of(Vconsole::attach(&guest).locks(&locks), &runtime);
        let new = runtime.of(forced(&guest, &locks)).piped();
        drop(fake.answers(answer, &[]));
        ends_it(&new, &fake.session, 137, "which cannot be asked", &guest, &locks);
    }
}

#[test]
fn a_newcomer_of_another_version_is_told_ours_whatever_else_it_says() {
    let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
    let session = runtime.of(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
    let [door, _] = runtime.sockets_of(&session);
    for asked in
        [r#"{"takeover":{"version":5,"whoever":["I","am"]}}"#, r#"{"watch":{"version":1}}"#]
    {
        let line = comes_to(&door).unwrap();
        send(&line, asked.as_bytes(), SendFlags::NOSIGNAL).unwrap();
        let mut answer = [0; 200];
        let (count, _) = recv(&line, &mut answer, RecvFlags::empty()).unwrap();
        let answer = String::from_utf8(answer[..count].to_vec()).unwrap();
        assert_eq!(answer, r#"{"unsupported":{"version":4}}"#);
    }
    operates(&session, &guest, &locks);
}

/// The console of `guest`, as a session would give it.
fn gift(guest: &Guest, flags: OFlags) -> OwnedFd {
    let console = open(guest.path(), flags | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
    console.unwrap()
}

const GIFT: &str = r#"{"console":{"typed":0,"printed":0,"kept":0,"scrollback":null}}"#;

#[test]
fn a_console_that_would_make_us_wait_does_not() {
    if not_root() {
        return;
    }
    let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
    let fake = Impostor::of(Vconsole::attach(&guest).locks(&locks), &runtime);
    let new = runtime.of(forced(&guest, &locks)).piped();
    let console = gift(&guest, OFlags::RDWR);
    let _line = fake.answers(GIFT, &[console.as_fd()]);
    new.stderr().receives("connected to");
    assert!(fcntl_getfl(&console).unwrap().contains(OFlags::NONBLOCK));
}

#[test]
fn a_console_that_can_only_be_read_is_none() {
    if not_root() {
        return;
    }
    let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
    let fake = Impostor::of(Vconsole::attach(&guest).locks(&locks), &runtime);
    let new = runtime.of(forced(&guest, &locks)).piped();
    let console = gift(&guest, OFlags::RDONLY);
    let line = fake.answers(GIFT, &[console.as_fd()]);
    drop((console, line));
    ends_it(&new, &fake.session, 137, "does not answer as a session does", &guest, &locks);
}
