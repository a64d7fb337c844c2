//! Bytes on their way, in a ring.

/// A queue of bytes that grows only where it is told to. It gives out its room and its content as slices,
/// so that system calls read into it and write out of it without a copy.
#[derive(Debug)]
pub(super) struct Buffer {
    ring: Box<[u8]>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// Room for `capacity` bytes. The memory comes zeroed from the kernel, and costs nothing until it
    /// is used.
    pub(super) fn new(capacity: usize) -> Self {
        Self { ring: vec![0; capacity].into_boxed_slice(), start: 0, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes more it takes.
    pub(super) fn room(&self) -> usize {
        self.ring.len() - self.len
    }

    /// How many it holds in all.
    pub(super) fn capacity(&self) -> usize {
        self.ring.len()
    }

    /// Makes it larger.
    pub(super) fn grow(&mut self, capacity: usize) {
        let mut larger = Self::new(capacity.max(self.len));
        larger.push(&self.contents());
        *self = larger;
    }

    /// A stretch of the free room, to write to before [`Self::filled`]. Empty only when there is none.
    pub(super) fn free(&mut self) -> &mut [u8] {
        let (end, capacity) = (self.start + self.len, self.ring.len());
        let stretch = if end < capacity { end..capacity } else { end - capacity..self.start };
        &mut self.ring[stretch]
    }

    /// The first `count` bytes of [`Self::free`] now belong to the content.
    pub(super) fn filled(&mut self, count: usize) {
        debug_assert!(count <= self.room());
        self.len += count;
    }

    /// The oldest bytes: a stretch of the content, empty only when there is none.
    pub(super) fn oldest(&self) -> &[u8] {
        let end = (self.start + self.len).min(self.ring.len());
        &self.ring[self.start..end]
    }

    /// Forgets the oldest `count` bytes: they have arrived.
    pub(super) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.len);
        self.len -= count;
        // An empty ring starts over, so that slices are long and untouched memory stays untouched.
        self.start = if self.len == 0 { 0 } else { (self.start + count) % self.ring.len() };
    }

    /// A copy of all of it.
    pub(super) fn contents(&self) -> Vec<u8> {
        let wrapped = self.len - self.oldest().len();
        [self.oldest(), &self.ring[..wrapped]].concat()
    }

    pub(super) fn clear(&mut self) {
        self.consume(self.len);
    }

    /// Appends all of `bytes`.
    ///
    /// # Panics
    ///
    /// If there is no room for them.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
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
