//! Every unsafe line of the program. All else forbids unsafe code.

use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::panic::{self, AssertUnwindSafe};
use std::process::Command;

use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{ForkResult, fork};

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

/// Starts a copy of this process that does `work` and nothing else, and gives its process number.
///
/// A copy needs no loading and shares its memory with us until one of the two writes to it: it costs a
/// fraction of a program that is started anew. It has `kept` and no other descriptor of ours, `/dev/null`
/// for standard input, output and error, and every signal blocked. Others see `words` as its command
/// line, as far as there is room for them where ours is.
///
/// What waits in a buffer to be written is written by us alone. No other thread may be in the middle of
/// something: the copy has none of them, and what they have locked stays locked in it.
pub fn copy(
    words: &[&str],
    kept: OwnedFd,
    work: impl FnOnce(OwnedFd),
) -> io::Result<rustix::process::Pid> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // Before the copy is made: no handler of ours ever runs in it.
    let signals = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    // SAFETY: the copy goes on in this thread alone. What it runs takes no lock that another thread can
    // have (the caller sees to that, and the allocator's is free after a fork), and it never returns
    // from here: it ends below.
    let forked = unsafe { fork() };
    if let Ok(ForkResult::Child) = forked {
        live_as_a_copy(words, kept, &null, work);
    }
    signals.thread_set_mask()?;
    match forked? {
        ForkResult::Parent { child } => {
            rustix::process::Pid::from_raw(child.as_raw()).ok_or(io::ErrorKind::NotFound.into())
        }
        ForkResult::Child => unreachable!("a copy ends where it lives"),
    }
}

/// All that a copy does.
fn live_as_a_copy(words: &[&str], kept: OwnedFd, null: &File, work: impl FnOnce(OwnedFd)) -> ! {
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
    let kept = kept.as_raw_fd().cast_unsigned();
    // SAFETY: the values that own these descriptors are our original's. In its copy none of them is used
    // or dropped (`copy`), and nothing static owns one.
    let closed = unsafe {
        libc::close_range(3, kept - 1, 0) == 0 && libc::close_range(kept + 1, u32::MAX, 0) == 0
    };
    if closed {
        return Ok(());
    }
    // A kernel before 5.9 does not know the call.
    let open: Vec<RawFd> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for number in open.into_iter().filter(|&number| number > 2 && number.cast_unsigned() != kept) {
        // SAFETY: as above. The one that the directory was read by is closed already.
        unsafe { libc::close(number) };
    }
    Ok(())
}

/// For a copy: writes `words` over the command line that `/proc` shows of it. Where that is, `/proc` says
/// (`arg_start` and `arg_end` in `proc_pid_stat(5)`); without it nothing is written.
fn show_command_line(words: &[&str]) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name, in parentheses, is field 2, and may contain anything.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let (from, to) = (fields.nth(48 - 3), fields.next());
    let number = |field: Option<&str>| field.and_then(|field| field.parse::<usize>().ok());
    let (Some(from @ 1..), Some(to)) = (number(from), number(to)) else { return };
    let mut line = words.join("\0").into_bytes();
    line.resize(to.saturating_sub(from), 0);
    // The last one stays 0: else the kernel takes what comes after for the rest.
    if let Some(last) = line.last_mut() {
        *last = 0;
    }
    let place = std::ptr::with_exposed_provenance_mut::<u8>(from);
    // SAFETY: the kernel put our arguments there at exec, `to - from` bytes that are ours to write and
    // stay for as long as the process. The copy has one thread, and reads no argument any more.
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
