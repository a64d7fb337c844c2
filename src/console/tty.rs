//! Terminal lines by a descriptor or a path alone, which is all that guards know of them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{Action, ControlModes, OptionalActions};

use crate::device::Device;

/// Whether a line was hung up, so that this descriptor of it is useless.
pub(crate) fn is_revoked(line: impl AsFd) -> bool {
    rustix::termios::tcgetattr(line).is_err()
}

/// Opens a line again after a hang-up, if it is still that device.
pub(crate) fn reopen(path: &Path, device: Device) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let line = rustix::fs::open(path, flags, Mode::empty())?;
    if Device::of_fd(&line)? == Some(device) {
        Ok(line)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Makes a line raw, and lets its output go on, which a process killed in a hang-up left stopped.
pub(crate) fn go_on(line: impl AsFd) -> io::Result<()> {
    make_raw(&line)?;
    Ok(rustix::termios::tcflow(line, Action::OOn)?)
}

/// Makes a line raw. Speed, parity and hardware flow control stay.
pub(super) fn make_raw(line: impl AsFd) -> io::Result<()> {
    let mut settings = rustix::termios::tcgetattr(&line)?;
    settings.make_raw();
    settings.control_modes |= ControlModes::CREAD | ControlModes::CLOCAL;
    // The other actions would wait for, or throw away, pending output (tcsetattr(3)).
    rustix::termios::tcsetattr(&line, OptionalActions::Now, &settings)?;
    // tcsetattr succeeds if any one of the changes was made.
    let made = rustix::termios::tcgetattr(&line)?;
    let is_raw = made.input_modes == settings.input_modes
        && made.output_modes == settings.output_modes
        && made.local_modes == settings.local_modes;
    if is_raw { Ok(()) } else { Err(io::Error::other("it does not become raw")) }
}

/// Ignores an error that only means that the other end has closed (`EIO`): reading finds the end.
pub(crate) fn unless_hung_up(error: io::Error) -> io::Result<()> {
    if Errno::from_io_error(&error) == Some(Errno::IO) { Ok(()) } else { Err(error) }
}
