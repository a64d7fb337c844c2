//! What must hold of everything that reads what others wrote, whatever that is: one function for each
//! reader, which panics where its property is broken.
//!
//! The same functions are the targets of `fuzz/` and, over input made of the words that each knows,
//! tests of the ordinary suite: `PROPTEST_CASES=1000000 cargo test --release --lib properties`.

#![allow(clippy::missing_panics_doc, reason = "a property that is broken panics")]

use std::time::{Duration, Instant};

pub use crate::claim::properties::{kernel_tables, lock_file, lock_name, verdict};
pub use crate::console::properties::{command_line, control_group};
pub use crate::process::properties::{descriptor, stat};
pub use crate::relay::properties::{buffer, escape};
pub use crate::session::properties::{gift, message};

use crate::cli;
use crate::printable::Printable;
use crate::relay::{EscapeKey, Linger};

/// A length of time on the command line can be waited for, and is what people mean by it.
pub fn time(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = cli::duration(text);
    let linger = cli::linger(text);
    if text == "forever" {
        assert!(read.is_err() && linger == Ok(Linger::Forever));
        return;
    }
    assert_eq!(linger.ok(), read.clone().ok().map(Linger::Quiet));
    if let Ok(time) = &read {
        assert!(Instant::now().checked_add(*time).is_some(), "{time:?} is beyond every clock");
    }
    if let Ok(number) = text.parse::<u16>() {
        let seconds = Duration::from_secs(number.into());
        assert_eq!(read, Ok(seconds));
        assert_eq!(cli::duration(&format!("{number}s")), Ok(seconds));
        assert_eq!(cli::duration(&format!("{number}m")), Ok(60 * seconds));
        assert_eq!(cli::duration(&format!("{number}ms")), Ok(seconds / 1000));
    }
}

/// An escape key is one byte or none, and is shown as it can be written.
pub fn escape_key(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(key) = text.parse::<EscapeKey>() else { return };
    assert!(key.byte().is_none_or(|byte| byte.is_ascii_control()), "{key} is a key to type with");
    assert_eq!(key.byte().is_none(), text == "none");
    assert_eq!(key.to_string().parse(), Ok(key));
}

/// Nothing that is shown can drive a terminal, and it tells exactly what it shows.
pub fn printable(bytes: &[u8]) {
    let shown = Printable::bytes(bytes).to_string();
    is_harmless(&shown);
    assert_eq!(bytes_of(&shown).as_deref(), Some(bytes), "{shown}");
}

/// Asserts that a text has no control character, none that reorders text and none that hides.
pub(crate) fn is_harmless(text: &str) {
    // Unicode's Cc, Zl and Zp, and those of other kinds that turn what stands beside them, or show
    // nothing: all that a renderer may ignore.
    let harmful = |character: char| {
        let number = u32::from(character);
        let marks = [0x200b..=0x200f, 0x2028..=0x202e, 0x2060..=0x206f, 0xfff0..=0xfff8];
        let selectors = [0x180b..=0x180f, 0xfe00..=0xfe0f, 0xe0000..=0xe0fff];
        let fillers = [0x115f..=0x1160, 0x17b4..=0x17b5, 0x1bca0..=0x1bca3, 0x1d173..=0x1d17a];
        character.is_control()
            || [0xad, 0x34f, 0x61c, 0x3164, 0xfeff, 0xffa0].contains(&number)
            || [&marks[..], &selectors, &fillers].concat().iter().any(|it| it.contains(&number))
    };
    assert!(!text.chars().any(harmful), "{text:?} can drive a terminal");
}

/// The bytes of which `shown` tells.
fn bytes_of(shown: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = shown;
    while let Some(character) = rest.chars().next() {
        let (value, length) = if character == '\\' { escaped(rest)? } else { (character, 0) };
        if rest.starts_with("\\x") {
            bytes.push(u8::try_from(u32::from(value)).ok()?);
        } else {
            bytes.extend(value.encode_utf8(&mut [0; 4]).bytes());
        }
        rest = &rest[length.max(character.len_utf8())..];
    }
    Some(bytes)
}

/// The character that the escape at the beginning of `text` stands for, and its length.
fn escaped(text: &str) -> Option<(char, usize)> {
    let number = |digits: &str| char::from_u32(u32::from_str_radix(digits, 16).ok()?);
    Some(match text.as_bytes().get(1)? {
        b'\\' => ('\\', 2),
        b'n' => ('\n', 2),
        b'r' => ('\r', 2),
        b't' => ('\t', 2),
        b'x' => (number(text.get(2..4)?)?, 4),
        b'u' => {
            let end = text.find('}')?;
            (number(text.get(3..end)?)?, end + 1)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// Bytes in which `words` come more often than by chance, among numbers and any other bytes.
    fn text_of(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        let word = prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec());
        let number =
            prop_oneof![0..64_u64, any::<u64>()].prop_map(|it| it.to_string().into_bytes());
        let bytes = prop::collection::vec(any::<u8>(), 1..6);
        let piece = prop_oneof![4 => word, 2 => number, 2 => bytes];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// A test of each property, over texts of these words.
    macro_rules! hold {
        ($($property:ident: $words:expr,)*) => { proptest! {
            $(#[test] fn $property(bytes in text_of(&$words)) { super::$property(&bytes); })*
        } };
    }

    hold! {
        lock_file: [" ", "\n", "      4242\n", "0", "-", "+", "4194304", "4194305", "\0", "minicom"],
        lock_name: ["LCK..", "LK.", "_", "pts_", "pts/", "136", ".", "..", "000", "ttyS0", "LCK.._"],
        verdict: ["      4242\n", " ", "\n", "1", "4242", "17"],
        kernel_tables: [
            "1: FLOCK  ADVISORY  WRITE ", " 00:18:53 0 EOF\n", "1: -> FLOCK  ADVISORY  WRITE ",
            "ffff: 00000002 00000000 00010000 0005 01 ", " @vconsole-wait-1/", "\n", " ",
            "000000000042000000001-4242", "-",
        ],
        stat: ["42 (", ") S 1 7 7 34823 7 4194304 1 2 3 4 5 6 7 8 20 0 1 0 1234 0", ")", "(", " ", "Z", "\n"],
        descriptor: ["pos:\t0\n", "tty-index:", "\t", "\n", "flags:\t02\n", "4294967296", "-1"],
        command_line: [
            "\0", "-name\0", "--name=", "-n\0", "-n=", "guest=", ",", ",,", "process=x", "/usr/bin/qemu-kvm\0",
            "qemu-system-x86_64", "conmon\0", "--cid\0", "--machine=", "-id\0", "[lxc monitor] /var/lib/lxc ", " ",
            "0123456789abcdef0123456789abcdef", "\x1b[2J", "\x01",
        ],
        control_group: [
            "0::", "4:memory:", "/", "\n", ":", ".scope", "docker-", "lxc.payload.", "box", "system.slice",
            "0123456789abcdef0123456789abcdef", "\x1b[2J", "\r",
        ],
        escape: ["\x7f", "\x7f.", "\x1d", "\x1d.", "\x1d\x1d", "\x1d?", "\x1d\x11", "ls\r", "q", "\x11"],
        buffer: ["\x01\x10", "\x01\x07", "\x02\x03", "\x02\x10"],
        message: [
            "{\"takeover\":{\"version\":2,\"about\":{}}}",
            "{\"watch\":{\"version\":2,\"about\":{},\"from\":{\"reel\":1,\"at\":1}}}", "{\"takeover\":{\"version\":1,\"about\":{\"host\":null}}}",
            "\"done\"", "{\"refused\":\"\"}", "{\"console\":{\"typed\":0,\"printed\":9}}", "{", "}", "\"", ":", ",",
            "[", "]", "\\u0000", "1e999", "\x02", "\x03", "null",
        ],
        gift: ["\x01", "\x02", "\x03", "\0\0\0\0\0\0\0\0", "\x09\0\0\0\0\0\0\0"],
        time: ["s", "m", "h", "ms", "forever", "-", "P", "T", "H", "9223372036854775807", "ns", " ", ".", "d", "y"],
        escape_key: ["^", "]", "a", "A", "?", "none", "\x1d", "@", "_", "~"],
        printable: ["\\", "\n", "\x1b[2J", "\u{9b}", "\u{202e}", "x1b", "\u{e9}", "{", "}", "u{9b}", "\u{feff}",
            "\u{34f}", "\u{180e}", "\u{fe0f}", "\u{e01ef}", "\u{3164}"],
    }
}
