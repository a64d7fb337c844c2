//! Properties of a session's socket: no packet and no descriptor makes us crash, wait, or keep a
//! descriptor that was sent along.

#![allow(clippy::missing_panics_doc, reason = "a property that is broken panics")]

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize as _;

use crate::seqpacket::{self, PeerCredentials};
use crate::session::handoff::{ACCEPT_TIME, Handoff, MAX_OFFSET, Outcome, outcome};
use crate::session::listener::{ClientRequest, understand};
use crate::session::protocol::{ClientMessage, Reply, StreamPos, VERSION};
use crate::session::wait_queue::{read_ticket, tickets};
use crate::{poll, printable};

/// Sends a packet with `count` copies of a descriptor, even if the protocol has no such message.
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

/// Any packet with any number of descriptors, at each place that reads one.
pub fn message(bytes: &[u8]) {
    let (&[how, ..], packet) = bytes.split_at(bytes.len().min(1)) else { return };
    let ((watched, sent), (ours, theirs)) = (seqpacket::pair(), seqpacket::pair());
    if !send(&theirs, packet, sent.as_fd(), usize::from(how % 4)) {
        return;
    }
    drop(sent);
    match how / 4 % 4 {
        0 => drop(seqpacket::receive::<ClientMessage>(&ours)),
        1 => drop(seqpacket::receive::<Reply>(&ours)),
        2 => {
            let taken = outcome(&ours, Instant::now() + ACCEPT_TIME) == Outcome::Taken;
            let done = matches!(seqpacket::receive(&ours), Ok(Some((ClientMessage::Done, _))));
            assert_eq!(taken, done, "a look at a message is not the message");
        }
        _ => is_understood_or_refused(packet, ours, &theirs),
    }
    // Nothing has the descriptor any more that was sent along: its other end hangs up.
    let deadline = Instant::now() + Duration::from_secs(5);
    assert!(poll::wait_readable(&watched, Some(deadline)), "it is kept");
    assert_eq!(rustix::io::read(&watched, &mut [0; 1]), Ok(0));
}

fn is_understood_or_refused(packet: &[u8], ours: OwnedFd, theirs: &OwnedFd) {
    let Ok(peer) = PeerCredentials::of(&ours) else { return };
    let message =
        serde_json::from_slice::<serde_json::Value>(packet).and_then(ClientMessage::deserialize);
    let request = understand(ours, peer);
    if let Some(request) = &request {
        let (
            Ok(
                ClientMessage::Takeover { version, info, .. }
                | ClientMessage::Watch { version, info, .. },
            ),
            ClientRequest::Takeover { client, .. } | ClientRequest::Watch { client, .. },
        ) = (message, request)
        else {
            panic!("{request:?} was not said");
        };
        assert_eq!((version, &info.shortened()), (VERSION, &client.info));
        printable::is_harmless(&client.to_string());
        let answer = seqpacket::receive::<Reply>(theirs).err();
        assert_eq!(answer, Some(Errno::AGAIN), "answered too early");
    } else {
        let refused = matches!(
            seqpacket::receive(theirs),
            Ok(Some((Reply::Refused(_) | Reply::Unsupported { .. }, _)))
        );
        let silent = packet.is_empty() || matches!(message, Ok(ClientMessage::Done));
        assert!(refused || silent, "neither understood nor refused: {packet:?}");
    }
}

/// Any descriptors, lengths and packets in the place of a console that is handed over. Nothing
/// waits, and what is taken is as long as it is said to be.
pub fn handoff(bytes: &[u8]) {
    let (&[first, second, size, ..], rest) = bytes.split_at(bytes.len().min(3)) else { return };
    let number = |at: usize| {
        let bytes = rest.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(u64::from(size), u64::from_le_bytes)
    };
    let lengths = [number(0), number(8), number(16)];
    let content = rest.repeat(1 + usize::from(size % 8));
    let descriptors: Vec<OwnedFd> = [first, second].into_iter().filter_map(any_file).collect();
    let at = if size & 2 == 0 { number(24) } else { u64::MAX - number(24) };
    let scrollback = (size & 1 == 1).then_some(StreamPos { stream: 7, offset: at });
    let (ours, theirs) = seqpacket::pair();
    // Either three pieces as they should be, or packets of anything.
    let pieces = split(&content, lengths);
    // A console is a device, open for reading and writing.
    let sound =
        pieces.is_some() && descriptors.len() == 1 && [first, second].into_iter().any(is_device);
    let packets = content.chunks(1 + usize::from(size)).map(<[u8]>::to_vec);
    let packets = match &pieces {
        Some(pieces) => pieces.iter().map(|piece| [b"\0", *piece].concat()).collect(),
        None => packets.collect::<Vec<_>>(),
    };
    for packet in packets.iter().filter(|packet| pieces.is_none() || packet.len() > 1) {
        let _ = seqpacket::send_raw(&theirs, &[IoSlice::new(packet)], &[]);
    }
    drop(theirs);
    match Handoff::receive(ours, descriptors, lengths, scrollback, &|| false) {
        Ok(mut handoff) => {
            assert_eq!(
                handoff.scrollback.is_some(),
                scrollback.is_some_and(|it| it.offset <= MAX_OFFSET)
            );
            if let (Some(scrollback), Some(pieces)) = (&mut handoff.scrollback, &pieces) {
                let end = scrollback.end().offset;
                let kept = scrollback.all_from(scrollback.oldest());
                assert!(pieces[2].ends_with(&kept), "a scrollback of something else");
                scrollback.record(&content);
                assert_eq!(scrollback.end().offset, end + content.len() as u64);
            }
            let (_, _, typed, printed) = handoff.into_parts();
            assert_eq!([typed.len() as u64, printed.len() as u64], lengths[..2]);
            assert!(pieces.is_none_or(|pieces| pieces[..2] == [&typed[..], &printed]));
        }
        Err(_) => assert!(!sound, "a sound console was declined"),
    }
}

/// The first three pieces of `content` with these lengths, if it is that long.
fn split(content: &[u8], lengths: [u64; 3]) -> Option<[&[u8]; 3]> {
    let [typed, printed, kept] =
        lengths.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    let (typed, rest) = content.split_at_checked(typed)?;
    let (printed, rest) = rest.split_at_checked(printed)?;
    Some([typed, printed, rest.get(..kept)?])
}

fn is_device(kind: u8) -> bool {
    kind % 6 == 2
}

fn any_file(kind: u8) -> Option<OwnedFd> {
    let open =
        |path: &str, flags| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).ok();
    match kind % 6 {
        0 => Some(memfd_create("properties", MemfdFlags::CLOEXEC).ok()?),
        1 => Some(std::io::pipe().ok()?.0.into()),
        2 => open("/dev/zero", OFlags::RDWR),
        3 => open("/", OFlags::RDONLY),
        4 => open("/dev/null", OFlags::PATH),
        _ => None,
    }
}

/// Each whole line of `/proc/net/unix` counts, and no other.
pub fn wait_queue(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let queue = "vconsole-wait-1/";
    let ticket = "000000000042000000001-4242";
    let found = tickets(&text, queue);
    for ticket in &found {
        assert!(text.contains(&format!("@{queue}{ticket}")), "{ticket} is invented");
        let valid = ticket.len() > 22 && read_ticket(ticket).is_none_or(|(_, pid)| pid >= 0);
        assert!(valid, "{ticket}");
    }
    let line = format!("ffff: 00000002 00000000 00010000 0005 01 99 @{queue}{ticket}");
    let with = tickets(&format!("{text}\n{line}\n"), queue);
    assert_eq!(with.len(), found.len() + 1);
    assert_eq!(with.last().map(String::as_str), Some(ticket));
}
