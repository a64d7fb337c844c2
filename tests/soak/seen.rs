//! What one screen has shown, and what its session said of that: a viewer may miss bytes of a counting
//! guest, but it shows none twice, none out of order, and says how many it missed.

use std::collections::VecDeque;
use std::ops::Range;

use crate::harness::counting_from;
use crate::streams::{place_of, same};

/// So many pieces are kept: more than a session shows between two looks at all of them.
const PIECES: usize = 256;
/// A number is found in as many bytes.
const PLACED: usize = 64;
/// What a viewer is shown in a few ticks.
const NOT_MUCH: u64 = 64 * 1024;
/// So many bytes are compared at once.
const AT_ONCE: usize = 4096;
/// The part of a counting guest's stream that one screen has shown.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// In pieces, between which something is missing. The last one grows.
    pieces: VecDeque<Range<u64>>,
    /// What came behind the last piece and does not go on with it, not yet long enough to be placed.
    unplaced: Vec<u8>,
    /// How many bytes are missing between the pieces, in all.
    missing: u64,
    /// How many were shown.
    pub(crate) length: u64,
}

impl Observed {
    /// The byte that comes next, once anything was shown.
    pub(crate) fn at(&self) -> Option<u64> {
        self.pieces.back().map(|piece| piece.end)
    }

    /// Whether all was shown that comes before this place.
    pub(crate) fn is_at(&self, place: u64) -> bool {
        self.at().is_some_and(|at| at >= place)
    }

    /// More was shown.
    #[track_caller]
    pub(crate) fn goes_on(&mut self, bytes: &[u8]) {
        self.unplaced.extend(bytes);
        let shown = std::mem::take(&mut self.unplaced);
        let mut rest = &shown[..];
        loop {
            rest = self.goes_on_with_the_last(rest);
            if rest.is_empty() {
                return;
            }
            let text = String::from_utf8_lossy(&rest[..rest.len().min(PLACED)]);
            let Some(at) = place_of(rest) else {
                assert!(rest.len() < PLACED, "there is no number in {text:?}");
                self.unplaced = rest.to_vec();
                return;
            };
            let end = self.at().unwrap_or(at);
            assert!(at >= end, "at {end}, bytes from {at} on were shown again");
            assert!(counting_from(at, 1)[0] == rest[0], "behind {end}, {text:?} is not one piece");
            self.missing += at - end;
            let start = if self.pieces.is_empty() { at } else { at - alike(end, at) };
            self.pieces.push_back(start..at);
            if self.pieces.len() > PIECES {
                self.pieces.pop_front();
            }
        }
    }

    /// Takes what goes on with the last piece, and gives the rest.
    fn goes_on_with_the_last<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(last) = self.pieces.back_mut() else { return bytes };
        let mut rest = bytes;
        while !rest.is_empty() {
            let (next, _) = rest.split_at(rest.len().min(AT_ONCE));
            let expected = counting_from(last.end, next.len());
            let same = if next == expected { next.len() } else { same(next, &expected) };
            last.end += same as u64;
            self.length += same as u64;
            rest = &rest[same..];
            if same < next.len() {
                break;
            }
        }
        rest
    }
}

/// How many bytes are the same before both places. The bytes behind a gap may go on with those before it by
/// chance: the gap seems to be a little later then, but is as long as it is all the same.
fn alike(one: u64, other: u64) -> u64 {
    let before = |place: u64| {
        let length = place.min(16);
        counting_from(place - length, usize::try_from(length).unwrap()).into_iter().rev()
    };
    let alike = before(one).zip(before(other)).take_while(|(one, other)| one == other).count();
    u64::try_from(alike).unwrap()
}

/// How many bytes of `range` none of these has shown.
pub(crate) fn unseen<'a>(range: &Range<u64>, by: impl Iterator<Item = &'a Observed>) -> u64 {
    let mut pieces: Vec<&Range<u64>> = by.flat_map(|seen| &seen.pieces).collect();
    pieces.sort_by_key(|piece| piece.start);
    let (mut at, mut missing) = (range.start, 0);
    for piece in pieces {
        missing += piece.start.min(range.end).saturating_sub(at);
        at = at.max(piece.end.min(range.end));
    }
    missing + range.end.saturating_sub(at)
}

/// What a session does, as it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nothing yet, or it looks for another place.
    #[default]
    None,
    /// It watches the session of this number.
    Watches(i32),
    /// It reads a console that nobody operates.
    Reads,
    /// It operates.
    Operates,
}

/// What a session said of itself so far.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) role: Role,
    /// How many bytes it said it missed.
    missed: u64,
    /// How often there was something to see of which it can know nothing: whom it watched died.
    deaths: u64,
    /// How many bytes were missing that nobody could tell of, of those who died.
    forgiven: u64,
    /// Whether it drove, and was taken over before it had shown anything, as it seems; and how much of what
    /// it is told lies before the first that it showed, then.
    showed_nothing: bool,
    before: u64,
    read: usize,
}

impl Told {
    /// All that it said so far.
    pub(crate) fn receives(&mut self, notices: &str) {
        let new = &notices[self.read..];
        let new = &new[..new.rfind('\n').map_or(0, |end| end + 1)];
        self.read += new.len();
        new.lines().for_each(|line| self.receives_line(line));
    }

    /// One more line. Used alone where the lines before it are not kept.
    pub(crate) fn receives_line(&mut self, line: &str) {
        let number = |text: &str| text.split(|it: char| !it.is_ascii_digit()).next()?.parse().ok();
        let after = |words: &str| line.split_once(words).map(|(_, rest)| rest);
        if let Some(rest) = after("watching ") {
            let pid = rest.split_once("held by vconsole (pid ").and_then(|(_, pid)| number(pid));
            self.role = Role::Watches(i32::try_from(pid.unwrap_or(0)).unwrap());
        } else if let Some(rest) = after("connected to ") {
            let reads = rest.contains("read-only: nobody operates it");
            self.role = if reads { Role::Reads } else { Role::Operates };
        } else if line.contains("you operate the console now") {
            self.role = Role::Operates;
        } else if let Some(rest) = after("missed ") {
            self.missed += number(rest).expect("a number of bytes");
        } else if line.contains("ended without a word") {
            (self.role, self.deaths) = (Role::None, self.deaths + 1);
        } else if line.contains("is gone: what it read may be missing")
            || line.contains("what was printed in between may be missing")
        {
            self.deaths += 1;
        } else if line.contains(" left /") || line.contains("was taken over by") {
            self.role = Role::None;
        }
    }

    /// How many bytes are missing on the screen of which nothing was told. To be asked when nothing is on its
    /// way to it; what is told may come a second later.
    #[track_caller]
    pub(crate) fn untold(&mut self, seen: &Observed) -> u64 {
        let told = self.missed + self.forgiven;
        if self.showed_nothing {
            self.before = self.before.max(told.saturating_sub(seen.missing));
        }
        let told = told - self.before;
        assert!(told <= seen.missing, "it was told of {told} bytes, and misses {}", seen.missing);
        seen.missing - told
    }

    /// It was taken over, and watches from where it was. What it has shown since is not much yet.
    pub(crate) fn was_taken_over(&mut self, seen: &Observed) {
        self.showed_nothing |= seen.pieces.len() <= 1 && seen.length < NOT_MUCH;
    }

    /// Somebody else drove, and left again, while its session was stopped: of that it can know nothing.
    pub(crate) fn was_absent(&mut self) {
        self.deaths += 1;
    }

    /// Whether of these bytes nobody could tell any more: those who died took them along.
    pub(crate) fn forgives(&mut self, bytes: u64) -> bool {
        let forgiven = bytes == 0 || self.deaths > 0;
        (self.forgiven, self.deaths) = (self.forgiven + bytes, 0);
        forgiven
    }

    /// How many bytes it said it missed.
    pub(crate) fn missed(&self) -> u64 {
        self.missed
    }
}
