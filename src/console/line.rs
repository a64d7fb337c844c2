//! A terminal line, by a descriptor or a path alone: for guards as well, which know no more of it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{Action, ControlModes, OptionalActions, Termios};

use super::Device;

/// Whether a descriptor of a line is good for nothing any more: it was hung up.
pub(crate) fn is_revoked(line: impl AsFd) -> bool {
    rustix::termios::tcgetattr(line).is_err()
}

/// Opens a line again that was hung up: only if it is still that device.
pub(crate) fn reopen(path: &Path, device: Device) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let line = rustix::fs::open(path, flags, Mode::empty())?;
    let file = rustix::fs::fstat(&line)?;
    if (Device { filesystem: file.st_dev, number: file.st_rdev }) == device {
        Ok(line)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Makes a line raw, and lets its output go on: who is killed while they hang it up leaves it stopped.
pub(crate) fn go_on(line: impl AsFd) -> io::Result<()> {
    make_raw(&line)?;
    Ok(rustix::termios::tcflow(line, Action::OOn)?)
}

/// Makes a line raw; speed, parity and flow control by wires stay as they were.
pub(super) fn make_raw(line: impl AsFd) -> io::Result<()> {
    let mut settings = rustix::termios::tcgetattr(&line)?;
    settings.make_raw();
    settings.control_modes |= ControlModes::CREAD | ControlModes::CLOCAL;
    // Now: the other two would wait for, or throw away, what is pending (tcsetattr(3)).
    rustix::termios::tcsetattr(&line, OptionalActions::Now, &settings)?;
    // tcsetattr succeeds if any one of the settings could be made.
    let made = rustix::termios::tcgetattr(&line)?;
    if is_raw(&made, &settings) { Ok(()) } else { Err(io::Error::other("it does not become raw")) }
}

fn is_raw(made: &Termios, wanted: &Termios) -> bool {
    made.input_modes == wanted.input_modes
        && made.output_modes == wanted.output_modes
        && made.local_modes == wanted.local_modes
}

/// Passes over an error that only says that the other end has closed (`EIO`): there may be more to read, and
/// who reads comes to its end.
pub fn unless_hung_up(error: io::Error) -> io::Result<()> {
    if Errno::from_io_error(&error) == Some(Errno::IO) { Ok(()) } else { Err(error) }
}
