//! Those who watch a session: they see what its driver sees, and never hold it up.
//!
//! Each is no more than a place on the tape, and a pipe. What a pipe does not take stays on the tape; who
//! falls off its end is told how much was missed. There is a limit to what one gets, and to what all get
//! together.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, retry_on_intr, write};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{Resource, getrlimit};

use super::Visitor;
use super::protocol::{Answer, Leave, Place, Request};
use super::tape::{LONG, SHORT, Tape};
use crate::wire;

/// The pipes are filled no more often than so.
const TICK: Duration = Duration::from_millis(20);
/// One viewer gets so many bytes at a tick, which is 1 MB/s.
const FOR_ONE: usize = 20_000;
/// All together so many, which is 16 MB/s.
const FOR_ALL: usize = 320_000;
/// Who misses something again and again is told no more often than so.
const BETWEEN_WORDS: Duration = Duration::from_secs(1);
/// More than so many do not watch one session, however many descriptors it has.
const MOST: u64 = 500;
/// All pipes together are made so large at the end at most, so that what is left fits into them.
const FOR_THE_REST: usize = 16 << 20;
/// A pipe's own size (pipe(7)).
const PIPE: usize = 64 * 1024;
/// The tape is kept long for so long after the last viewer left, or before the first one came to who
/// took the console over.
const EMPTY_FOR: Duration = Duration::from_secs(10);
/// So many descriptors are for other things than viewers, who need two each.
const OTHER_DESCRIPTORS: u64 = 128;

/// Those who watch a session.
#[derive(Debug)]
pub struct Gallery {
    tape: Tape,
    viewers: BTreeMap<u64, Viewer>,
    next: u64,
    /// Of the viewers' ends.
    events: OwnedFd,
    /// From when on the pipes may be filled again.
    feed_at: Instant,
    /// When the tape gets short, if nobody comes till then.
    shorten_at: Option<Instant>,
}

#[derive(Debug)]
struct Viewer {
    who: Visitor,
    wire: OwnedFd,
    pipe: OwnedFd,
    /// The next byte for the pipe.
    at: u64,
    /// The pipe takes no more for now.
    full: bool,
    /// So many bytes were missed and it was not told.
    missed: u64,
    /// From when on it may be told.
    tell_at: Instant,
}

/// What happens at a viewer's two ends, as numbers among the events.
const ENDS: u64 = 2;

impl Gallery {
    /// An empty one, that goes on with a tape.
    pub fn open(mut tape: Tape) -> io::Result<Self> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let now = Instant::now();
        // Those who watched the driver before us are on their way.
        let goes_on = tape.end().at > 0;
        if goes_on {
            tape.keep(LONG);
        }
        let shorten_at = goes_on.then(|| now + EMPTY_FOR);
        Ok(Self { tape, viewers: BTreeMap::new(), next: 0, events, feed_at: now, shorten_at })
    }

    /// What the console printed.
    pub fn hears(&mut self, printed: &[u8]) {
        self.tape.record(printed);
    }

    /// The tape, for who drives next.
    #[must_use]
    pub fn tape(&self) -> &Tape {
        &self.tape
    }

    /// Those who watch now.
    pub fn viewers(&self) -> impl Iterator<Item = &Visitor> {
        self.viewers.values().map(|viewer| &viewer.who)
    }

    /// Lets somebody watch. Gives why not, in a sentence for them.
    pub fn seat(
        &mut self,
        wire: OwnedFd,
        who: Visitor,
        from: Option<Place>,
    ) -> Result<(), (OwnedFd, String)> {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let most = (limit.saturating_sub(OTHER_DESCRIPTORS) / ENDS).min(MOST);
        if most == 0 {
            return Err((wire, "it has no descriptors for those who watch".to_owned()));
        }
        if self.viewers.len() as u64 >= most {
            return Err((wire, format!("{most} watch already")));
        }
        let (theirs, pipe) = match pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK) {
            Ok(pipe) => pipe,
            Err(error) => return Err((wire, format!("there is no pipe: {error}"))),
        };
        self.tape.keep(LONG);
        let end = self.tape.end();
        let (at, missed) = match from {
            Some(from) if from.reel == end.reel && from.at <= end.at => {
                let at = from.at.max(self.tape.oldest());
                (at, at - from.at)
            }
            // It ended before this one began: all of this one is news, also what it keeps no more.
            Some(_) => (self.tape.oldest(), self.tape.oldest()),
            None => (self.tape.oldest().max(end.at.saturating_sub(SHORT as u64)), 0),
        };
        // What was missed by now is told later, as all that is missed: the place is before it.
        let answer = Answer::Watching { from: Place { at: at - missed, ..end } };
        let told = wire::send(&wire, &answer, &[theirs.as_fd()]);
        let (wire_token, pipe_token) = (self.next * ENDS, self.next * ENDS + 1);
        let listen = |fd: &OwnedFd, token, flags| {
            epoll::add(&self.events, fd, epoll::EventData::new_u64(token), flags)
        };
        let listening = listen(&wire, wire_token, epoll::EventFlags::IN)
            .and_then(|()| listen(&pipe, pipe_token, epoll::EventFlags::empty()));
        if let Err(error) = told.and_then(|()| Ok(listening?)) {
            return Err((wire, error.to_string()));
        }
        let viewer = Viewer { who, wire, pipe, at, full: false, missed, tell_at: Instant::now() };
        self.viewers.insert(self.next, viewer);
        self.shorten_at = None;
        self.next += 1;
        Ok(())
    }

    /// What becomes readable when a viewer leaves, or takes more.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// When to look in any case: while there is more for somebody who takes it.
    #[must_use]
    pub fn next_look(&self) -> Option<Instant> {
        let behind =
            self.viewers.values().any(|viewer| !viewer.full && viewer.at < self.tape.end().at);
        let feed = behind.then_some(self.feed_at);
        // Words are said when pipes are filled.
        let words = self.viewers.values().filter_map(Viewer::word_due);
        let words = words.map(|due| due.max(self.feed_at));
        words.chain(feed).chain(self.shorten_at).min()
    }

    /// Fills the pipes, as far as their time has come. Gives those who have left.
    pub fn look(&mut self) -> Vec<Visitor> {
        let now = Instant::now();
        if self.viewers.is_empty() {
            self.shorten(now);
            return Vec::new();
        }
        let mut gone = self.hear();
        if self.feed_at <= now {
            self.feed_at = now + TICK;
            let budget = FOR_ONE.min(FOR_ALL / self.viewers.len());
            for (number, viewer) in &mut self.viewers {
                match viewer.feed(&self.tape, budget) {
                    Ok(was_full) if was_full == viewer.full => {}
                    Ok(_) => viewer.listen(&self.events, *number),
                    Err(_) => gone.push(*number),
                }
                viewer.tell_what_it_missed(now);
            }
        }
        let gone =
            gone.into_iter().filter_map(|number| self.viewers.remove(&number)).collect::<Vec<_>>();
        if self.viewers.is_empty() {
            self.shorten_at = Some(now + EMPTY_FOR);
        }
        gone.into_iter().map(|viewer| viewer.who).collect()
    }

    /// Keeps less, where nobody has watched for a while.
    fn shorten(&mut self, now: Instant) {
        if self.shorten_at.is_some_and(|at| at <= now) {
            self.shorten_at = None;
            self.tape.keep(SHORT);
        }
    }

    /// Sees which pipes take more, and who has left. Nothing is ever said by a viewer.
    fn hear(&mut self) -> Vec<u64> {
        let mut events = Vec::with_capacity(64);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let _ = epoll::wait(&self.events, spare_capacity(&mut events), Some(&at_once));
        let mut gone = Vec::new();
        for event in events {
            let (token, flags) = (event.data.u64(), event.flags);
            let Some(viewer) = self.viewers.get_mut(&(token / ENDS)) else { continue };
            if token % ENDS == 1 && flags == epoll::EventFlags::OUT {
                viewer.full = false;
                viewer.listen(&self.events, token / ENDS);
            } else if token % ENDS == 1
                || !matches!(wire::receive::<Request>(&viewer.wire), Err(Errno::AGAIN))
            {
                gone.push(token / ENDS);
            }
        }
        gone
    }

    /// Ends it: everybody gets what their pipe still takes, and is told why. Where another session goes
    /// on with the tape they have time to get it there.
    pub fn close(mut self, why: Leave) {
        let end = self.tape.end();
        let size = (FOR_THE_REST / self.viewers.len().max(1)).clamp(PIPE, LONG);
        for viewer in self.viewers.values_mut() {
            if !matches!(why, Leave::TakenOver { .. }) {
                // There is no next time: all of the tape has room in it then, if the system permits.
                let _ = fcntl_setpipe_size(&viewer.pipe, size);
                viewer.full = false;
                let _ = viewer.feed(&self.tape, LONG);
                viewer.missed += end.at - viewer.at;
                viewer.at = end.at;
            }
            let at = Place { at: viewer.at, ..end };
            let ended = Answer::Ended { why, at, missed: viewer.missed };
            let _ = wire::send(&viewer.wire, &ended, &[]);
        }
    }
}

impl Viewer {
    /// Writes what the pipe takes, `budget` bytes at most. An error: nobody reads it any more.
    fn feed(&mut self, tape: &Tape, mut budget: usize) -> io::Result<bool> {
        let was_full = self.full;
        while !self.full && budget > 0 && self.at < tape.end().at {
            let missed = tape.oldest().saturating_sub(self.at);
            self.missed += missed;
            self.at += missed;
            let piece = tape.from(self.at, budget);
            let count = match retry_on_intr(|| write(&self.pipe, piece)) {
                Ok(count) => count,
                Err(Errno::AGAIN) => 0,
                Err(error) => return Err(error.into()),
            };
            self.full = count < piece.len();
            self.at += count as u64;
            budget -= count;
        }
        Ok(was_full)
    }

    /// Waits for room in the pipe, where there is none.
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
            if wire::send(&self.wire, &Answer::Missed(self.missed), &[]).is_ok() {
                self.missed = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::ioctl_fionread;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::session::protocol::About;
    use crate::wire::Peer;

    /// Somebody who watches: their end of the line, and their pipe.
    fn comes(gallery: &mut Gallery, from: Option<Place>) -> (OwnedFd, OwnedFd) {
        let (line, _, pipe) = sits_down(gallery, from);
        (line, pipe)
    }

    /// The same, with the place from which it is told to see.
    fn sits_down(gallery: &mut Gallery, from: Option<Place>) -> (OwnedFd, Place, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let peer = Peer { pid: std::process::id().cast_signed(), uid: 0 };
        let who = Visitor::at(peer, About::default()).unwrap();
        gallery.seat(ours, who, from).unwrap();
        let answered = wire::receive(&theirs).unwrap();
        let Some((Answer::Watching { from }, mut descriptors)) = answered else {
            panic!("no seat")
        };
        (theirs, from, descriptors.pop().unwrap())
    }

    fn after_a_takeover() -> Gallery {
        Gallery::open(Tape::going_on(Place { reel: 7, at: 10 }, b"0123456789")).unwrap()
    }

    #[test]
    fn who_follows_late_after_a_takeover_misses_nothing() {
        let mut gallery = after_a_takeover();
        gallery.hears(&vec![b'x'; 300_000]);
        // The first of them leaves at once.
        drop(comes(&mut gallery, None));
        assert_eq!(gallery.look().len(), 1);
        gallery.hears(&vec![b'x'; 100_000]);
        assert!(gallery.look().is_empty());
        comes(&mut gallery, Some(Place { reel: 7, at: 0 }));
        assert_eq!((gallery.viewers.len(), gallery.viewers[&1].missed), (1, 0));
    }

    #[test]
    fn who_comes_late_from_another_tape_is_told_what_this_one_keeps_no_more() {
        let mut gallery = after_a_takeover();
        gallery.hears(&vec![b'x'; LONG]);
        comes(&mut gallery, Some(Place { reel: 8, at: 1000 }));
        assert_eq!((gallery.viewers[&0].at, gallery.viewers[&0].missed), (10, 10));
    }

    #[test]
    fn what_is_missed_on_sitting_down_is_counted_once() {
        let mut gallery = after_a_takeover();
        gallery.hears(&vec![b'x'; LONG + 5]);
        for from in [Place { reel: 7, at: 3 }, Place { reel: 8, at: 1000 }] {
            let (line, from, pipe) = sits_down(&mut gallery, Some(from));
            gallery.feed_at = Instant::now();
            gallery.look();
            let told = wire::receive(&line).unwrap();
            let Some((Answer::Missed(missed), _)) = told else { panic!("told nothing") };
            let place = from.at + missed + ioctl_fionread(&pipe).unwrap();
            assert_eq!(place, gallery.viewers.values().last().unwrap().at);
        }
    }

    #[test]
    fn where_nobody_watches_for_a_while_less_is_kept() {
        let mut gallery = after_a_takeover();
        gallery.hears(&vec![b'x'; 300_000]);
        gallery.shorten_at = gallery.shorten_at.and_then(|at| at.checked_sub(EMPTY_FOR));
        assert!(gallery.next_look().is_some_and(|at| at <= Instant::now()));
        gallery.look();
        assert_eq!(gallery.tape.end().at - gallery.tape.oldest(), SHORT as u64);
        assert_eq!(gallery.next_look(), None);
    }

    #[test]
    fn all_together_get_no_more_than_one_console_can_be_made_to_give() {
        let mut gallery = after_a_takeover();
        let viewers: Vec<_> = (0..40).map(|_| comes(&mut gallery, None)).collect();
        gallery.hears(&vec![b'x'; 300_000]);
        gallery.look();
        gallery.look();
        let got: u64 = viewers.iter().map(|(_, pipe)| ioctl_fionread(pipe).unwrap()).sum();
        assert!(got > 0 && got <= FOR_ALL as u64, "{got} bytes");
    }

    #[test]
    fn nobody_is_woken_for_a_word_before_it_can_be_said() {
        let mut gallery = after_a_takeover();
        let _viewer = comes(&mut gallery, None);
        gallery.look();
        gallery.viewers.get_mut(&0).unwrap().missed = 9;
        assert!(gallery.next_look() >= Some(gallery.feed_at));
    }
}
