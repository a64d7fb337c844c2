//! The main loop of the guard process.

use std::env;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use rustix::io::Errno;

use crate::audit::Event;
use crate::guard::message::GuardMessage;
use crate::guard::next_reader::name_next_reader;
use crate::guard::state::GuardState;
use crate::messages::{GOODBYE_TIME, Messages};
use crate::session::handoff::{self, ACCEPT_TIME};
use crate::session::listener::{ClientRequest, Listener, refuse};
use crate::session::{client::Client, registry::SessionSocket};
use crate::user_name::Unasked;
use crate::{audit, poll, seqpacket, terminal, test_point};

const EXIT_TIME: Duration = Duration::from_secs(1);

const LOST_RACE: &str = "another took it over at the same moment";

/// Runs until the session at the other end of `socket` says goodbye or dies.
pub(super) fn run(session: i32, socket: OwnedFd) {
    detach();
    let _unasked = Unasked::begin();
    let mut state = GuardState::of(session);
    let mut listener: Option<Listener> = None;
    loop {
        wait(&socket, listener.as_ref());
        match seqpacket::receive(&socket) {
            Ok(Some((GuardMessage::Goodbye, _))) => {
                return state.close_after_goodbye(socket);
            }
            Ok(Some((message, mut descriptors))) => {
                if let Some(socket) = state.record(message, descriptors.pop()) {
                    // The session created the socket, and removes its name.
                    let socket = SessionSocket::received(socket, PathBuf::new());
                    listener = Listener::open(socket).ok().or(listener);
                }
                continue;
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(None) | Err(_) => break,
        }
        if let Some((newcomer, client)) =
            listener.as_mut().and_then(|listener| first_newcomer(listener, &state.name))
            && end_session(session, &socket, &mut state)
        {
            hand_over(session, &mut state, newcomer, &client);
            break;
        }
    }
    test_point::reached("guard-alone");
    state.restore_terminal();
    if let Some(listener) = listener.as_mut().filter(|_| !state.is_handed_over()) {
        name_next_reader(listener, &mut state);
    }
    state.close_after_death(socket);
}

/// All signals are blocked, and not only ignored, so that the kernel also lets a background process
/// set the terminal (SIGTTOU).
fn detach() {
    let _ = rustix::thread::set_name(c"vconsole-guard");
    terminal::forget();
    // It fails only for the leader of a process group, which is as good.
    let _ = rustix::process::setsid();
    let _ = env::set_current_dir("/");
}

fn wait(socket: &OwnedFd, listener: Option<&Listener>) {
    let other = listener.map_or(socket.as_fd(), Listener::descriptor);
    let mut fds = [poll::readable(socket), poll::readable(&other)];
    // After an error both are looked at without waiting.
    let _ = poll::wait(&mut fds, listener.and_then(Listener::next_look));
}

fn first_newcomer(listener: &mut Listener, console: &str) -> Option<(OwnedFd, Client)> {
    let mut first = None;
    for request in listener.look() {
        match request {
            ClientRequest::Takeover { socket, client, only_if_reading: false }
                if first.is_none() =>
            {
                first = Some((socket, client));
            }
            // A viewer has noticed before us that the session died: it asks again.
            ClientRequest::Takeover { socket, only_if_reading: true, .. } => {
                handoff::keep(&socket);
            }
            ClientRequest::Takeover { socket, .. } => refuse(&socket, LOST_RACE),
            ClientRequest::Unauthorized(peer) => {
                audit::record(console, &Event::notable("peer-refused").with("peer", peer));
            }
            ClientRequest::Watch { .. } => {}
        }
    }
    first
}

/// The session is our parent while it lives. Reads what the session still told us.
fn end_session(session: i32, socket: &OwnedFd, state: &mut GuardState) -> bool {
    test_point::reached("guard-called");
    if getppid().as_raw() == session {
        let _ = kill(Pid::from_raw(session), Signal::SIGKILL);
    }
    let deadline = Instant::now() + EXIT_TIME;
    while poll::wait_readable(socket, Some(deadline)) {
        match seqpacket::receive(socket) {
            Ok(Some((message, mut descriptors))) => {
                state.record(message, descriptors.pop());
            }
            Err(Errno::AGAIN) => {}
            Ok(None) | Err(_) => return true,
        }
    }
    false
}

fn hand_over(session: i32, state: &mut GuardState, newcomer: OwnedFd, client: &Client) {
    test_point::reached("guard-giving");
    // The session may have handed it over to another, and died before it said so.
    if state.is_handed_over() {
        return refuse(&newcomer, LOST_RACE);
    }
    let console = state.console();
    if console.is_some_and(|it| {
        handoff::send(&newcomer, it, [&[], &[]], None, Instant::now() + ACCEPT_TIME).is_ok()
    }) {
        state.offer_to(newcomer);
    }
    test_point::reached("guard-given");
    if let Some(terminal) = state.restore_terminal() {
        let mut messages = Messages::on(&terminal);
        messages.info(format_args!(
            "taken over by {client}: this session did not answer, and was ended"
        ));
        messages.flush(GOODBYE_TIME);
    }
    if state.is_handed_over() {
        let event = Event::notable("taken-over").with("by", client).with("ended", session);
        audit::record(&state.name, &event);
    }
}
