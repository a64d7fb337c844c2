//! How a console passes from one session to the next: what the giver and the taker say and do.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, MemfdFlags, fstat, memfd_create};
use rustix::io::Errno;

use super::place::{self, Who};
use super::protocol::{About, Answer, Request, VERSION};
use crate::test_point;
use crate::wire;

/// How long a session or its guard may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Two sessions' buffers hold no more than this.
const MOST_UNDELIVERED: u64 = 8 * 1024 * 1024;

/// What became of a console that was given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The taker has everything.
    Taken,
    /// The taker ended before it had.
    Dropped,
    /// Neither is known yet.
    Open,
}

/// Gives the console away, and what was read and not delivered, to who is at the other end of `line`.
pub fn give(line: impl AsFd, console: impl AsFd, typed: &[u8], printed: &[u8]) -> io::Result<()> {
    let mut file = File::from(memfd_create("vconsole", MemfdFlags::CLOEXEC)?);
    file.write_all(typed)?;
    file.write_all(printed)?;
    let answer = Answer::Console { typed: typed.len() as u64, printed: printed.len() as u64 };
    wire::send(line, &answer, &[console.as_fd(), file.as_fd()])
}

/// Waits for what becomes of it. The answer stays in `line`, for whoever else has it.
pub fn outcome(line: impl AsFd, until: Option<Instant>) -> Outcome {
    if !wire::wait(&line, until) {
        return Outcome::Open;
    }
    match wire::peek(&line) {
        Ok(Some(Request::Done)) => Outcome::Taken,
        Err(Errno::AGAIN) => Outcome::Open,
        Ok(_) | Err(_) => Outcome::Dropped,
    }
}

/// A console that was given to us.
#[derive(Debug)]
pub struct Gift {
    /// The line to the giver.
    line: OwnedFd,
    /// The console, open.
    pub console: OwnedFd,
    /// What the giver read and did not deliver to the console.
    pub typed: Vec<u8>,
    /// What it read from the console and did not show.
    pub printed: Vec<u8>,
}

/// Why a console was not given to us.
#[derive(Debug, thiserror::Error)]
pub enum Declined {
    /// Nobody answers there.
    #[error("nobody answers there")]
    Nobody(#[source] io::Error),
    /// It was reached, and did not answer in time.
    #[error("it does not answer")]
    Silent,
    /// It ended.
    #[error("it ended meanwhile")]
    Ended,
    /// It said no, and why.
    #[error("{0}")]
    Refused(String),
}

/// Asks the session that is process `pid` of user `uid`, or its guard, for its console.
pub fn ask(uid: u32, pid: i32, who: Who, about: About) -> Result<Gift, Declined> {
    let until = Instant::now() + PATIENCE;
    let line = place::call(uid, pid, who).map_err(Declined::Nobody)?;
    let request = Request::Takeover { version: VERSION, about };
    wire::send(&line, &request, &[]).map_err(|_| Declined::Ended)?;
    test_point::reached("asked");
    loop {
        if !wire::wait(&line, Some(until)) {
            return Err(Declined::Silent);
        }
        match wire::receive(&line) {
            Ok(Some((Answer::Console { typed, printed, .. }, descriptors))) => {
                return Gift::open(line, descriptors, typed, printed)
                    .map_err(|error| Declined::Refused(error.to_string()));
            }
            Ok(Some((Answer::Refused(why), _))) => return Err(Declined::Refused(why)),
            Err(Errno::AGAIN) => {}
            Ok(None) | Err(_) => return Err(Declined::Ended),
        }
    }
}

impl Gift {
    fn open(
        line: OwnedFd,
        descriptors: Vec<OwnedFd>,
        typed: u64,
        printed: u64,
    ) -> io::Result<Self> {
        let wrong = || io::Error::other("it sent something else than a console");
        let [console, file] = <[OwnedFd; 2]>::try_from(descriptors).map_err(|_| wrong())?;
        // Whatever it is, reading it must not wait.
        let regular = FileType::from_raw_mode(fstat(&file)?.st_mode) == FileType::RegularFile;
        let length = typed.checked_add(printed).filter(|length| *length <= MOST_UNDELIVERED);
        let (true, Some(length)) = (regular, length) else { return Err(wrong()) };
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| wrong())?];
        File::from(file).read_exact_at(&mut bytes, 0)?;
        let printed = bytes.split_off(usize::try_from(typed).map_err(|_| wrong())?);
        Ok(Self { line, console, typed: bytes, printed })
    }

    /// The parts of it: the console, what says that we have everything, and the bytes for the console
    /// and for the terminal.
    #[must_use]
    pub fn into_parts(self) -> (OwnedFd, Receipt, Vec<u8>, Vec<u8>) {
        (self.console, Receipt(self.line), self.typed, self.printed)
    }
}

/// What the giver waits for. Dropped without [`Receipt::sign`] it tells them that we failed.
#[derive(Debug)]
pub struct Receipt(OwnedFd);

impl Receipt {
    /// Says that we have everything.
    pub fn sign(self) {
        let _ = wire::send(&self.0, &Request::Done, &[]);
    }
}
