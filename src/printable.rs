//! Text that others chose (process names, lock contents, paths), made safe to show on a terminal.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::time::SystemTime;

/// The most bytes shown of what another process says.
pub(crate) const LONGEST: usize = 500;

/// Shows bytes as text in which nothing can control the terminal: control characters, characters
/// that reorder or hide text, the backslash and whatever is not UTF-8 are written as escapes.
#[derive(Clone, Copy)]
pub struct Printable<'a>(&'a [u8]);

impl<'a> Printable<'a> {
    pub fn new<T: AsRef<std::ffi::OsStr> + ?Sized>(text: &'a T) -> Self {
        Self(text.as_ref().as_bytes())
    }

    pub fn bytes(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\\' => out.write_str("\\\\")?,
                    _ => write_harmless(out, character)?,
                }
            }
            for byte in chunk.invalid() {
                write!(out, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Writes a character, or an escape if it could control a terminal. The backslash stays.
fn write_harmless(out: &mut impl fmt::Write, character: char) -> fmt::Result {
    match character {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        plain if !controls_a_terminal(plain) => out.write_char(plain),
        '\0'..='\x7f' => write!(out, "\\x{:02x}", u32::from(character)),
        _ => write!(out, "\\u{{{:x}}}", u32::from(character)),
    }
}

/// The beginning of a sentence from another process, made safe to show. That process has escaped
/// the names in it, so its backslashes stay.
pub(crate) fn sentence(text: &str) -> String {
    let mut harmless = String::new();
    for character in beginning(text, LONGEST).chars() {
        // A string accepts everything.
        let _ = write_harmless(&mut harmless, character);
    }
    harmless
}

/// As many whole characters from the beginning of a text as `longest` bytes hold.
pub(crate) fn beginning(text: &str, longest: usize) -> &str {
    let ends = text.char_indices().map(|(at, character)| at + character.len_utf8());
    &text[..ends.take_while(|end| *end <= longest).last().unwrap_or(0)]
}

/// A time in the system's time zone: `2026-11-23 15:04:05`.
pub(crate) fn local_time(moment: SystemTime) -> String {
    match jiff::Timestamp::try_from(moment) {
        Ok(time) => {
            time.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%F %T").to_string()
        }
        // Beyond the year 9999, or before the year -9999.
        Err(_) => "a time out of range".to_owned(),
    }
}

/// C0 and C1 controls, line separators, annotation marks, and characters that change the direction
/// of text or are invisible (Unicode's `Bidi_Control` and `Default_Ignorable_Code_Point`), with
/// which one name could look like another.
fn controls_a_terminal(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Property: what is shown cannot control a terminal, and tells exactly which bytes it stands for.
#[cfg(any(test, feature = "fuzzing"))]
pub fn printable(bytes: &[u8]) {
    let shown = Printable::bytes(bytes).to_string();
    is_harmless(&shown);
    assert_eq!(bytes_of(&shown).as_deref(), Some(bytes), "{shown}");
}

/// Asserts that a text has no character that controls a terminal: no control character, and none
/// that reorders text or may be invisible.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn is_harmless(text: &str) {
    let harmful = |character: char| {
        let number = u32::from(character);
        let marks = [0x200b..=0x200f, 0x2028..=0x202e, 0x2060..=0x206f, 0xfff0..=0xfff8];
        let selectors = [0x180b..=0x180f, 0xfe00..=0xfe0f, 0xe0000..=0xe0fff];
        let fillers = [0x115f..=0x1160, 0x17b4..=0x17b5, 0x1bca0..=0x1bca3, 0x1d173..=0x1d17a];
        character.is_control()
            || [0xad, 0x34f, 0x61c, 0x3164, 0xfeff, 0xffa0].contains(&number)
            || [&marks[..], &selectors, &fillers].concat().iter().any(|it| it.contains(&number))
    };
    assert!(!text.chars().any(harmful), "{text:?} can control a terminal");
}

/// The bytes that `shown` stands for.
#[cfg(any(test, feature = "fuzzing"))]
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
#[cfg(any(test, feature = "fuzzing"))]
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
    use super::{LONGEST, Printable, beginning, sentence};

    #[test]
    fn text_of_others_cannot_control_the_terminal() {
        assert_eq!(Printable::bytes(b"a\x1b]0;x\x07\n\xff").to_string(), r"a\x1b]0;x\x07\n\xff");
        assert_eq!(Printable::new("\u{9b}2J\u{202e}exe").to_string(), r"\u{9b}2J\u{202e}exe");
    }

    #[test]
    fn invisible_characters_are_shown_by_their_numbers() {
        for hidden in "\u{ad}\u{34f}\u{115f}\u{17b5}\u{180b}\u{180e}\u{200b}\u{2060}\u{3164}\u{fe00}\
                       \u{fe0f}\u{feff}\u{ffa0}\u{fff0}\u{1bca0}\u{1d173}\u{e0001}\u{e0100}\u{e01ef}"
            .chars()
        {
            let number = format!("a\\u{{{:x}}}b", u32::from(hidden));
            assert_eq!(Printable::new(&format!("a{hidden}b")).to_string(), number);
        }
    }

    #[test]
    fn sentences_of_others_cannot_control_the_terminal_and_are_limited() {
        assert_eq!(sentence("no\x1b[2J\r\u{9b}m"), r"no\x1b[2J\r\u{9b}m");
        // A name in it is already escaped.
        assert_eq!(sentence(r"a\x1b[2J took it"), r"a\x1b[2J took it");
        assert_eq!(sentence(&"x".repeat(LONGEST + 1)).len(), LONGEST);
        assert_eq!(beginning("aéb", 2), "a");
        assert_eq!(beginning("aéb", 3), "aé");
    }

    #[test]
    fn plain_names_are_shown_as_they_are() {
        let name = "/dev/serial/by-id/Žluťák 1";
        assert_eq!(Printable::new(name).to_string(), name);
    }
}
