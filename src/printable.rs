//! Text that others chose (process names, lock contents, paths), made safe to show on a terminal.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::time::SystemTime;

/// What another process says is shown up to so many bytes.
pub const LONGEST: usize = 500;

/// Shows bytes as text in which nothing can drive the terminal: control characters, characters that
/// reorder or hide text, the backslash and whatever is not UTF-8 are written as escapes.
///
/// ```
/// let shown = vconsole::printable::Printable::new("a\x1b[2Jb\n");
/// assert_eq!(shown.to_string(), "a\\x1b[2Jb\\n");
/// ```
#[derive(Clone, Copy)]
pub struct Printable<'a>(&'a [u8]);

impl<'a> Printable<'a> {
    /// Shows `text`: a path, an OS string or a plain string.
    pub fn new<T: AsRef<std::ffi::OsStr> + ?Sized>(text: &'a T) -> Self {
        Self(text.as_ref().as_bytes())
    }

    /// Shows `bytes`.
    #[must_use]
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

/// Writes a character, or what stands for it where it could drive a terminal. The backslash stays.
fn write_harmless(out: &mut impl fmt::Write, character: char) -> fmt::Result {
    match character {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        plain if !drives_a_terminal(plain) => out.write_char(plain),
        '\0'..='\x7f' => write!(out, "\\x{:02x}", u32::from(character)),
        _ => write!(out, "\\u{{{:x}}}", u32::from(character)),
    }
}

/// A sentence for the user that came from another process: the beginning of it, in which nothing can
/// drive the terminal. That process has escaped the names in it, and so its backslashes stay.
#[must_use]
pub fn sentence(text: &str) -> String {
    let mut harmless = String::new();
    for character in beginning(text, LONGEST).chars() {
        // A string takes everything.
        let _ = write_harmless(&mut harmless, character);
    }
    harmless
}

/// The beginning of a text: as many whole characters as `longest` bytes hold.
#[must_use]
pub fn beginning(text: &str, longest: usize) -> &str {
    let ends = text.char_indices().map(|(at, character)| at + character.len_utf8());
    &text[..ends.take_while(|end| *end <= longest).last().unwrap_or(0)]
}

/// A moment as the user's wall clock shows it, without a time zone: `2026-11-23 15:04:05`.
#[must_use]
pub fn local_time(moment: SystemTime) -> String {
    match jiff::Timestamp::try_from(moment) {
        Ok(moment) => {
            moment.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%F %T").to_string()
        }
        // Beyond the year 9999, or before the year -9999.
        Err(_) => "a time out of range".to_owned(),
    }
}

/// C0 and C1 controls, line separators, marks of annotation, and what changes the direction of text or
/// shows nothing (Unicode's `Bidi_Control` and `Default_Ignorable_Code_Point`), with which a name could
/// look like another.
fn drives_a_terminal(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, Printable, beginning, sentence};

    #[test]
    fn what_others_chose_cannot_drive_the_terminal() {
        assert_eq!(Printable::bytes(b"a\x1b]0;x\x07\n\xff").to_string(), r"a\x1b]0;x\x07\n\xff");
        assert_eq!(Printable::new("\u{9b}2J\u{202e}exe").to_string(), r"\u{9b}2J\u{202e}exe");
    }

    #[test]
    fn what_shows_nothing_is_shown_by_its_number() {
        for hidden in "\u{ad}\u{34f}\u{115f}\u{17b5}\u{180b}\u{180e}\u{200b}\u{2060}\u{3164}\u{fe00}\
                       \u{fe0f}\u{feff}\u{ffa0}\u{fff0}\u{1bca0}\u{1d173}\u{e0001}\u{e0100}\u{e01ef}"
            .chars()
        {
            let number = format!("a\\u{{{:x}}}b", u32::from(hidden));
            assert_eq!(Printable::new(&format!("a{hidden}b")).to_string(), number);
        }
    }

    #[test]
    fn what_another_process_says_cannot_drive_the_terminal_and_has_an_end() {
        assert_eq!(sentence("no\x1b[2J\r\u{9b}m"), r"no\x1b[2J\r\u{9b}m");
        // A name in it was escaped by who said it.
        assert_eq!(sentence(r"a\x1b[2J took it"), r"a\x1b[2J took it");
        assert_eq!(sentence(&"x".repeat(LONGEST + 1)).len(), LONGEST);
        assert_eq!(beginning("aéb", 2), "a");
        assert_eq!(beginning("aéb", 3), "aé");
    }

    #[test]
    fn plain_names_are_shown_as_they_are() {
        assert_eq!(
            Printable::new("/dev/serial/by-id/Žluťák 1").to_string(),
            "/dev/serial/by-id/Žluťák 1"
        );
    }
}
