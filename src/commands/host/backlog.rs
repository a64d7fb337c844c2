//! The output of the command that no client has read yet.

use std::collections::VecDeque;

/// Output of the command that no client has read: up to [`Backlog::CAPACITY`] bytes, in order. With
/// a client a full backlog makes the command wait. Without one the oldest bytes are dropped, and
/// the next reader is told their count.
#[derive(Default)]
pub(super) struct Backlog {
    bytes: VecDeque<u8>,
    /// The dropped bytes that no reader has been told of yet.
    pub(super) dropped: u64,
    /// The rest of the line about dropped output. It goes before `bytes`.
    notice: VecDeque<u8>,
}

impl Backlog {
    /// As much as `attach` promises to show of earlier output.
    pub(super) const CAPACITY: usize = 64 * 1024;

    /// How many bytes fit without a loss.
    pub(super) fn room(&self) -> usize {
        Self::CAPACITY - self.bytes.len()
    }

    pub(super) fn push(&mut self, printed: &[u8]) {
        let all = self.bytes.len() + printed.len();
        let excess = all.saturating_sub(Self::CAPACITY);
        let old = excess.min(self.bytes.len());
        self.bytes.drain(..old);
        self.bytes.extend(&printed[excess - old..]);
        self.dropped += excess as u64;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.notice.is_empty() && self.bytes.is_empty() && self.dropped == 0
    }

    /// The next bytes to deliver.
    pub(super) fn next(&mut self) -> &[u8] {
        if self.notice.is_empty() && self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            let line = format!("\r\n[vconsole host: {dropped} bytes of older output dropped]\r\n");
            self.notice = line.into_bytes().into();
        }
        self.first().as_slices().0
    }

    pub(super) fn delivered(&mut self, count: usize) {
        self.first().drain(..count);
    }

    fn first(&mut self) -> &mut VecDeque<u8> {
        if self.notice.is_empty() { &mut self.bytes } else { &mut self.notice }
    }
}

#[cfg(test)]
mod tests {
    use super::Backlog;

    fn all(backlog: &mut Backlog) -> String {
        let mut all = Vec::new();
        while let piece @ [_, ..] = backlog.next() {
            all.extend(piece);
            let count = piece.len();
            backlog.delivered(count);
        }
        assert!(backlog.is_empty());
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn what_fits_is_kept_whole_then_the_oldest_is_dropped_and_the_reader_is_told_first() {
        let full = "a".repeat(Backlog::CAPACITY);
        let mut backlog = Backlog::default();
        backlog.push(full.as_bytes());
        assert_eq!((backlog.room(), backlog.dropped), (0, 0));
        assert_eq!(all(&mut backlog), full);
        backlog.push(full.as_bytes());
        backlog.push(b"bcd");
        let told = "\r\n[vconsole host: 3 bytes of older output dropped]\r\n";
        assert_eq!(all(&mut backlog), format!("{told}{}bcd", &full[3..]));
        // One push may be more than it holds.
        backlog.push(b"gone");
        backlog.push(&[b"aaaaa", "b".repeat(Backlog::CAPACITY).as_bytes()].concat());
        assert_eq!(backlog.dropped, 9);
        assert!(all(&mut backlog).ends_with(&"b".repeat(Backlog::CAPACITY)));
    }

    #[test]
    fn a_notice_that_was_cut_is_finished_before_the_next_one() {
        let mut backlog = Backlog::default();
        backlog.push(&vec![b'a'; Backlog::CAPACITY + 1]);
        assert!(backlog.next().starts_with(b"\r\n[vc"));
        backlog.delivered(2);
        backlog.push(b"bb");
        let rest = all(&mut backlog);
        assert!(rest.starts_with("[vconsole host: 1 bytes of older output dropped]\r\n\r\n["));
        assert!(rest.contains(" 2 bytes"));
    }
}
