//! Who answers in a session's place, and not as a session does.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, accept_with,
    getsockname, recv, sendmsg,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::Runtime;
use crate::harness::{Guest, Locks, Output, Piped, Program, Vconsole};

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
