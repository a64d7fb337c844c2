//! Properties of every parser of untrusted input: a function for each, which panics if its property
//! does not hold. They are the targets of `fuzz/` and, over input made of words that each parser
//! knows, tests: `PROPTEST_CASES=1000000 cargo test --release --lib properties`.

pub use crate::cli::time;
pub use crate::console::properties::{command_line, control_group};
pub use crate::locks::properties::{flock_table, lock_file, lock_name, lock_status};
pub use crate::printable::printable;
pub use crate::process::properties::{descriptor, stat};
pub use crate::relay::properties::{buffer, escape, escape_key};
pub use crate::session::properties::{handoff, message, wait_queue};

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
        lock_status: ["      4242\n", " ", "\n", "1", "4242", "17"],
        flock_table: [
            "1: FLOCK  ADVISORY  WRITE ", " 00:18:53 0 EOF\n", "1: -> FLOCK  ADVISORY  WRITE ", "\n", " ", "-",
        ],
        wait_queue: [
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
            "{\"takeover\":{\"version\":3,\"info\":{}}}",
            "{\"watch\":{\"version\":3,\"info\":{},\"from\":{\"stream\":1,\"offset\":1}}}", "{\"takeover\":{\"version\":1,\"info\":{\"host\":null}}}",
            "\"done\"", "{\"refused\":\"\"}", "{\"console\":{\"typed\":0,\"printed\":9}}", "{", "}", "\"", ":", ",",
            "[", "]", "\\u0000", "1e999", "\x02", "\x03", "null",
        ],
        handoff: ["\x01", "\x02", "\x03", "\0\0\0\0\0\0\0\0", "\x09\0\0\0\0\0\0\0"],
        time: ["s", "m", "h", "ms", "forever", "-", "P", "T", "H", "9223372036854775807", "ns", " ", ".", "d", "y"],
        escape_key: ["^", "]", "a", "A", "?", "none", "\x1d", "@", "_", "~"],
        printable: ["\\", "\n", "\x1b[2J", "\u{9b}", "\u{202e}", "x1b", "\u{e9}", "{", "}", "u{9b}", "\u{feff}",
            "\u{34f}", "\u{180e}", "\u{fe0f}", "\u{e01ef}", "\u{3164}"],
    }
}
