//! Sessions that mean no good to those who watch them.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    accept_with, getsockname, recv, send, sendmsg,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use tempfile::TempDir;

use super::super::harness::{DEADLINE, Guest, Locks, Piped, Session, Terminal, Vconsole, ready};
use super::viewer;

const WATCHING: &str = r#"{"watching":{"from":{"stream":7,"offset":0}}}"#;

/// A session that hangs, and a test answers in its place; and somebody who comes to watch it.
struct Fake {
    guest: Guest,
    locks: Locks,
    runtime: TempDir,
    _session: Piped,
    listener: OwnedFd,
}

impl Fake {
    fn new() -> Self {
        let (guest, locks, runtime) = (Guest::new(), Locks::new(), tempfile::tempdir().unwrap());
        let program = Vconsole::attach(&guest).locks(&locks).env("VCONSOLE_TEST_HANG", "relay");
        let session = program.env("VCONSOLE_TEST_RUNTIME", runtime.path()).attached_to_pipes();
        let listener = door_of(&session);
        Self { guest, locks, runtime, _session: session, listener }
    }

    fn is_watched_on(&self, desk: &Terminal) -> Session {
        let viewer = viewer(&self.guest, &self.locks);
        viewer.env("VCONSOLE_TEST_RUNTIME", self.runtime.path()).on(desk)
    }

    /// Waits for a caller, and passes on a pipe or whatever it is.
    fn answers_with(&self, pipe: BorrowedFd<'_>) -> OwnedFd {
        assert!(ready(&self.listener, PollFlags::IN, DEADLINE), "nobody comes");
        let line = accept_with(&self.listener, SocketFlags::CLOEXEC).unwrap();
        recv(&line, &mut [0_u8; 8192], RecvFlags::empty()).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let pipe = [pipe];
        ancillary.push(SendAncillaryMessage::ScmRights(&pipe));
        let text = [IoSlice::new(WATCHING.as_bytes())];
        sendmsg(&line, &text, &mut ancillary, SendFlags::NOSIGNAL).unwrap();
        line
    }
}

/// The socket at which a session listens.
fn door_of(session: &Piped) -> OwnedFd {
    let process = pidfd_open(Pid::from_raw(session.pid()).unwrap(), PidfdFlags::empty()).unwrap();
    // It is bound under a name that only its maker knows, and renamed.
    let name = format!("/.{}", session.pid());
    let is_it = |socket: &OwnedFd| {
        let bound = getsockname(socket).ok().and_then(|name| SocketAddrUnix::try_from(name).ok());
        let bound = bound.and_then(|name| name.path_bytes().map(<[u8]>::to_vec));
        bound.is_some_and(|path| path.ends_with(name.as_bytes()))
    };
    (3..100)
        .filter_map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok())
        .find(is_it)
        .expect("it has a socket")
}

#[track_caller]
fn leaves_by_the_escape_key(viewer: &Session, desk: &Terminal) {
    desk.types("\x1d.");
    assert_eq!(viewer.wait(), 0);
    assert!(!desk.is_raw());
}

#[test]
fn a_pipe_that_makes_its_reader_wait_does_not_hang_the_viewer() {
    let (fake, desk) = (Fake::new(), Terminal::new());
    let viewer = fake.is_watched_on(&desk);
    let (pipe, end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let _line = fake.answers_with(pipe.as_fd());
    desk.shows("watching");
    desk.becomes_raw();
    // Whatever the viewer made of it.
    fcntl_setfl(&pipe, OFlags::empty()).unwrap();
    rustix::io::write(&end, b"shown").unwrap();
    desk.shows("shown");
    leaves_by_the_escape_key(&viewer, &desk);
}

#[test]
fn a_session_that_never_stops_talking_does_not_hang_the_viewer() {
    let (fake, desk) = (Fake::new(), Terminal::new());
    let viewer = fake.is_watched_on(&desk);
    let (pipe, _end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
    let line = fake.answers_with(pipe.as_fd());
    std::thread::scope(|threads| {
        for _ in 0..16 {
            threads.spawn(|| while send(&line, br#"{"missed":0}"#, SendFlags::NOSIGNAL).is_ok() {});
        }
        desk.shows("watching");
        desk.becomes_raw();
        leaves_by_the_escape_key(&viewer, &desk);
    });
}

#[test]
fn what_is_no_pipe_to_read_from_is_not_watched() {
    let (fake, desk) = (Fake::new(), Terminal::new());
    let viewer = fake.is_watched_on(&desk);
    let (pipe, end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let file = tempfile::tempfile().unwrap();
    for wrong in [end.as_fd(), file.as_fd()] {
        drop(fake.answers_with(wrong));
    }
    assert!(!desk.screen_so_far().contains("watching"));
    let _line = fake.answers_with(pipe.as_fd());
    desk.shows("watching");
    leaves_by_the_escape_key(&viewer, &desk);
}
