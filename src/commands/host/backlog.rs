//! What the command printed and nobody has read yet.

use std::collections::VecDeque;

/// The command's output on its way: up to [`Backlog::CAPACITY`] bytes, in order. While somebody is
/// attached a full backlog makes the command wait; while nobody is, the oldest is dropped, and the
/// next reader is told how much that was.
#[derive(Default)]
pub(super) struct Backlog {
    bytes: VecDeque<u8>,
    dropped: u64,
    /// What the line about dropped output still has to say. It goes before `bytes`.
    notice: VecDeque<u8>,
}

impl Backlog {
    /// How much is kept: as much as `attach` is promised to show of what was printed before.
    pub(super) const CAPACITY: usize = 64 * 1024;

    /// How many bytes can be added without dropping any.
    pub(super) fn room(&self) -> usize {
        Self::CAPACITY - self.bytes.len()
    }

    /// Adds what the command printed; the oldest makes room for it.
    pub(super) fn push(&mut self, printed: &[u8]) {
        let all = self.bytes.len() + printed.len();
        let excess = all.saturating_sub(Self::CAPACITY);
        let old = excess.min(self.bytes.len());
        self.bytes.drain(..old);
        self.bytes.extend(&printed[excess - old..]);
        self.dropped += excess as u64;
    }

    /// How much was dropped that no reader has been told of yet.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.notice.len() + self.bytes.len()
    }

    /// Whether everything was delivered.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && self.dropped == 0
    }

    /// The next bytes to deliver; empty when there are none.
    pub(super) fn next(&mut self) -> &[u8] {
        if self.notice.is_empty() && self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            let line = format!("\r\n[vconsole host: {dropped} bytes of older output dropped]\r\n");
            self.notice = line.into_bytes().into();
        }
        self.first().as_slices().0
    }

    /// Takes `count` bytes away, which were delivered.
    pub(super) fn delivered(&mut self, count: usize) {
        let first = if self.notice.is_empty() { &mut self.bytes } else { &mut self.notice };
        first.drain(..count);
    }

    fn first(&self) -> &VecDeque<u8> {
        if self.notice.is_empty() { &self.bytes } else { &self.notice }
    }
}

#[cfg(test)]
mod tests {
    use super::Backlog;

    fn many(byte: &str, count: usize) -> Vec<u8> {
        byte.repeat(count).into_bytes()
    }

    fn all(backlog: &mut Backlog) -> String {
        let mut all = Vec::new();
        while !backlog.next().is_empty() {
            let piece = backlog.next().to_vec();
            backlog.delivered(piece.len());
            all.extend(piece);
        }
        assert!(backlog.is_empty());
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn what_fits_is_kept_whole() {
        let mut backlog = Backlog::default();
        backlog.push(&many("a", Backlog::CAPACITY));
        assert_eq!((backlog.room(), backlog.dropped()), (0, 0));
        assert_eq!(all(&mut backlog), "a".repeat(Backlog::CAPACITY));
    }

    #[test]
    fn the_oldest_makes_room_and_the_reader_is_told_before_the_rest() {
        let mut backlog = Backlog::default();
        backlog.push(&many("a", Backlog::CAPACITY));
        backlog.push(b"bcd");
        let told = "\r\n[vconsole host: 3 bytes of older output dropped]\r\n";
        assert_eq!(all(&mut backlog), format!("{told}{}bcd", "a".repeat(Backlog::CAPACITY - 3)));
    }

    #[test]
    fn one_push_may_be_more_than_it_holds() {
        let mut backlog = Backlog::default();
        backlog.push(b"gone");
        backlog.push(&[many("a", 5), many("b", Backlog::CAPACITY)].concat());
        assert_eq!(backlog.dropped(), 9);
        assert!(all(&mut backlog).ends_with(&"b".repeat(Backlog::CAPACITY)));
    }

    #[test]
    fn a_notice_that_was_cut_is_finished_before_the_next_one() {
        let mut backlog = Backlog::default();
        backlog.push(&many("a", Backlog::CAPACITY + 1));
        assert!(backlog.next().starts_with(b"\r\n[vc"));
        backlog.delivered(2);
        backlog.push(b"bb");
        let rest = all(&mut backlog);
        assert!(rest.starts_with("[vconsole host: 1 bytes of older output dropped]\r\n\r\n["));
        assert!(rest.contains(" 2 bytes"));
    }
}
