//! The viewers of a session: they see what its operator sees, and never slow it down.
//!
//! A viewer has a position in the scrollback and a pipe. What the pipe does not take stays in the
//! scrollback; a viewer that falls behind its oldest byte is told how many bytes it missed.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, retry_on_intr, write};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{Resource, getrlimit};

use crate::seqpacket;
use crate::session::client::Client;
use crate::session::protocol::{ClientMessage, EndReason, Reply, StreamPos};
use crate::session::scrollback::{LONG, SHORT, Scrollback};

/// The shortest time between two fillings of the pipes.
const TICK: Duration = Duration::from_millis(20);
/// Bytes for one viewer per tick (1 MB/s), and for all together (16 MB/s).
const FOR_ONE: usize = 20_000;
const FOR_ALL: usize = 320_000;
/// The shortest time between two reports of missed bytes to a viewer.
const BETWEEN_WORDS: Duration = Duration::from_secs(1);
/// The most viewers of a session, however many descriptors it has.
const MOST: u64 = 500;
/// The size of all pipes together when they are enlarged at the end, in bytes.
const FOR_THE_REST: usize = 16 << 20;
/// The default size of a pipe (pipe(7)).
const PIPE: usize = 64 * 1024;
/// How long the long scrollback is kept without a viewer.
const EMPTY_FOR: Duration = Duration::from_secs(10);
/// Descriptors that are kept for other things than viewers.
const OTHER_DESCRIPTORS: u64 = 128;
/// Descriptors per viewer, each with its own epoll token: the socket, then the pipe.
const ENDS: u64 = 2;

#[derive(Debug)]
pub(crate) struct Broadcaster {
    pub(crate) scrollback: Scrollback,
    viewers: BTreeMap<u64, Viewer>,
    next: u64,
    events: OwnedFd,
    /// The pipes are not filled before this time.
    feed_at: Instant,
    /// When to keep the short scrollback only, if no viewer comes.
    shorten_at: Option<Instant>,
}

#[derive(Debug)]
struct Viewer {
    who: Client,
    socket: OwnedFd,
    pipe: OwnedFd,
    /// The position of the next byte for the pipe.
    at: u64,
    full: bool,
    /// The number of missed bytes that the viewer was not told of.
    missed: u64,
    /// The viewer is not told of them before this time.
    tell_at: Instant,
}

impl Broadcaster {
    pub(crate) fn open(mut scrollback: Scrollback) -> io::Result<Self> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let now = Instant::now();
        // The viewers of the operator before us are on their way.
        let goes_on = scrollback.end().offset > 0;
        if goes_on {
            scrollback.keep(LONG);
        }
        let shorten_at = goes_on.then(|| now + EMPTY_FOR);
        Ok(Self { scrollback, viewers: BTreeMap::new(), next: 0, events, feed_at: now, shorten_at })
    }

    pub(crate) fn write(&mut self, printed: &[u8]) {
        self.scrollback.record(printed);
    }

    pub(crate) fn viewers(&self) -> impl Iterator<Item = &Client> {
        self.viewers.values().map(|viewer| &viewer.who)
    }

    /// Adds a viewer. On failure, returns the reason in a sentence for the client.
    pub(crate) fn subscribe(
        &mut self,
        socket: OwnedFd,
        who: Client,
        from: Option<StreamPos>,
    ) -> Result<(), (OwnedFd, String)> {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let most = (limit.saturating_sub(OTHER_DESCRIPTORS) / ENDS).min(MOST);
        if most == 0 {
            return Err((socket, "it has no descriptors for those who watch".to_owned()));
        }
        if self.viewers.len() as u64 >= most {
            return Err((socket, format!("{most} watch already")));
        }
        let (theirs, pipe) = match pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK) {
            Ok(pipe) => pipe,
            Err(error) => return Err((socket, format!("there is no pipe: {error}"))),
        };
        self.scrollback.keep(LONG);
        let end = self.scrollback.end();
        let (at, missed) = match from {
            Some(from) if from.stream == end.stream && from.offset <= end.offset => {
                let at = from.offset.max(self.scrollback.oldest());
                (at, at - from.offset)
            }
            // The other stream ended before this one began: all of this one is new to the viewer.
            Some(_) => (self.scrollback.oldest(), self.scrollback.oldest()),
            None => (self.scrollback.oldest().max(end.offset.saturating_sub(SHORT as u64)), 0),
        };
        // The bytes missed until now are reported later with all others: so start before them.
        let reply = Reply::Watching { from: StreamPos { offset: at - missed, ..end } };
        let told = seqpacket::send(&socket, &reply, &[theirs.as_fd()]);
        let (wire_token, pipe_token) = (self.next * ENDS, self.next * ENDS + 1);
        let listen = |fd: &OwnedFd, token, flags| {
            epoll::add(&self.events, fd, epoll::EventData::new_u64(token), flags)
        };
        let listening = listen(&socket, wire_token, epoll::EventFlags::IN)
            .and_then(|()| listen(&pipe, pipe_token, epoll::EventFlags::empty()));
        if let Err(error) = told.and_then(|()| Ok(listening?)) {
            return Err((socket, error.to_string()));
        }
        let viewer = Viewer { who, socket, pipe, at, full: false, missed, tell_at: Instant::now() };
        self.viewers.insert(self.next, viewer);
        self.shorten_at = None;
        self.next += 1;
        Ok(())
    }

    /// Becomes readable when a viewer leaves, or its pipe takes more.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// When to look in any case: while there is more for a viewer whose pipe is not full.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        let end = self.scrollback.end().offset;
        let behind = self.viewers.values().any(|viewer| !viewer.full && viewer.at < end);
        // Missed bytes are reported when pipes are filled.
        let reports = self.viewers.values().filter_map(Viewer::word_due);
        let reports = reports.map(|due| due.max(self.feed_at));
        reports.chain(behind.then_some(self.feed_at)).chain(self.shorten_at).min()
    }

    /// Fills the pipes, if it is time. Returns the viewers that have left.
    pub(crate) fn look(&mut self) -> Vec<Client> {
        let now = Instant::now();
        if self.viewers.is_empty() {
            if self.shorten_at.is_some_and(|at| at <= now) {
                self.shorten_at = None;
                self.scrollback.keep(SHORT);
            }
            return Vec::new();
        }
        let mut gone = self.hear();
        if self.feed_at <= now {
            self.feed_at = now + TICK;
            let budget = FOR_ONE.min(FOR_ALL / self.viewers.len());
            for (number, viewer) in &mut self.viewers {
                let was_full = viewer.full;
                match viewer.feed(&self.scrollback, budget) {
                    Ok(()) if viewer.full == was_full => {}
                    Ok(()) => viewer.listen(&self.events, *number),
                    Err(_) => gone.push(*number),
                }
                viewer.tell_what_it_missed(now);
            }
        }
        let gone = gone.into_iter().filter_map(|number| self.viewers.remove(&number));
        let gone: Vec<_> = gone.map(|viewer| viewer.who).collect();
        if self.viewers.is_empty() {
            self.shorten_at = Some(now + EMPTY_FOR);
        }
        gone
    }

    /// Finds the pipes that take more, and returns the viewers that left. Viewers say nothing.
    fn hear(&mut self) -> Vec<u64> {
        let mut events = Vec::with_capacity(64);
        let _ = epoll::wait(&self.events, spare_capacity(&mut events), Some(&Timespec::default()));
        let mut gone = Vec::new();
        for event in events {
            let (token, flags) = (event.data.u64(), event.flags);
            let Some(viewer) = self.viewers.get_mut(&(token / ENDS)) else { continue };
            if token % ENDS == 1 && flags == epoll::EventFlags::OUT {
                viewer.full = false;
                viewer.listen(&self.events, token / ENDS);
            } else if token % ENDS == 1
                || !matches!(seqpacket::receive::<ClientMessage>(&viewer.socket), Err(Errno::AGAIN))
            {
                gone.push(token / ENDS);
            }
        }
        gone
    }

    /// Ends the broadcast: each viewer gets what its pipe still takes, and is told why. After a
    /// takeover nothing is missed here: the viewers continue at the next session.
    pub(crate) fn close(mut self, why: EndReason) {
        let end = self.scrollback.end();
        let size = (FOR_THE_REST / self.viewers.len().max(1)).clamp(PIPE, LONG);
        for viewer in self.viewers.values_mut() {
            if !matches!(why, EndReason::TakenOver { .. }) {
                // Enlarges the pipe to take the whole scrollback, if the system permits.
                let _ = fcntl_setpipe_size(&viewer.pipe, size);
                viewer.full = false;
                let _ = viewer.feed(&self.scrollback, LONG);
                viewer.missed += end.offset - viewer.at;
                viewer.at = end.offset;
            }
            let at = StreamPos { offset: viewer.at, ..end };
            let ended = Reply::Ended { why, at, missed: viewer.missed };
            let _ = seqpacket::send(&viewer.socket, &ended, &[]);
        }
    }
}

impl Viewer {
    /// Writes what the pipe takes, `budget` bytes at most. Fails if nobody reads the pipe any more.
    fn feed(&mut self, scrollback: &Scrollback, mut budget: usize) -> io::Result<()> {
        while !self.full && budget > 0 && self.at < scrollback.end().offset {
            let missed = scrollback.oldest().saturating_sub(self.at);
            self.missed += missed;
            self.at += missed;
            let piece = scrollback.from(self.at, budget);
            let count = match retry_on_intr(|| write(&self.pipe, piece)) {
                Ok(count) => count,
                Err(Errno::AGAIN) => 0,
                Err(error) => return Err(error.into()),
            };
            self.full = count < piece.len();
            self.at += count as u64;
            budget -= count;
        }
        Ok(())
    }

    fn listen(&self, events: &OwnedFd, number: u64) {
        let flags = if self.full { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
        let token = epoll::EventData::new_u64(number * ENDS + 1);
        let _ = epoll::modify(events, &self.pipe, token, flags);
    }

    fn word_due(&self) -> Option<Instant> {
        (self.missed > 0).then_some(self.tell_at)
    }

    fn tell_what_it_missed(&mut self, now: Instant) {
        if self.word_due().is_some_and(|due| due <= now) {
            self.tell_at = now + BETWEEN_WORDS;
            if seqpacket::send(&self.socket, &Reply::Missed(self.missed), &[]).is_ok() {
                self.missed = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::ioctl_fionread;

    use super::*;
    use crate::seqpacket::PeerCredentials;
    use crate::session::protocol::ClientInfo;

    fn comes(
        broadcaster: &mut Broadcaster,
        from: Option<StreamPos>,
    ) -> (OwnedFd, StreamPos, OwnedFd) {
        let (ours, theirs) = seqpacket::pair();
        let peer = PeerCredentials { pid: std::process::id().cast_signed(), uid: 0 };
        let who = Client::at(peer, ClientInfo::default()).unwrap();
        broadcaster.subscribe(ours, who, from).unwrap();
        let answered = seqpacket::receive(&theirs).unwrap();
        let Some((Reply::Watching { from }, mut descriptors)) = answered else { panic!("refused") };
        (theirs, from, descriptors.pop().unwrap())
    }

    fn after_a_takeover() -> Broadcaster {
        Broadcaster::open(Scrollback::going_on(StreamPos { stream: 7, offset: 10 }, b"0123456789"))
            .unwrap()
    }

    #[test]
    fn a_viewer_that_follows_late_after_a_takeover_misses_nothing() {
        let mut broadcaster = after_a_takeover();
        broadcaster.write(&vec![b'x'; 300_000]);
        drop(comes(&mut broadcaster, None));
        assert_eq!(broadcaster.look().len(), 1);
        broadcaster.write(&vec![b'x'; 100_000]);
        assert!(broadcaster.look().is_empty());
        comes(&mut broadcaster, Some(StreamPos { stream: 7, offset: 0 }));
        assert_eq!((broadcaster.viewers.len(), broadcaster.viewers[&1].missed), (1, 0));
    }

    #[test]
    fn a_late_viewer_of_another_stream_is_told_what_is_no_longer_kept() {
        let mut broadcaster = after_a_takeover();
        broadcaster.write(&vec![b'x'; LONG]);
        comes(&mut broadcaster, Some(StreamPos { stream: 8, offset: 1000 }));
        assert_eq!((broadcaster.viewers[&0].at, broadcaster.viewers[&0].missed), (10, 10));
    }

    #[test]
    fn what_is_missed_before_the_subscription_is_counted_once() {
        let mut broadcaster = after_a_takeover();
        broadcaster.write(&vec![b'x'; LONG + 5]);
        for from in [StreamPos { stream: 7, offset: 3 }, StreamPos { stream: 8, offset: 1000 }] {
            let (line, from, pipe) = comes(&mut broadcaster, Some(from));
            broadcaster.feed_at = Instant::now();
            broadcaster.look();
            let told = seqpacket::receive(&line).unwrap();
            let Some((Reply::Missed(missed), _)) = told else { panic!("told nothing") };
            let place = from.offset + missed + ioctl_fionread(&pipe).unwrap();
            assert_eq!(place, broadcaster.viewers.values().last().unwrap().at);
        }
    }

    #[test]
    fn without_viewers_for_a_while_less_is_kept() {
        let mut broadcaster = after_a_takeover();
        broadcaster.write(&vec![b'x'; 300_000]);
        broadcaster.shorten_at = broadcaster.shorten_at.and_then(|at| at.checked_sub(EMPTY_FOR));
        assert!(broadcaster.next_look().is_some_and(|at| at <= Instant::now()));
        broadcaster.look();
        let kept = broadcaster.scrollback.end().offset - broadcaster.scrollback.oldest();
        assert_eq!(kept, SHORT as u64);
        assert_eq!(broadcaster.next_look(), None);
    }

    #[test]
    fn all_together_get_no_more_than_one_console_can_be_made_to_give() {
        let mut broadcaster = after_a_takeover();
        let viewers: Vec<_> = (0..40).map(|_| comes(&mut broadcaster, None)).collect();
        broadcaster.write(&vec![b'x'; 300_000]);
        broadcaster.look();
        broadcaster.look();
        let got: u64 = viewers.iter().map(|(_, _, pipe)| ioctl_fionread(pipe).unwrap()).sum();
        assert!(got > 0 && got <= FOR_ALL as u64, "{got} bytes");
    }

    #[test]
    fn nobody_is_woken_for_a_report_before_it_can_be_sent() {
        let mut broadcaster = after_a_takeover();
        let _viewer = comes(&mut broadcaster, None);
        broadcaster.look();
        broadcaster.viewers.get_mut(&0).unwrap().missed = 9;
        assert!(broadcaster.next_look() >= Some(broadcaster.feed_at));
    }
}
