//! The last bytes that a console printed, for those who watch: all of them read one tape, each at its
//! own place, so that any number of them needs no more memory.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};

use super::protocol::Place;

/// So much is kept while nobody watches: who comes begins with it.
pub const SHORT: usize = 64 * 1024;
/// So much while somebody does. A console that prints 100 KB/s fills it in five seconds.
pub const LONG: usize = 512 * 1024;

/// No tape gets here: a terabyte a second would take more than a month.
const FARTHEST: u64 = 1 << 62;

/// The last bytes that a console printed. The memory comes zeroed from the kernel, and costs nothing
/// until it is used.
#[derive(Clone, Debug)]
pub struct Tape {
    /// Which tape it is: a place means nothing on another.
    reel: u64,
    /// A ring. The byte at a place is at the rest of its division by the length.
    ring: Box<[u8]>,
    /// The place of the next byte, and of the oldest that is kept.
    end: u64,
    oldest: u64,
}

impl Tape {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        // Two sessions shall not have the same, and the hash maps' seed is random.
        Self::going_on(Place { reel: RandomState::new().build_hasher().finish(), at: 0 }, &[])
    }

    /// One that goes on at `end`, and begins with the bytes before it.
    #[must_use]
    pub fn going_on(end: Place, before: &[u8]) -> Self {
        // Another session says where it ends, and no console prints so much.
        if end.at > FARTHEST {
            return Self::new();
        }
        let capacity = if before.len() > SHORT { LONG } else { SHORT };
        let before = &before[before.len().saturating_sub(capacity)..];
        let oldest = end.at.saturating_sub(before.len() as u64);
        let ring = vec![0; capacity].into_boxed_slice();
        let mut tape = Self { reel: end.reel, ring, end: oldest, oldest };
        tape.record(before);
        tape
    }

    /// Adds what the console printed.
    pub fn record(&mut self, printed: &[u8]) {
        let capacity = self.ring.len();
        let skipped = printed.len().saturating_sub(capacity);
        self.end += skipped as u64;
        let mut rest = &printed[skipped..];
        while !rest.is_empty() {
            let start = self.index(self.end);
            let (now, later) = rest.split_at(rest.len().min(capacity - start));
            self.ring[start..start + now.len()].copy_from_slice(now);
            self.end += now.len() as u64;
            rest = later;
        }
        self.oldest = self.oldest.max(self.end.saturating_sub(capacity as u64));
    }

    /// The place of the next byte.
    #[must_use]
    pub fn end(&self) -> Place {
        Place { reel: self.reel, at: self.end }
    }

    /// The place of the oldest byte that is kept.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.oldest
    }

    /// The bytes from a place on: at most so many, and perhaps fewer than there are. None where the place
    /// is not on the tape.
    #[must_use]
    pub fn from(&self, place: u64, at_most: usize) -> &[u8] {
        if place < self.oldest || place >= self.end {
            return &[];
        }
        let start = self.index(place);
        let left = usize::try_from(self.end - place).unwrap_or(usize::MAX);
        let length = left.min(at_most).min(self.ring.len() - start);
        &self.ring[start..start + length]
    }

    /// A copy of all that is kept from a place on.
    #[must_use]
    pub fn all_from(&self, place: u64) -> Vec<u8> {
        let first = self.from(place, usize::MAX);
        [first, self.from(place + first.len() as u64, usize::MAX)].concat()
    }

    /// Keeps so much from now on: [`SHORT`] or [`LONG`].
    pub fn keep(&mut self, capacity: usize) {
        if capacity != self.ring.len() {
            let mut other = Self::going_on(Place { reel: self.reel, at: self.oldest }, &[]);
            other.ring = vec![0; capacity].into_boxed_slice();
            other.record(&self.all_from(self.oldest));
            *self = other;
        }
    }

    fn index(&self, place: u64) -> usize {
        usize::try_from(place % self.ring.len() as u64).unwrap_or(0)
    }
}

impl Default for Tape {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbered(from: u64, count: usize) -> Vec<u8> {
        (from..).take(count).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn it_has_the_last_bytes_at_their_places(
            start in 0_u64..200_000,
            steps in prop::collection::vec((0_usize..200_000, prop::option::of(any::<bool>())), 0..12),
        ) {
            let mut tape = Tape::going_on(Place { reel: 7, at: start }, &numbered(0, 0));
            let (mut end, mut kept, mut capacity) = (start, 0, SHORT);
            for (count, long) in steps {
                tape.record(&numbered(end, count));
                end += count as u64;
                kept = (kept + count).min(capacity);
                if let Some(long) = long {
                    capacity = if long { LONG } else { SHORT };
                    tape.keep(capacity);
                    kept = kept.min(capacity);
                }
                prop_assert_eq!(tape.end(), Place { reel: 7, at: end });
                prop_assert_eq!(tape.oldest(), end - kept as u64);
                prop_assert!(tape.all_from(tape.oldest()) == numbered(tape.oldest(), kept));
                prop_assert!(tape.from(end, 9).is_empty());
                let last = numbered(end.saturating_sub(1), usize::from(kept > 0));
                prop_assert_eq!(tape.from(end.saturating_sub(1), 9), &last[..]);
            }
        }
    }

    #[test]
    fn a_tape_that_cannot_be_is_another_one() {
        let end = Place { reel: 7, at: u64::MAX };
        let mut tape = Tape::going_on(end, b"before");
        tape.record(b"more");
        assert_eq!((tape.end().at, tape.all_from(0)), (4, b"more".to_vec()));
        assert_ne!(tape.end().reel, 7);
    }

    #[test]
    fn a_tape_goes_on_where_another_ended() {
        let mut first = Tape::new();
        first.keep(LONG);
        first.record(&numbered(0, 300_000));
        let mut second = Tape::going_on(first.end(), &first.all_from(first.oldest()));
        assert_eq!((second.end(), second.oldest()), (first.end(), 0));
        second.record(&numbered(300_000, 10));
        assert!(second.all_from(299_990) == numbered(299_990, 20));
        assert_ne!(Tape::new().end().reel, first.end().reel);
    }
}
