//! The escape key, found anywhere in what the user types.

use std::fmt;
use std::str::FromStr;

use memchr::memchr;

/// The key that begins a command to vconsole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EscapeKey(Option<u8>);

impl EscapeKey {
    /// The byte that the key sends. `None`: there is no escape key.
    #[must_use]
    pub fn byte(self) -> Option<u8> {
        self.0
    }
}

/// A text that names no escape key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an escape key: try ^], ^a or none")]
pub struct NotAnEscapeKey;

impl FromStr for EscapeKey {
    type Err = NotAnEscapeKey;

    /// Reads `^]`, `^a`, `^A`, `^?` and their like, a control character itself, or `none`.
    fn from_str(text: &str) -> Result<Self, NotAnEscapeKey> {
        match text.as_bytes() {
            b"none" => Ok(Self(None)),
            b"^?" => Ok(Self(Some(DELETE))),
            [b'^', letter] => control(letter.to_ascii_uppercase()).ok_or(NotAnEscapeKey),
            [byte] if byte.is_ascii_control() => Ok(Self(Some(*byte))),
            _ => Err(NotAnEscapeKey),
        }
    }
}

/// What the terminal sends for Ctrl and the key `letter`: its code without the bit 0x40 (ASCII's
/// caret notation).
fn control(letter: u8) -> Option<EscapeKey> {
    matches!(letter, b'@'..=b'_').then_some(EscapeKey(Some(letter & 0x1f)))
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

/// What the user tells vconsole with the key after the escape key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Detach,
    Help,
    Status,
    Break,
    Wheel,
    /// A key that means nothing here.
    Unknown(u8),
}

impl Command {
    /// The command of `key`. Ctrl may still be held down from the escape key: `^Q` is `q`, `^?` is `?`.
    fn of(key: u8) -> Self {
        match key {
            b'.' | b'q' | 0x11 => Self::Detach,
            b'?' | DELETE => Self::Help,
            b's' | 0x13 => Self::Status,
            b'b' | 0x02 => Self::Break,
            b'f' | 0x06 => Self::Wheel,
            other => Self::Unknown(other),
        }
    }
}

/// A piece of the user's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// For the console, unchanged.
    Typed(&'a [u8]),
    /// For us.
    Command(Command),
}

/// Splits what the user types into bytes for the console and commands for us.
///
/// It keeps one bit from read to read, whether the escape key was the last byte; every byte that is
/// neither the escape key nor the key after it is passed on at once.
#[derive(Debug)]
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

    /// Takes the next piece off the front of `input`. `None` when nothing is left of it.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        loop {
            let (&first, after) = input.split_first()?;
            if std::mem::take(&mut self.armed) {
                let (key, rest) = input.split_at(1);
                *input = rest;
                // The escape key again sends itself, also where it is a command's key as well.
                let again = first == self.key;
                return Some(if again {
                    Piece::Typed(key)
                } else {
                    Piece::Command(Command::of(first))
                });
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

#[cfg(test)]
mod tests {
    use super::super::properties::outcome;
    use super::*;

    #[test]
    fn keys_are_read_as_people_write_them() {
        for (text, byte) in [
            ("^]", Some(0x1d)),
            ("^a", Some(1)),
            ("^A", Some(1)),
            ("^[", Some(0x1b)),
            ("^\\", Some(0x1c)),
            ("^^", Some(0x1e)),
            ("^_", Some(0x1f)),
            ("^@", Some(0)),
            ("^?", Some(0x7f)),
            ("\x1d", Some(0x1d)),
            ("none", None),
        ] {
            assert_eq!(text.parse::<EscapeKey>().map(EscapeKey::byte), Ok(byte), "{text:?}");
        }
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
        assert_eq!(
            commands,
            [
                Command::Help,
                Command::Status,
                Command::Break,
                Command::Unknown(b'x'),
                Command::Detach
            ]
        );
    }

    #[test]
    fn ctrl_may_be_held_down() {
        let (typed, commands) =
            outcome(0x1d, [b"\x1d\x11\x1d\x13\x1d\x02\x1d\x06\x1d\x7f" as &[u8]]);
        assert_eq!(typed, b"");
        assert_eq!(
            commands,
            [Command::Detach, Command::Status, Command::Break, Command::Wheel, Command::Help]
        );
    }

    #[test]
    fn the_escape_key_twice_sends_it_even_where_it_is_a_command() {
        assert_eq!(outcome(0x11, [b"\x11\x11" as &[u8]]), (vec![0x11], vec![]));
        assert_eq!(outcome(0x11, [b"\x11q" as &[u8]]), (vec![], vec![Command::Detach]));
    }
}
