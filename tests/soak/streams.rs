//! The two streams of a console: what its guest counts, as the drivers show it one after the other; and
//! what they type, as the guest hears it. Each byte arrives once and in order, but those that a session had
//! read when it was killed.

use crate::harness::counting_from;

/// No session had read more than this when it was killed: its own buffer, and what the kernel held for
/// its reader.
const MOST_LOST: u64 = 1024 * 1024;

/// What was shown of a counting guest.
#[derive(Default)]
pub(crate) struct Shown {
    /// The byte that comes next.
    at: u64,
    /// Whether some may be missing before the next.
    gap: bool,
    /// The beginning of what came after a gap, not yet long enough to be placed.
    unplaced: Vec<u8>,
    pub(crate) lost: u64,
}

impl Shown {
    /// How far the stream was shown.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// A session was killed that had read some of it.
    pub(crate) fn may_have_a_gap(&mut self) {
        self.unplaced.clear();
        self.gap = true;
    }

    /// More of it was shown.
    #[track_caller]
    pub(crate) fn goes_on(&mut self, bytes: &[u8]) {
        if !self.gap {
            return self.is_next(bytes);
        }
        self.unplaced.extend(bytes);
        let Some(at) = place_of(&self.unplaced) else { return };
        assert!(at >= self.at, "bytes {at} to {} were shown twice", self.at);
        assert!(at - self.at <= MOST_LOST, "bytes {} to {at} were lost", self.at);
        self.lost += at - self.at;
        (self.at, self.gap) = (at, false);
        let placed = std::mem::take(&mut self.unplaced);
        self.is_next(&placed);
    }

    #[track_caller]
    fn is_next(&mut self, bytes: &[u8]) {
        let expected = counting_from(self.at, bytes.len());
        if let Some(wrong) = bytes.iter().zip(&expected).position(|(one, other)| one != other) {
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

/// Where in the stream `bytes` begin, once there is a whole number among them.
fn place_of(bytes: &[u8]) -> Option<u64> {
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
    /// All that the driver typed and the guest has not heard yet.
    on_its_way: Vec<u8>,
    /// Whether the driver has ended, and the rest of it may never arrive.
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

    /// What a new driver types first, which occurs nowhere else.
    pub(crate) fn begins(&mut self) -> &'static [u8] {
        if !self.gap {
            self.on_its_way.push(b'<');
        }
        b"<"
    }

    /// Its driver has ended with `unread` bytes that nobody will ever read.
    #[track_caller]
    pub(crate) fn loses(&mut self, unread: u64) {
        let unread = usize::try_from(unread).unwrap();
        let left = self.on_its_way.len().checked_sub(unread);
        self.on_its_way.truncate(left.expect("what was heard was not read"));
    }

    /// Its driver was killed: whatever is on its way may be lost.
    pub(crate) fn may_have_a_gap(&mut self) {
        self.gap = true;
    }

    /// Whether the guest has heard all that it will hear.
    pub(crate) fn has_arrived(&self) -> bool {
        self.gap || self.on_its_way.is_empty()
    }

    /// Whether the beginning of the present driver was heard.
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
