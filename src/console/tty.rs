//! Terminal lines by a descriptor or a path alone, which is all that guards know of them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{
    Action, ControlModes, InputModes, OptionalActions, SpecialCodeIndex, Termios,
};

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

/// Makes a line raw. Speed, data bits, parity and hardware flow control stay.
pub(super) fn make_raw(line: impl AsFd) -> io::Result<()> {
    let mut settings = rustix::termios::tcgetattr(&line)?;
    make_byte_pipe(&mut settings);
    // The other actions would wait for, or throw away, pending output (tcsetattr(3)).
    rustix::termios::tcsetattr(&line, OptionalActions::Now, &settings)?;
    // tcsetattr succeeds if any one of the changes was made.
    let made = rustix::termios::tcgetattr(&line)?;
    if is_byte_pipe(&made) { Ok(()) } else { Err(io::Error::other("it does not become raw")) }
}

/// The settings under which every byte passes unchanged, and nothing is echoed.
fn make_byte_pipe(settings: &mut Termios) {
    let frame = ControlModes::CSIZE | ControlModes::PARENB;
    let frame_before = settings.control_modes & frame;
    settings.make_raw();
    settings.control_modes = settings.control_modes.difference(frame) | frame_before;
    settings.control_modes |= ControlModes::CREAD | ControlModes::CLOCAL;
    // cfmakeraw(3) leaves these: they drop bytes with parity errors, and type XOFF by themselves.
    settings.input_modes -= InputModes::INPCK | InputModes::IGNPAR | InputModes::IXOFF;
}

fn is_byte_pipe(settings: &Termios) -> bool {
    let mut wanted = settings.clone();
    make_byte_pipe(&mut wanted);
    let wait = |it: &Termios| {
        (it.special_codes[SpecialCodeIndex::VMIN], it.special_codes[SpecialCodeIndex::VTIME])
    };
    settings.input_modes == wanted.input_modes
        && settings.output_modes == wanted.output_modes
        && settings.local_modes == wanted.local_modes
        && settings.control_modes == wanted.control_modes
        && wait(settings) == wait(&wanted)
}

/// The settings that belong to the user: vconsole reports a change by another program, and leaves
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineSettings {
    input_speed: u32,
    output_speed: u32,
    frame: ControlModes,
}

impl LineSettings {
    fn of(settings: &Termios) -> Self {
        let frame = ControlModes::CSIZE
            | ControlModes::CSTOPB
            | ControlModes::PARENB
            | ControlModes::PARODD
            | ControlModes::CMSPAR
            | ControlModes::CRTSCTS
            | ControlModes::HUPCL;
        Self {
            input_speed: settings.input_speed(),
            output_speed: settings.output_speed(),
            frame: settings.control_modes & frame,
        }
    }

    /// Describes the difference for a message. `None` if there is none.
    pub(super) fn changed_to(self, now: Self) -> Option<String> {
        let speed = (self.input_speed, self.output_speed) != (now.input_speed, now.output_speed);
        match (speed, self.frame != now.frame) {
            (true, _) => {
                Some(format!("the speed from {} to {}", self.output_speed, now.output_speed))
            }
            (false, true) => Some("data bits, parity, stop bits or flow control".to_owned()),
            (false, false) => None,
        }
    }
}

/// Reads the settings of a line, and whether it is a byte pipe.
pub(super) fn look(line: impl AsFd) -> io::Result<(LineSettings, bool)> {
    let settings = rustix::termios::tcgetattr(line)?;
    Ok((LineSettings::of(&settings), is_byte_pipe(&settings)))
}

/// Ignores an error that only means that the other end has closed (`EIO`): reading finds the end.
pub(crate) fn unless_hung_up(error: io::Error) -> io::Result<()> {
    if Errno::from_io_error(&error) == Some(Errno::IO) { Ok(()) } else { Err(error) }
}
