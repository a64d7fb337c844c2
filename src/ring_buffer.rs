//! A ring buffer for bytes.

/// A queue of bytes that grows only on request. It hands out its room and its content as slices, so
/// that system calls read into it and write out of it without a copy.
#[derive(Debug)]
pub(crate) struct Buffer {
    ring: Box<[u8]>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// The memory comes zeroed from the kernel, and costs nothing until it is used.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { ring: vec![0; capacity].into_boxed_slice(), start: 0, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn room(&self) -> usize {
        self.ring.len() - self.len
    }

    pub(crate) fn capacity(&self) -> usize {
        self.ring.len()
    }

    pub(crate) fn grow(&mut self, capacity: usize) {
        let mut larger = Self::new(capacity.max(self.len));
        larger.push(&self.contents());
        *self = larger;
    }

    /// A slice of the free room to write to before [`Self::filled`]. Empty only without room.
    pub(crate) fn free(&mut self) -> &mut [u8] {
        let (end, capacity) = (self.start + self.len, self.ring.len());
        let stretch = if end < capacity { end..capacity } else { end - capacity..self.start };
        &mut self.ring[stretch]
    }

    /// Adds the first `count` bytes of [`Self::free`] to the content.
    pub(crate) fn filled(&mut self, count: usize) {
        debug_assert!(count <= self.room());
        self.len += count;
    }

    /// The oldest bytes of the content. Empty only if the buffer is.
    pub(crate) fn oldest(&self) -> &[u8] {
        let end = (self.start + self.len).min(self.ring.len());
        &self.ring[self.start..end]
    }

    pub(crate) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.len);
        self.len -= count;
        // An empty ring starts over, so that slices are long and untouched memory stays untouched.
        self.start = if self.len == 0 { 0 } else { (self.start + count) % self.ring.len() };
    }

    pub(crate) fn contents(&self) -> Vec<u8> {
        let wrapped = self.len - self.oldest().len();
        [self.oldest(), &self.ring[..wrapped]].concat()
    }

    pub(crate) fn clear(&mut self) {
        self.consume(self.len);
    }

    /// Appends all of `bytes`. Panics if there is no room for them.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "the caller looks at the room first");
        while !bytes.is_empty() {
            let free = self.free();
            let (now, rest) = bytes.split_at(free.len().min(bytes.len()));
            free[..now.len()].copy_from_slice(now);
            self.filled(now.len());
            bytes = rest;
        }
    }
}
