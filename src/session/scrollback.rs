//! The scrollback: the last bytes that a console printed. All viewers read the same one, each at
//! its own position, so that their number does not change the memory it needs.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};

use crate::session::protocol::StreamPos;

/// Bytes kept while nobody watches: a new viewer begins with them.
pub(crate) const SHORT: usize = 64 * 1024;
/// Bytes kept while somebody watches: what a console at 100 KB/s prints in five seconds.
pub(crate) const LONG: usize = 512 * 1024;
/// No console prints more: at a terabyte a second that would take more than a month.
const FARTHEST: u64 = 1 << 62;

/// The last bytes that a console printed. The memory comes zeroed from the kernel, and costs
/// nothing until it is used.
#[derive(Clone, Debug)]
pub(crate) struct Scrollback {
    /// Identifies the stream of bytes: an offset means nothing in another.
    stream: u64,
    /// The byte at an offset is at the offset modulo the length.
    ring: Box<[u8]>,
    /// The offsets of the next byte, and of the oldest that is kept.
    end: u64,
    oldest: u64,
}

impl Scrollback {
    pub(crate) fn new() -> Self {
        // Two sessions must not have the same, and the seed of hash maps is random.
        let stream = RandomState::new().build_hasher().finish();
        Self::going_on(StreamPos { stream, offset: 0 }, &[])
    }

    /// A scrollback that goes on at `end`, with the bytes before it.
    pub(crate) fn going_on(end: StreamPos, before: &[u8]) -> Self {
        // `end` comes from another session, which may lie.
        if end.offset > FARTHEST {
            return Self::new();
        }
        let capacity = if before.len() > SHORT { LONG } else { SHORT };
        let before = &before[before.len().saturating_sub(capacity)..];
        let oldest = end.offset.saturating_sub(before.len() as u64);
        let ring = vec![0; capacity].into_boxed_slice();
        let mut scrollback = Self { stream: end.stream, ring, end: oldest, oldest };
        scrollback.record(before);
        scrollback
    }

    pub(crate) fn record(&mut self, printed: &[u8]) {
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

    pub(crate) fn end(&self) -> StreamPos {
        StreamPos { stream: self.stream, offset: self.end }
    }

    pub(crate) fn oldest(&self) -> u64 {
        self.oldest
    }

    /// At most `at_most` of the bytes from `place` on, perhaps fewer. Empty if they are not kept.
    pub(crate) fn from(&self, place: u64, at_most: usize) -> &[u8] {
        if place < self.oldest || place >= self.end {
            return &[];
        }
        let start = self.index(place);
        let left = usize::try_from(self.end - place).unwrap_or(usize::MAX);
        let length = left.min(at_most).min(self.ring.len() - start);
        &self.ring[start..start + length]
    }

    pub(crate) fn all_from(&self, place: u64) -> Vec<u8> {
        let first = self.from(place, usize::MAX);
        [first, self.from(place + first.len() as u64, usize::MAX)].concat()
    }

    /// Keeps this many bytes from now on: [`SHORT`] or [`LONG`].
    pub(crate) fn keep(&mut self, capacity: usize) {
        if capacity != self.ring.len() {
            let start = StreamPos { stream: self.stream, offset: self.oldest };
            let mut other = Self::going_on(start, &[]);
            other.ring = vec![0; capacity].into_boxed_slice();
            other.record(&self.all_from(self.oldest));
            *self = other;
        }
    }

    fn index(&self, place: u64) -> usize {
        usize::try_from(place % self.ring.len() as u64).unwrap_or(0)
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
        fn it_has_the_last_bytes_at_their_offsets(
            start in 0_u64..200_000,
            steps in prop::collection::vec((0_usize..200_000, prop::option::of(any::<bool>())), 0..12),
        ) {
            let mut scrollback = Scrollback::going_on(StreamPos { stream: 7, offset: start }, &numbered(0, 0));
            let (mut end, mut kept, mut capacity) = (start, 0, SHORT);
            for (count, long) in steps {
                scrollback.record(&numbered(end, count));
                end += count as u64;
                kept = (kept + count).min(capacity);
                if let Some(long) = long {
                    capacity = if long { LONG } else { SHORT };
                    scrollback.keep(capacity);
                    kept = kept.min(capacity);
                }
                prop_assert_eq!(scrollback.end(), StreamPos { stream: 7, offset: end });
                prop_assert_eq!(scrollback.oldest(), end - kept as u64);
                prop_assert!(scrollback.all_from(scrollback.oldest()) == numbered(scrollback.oldest(), kept));
                prop_assert!(scrollback.from(end, 9).is_empty());
                let last = numbered(end.saturating_sub(1), usize::from(kept > 0));
                prop_assert_eq!(scrollback.from(end.saturating_sub(1), 9), &last[..]);
            }
        }
    }

    #[test]
    fn a_scrollback_with_an_impossible_end_starts_anew() {
        let end = StreamPos { stream: 7, offset: u64::MAX };
        let mut scrollback = Scrollback::going_on(end, b"before");
        scrollback.record(b"more");
        assert_eq!((scrollback.end().offset, scrollback.all_from(0)), (4, b"more".to_vec()));
        assert_ne!(scrollback.end().stream, 7);
    }

    #[test]
    fn a_scrollback_goes_on_where_another_ended() {
        let mut first = Scrollback::new();
        first.keep(LONG);
        first.record(&numbered(0, 300_000));
        let mut second = Scrollback::going_on(first.end(), &first.all_from(first.oldest()));
        assert_eq!((second.end(), second.oldest()), (first.end(), 0));
        second.record(&numbered(300_000, 10));
        assert!(second.all_from(299_990) == numbered(299_990, 20));
        assert_ne!(Scrollback::new().end().stream, first.end().stream);
    }
}
