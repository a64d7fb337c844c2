//! How a console passes from one session to the next: what the giver and the taker say and do.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, MemfdFlags, OFlags, fcntl_get_seals, fcntl_getfl, fcntl_setfl, memfd_create,
};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

use super::place::{self, Who};
use super::protocol::{About, Answer, Place, Request, VERSION};
use super::tape::{self, Tape};
use crate::console::Device;
use crate::printable::sentence;
use crate::test_point;
use crate::wire;

/// How long a session or its guard may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// How long who is given the console may take to have everything. Less than the other: who comes after
/// them still gets an answer.
pub const TO_TAKE_IT: Duration = Duration::from_secs(1);

/// How often who waits for an answer sees to other things.
const GLANCE: Duration = Duration::from_millis(20);

/// Two sessions' buffers hold no more than this.
const MOST_UNDELIVERED: u64 = 8 * 1024 * 1024;

/// No console has printed more: a tape that ends farther is none, and places on it could not be counted.
const FARTHEST: u64 = u64::MAX / 2;

/// What became of a console that was given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The taker has everything.
    Taken,
    /// It is still the giver's: the taker ended before it had, or did not say so in time. Nor will it
    /// ever have.
    Kept {
        /// Whether the taker has heard so, or is gone.
        told: bool,
    },
}

/// Gives the console away to who is at the other end of `line`: with what was read and not delivered,
/// typed and printed, and with the tape for those who watch.
pub fn give(
    line: impl AsFd,
    console: impl AsFd,
    [typed, printed]: [&[u8]; 2],
    tape: Option<&Tape>,
) -> io::Result<()> {
    let mut file = File::from(memfd_create("vconsole", MemfdFlags::CLOEXEC)?);
    file.write_all(typed)?;
    file.write_all(printed)?;
    if let Some(tape) = tape {
        file.write_all(&tape.all_from(tape.oldest()))?;
    }
    let answer = Answer::Console {
        typed: typed.len() as u64,
        printed: printed.len() as u64,
        tape: tape.map(Tape::end),
    };
    wire::send(line, &answer, &[console.as_fd(), file.as_fd()])
}

/// Waits for what becomes of it, but no longer than `patience`: then it is settled, and both sides know
/// the same of it. The answer stays in `line`, for whoever else has it.
pub fn outcome(line: impl AsFd, patience: Duration) -> Outcome {
    wire::wait(&line, Some(Instant::now() + patience));
    // From here on the taker cannot say any more that it has everything: it has said so, or it never will.
    let _ = shutdown(&line, Shutdown::Read);
    if wire::peek(&line) == Ok(Some(Request::Done)) {
        return Outcome::Taken;
    }
    keep(line)
}

/// Says that it is still the giver's: also where it could not be given, whatever the other side says to
/// that. Unless it hears so, `line` must stay open for as long as the giver has the console.
pub fn keep(line: impl AsFd) -> Outcome {
    let _ = shutdown(&line, Shutdown::Read);
    test_point::reached("keeping");
    let told = match wire::send(&line, &Answer::Kept, &[]) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::BrokenPipe,
    };
    Outcome::Kept { told }
}

/// Whether who asked is still there, and waits for the answer.
pub fn is_waiting(line: impl AsFd) -> bool {
    wire::peek::<Request>(&line) == Err(Errno::AGAIN)
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
    /// What it kept for those who watch.
    pub tape: Option<Tape>,
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
    /// It ended, or let us stand there.
    #[error("it hung up on us")]
    Ended,
    /// It speaks another version of the protocol, this one.
    #[error(
        "it is another version of vconsole, which speaks version {0} of the protocol and not {VERSION}"
    )]
    Unsupported(u32),
    /// What it says cannot be understood.
    #[error("it does not answer as a session does")]
    Garbled,
    /// It gave it, and we have no room for another descriptor: that is no fault of its own.
    #[error("we cannot take it")]
    NoRoom(#[source] io::Error),
    /// It said no, and why: safe to show.
    #[error("{0}")]
    Refused(String),
    /// We gave up waiting.
    #[error("we gave up waiting for it")]
    GivenUp,
}

/// Asks the session that is process `pid` of user `uid`, or its guard, for its console: for so long, and
/// if that is wished politely, so that a driver is left alone. `give_up` is asked again and again meanwhile
/// whether to go on.
pub fn ask(
    uid: u32,
    pid: i32,
    who: Who,
    about: About,
    (patience, polite): (Duration, bool),
    give_up: &dyn Fn() -> bool,
) -> Result<Gift, Declined> {
    let until = Instant::now() + patience;
    if give_up() {
        return Err(Declined::GivenUp);
    }
    let line = place::call(uid, pid, who).map_err(Declined::Nobody)?;
    let request = Request::Takeover { version: VERSION, about, polite };
    wire::send(&line, &request, &[]).map_err(|_| Declined::Ended)?;
    test_point::reached("asked");
    loop {
        if give_up() {
            return Err(Declined::GivenUp);
        }
        let now = Instant::now();
        if !wire::wait(&line, Some(until.min(now + GLANCE))) {
            if now >= until {
                return Err(Declined::Silent);
            }
            continue;
        }
        match wire::receive(&line) {
            Ok(Some((Answer::Console { typed, printed, tape }, descriptors))) => {
                // What there was no room for does not come (SCM_RIGHTS in unix(7)).
                if let Err(error) = rustix::io::fcntl_dupfd_cloexec(&line, 0) {
                    return Err(Declined::NoRoom(error.into()));
                }
                return Gift::open(line, descriptors, [typed, printed], tape)
                    .map_err(|_| Declined::Garbled);
            }
            Ok(Some((Answer::Refused(why), _))) => return Err(Declined::Refused(sentence(&why))),
            Ok(Some((Answer::Unsupported { version }, _))) => {
                return Err(Declined::Unsupported(version));
            }
            Err(Errno::AGAIN) => {}
            // Its guard says that it kept the console, when it died before it gave it.
            Ok(Some((Answer::Kept, _)) | None) => return Err(Declined::Ended),
            Ok(Some(_)) | Err(Errno::BADMSG) => return Err(Declined::Garbled),
            Err(_) => return Err(Declined::Ended),
        }
    }
}

impl Declined {
    /// Whether it cannot be asked at all, whatever it would say: it does not speak, or not as we do.
    #[must_use]
    pub fn is_no_answer(&self) -> bool {
        match self {
            Self::Nobody(_) | Self::Silent | Self::Ended | Self::Unsupported(_) | Self::Garbled => {
                true
            }
            Self::NoRoom(_) | Self::Refused(_) | Self::GivenUp => false,
        }
    }
}

impl Gift {
    pub(super) fn open(
        line: OwnedFd,
        descriptors: Vec<OwnedFd>,
        [typed, printed]: [u64; 2],
        tape: Option<Place>,
    ) -> io::Result<Self> {
        let wrong = || io::Error::other("it sent something else than a console");
        let [console, file] = <[OwnedFd; 2]>::try_from(descriptors).map_err(|_| wrong())?;
        let flags = fcntl_getfl(&console)?;
        let device = Device::of_open(&console, c"", AtFlags::EMPTY_PATH)?;
        if flags & OFlags::RWMODE != OFlags::RDWR || device.is_none() {
            return Err(wrong());
        }
        // Whoever opened it, we never wait for it.
        fcntl_setfl(&console, flags | OFlags::NONBLOCK)?;
        // Whatever it is, reading it must not wait, and asking it neither: a filesystem can be a program
        // of theirs (FUSE). Only files in memory have seals (fcntl(2)), and the kernel knows of them.
        fcntl_get_seals(&file)?;
        let length = typed.checked_add(printed).filter(|length| *length <= MOST_UNDELIVERED);
        let Some(length) = length else { return Err(wrong()) };
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| wrong())?];
        let file = File::from(file);
        file.read_exact_at(&mut bytes, 0)?;
        let printed = bytes.split_off(usize::try_from(typed).map_err(|_| wrong())?);
        let tape = tape.filter(|end| end.at <= FARTHEST);
        let tape = tape.map(|end| wind_on(&file, length, end)).transpose()?;
        Ok(Self { line, console, typed: bytes, printed, tape })
    }

    /// The parts of it, but the tape: the console, what says that we have everything, and the bytes for
    /// the console and for the terminal.
    #[must_use]
    pub fn into_parts(self) -> (OwnedFd, Receipt, Vec<u8>, Vec<u8>) {
        (self.console, Receipt(self.line), self.typed, self.printed)
    }
}

/// The tape in a file, from `start` on. It is none of a session's needs: where it is too long, its last
/// bytes do.
fn wind_on(file: &File, start: u64, end: Place) -> io::Result<Tape> {
    let length = file.metadata()?.len().saturating_sub(start);
    let kept = length.min(tape::LONG as u64);
    let mut bytes = vec![0; usize::try_from(kept).unwrap_or(0)];
    file.read_exact_at(&mut bytes, start + (length - kept))?;
    Ok(Tape::going_on(end, &bytes))
}

/// What the giver waits for. Dropped without [`Receipt::sign`] it tells them that we failed.
#[derive(Debug)]
pub struct Receipt(OwnedFd);

impl Receipt {
    /// The line to the giver.
    #[must_use]
    pub fn line(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Says that we do not take it.
    pub fn give_up(&self) {
        let _ = shutdown(&self.0, Shutdown::Write);
    }

    /// Whether the giver waits no longer. It may still stop waiting at any moment.
    #[must_use]
    pub fn is_void(&self) -> bool {
        matches!(wire::peek(&self.0), Ok(Some(Answer::Kept)))
    }

    /// Says that we have everything. False where the giver did not wait so long: it goes on, and what we
    /// have is only to be closed.
    #[must_use]
    pub fn sign(self) -> bool {
        wire::send(&self.0, &Request::Done, &[]).is_ok()
            || is_left_to_us(&self.0, Some(Instant::now() + PATIENCE))
    }
}

impl Drop for Receipt {
    /// Our guard has the same end of the line: closing it alone would not be seen.
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Whether a console that was being given is left to our side, which says no more that it has everything:
/// it has said so before, or nobody of the other side is left. The word of the other side stays in `line`,
/// for whoever else has it.
pub fn is_left_to_us(line: impl AsFd, until: Option<Instant>) -> bool {
    let _ = shutdown(&line, Shutdown::Write);
    while wire::wait(&line, until) {
        match wire::peek::<Answer>(&line) {
            // The first look after the other side closed it says only that it did not read all.
            Err(Errno::AGAIN | Errno::CONNRESET) => {}
            Ok(None) => return true,
            Ok(Some(_)) | Err(_) => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn given(descriptors: Vec<OwnedFd>, tape: Option<Place>) -> io::Result<Gift> {
        let flags = SocketFlags::CLOEXEC;
        let (line, _) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        Gift::open(line, descriptors, [0, 0], tape)
    }

    fn opened(path: &str) -> OwnedFd {
        File::options().read(true).write(true).open(path).unwrap().into()
    }

    fn in_memory() -> OwnedFd {
        memfd_create("file", MemfdFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn a_tape_that_no_console_can_have_printed_is_left_alone() {
        let tape = Some(Place { reel: 1, at: u64::MAX });
        let gift = given(vec![opened("/dev/null"), in_memory()], tape).unwrap();
        assert!(gift.tape.is_none());
    }

    #[test]
    fn what_could_make_us_wait_for_a_filesystem_is_not_taken() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        given(vec![opened("/dev/null"), opened(manifest)], None).unwrap_err();
        given(vec![opened(manifest), in_memory()], None).unwrap_err();
        given(vec![opened("/dev/null")], None).unwrap_err();
    }
}
