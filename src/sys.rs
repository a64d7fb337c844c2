//! Every unsafe line of the program. All else forbids unsafe code.

use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::panic::{self, AssertUnwindSafe};
use std::process::Command;

use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{ForkResult, Pid, fork, getpid};

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

/// Starts a copy of this process that calls `work` with our process number and `kept`, and does nothing
/// else. Gives the copy's process number.
///
/// A copy needs no loading and shares its memory with us until one of the two writes to it: it costs a
/// fraction of a program that is started anew. It has `kept` and no other descriptor of ours, `/dev/null`
/// for standard input, output and error, and every signal blocked; `work` must not let one through, since
/// the handlers are still ours. Others see `name` and our process number as its command line, as far as
/// there is room where ours is.
///
/// What waits in a buffer to be written is written by us alone. Any other thread of ours must be doing
/// nothing but wait: the copy has none of them, and what one has locked would stay locked in it.
pub fn copy(name: &str, kept: OwnedFd, work: fn(i32, OwnedFd)) -> io::Result<Pid> {
    let (original, null) = (getpid(), File::options().read(true).write(true).open("/dev/null")?);
    // Before the copy is made: no handler of ours ever runs in it.
    let signals = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    // SAFETY: the copy goes on in this thread alone. What it runs takes no lock that another thread can
    // have (ours only wait, and the allocator's is free after a fork), and it never returns from here: it
    // ends in `live_as_a_copy`.
    let forked = unsafe { fork() };
    if let Ok(ForkResult::Child) = forked {
        live_as_a_copy(&[name, &original.to_string()], &null, kept, |kept| {
            work(original.as_raw(), kept);
        });
    }
    signals.thread_set_mask()?;
    match forked? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => unreachable!("a copy ends where it lives"),
    }
}

/// All that a copy does.
fn live_as_a_copy(words: &[&str], null: &File, kept: OwnedFd, work: impl FnOnce(OwnedFd)) -> ! {
    let done = panic::catch_unwind(AssertUnwindSafe(|| {
        // It would give our terminal back.
        drop(panic::take_hook());
        keep_only(&kept, null)?;
        show_command_line(words);
        work(kept);
        io::Result::Ok(())
    }));
    // SAFETY: it ends the copy, and nothing else runs in it: no value of ours is dropped, no exit handler
    // called, no buffer written.
    unsafe { libc::_exit(i32::from(!matches!(done, Ok(Ok(()))))) }
}

/// For a copy: makes `null` standard input, output and error, and closes all else but `kept`.
fn keep_only(kept: &OwnedFd, null: &File) -> io::Result<()> {
    rustix::stdio::dup2_stdin(null)?;
    rustix::stdio::dup2_stdout(null)?;
    rustix::stdio::dup2_stderr(null)?;
    let kept = kept.as_raw_fd();
    let (below, above) = ((kept - 1).cast_unsigned(), (kept + 1).cast_unsigned());
    // A range with nothing in it is none to the kernel.
    if !((kept == 3 || close_range(3, below)) && close_range(above, u32::MAX)) {
        // A kernel before 5.9 does not know the call.
        for number in
            numbers_in_use().into_iter().filter(|number| ![0, 1, 2, kept].contains(number))
        {
            // SAFETY: as in `close_range`. Most of them are open; one that is not is an error without
            // consequences.
            unsafe { libc::close(number) };
        }
    }
    Ok(())
}

/// For a copy: closes the descriptors from `first` to `last` (`close_range(2)`). Gives false where the
/// kernel does not. Without the C library, which knows the call since glibc 2.34, and musl's does not.
fn close_range(first: u32, last: u32) -> bool {
    let [first, last, flags] = [first, last, 0].map(libc::c_ulong::from);
    // SAFETY: the call takes three numbers, and touches no memory of ours. What owns these descriptors
    // belongs to our original, the handlers of signals too: in its copy none of it is used or dropped
    // (`copy`).
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) == 0 }
}

/// The numbers of our descriptors, and perhaps some that are none.
fn numbers_in_use() -> Vec<RawFd> {
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        return entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
    }
    // Where that is not mounted: as many as there can be, or as anybody has.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    (0..limit.and_then(|limit| RawFd::try_from(limit).ok()).unwrap_or(RawFd::MAX).min(1 << 16))
        .collect()
}

/// For a copy: writes `words` over the command line that `/proc` shows of it, those that fit whole. Where
/// that is, `/proc` says (`arg_start` and `arg_end` in `proc_pid_stat(5)`); without it nothing is written.
fn show_command_line(words: &[&str]) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name, in parentheses, is field 2, and may contain anything.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let (from, to) = (fields.nth(48 - 3), fields.next());
    let number = |field: Option<&str>| field.and_then(|field| field.parse::<usize>().ok());
    let (Some(from @ 1..), Some(to)) = (number(from), number(to)) else { return };
    let room = to.saturating_sub(from);
    let mut line = Vec::new();
    for word in words {
        // Each ends with a 0; and the last byte of all has to be one, else the kernel takes what comes
        // after for the rest.
        if line.len() + word.len() < room {
            line.extend_from_slice(word.as_bytes());
            line.push(0);
        }
    }
    line.resize(room, 0);
    let place = std::ptr::with_exposed_provenance_mut::<u8>(from);
    // SAFETY: the kernel put our arguments there at exec, `room` bytes that are ours to write and stay for
    // as long as the process. The copy has one thread, and reads no argument any more.
    unsafe { std::ptr::copy_nonoverlapping(line.as_ptr(), place, line.len()) };
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
