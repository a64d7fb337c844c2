//! The two streams of a console: what its guest counts, as the operators show it one after the other; and
//! what they type, as the guest hears it. Each byte arrives once and in order, but those that a session had
//! read when it was killed.

use std::ops::Range;

use crate::harness::counting_from;
use crate::seen::{Observed, unseen};

/// No session had read more than this when it was killed: its own buffer, and what the kernel held for
/// its reader.
const MOST_LOST: u64 = 1024 * 1024;

/// What was shown of a counting guest, by those who had the console one after the other.
#[derive(Default)]
pub(crate) struct Shown {
    /// The byte that comes next.
    at: u64,
    gap: Gap,
    /// The beginning of what came after a gap, not yet long enough to be placed.
    unplaced: Vec<u8>,
    /// What was skipped, and is to be found on other screens.
    skipped: Vec<(Range<u64>, Gap)>,
    pub(crate) lost: u64,
}

/// Whether some bytes may be missing before the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    /// None.
    #[default]
    None,
    /// Those that somebody has shown who only watches.
    Read,
    /// Those that a session took along which was killed.
    Lost,
}

impl Shown {
    /// How far the stream was shown.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// A session was killed that had read some of it.
    pub(crate) fn may_have_a_gap(&mut self) {
        self.begins_anew(Gap::Lost);
    }

    /// Who watches may have read some of it, and shown it.
    pub(crate) fn may_be_elsewhere(&mut self) {
        self.begins_anew(Gap::Read);
    }

    fn begins_anew(&mut self, gap: Gap) {
        self.unplaced.clear();
        self.gap = self.gap.max(gap);
    }

    /// More of it was shown.
    #[track_caller]
    pub(crate) fn goes_on(&mut self, bytes: &[u8]) {
        if self.gap == Gap::None {
            return self.is_next(bytes);
        }
        self.unplaced.extend(bytes);
        let Some(at) = place_of(&self.unplaced) else { return };
        assert!(at >= self.at, "bytes {at} to {} were shown twice", self.at);
        self.skips_to(at);
        let placed = std::mem::take(&mut self.unplaced);
        self.is_next(&placed);
    }

    /// Who watched and has the console now has shown all that comes before this place.
    pub(crate) fn skips_to(&mut self, at: u64) {
        let gap = std::mem::take(&mut self.gap).max(Gap::Read);
        self.skipped.push((self.at..at, gap));
        self.at = at;
    }

    /// Whether something was skipped, for which the other screens are to be looked at.
    pub(crate) fn has_skipped(&self) -> bool {
        !self.skipped.is_empty()
    }

    /// What was skipped is on other screens, but for what was lost.
    #[track_caller]
    pub(crate) fn is_elsewhere<'a>(
        &mut self,
        screens: &(impl Iterator<Item = &'a Observed> + Clone),
    ) {
        for (range, gap) in self.skipped.drain(..) {
            let lost = unseen(&range, screens.clone());
            let most = if gap == Gap::Lost { MOST_LOST } else { 0 };
            assert!(lost <= most, "{lost} of the bytes {range:?} were shown by nobody");
            self.lost += lost;
        }
    }

    #[track_caller]
    fn is_next(&mut self, bytes: &[u8]) {
        let expected = counting_from(self.at, bytes.len());
        if bytes != expected {
            let wrong = same(bytes, &expected);
            let around = wrong.saturating_sub(40)..bytes.len().min(wrong + 80);
            panic!(
                "at byte {}, instead of {:?}: {:?}",
                self.at + wrong as u64,
                String::from_utf8_lossy(&expected[around.clone()]),
                String::from_utf8_lossy(&bytes[around]),
            );
        }
        self.at += bytes.len() as u64;
    }
}

/// How many bytes are the same at the beginning of both.
pub(crate) fn same(shown: &[u8], printed: &[u8]) -> usize {
    let differ = shown.iter().zip(printed).position(|(one, other)| one != other);
    differ.unwrap_or(shown.len().min(printed.len()))
}

/// Where in the stream `bytes` begin, once there is a whole number among them.
pub(crate) fn place_of(bytes: &[u8]) -> Option<u64> {
    let blank = bytes.iter().position(|&byte| byte == b' ')?;
    let number = bytes.get(blank + 1..blank + 17)?.strip_suffix(b" ")?;
    let number: u64 = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some(number * 16 - (blank as u64 + 1))
}

/// Whether a byte is one in which a guest counts.
pub(crate) fn is_shown(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b' '
}

/// The same numbers in letters: what is typed can be told from what is printed.
fn in_letters(numbers: &[u8]) -> Vec<u8> {
    let letter = |byte: &u8| if *byte == b' ' { b'_' } else { *byte - b'0' + b'a' };
    numbers.iter().map(letter).collect()
}

/// What was typed, and how much of it the guest has heard.
#[derive(Default)]
pub(crate) struct Typed {
    /// All that the operator typed and the guest has not heard yet.
    on_its_way: Vec<u8>,
    /// Whether the operator has ended, and the rest of it may never arrive.
    gap: bool,
    next: u64,
    pub(crate) heard: u64,
    pub(crate) lost: u64,
}

impl Typed {
    /// The next `length` bytes to be typed.
    pub(crate) fn next(&mut self, length: usize) -> Vec<u8> {
        let text = in_letters(&counting_from(self.next, length));
        self.next += length as u64;
        self.on_its_way.extend(&text);
        text
    }

    /// The first input of a new operator, which occurs nowhere else.
    pub(crate) fn begins(&mut self) -> &'static [u8] {
        if !self.gap {
            self.on_its_way.push(b'<');
        }
        b"<"
    }

    /// Its operator has ended with `unread` bytes that nobody will ever read.
    #[track_caller]
    pub(crate) fn loses(&mut self, unread: u64) {
        let unread = usize::try_from(unread).unwrap();
        let left = self.on_its_way.len().checked_sub(unread);
        self.on_its_way.truncate(left.expect("what was heard was not read"));
    }

    /// Its operator was killed: whatever is on its way may be lost.
    pub(crate) fn may_have_a_gap(&mut self) {
        self.gap = true;
    }

    /// Whether the guest has heard all that it will hear.
    pub(crate) fn has_arrived(&self) -> bool {
        self.gap || self.on_its_way.is_empty()
    }

    /// Whether the beginning of the present operator was heard.
    pub(crate) fn has_begun(&self) -> bool {
        !self.gap
    }

    /// The guest heard more.
    #[track_caller]
    pub(crate) fn goes_on(&mut self, mut bytes: &[u8]) {
        self.heard += bytes.len() as u64;
        if self.gap
            && let Some(end) = bytes.iter().position(|&byte| byte == b'<')
        {
            self.is_next(&bytes[..end]);
            self.lost += self.on_its_way.len() as u64;
            self.on_its_way.clear();
            self.gap = false;
            bytes = &bytes[end + 1..];
        }
        self.is_next(bytes);
    }

    #[track_caller]
    fn is_next(&mut self, bytes: &[u8]) {
        assert!(
            self.on_its_way.starts_with(bytes),
            "the guest heard {:?} instead of {:?}",
            String::from_utf8_lossy(bytes),
            String::from_utf8_lossy(
                &self.on_its_way[..self.on_its_way.len().min(bytes.len() + 40)]
            ),
        );
        self.on_its_way.drain(..bytes.len());
    }
}
