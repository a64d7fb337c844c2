//! One lock file: what it says, read without following or waking anything.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use rustix::fs::{FileType, FlockOperation, Stat};
use rustix::io::retry_on_intr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    pub(crate) fn of(file: &Stat) -> Self {
        Self { device: file.st_dev, number: file.st_ino }
    }
}

pub(crate) struct LockFile {
    pub(crate) inode: Inode,
    pub(crate) written: SystemTime,
    pub(crate) contents: Contents,
    /// `None` where opening would follow or wake anything.
    pub(crate) open: Option<OwnedFd>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// One pid, or two as Taylor UUCP may write, each greater than 0.
    Pids(Vec<i32>),
    Empty,
    Garbage,
    Unreadable,
    /// The kind of the file, with its article.
    NotAFile(&'static str),
}

/// How many bytes are read. Lock files of other programs have 4 to about 30.
pub(crate) const LONGEST: usize = 1024;

/// No pid reaches this on any Linux (`PID_MAX_LIMIT` in the kernel's linux/threads.h).
pub(crate) const PID_MAX_LIMIT: i32 = 4 * 1024 * 1024;

/// The pid as ten characters, padded with blanks, and a newline (FHS 2.3, /var/lock).
pub(crate) fn contents_for(pid: i32) -> String {
    format!("{pid:>10}\n")
}

impl Contents {
    /// Reads every form in use: padded with blanks or zeros or not at all, followed by text, two
    /// numbers, or a binary int of four bytes (HDB UUCP, older C-Kermit).
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::Empty;
        }
        if let Ok(int) = <[u8; 4]>::try_from(bytes)
            && !int.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_whitespace())
        {
            return Self::of_four(int);
        }
        let words = bytes.split(|byte| byte.is_ascii_whitespace() || *byte == 0);
        let mut numbers = words.filter(|word| !word.is_empty()).map(possible_pid);
        let Some(first) = numbers.next().flatten() else { return Self::Garbage };
        // The second number may also be text, such as a date or a speed.
        let second = numbers.next().flatten().filter(|second| *second != first);
        Self::Pids([first].into_iter().chain(second).collect())
    }

    /// A binary int, or digits and a NUL. If both are possible, both count: the lock is stale only
    /// if neither process lives.
    fn of_four(bytes: [u8; 4]) -> Self {
        let text = bytes.strip_suffix(b"\0").and_then(|text| possible_pid(text.trim_ascii()));
        let binary = Some(i32::from_ne_bytes(bytes)).filter(|&pid| is_possible(pid));
        let pids: Vec<i32> = text.into_iter().chain(binary.filter(|_| binary != text)).collect();
        if pids.is_empty() { Self::Garbage } else { Self::Pids(pids) }
    }
}

/// 0 and less mean process groups to kill(2). Four letters of text are a number that is too high.
fn is_possible(pid: i32) -> bool {
    (1..=PID_MAX_LIMIT).contains(&pid)
}

fn possible_pid(word: &[u8]) -> Option<i32> {
    let digits = word.iter().all(u8::is_ascii_digit);
    let pid = std::str::from_utf8(word).ok().filter(|_| digits)?.parse().ok()?;
    is_possible(pid).then_some(pid)
}

impl LockFile {
    pub(crate) fn new(file: &Stat, contents: Contents, open: Option<OwnedFd>) -> Self {
        Self { inode: Inode::of(file), written: modified(file), contents, open }
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.inode, self.written, &self.contents) == (other.inode, other.written, &other.contents)
    }

    /// Takes flock on the file, the mutex under which vconsoles judge and break a lock, until
    /// `self` is dropped. Returns false if another process has it. A file that could not be opened
    /// has none.
    pub(crate) fn lock(&self) -> io::Result<bool> {
        let Some(open) = &self.open else { return Ok(true) };
        // A network filesystem may ask its server, and be interrupted (flock(2)).
        let lock = || rustix::fs::flock(open, FlockOperation::NonBlockingLockExclusive);
        match retry_on_intr(lock) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

pub(crate) fn not_a_file(file: &Stat) -> Option<&'static str> {
    match FileType::from_raw_mode(file.st_mode) {
        FileType::RegularFile => None,
        FileType::Symlink => Some("a symlink"),
        FileType::Directory => Some("a directory"),
        FileType::Fifo => Some("a fifo"),
        FileType::Socket => Some("a socket"),
        _ => Some("a device"),
    }
}

fn modified(file: &Stat) -> SystemTime {
    let epoch = SystemTime::UNIX_EPOCH;
    let seconds = Duration::from_secs(file.st_mtime.unsigned_abs());
    let before = file.st_mtime < 0;
    let whole = if before { epoch.checked_sub(seconds) } else { epoch.checked_add(seconds) };
    let nanoseconds = u32::try_from(file.st_mtime_nsec).unwrap_or(0);
    let nanoseconds = Duration::from_nanos(nanoseconds.into());
    whole.and_then(|whole| whole.checked_add(nanoseconds)).unwrap_or(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pids(bytes: &[u8]) -> Vec<i32> {
        match Contents::parse(bytes) {
            Contents::Pids(pids) => pids,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_form_found_in_the_wild_is_read() {
        let padded = ["      4242\n", "4242\n", "4242", "0000004242\n"];
        let followed = ["      4242 minicom bob\n", "      4242 115200000\n", "      4242 0\n"];
        for text in padded.iter().chain(&followed) {
            assert_eq!(pids(text.as_bytes()), [4242], "{text:?}");
        }
        assert_eq!(pids(b"      4242       17\n"), [4242, 17]);
        assert_eq!(pids(&4242_i32.to_ne_bytes()), [4242]);
    }

    #[test]
    fn four_bytes_that_can_be_text_or_binary_are_both() {
        assert_eq!(pids(b"123\0"), [123, i32::from_ne_bytes(*b"123\0")]);
        assert_eq!(pids(b"12\n\0"), [12, i32::from_ne_bytes(*b"12\n\0")]);
        // A text of two digits has three bytes.
        assert_eq!(pids(b"12\0\0"), [i32::from_ne_bytes(*b"12\0\0")]);
        assert_eq!(pids(b"1234\0"), [1234]);
    }

    #[test]
    fn what_names_no_process_is_garbage() {
        let long = vec![b'9'; 40];
        let texts = ["\n", "0\n", "-1\n", "+5\n", "99999999999\n", "4194305\n", "ABC\n", "4242x\n"];
        let texts = texts.iter().map(|text| text.as_bytes());
        let negative = (-7_i32).to_ne_bytes();
        let others = [&b"minicom 4242\n"[..], b"\xff\xfe\n", b"\0\0\0\0", &negative, &long];
        for bytes in texts.chain(others) {
            assert_eq!(Contents::parse(bytes), Contents::Garbage, "{bytes:?}");
        }
        assert_eq!(Contents::parse(b""), Contents::Empty);
    }
}
