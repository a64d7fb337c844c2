//! What must hold of a session's socket, whatever comes in: no packet and no descriptor makes anybody
//! crash, wait or keep what was sent along.

#![allow(clippy::missing_panics_doc, reason = "a property that is broken panics")]

use std::fs::File;
use std::io::{IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};

use serde::Deserialize as _;

use super::door::{Call, understand};
use super::handover::{Gift, Outcome, TO_TAKE_IT, outcome};
use super::protocol::{Answer, Place, Request, VERSION};
use crate::wire::{self, Peer};

/// The two ends of a line.
fn line() -> Option<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).ok()
}

/// Sends a packet with `count` copies of a descriptor, whatever the protocol says of it.
fn send(to: &OwnedFd, packet: &[u8], descriptor: BorrowedFd<'_>, count: usize) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = vec![descriptor; count];
    if count > 0 {
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(to, &[IoSlice::new(packet)], &mut ancillary, flags).is_ok()
}

/// Any packet with any number of descriptors, at each place where one is read.
pub fn message(bytes: &[u8]) {
    let (&[how, ..], packet) = bytes.split_at(bytes.len().min(1)) else { return };
    let Some((watched, sent)) = line() else { return };
    let Some((ours, theirs)) = line() else { return };
    if !send(&theirs, packet, sent.as_fd(), usize::from(how % 4)) {
        return;
    }
    drop(sent);
    match how / 4 % 4 {
        0 => drop(wire::receive::<Request>(&ours)),
        1 => drop(wire::receive::<Answer>(&ours)),
        2 => {
            let taken = outcome(&ours, TO_TAKE_IT) == Outcome::Taken;
            let done = matches!(wire::receive(&ours), Ok(Some((Request::Done, _))));
            assert_eq!(taken, done, "a look at a message is not the message");
        }
        _ => is_understood_or_refused(packet, ours, &theirs),
    }
    // Nobody has the descriptor any more that came along: its other end hangs up.
    assert!(wire::wait(&watched, Some(Instant::now() + Duration::from_secs(5))), "it is kept");
    assert_eq!(rustix::io::read(&watched, &mut [0; 1]), Ok(0));
}

fn is_understood_or_refused(packet: &[u8], ours: OwnedFd, theirs: &OwnedFd) {
    let Ok(peer) = Peer::of(&ours) else { return };
    let said = serde_json::from_slice::<serde_json::Value>(packet);
    let request = said.and_then(Request::deserialize);
    let call = understand(ours, peer);
    if let Some(call) = &call {
        let (
            Ok(Request::Takeover { version, about, .. } | Request::Watch { version, about, .. }),
            Call::Takeover { visitor, .. } | Call::Watch { visitor, .. },
        ) = (request, call)
        else {
            panic!("{call:?} was not said");
        };
        assert_eq!((version, &about.shortened()), (VERSION, &visitor.about));
        crate::properties::is_harmless(&visitor.to_string());
        assert_eq!(wire::receive::<Answer>(theirs).err(), Some(Errno::AGAIN), "answered too early");
    } else {
        let refused = matches!(
            wire::receive(theirs),
            Ok(Some((Answer::Refused(_) | Answer::Unsupported { .. }, _)))
        );
        let silent = packet.is_empty() || matches!(request, Ok(Request::Done));
        assert!(refused || silent, "neither understood nor refused: {packet:?}");
    }
}

/// What a giver sends for a console: any descriptors, any lengths. Nothing waits, and what is taken is
/// as long as it is said to be.
pub fn gift(bytes: &[u8]) {
    let (&[console, file, size, ..], rest) = bytes.split_at(bytes.len().min(3)) else { return };
    let number = |at: usize| {
        let bytes = rest.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(u64::from(size), u64::from_le_bytes)
    };
    let (typed, printed) = (number(0), number(8));
    let content = rest.repeat(1 + usize::from(size % 8));
    let Some((line, _other)) = line() else { return };
    let descriptors = [console, file].into_iter().filter_map(|kind| any_file(kind, &content));
    let descriptors: Vec<OwnedFd> = descriptors.collect();
    let two = descriptors.len() == 2;
    let whole = typed.checked_add(printed).is_some_and(|it| it <= content.len() as u64);
    let at = if size & 2 == 0 { number(16) } else { u64::MAX - number(16) };
    let tape = (size & 1 == 1).then_some(Place { reel: 7, at });
    // A console is a device, and open both ways.
    let sound = two && whole && file % 6 == 0 && console % 6 == 2;
    match Gift::open(line, descriptors, [typed, printed], tape) {
        Ok(mut gift) => {
            if let Some(mut tape) = gift.tape.take() {
                let (end, kept) = (tape.end().at, tape.all_from(tape.oldest()));
                assert!(content.ends_with(&kept), "a tape of something else");
                tape.record(&content);
                assert_eq!(tape.end().at, end + content.len() as u64);
            }
            let (_, _, for_console, for_terminal) = gift.into_parts();
            let all = [for_console.clone(), for_terminal].concat();
            assert!(two && whole && content.starts_with(&all), "{typed} and {printed} bytes");
            assert_eq!(for_console.len() as u64, typed);
            assert_eq!(all.len() as u64, typed + printed);
        }
        Err(_) => assert!(!sound, "a sound gift was declined"),
    }
}

/// A descriptor of some kind; none of one.
fn any_file(kind: u8, content: &[u8]) -> Option<OwnedFd> {
    let open =
        |path: &str, flags| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).ok();
    match kind % 6 {
        0 => {
            let mut file = File::from(memfd_create("properties", MemfdFlags::CLOEXEC).ok()?);
            file.write_all(content).ok()?;
            Some(file.into())
        }
        1 => Some(std::io::pipe().ok()?.0.into()),
        2 => open("/dev/zero", OFlags::RDWR),
        3 => open("/", OFlags::RDONLY),
        4 => open("/dev/null", OFlags::PATH),
        _ => None,
    }
}
