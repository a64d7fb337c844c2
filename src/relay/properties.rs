//! Properties of moved bytes.

#![allow(clippy::missing_panics_doc, reason = "a property that is broken panics")]

use std::collections::VecDeque;

use crate::relay::escape::{EscapeKey, outcome};
use crate::ring_buffer::Buffer;

/// Every byte that is no command passes, unchanged and in order, however the input is split.
pub fn escape(bytes: &[u8]) {
    let (&[key, size], input) = bytes.split_at(bytes.len().min(2)) else { return };
    // Every byte that can be an escape key, with DELETE, which is apart from the others in ASCII.
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

/// The buffer is a queue: two bytes of input are a step (put, take or grow) and a count.
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

/// An escape key is one byte or none, and is shown as it is written.
pub fn escape_key(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(key) = text.parse::<EscapeKey>() else { return };
    assert!(key.byte().is_none_or(|byte| byte.is_ascii_control()), "{key} is a key to type with");
    assert_eq!(key.byte().is_none(), text == "none");
    assert_eq!(key.to_string().parse(), Ok(key));
}
