//! What must hold of bytes on their way, whatever they are.

#![allow(clippy::missing_panics_doc, reason = "a property that is broken panics")]

use std::collections::VecDeque;

use super::buffer::Buffer;
use super::escape::{Command, Escape, Piece};

/// What the console gets and what we are told, when the input comes in these reads. What concerns nobody
/// but the console must be sorted into just what it is: so the relay may leave it where it lies.
pub(super) fn outcome<'a>(
    key: u8,
    reads: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<u8>, Vec<Command>) {
    let mut escape = Escape::new(key);
    let (mut typed, mut commands) = (Vec::new(), Vec::new());
    for mut read in reads {
        let (whole, short_cut) = (read, !escape.concerns(read));
        let before = (typed.len(), commands.len());
        while let Some(piece) = escape.next(&mut read) {
            match piece {
                Piece::Typed(bytes) => typed.extend(bytes),
                Piece::Command(command) => commands.push(command),
            }
        }
        assert_eq!(read, b"", "some of what was read is held back");
        if short_cut {
            let typed = &typed[before.0..];
            assert_eq!((typed, commands.len()), (whole, before.1), "some of it was for us");
            assert!(!escape.is_armed(), "the escape key was overlooked");
        }
    }
    (typed, commands)
}

/// Every byte that is no command passes, unchanged and in order, however the input is split.
pub fn escape(bytes: &[u8]) {
    let (&[key, size], input) = bytes.split_at(bytes.len().min(2)) else { return };
    // Every key that an escape key can be: also the one that stands apart from the others in ASCII.
    let key = match key {
        ..0x20 => key,
        0x20..0x80 => 0x7f,
        _ => 0x1d,
    };
    let (mut typed, mut told, mut rest) = (Vec::new(), 0, input);
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != key {
            typed.push(*first);
        } else if let [second, after @ ..] = after {
            rest = after;
            if *second == key {
                typed.push(key);
            } else {
                told += 1;
            }
        }
    }
    let whole = outcome(key, [input]);
    assert_eq!((&whole.0, whole.1.len()), (&typed, told));
    assert_eq!(outcome(key, input.chunks(usize::from(size).max(1))), whole);
    assert_eq!(outcome(key, input.chunks(1)), whole);
}

/// The buffer is a queue: two bytes of the input are a step, whether to put, take or grow, and how many.
pub fn buffer(bytes: &[u8]) {
    let mut buffer = Buffer::new(16);
    let mut model = VecDeque::new();
    let mut next = 0_u8;
    for step in bytes.chunks_exact(2) {
        let count = usize::from(step[1] % 17);
        if step[0] == 0xff && buffer.capacity() < 64 {
            buffer.grow(buffer.capacity() + count);
        } else if step[0] % 2 == 1 {
            let put = (0..count.min(buffer.room())).map(|_| {
                next = next.wrapping_add(1);
                next
            });
            let put: Vec<u8> = put.collect();
            buffer.push(&put);
            model.extend(put);
        } else {
            let count = count.min(buffer.oldest().len());
            let expected: Vec<u8> = model.drain(..count).collect();
            assert_eq!(&buffer.oldest()[..count], &expected[..]);
            buffer.consume(count);
        }
        assert_eq!(buffer.contents(), Vec::from(model.clone()));
        assert_eq!((buffer.len(), buffer.room()), (model.len(), buffer.capacity() - model.len()));
        assert_eq!(buffer.oldest().is_empty(), model.is_empty());
        assert_eq!(buffer.free().is_empty(), model.len() == buffer.capacity());
    }
}
