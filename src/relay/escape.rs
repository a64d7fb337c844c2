//! The escape key, found anywhere in what the user types.

use std::fmt;
use std::str::FromStr;

use memchr::memchr;

/// The key that begins a command to vconsole, as the byte that it sends; `None`: there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EscapeKey(Option<u8>);

impl EscapeKey {
    pub(crate) fn byte(self) -> Option<u8> {
        self.0
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an escape key: try ^], ^a or none")]
pub(crate) struct NotAnEscapeKey;

impl FromStr for EscapeKey {
    type Err = NotAnEscapeKey;

    /// Reads `^]`, `^a`, `^A`, `^?` and their like, a control character itself, or `none`.
    fn from_str(text: &str) -> Result<Self, NotAnEscapeKey> {
        match text.as_bytes() {
            b"none" => Ok(Self(None)),
            b"^?" => Ok(Self(Some(DELETE))),
            // Ctrl sends the letter without the bit 0x40 (ASCII's caret notation).
            [b'^', letter] if matches!(letter.to_ascii_uppercase(), b'@'..=b'_') => {
                Ok(Self(Some(letter & 0x1f)))
            }
            [byte] if byte.is_ascii_control() => Ok(Self(Some(*byte))),
            _ => Err(NotAnEscapeKey),
        }
    }
}

impl fmt::Display for EscapeKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(byte) => write!(out, "^{}", char::from(byte ^ 0x40)),
            None => out.write_str("none"),
        }
    }
}

const DELETE: u8 = 0x7f;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Typed(&'a [u8]),
    /// The key of a command for us.
    Command(u8),
}

/// Splits what the user types into bytes for the console and commands for us.
///
/// From read to read it keeps only whether the escape key was the last byte; every byte that is
/// neither the escape key nor the key after it is passed on at once.
pub(super) struct Escape {
    key: u8,
    armed: bool,
}

impl Escape {
    pub(super) fn new(key: u8) -> Self {
        Self { key, armed: false }
    }

    /// Whether the escape key was pressed, and the next key is a command.
    pub(super) fn is_armed(&self) -> bool {
        self.armed
    }

    /// Whether something in `input`, which comes next, is not for the console.
    pub(super) fn concerns(&self, input: &[u8]) -> bool {
        self.armed || memchr(self.key, input).is_some()
    }

    /// Takes the next piece off the front of `input`, if anything is left.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        loop {
            let (&first, after) = input.split_first()?;
            if std::mem::take(&mut self.armed) {
                let (key, rest) = input.split_at(1);
                *input = rest;
                // The escape key again sends itself, even if it is also the key of a command.
                let again = first == self.key;
                return Some(if again { Piece::Typed(key) } else { Piece::Command(first) });
            }
            if first != self.key {
                let length = memchr(self.key, input).unwrap_or(input.len());
                let (typed, rest) = input.split_at(length);
                *input = rest;
                return Some(Piece::Typed(typed));
            }
            self.armed = true;
            *input = after;
        }
    }
}

/// The bytes for the console and the commands in these reads. Input that does not concern
/// [`Escape::concerns`] must come out unchanged, because the relay then leaves it where it is.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn outcome<'a>(
    key: u8,
    reads: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<u8>, Vec<u8>) {
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
        assert_eq!(read, b"", "some of the input is held back");
        if short_cut {
            let typed = &typed[before.0..];
            assert_eq!((typed, commands.len()), (whole, before.1), "some of it was for us");
            assert!(!escape.is_armed(), "the escape key was overlooked");
        }
    }
    (typed, commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_people_write_them() {
        let keys = ["^]", "^a", "^A", "^[", "^\\", "^^", "^_", "^@", "^?", "\x1d"];
        let bytes = [0x1d, 1, 1, 0x1b, 0x1c, 0x1e, 0x1f, 0, 0x7f, 0x1d];
        for (text, byte) in keys.into_iter().zip(bytes) {
            assert_eq!(text.parse(), Ok(EscapeKey(Some(byte))), "{text:?}");
        }
        assert_eq!("none".parse(), Ok(EscapeKey(None)));
        for wrong in ["", "^", "a", "~", "^1", "^{", "^]]", "None", "^ä", "\x1d\x1d", "ä"] {
            assert_eq!(wrong.parse::<EscapeKey>(), Err(NotAnEscapeKey), "{wrong:?}");
        }
    }

    #[test]
    fn keys_are_shown_as_they_are_written() {
        for text in ["^]", "^A", "^[", "^\\", "^^", "^_", "^@", "^?", "none"] {
            assert_eq!(text.parse::<EscapeKey>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn commands_are_found_anywhere_and_send_nothing() {
        let (typed, commands) = outcome(0x1d, [b"ab\x1d?cd\x1dse\x1d" as &[u8], b"bf\x1dx\x1d."]);
        assert_eq!(typed, b"abcdef");
        assert_eq!(commands, [b'?', b's', b'b', b'x', b'.']);
    }

    #[test]
    fn the_escape_key_twice_sends_it_even_where_it_is_a_command() {
        assert_eq!(outcome(0x11, [b"\x11\x11" as &[u8]]), (vec![0x11], vec![]));
        assert_eq!(outcome(0x11, [b"\x11q" as &[u8]]), (vec![], vec![b'q']));
    }
}
