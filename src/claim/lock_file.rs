//! One lock file: what it says, read without following or waking anything.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use rustix::fs::{FileType, FlockOperation, Stat};
use rustix::io::retry_on_intr;

/// What tells one file from another in a directory: names come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    pub(super) fn of(file: &Stat) -> Self {
        Self { device: file.st_dev, number: file.st_ino }
    }
}

/// A lock file as it was found.
#[derive(Debug)]
pub(super) struct LockFile {
    pub(super) inode: Inode,
    /// When it was written.
    pub(super) written: SystemTime,
    pub(super) contents: Contents,
    /// Open for reading, where that could be done without following or waking anything.
    pub(super) open: Option<OwnedFd>,
}

/// What a lock file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// The processes that it names, each greater than 0: one, or two as Taylor UUCP may write.
    Pids(Vec<i32>),
    /// Nothing at all.
    Empty,
    /// Nothing that names a process.
    Garbage,
    /// It may not be read.
    Unreadable,
    /// It is no regular file, but what is said here, with its article.
    NotAFile(&'static str),
}

/// The most that a lock file is read of. Those of the field have 4 to some 30 bytes.
pub(super) const LONGEST: usize = 1024;

/// No process number reaches this on any Linux (`PID_MAX_LIMIT` in the kernel's linux/threads.h).
pub(super) const PID_MAX_LIMIT: i32 = 4 * 1024 * 1024;

/// What a lock file of ours says: the process number as ten characters, padded with blanks, and a
/// newline (FHS 2.3, /var/lock).
pub(super) fn contents_for(pid: i32) -> String {
    format!("{pid:>10}\n")
}

impl Contents {
    /// Reads every form that is found in the wild: padded with blanks or zeros or not at all, followed
    /// by text, two numbers, or the four bytes of a binary int (HDB UUCP, older C-Kermit).
    pub(super) fn parse(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::Empty;
        }
        if let Ok(int) = <[u8; 4]>::try_from(bytes)
            && !int.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_whitespace())
        {
            return Self::of_four(int);
        }
        let mut words = bytes.split(|byte| byte.is_ascii_whitespace() || *byte == 0);
        let mut words = words.by_ref().filter(|word| !word.is_empty());
        let first = words.next().and_then(number);
        // The second may also be a part of some text, such as a date or a speed.
        let second = words.next().and_then(number).filter(|second| is_possible(*second));
        match first.filter(|first| is_possible(*first)) {
            Some(first) => {
                let mut pids = vec![first];
                pids.extend(second.filter(|second| *second != first));
                Self::Pids(pids)
            }
            None => Self::Garbage,
        }
    }

    /// A binary int, or digits with the NUL that ends a text in C. Where it can be either it names both:
    /// it is dead only if neither lives.
    fn of_four(bytes: [u8; 4]) -> Self {
        let text = bytes.strip_suffix(b"\0").and_then(|text| number(text.trim_ascii()));
        let text = text.filter(|&pid| is_possible(pid));
        let binary = Some(i32::from_ne_bytes(bytes)).filter(|&pid| is_possible(pid));
        let pids: Vec<i32> = text.into_iter().chain(binary.filter(|_| binary != text)).collect();
        if pids.is_empty() { Self::Garbage } else { Self::Pids(pids) }
    }
}

/// Whether a process can have this number. 0 and less mean whole groups of processes to kill(2): never a
/// holder. Four letters of text are a number that is too high.
fn is_possible(pid: i32) -> bool {
    (1..=PID_MAX_LIMIT).contains(&pid)
}

fn number(word: &[u8]) -> Option<i32> {
    let digits = word.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(word).ok().filter(|_| digits)?.parse().ok()
}

impl LockFile {
    pub(super) fn new(file: &Stat, contents: Contents, open: Option<OwnedFd>) -> Self {
        Self { inode: Inode::of(file), written: modified(file), contents, open }
    }

    /// Whether `other` is this file, unchanged.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.inode, self.written, &self.contents) == (other.inode, other.written, &other.contents)
    }

    /// Takes the one mutex under which vconsoles judge and break a lock: flock on the file itself.
    ///
    /// Gives false if another has it. It is given back when this value is dropped. What could not be
    /// opened has none.
    pub(super) fn lock(&self) -> io::Result<bool> {
        let Some(open) = &self.open else { return Ok(true) };
        // A network's filesystem may ask its server, and be interrupted (flock(2)).
        let lock = || rustix::fs::flock(open, FlockOperation::NonBlockingLockExclusive);
        match retry_on_intr(lock) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// What a file that is no regular one is, with its article.
pub(super) fn not_a_file(file: &Stat) -> Option<&'static str> {
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
    let seconds = Duration::from_secs(file.st_mtime.unsigned_abs());
    let whole = if file.st_mtime < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    let whole = whole.unwrap_or(SystemTime::UNIX_EPOCH);
    let nanoseconds = u32::try_from(file.st_mtime_nsec).unwrap_or(0);
    whole.checked_add(Duration::from_nanos(nanoseconds.into())).unwrap_or(whole)
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
        assert_eq!(pids(b"      4242\n"), [4242]);
        assert_eq!(pids(b"4242\n"), [4242]);
        assert_eq!(pids(b"4242"), [4242]);
        assert_eq!(pids(b"0000004242\n"), [4242]);
        assert_eq!(pids(b"      4242 minicom bob\n"), [4242]);
        assert_eq!(pids(b"      4242       17\n"), [4242, 17]);
        assert_eq!(pids(b"      4242 115200000\n"), [4242]);
        assert_eq!(pids(b"      4242 0\n"), [4242]);
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
        for bytes in [
            &b"\n"[..],
            b"0\n",
            b"-1\n",
            b"+5\n",
            b"99999999999\n",
            b"4194305\n",
            b"ABC\n",
            b"4242x\n",
            b"minicom 4242\n",
            b"\xff\xfe\n",
            b"\0\0\0\0",
            &(-7_i32).to_ne_bytes(),
            &long,
        ] {
            assert_eq!(Contents::parse(bytes), Contents::Garbage, "{bytes:?}");
        }
        assert_eq!(Contents::parse(b""), Contents::Empty);
    }
}
