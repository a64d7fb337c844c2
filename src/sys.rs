//! Every unsafe line of the program. All else forbids unsafe code.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Whether `signal` is ignored now: so it stays, if whoever started us wished it (`nohup` does).
#[must_use]
pub fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null `act` changes nothing; the kernel fills in `action` when it returns 0, and only
    // then is it read (sigaction(2)).
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// How many bytes the terminal line still has to send (`TIOCOUTQ`, `ioctl_tty(2)`).
pub fn unsent_output(line: impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: TIOCOUTQ writes one int through its argument, which points to one.
    let result = unsafe { libc::ioctl(line.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Whether the exclusive flag is set on the terminal line (`TIOCGEXCL`, `ioctl_tty(2)`).
pub fn is_exclusive(line: impl AsFd) -> io::Result<bool> {
    let mut set: libc::c_int = 0;
    // SAFETY: TIOCGEXCL writes one int through its argument, which points to one.
    let result = unsafe { libc::ioctl(line.as_fd().as_raw_fd(), libc::TIOCGEXCL, &raw mut set) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(set != 0) }
}

/// Puts `byte` into what the terminal line has read, as if it had come in (`TIOCSTI`, `ioctl_tty(2)`).
/// Needs `CAP_SYS_ADMIN` where it is not our controlling terminal.
pub fn put_into_input(line: impl AsFd, byte: u8) -> io::Result<()> {
    // SAFETY: TIOCSTI reads one byte through its argument, which points to one.
    let result = unsafe { libc::ioctl(line.as_fd().as_raw_fd(), libc::TIOCSTI, &raw const byte) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Hangs the terminal line up (`TIOCVHANGUP`, `ioctl_tty(2)`): every descriptor of it that is open now,
/// `line` as well, is good for nothing any more. `EPERM` without `CAP_SYS_ADMIN`.
pub fn hang_up(line: impl AsFd) -> io::Result<()> {
    // SAFETY: TIOCVHANGUP takes no argument, and touches no memory of ours.
    let result = unsafe { libc::ioctl(line.as_fd().as_raw_fd(), libc::TIOCVHANGUP) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Closes every descriptor but standard input, output and error: for a process that has just started,
/// and inherited what others forgot to close.
pub fn close_inherited() {
    // SAFETY: it is called at the very start, when no value owns any of these descriptors. A kernel
    // before 5.9 does not know the call, and nothing is closed.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}

/// Makes `command` start as the leader of a session of its own, with `terminal` as its controlling
/// terminal.
pub fn lead_a_session_on(command: &mut Command, terminal: OwnedFd) {
    let start = move || {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(&terminal)?;
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. `start` makes two bare
    // system calls on values that it owns; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(start) };
}
