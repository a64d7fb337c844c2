//! All unsafe code of the program.

use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::panic::{self, AssertUnwindSafe};
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{ForkResult, Pid, fork, getpid};

/// Whether `signal` is ignored now.
pub fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null `act` changes nothing. The kernel fills `action` when it returns 0, and only
    // then is it read (sigaction(2)).
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Whether two descriptors of two processes are one open file (`KCMP_FILE`, kcmp(2)). False where
/// the kernel cannot or may not tell.
pub fn is_same_file([(pid, number), (other_pid, other)]: [(i32, RawFd); 2]) -> bool {
    const KCMP_FILE: libc::c_long = 0;
    let [pid, other_pid] = [pid, other_pid].map(libc::c_long::from);
    let [number, other] = [number, other].map(|number| libc::c_ulong::from(number.unsigned_abs()));
    // SAFETY: the call takes five numbers, and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_kcmp, pid, other_pid, KCMP_FILE, number, other) == 0 }
}

/// How many bytes the terminal line has still to send (`TIOCOUTQ`, `ioctl_tty(2)`).
pub fn unsent_output(line: impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: TIOCOUTQ writes one int through its argument, which points to one.
    Errno::result(unsafe {
        libc::ioctl(line.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut count)
    })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Whether the exclusive flag is set on the terminal line (`TIOCGEXCL`, `ioctl_tty(2)`).
pub fn is_exclusive(line: impl AsFd) -> io::Result<bool> {
    let mut set: libc::c_int = 0;
    // SAFETY: TIOCGEXCL writes one int through its argument, which points to one.
    Errno::result(unsafe { libc::ioctl(line.as_fd().as_raw_fd(), libc::TIOCGEXCL, &raw mut set) })?;
    Ok(set != 0)
}

/// Puts `byte` into the input of the terminal line, as if it had arrived (`TIOCSTI`,
/// `ioctl_tty(2)`). Needs `CAP_SYS_ADMIN` if it is not our controlling terminal.
pub fn put_into_input(line: impl AsFd, byte: u8) -> io::Result<()> {
    // SAFETY: TIOCSTI reads one byte through its argument, which points to one.
    Errno::result(unsafe {
        libc::ioctl(line.as_fd().as_raw_fd(), libc::TIOCSTI, &raw const byte)
    })?;
    Ok(())
}

/// Hangs the terminal line up (`TIOCVHANGUP`, `ioctl_tty(2)`): every open descriptor of it becomes
/// useless, `line` too. `EPERM` without `CAP_SYS_ADMIN`.
pub fn hang_up(line: impl AsFd) -> io::Result<()> {
    // SAFETY: TIOCVHANGUP takes no argument, and touches no memory of ours.
    Errno::result(unsafe { libc::ioctl(line.as_fd().as_raw_fd(), libc::TIOCVHANGUP) })?;
    Ok(())
}

/// Starts a copy of this process that only calls `work` with our pid and `kept`. Returns its pid.
///
/// A copy needs no loading and shares memory with us until one of the two writes to it: it costs a
/// fraction of a newly started program. It has `kept` and no other descriptor of ours, `/dev/null`
/// for standard input, output and error, and every signal blocked; `work` must not unblock one,
/// since the handlers are still ours. Its command line shows `name` and our pid, as far as there is
/// room where ours is.
///
/// Only we write what is still in buffers. Any other thread of ours must do nothing but wait: the
/// copy has none of them, and what one has locked would stay locked in it.
pub fn copy(name: &str, kept: OwnedFd, work: fn(i32, OwnedFd)) -> io::Result<Pid> {
    let (original, null) = (getpid(), File::options().read(true).write(true).open("/dev/null")?);
    // Before the copy is made: none of our handlers ever runs in it.
    let signals = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    // SAFETY: the copy goes on in this thread alone. What it runs takes no lock that another thread
    // can have (ours only wait, and the allocator's is free after a fork), and it never returns
    // from here: it ends in `live_as_a_copy`.
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

fn live_as_a_copy(words: &[&str], null: &File, kept: OwnedFd, work: impl FnOnce(OwnedFd)) -> ! {
    let done = panic::catch_unwind(AssertUnwindSafe(|| {
        // The hook would restore our original's terminal.
        drop(panic::take_hook());
        keep_only(&kept, null)?;
        show_command_line(words);
        work(kept);
        io::Result::Ok(())
    }));
    // SAFETY: it ends the copy, in which nothing else runs: no value of ours is dropped, no exit
    // handler called, no buffer written.
    unsafe { libc::_exit(i32::from(!matches!(done, Ok(Ok(()))))) }
}

/// For a copy: makes `null` standard input, output and error, and closes all else but `kept`.
fn keep_only(kept: &OwnedFd, null: &File) -> io::Result<()> {
    rustix::stdio::dup2_stdin(null)?;
    rustix::stdio::dup2_stdout(null)?;
    rustix::stdio::dup2_stderr(null)?;
    let kept = kept.as_raw_fd();
    let (below, above) = ((kept - 1).cast_unsigned(), (kept + 1).cast_unsigned());
    // The kernel refuses an empty range.
    if !((kept == 3 || close_range(3, below)) && close_range(above, u32::MAX)) {
        // A kernel before 5.9 does not know the call.
        let others = numbers_in_use().into_iter().filter(|fd| ![0, 1, 2, kept].contains(fd));
        for number in others {
            // SAFETY: as in `close_range`. Closing a number that is not open is a harmless error.
            unsafe { libc::close(number) };
        }
    }
    Ok(())
}

/// For a copy: closes the descriptors from `first` to `last` (`close_range(2)`). Returns false if
/// the kernel cannot. Not through the C library: glibc has it only since 2.34, and musl has none.
fn close_range(first: u32, last: u32) -> bool {
    let [first, last, flags] = [first, last, 0].map(libc::c_ulong::from);
    // SAFETY: the call takes three numbers, and touches no memory of ours. What owns these
    // descriptors, signal handlers too, belongs to our original: its copy neither uses nor drops it
    // (`copy`).
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) == 0 }
}

/// The numbers of our descriptors, and perhaps some that are not open.
fn numbers_in_use() -> Vec<RawFd> {
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        let number =
            |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
        return entries.filter_map(number).collect();
    }
    // Without /proc: every number below the limit, up to a sensible one.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|limit| RawFd::try_from(limit).ok()).unwrap_or(RawFd::MAX);
    (0..limit.min(1 << 16)).collect()
}

/// For a copy: writes `words` over its command line, each only if it fits whole. `/proc` says where
/// that is (`arg_start` and `arg_end` in `proc_pid_stat(5)`); without it nothing is written.
fn show_command_line(words: &[&str]) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Field 2, the program's name in parentheses, may contain anything.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let (from, to) = (fields.nth(48 - 3), fields.next());
    let number = |field: Option<&str>| field.and_then(|field| field.parse::<usize>().ok());
    let (Some(from @ 1..), Some(to)) = (number(from), number(to)) else { return };
    let room = to.saturating_sub(from);
    let mut line = Vec::new();
    for word in words {
        // Each ends with a 0. The last byte must be 0, or the kernel takes what follows for the
        // rest.
        if line.len() + word.len() < room {
            line.extend_from_slice(word.as_bytes());
            line.push(0);
        }
    }
    line.resize(room, 0);
    let place = std::ptr::with_exposed_provenance_mut::<u8>(from);
    // SAFETY: the kernel put our arguments there at exec: `room` bytes that are ours to write as
    // long as the process lives. The copy has one thread, and reads no argument any more.
    unsafe { std::ptr::copy_nonoverlapping(line.as_ptr(), place, line.len()) };
}

/// Makes `command` start as the leader of a new session, with `terminal` as its controlling
/// terminal.
pub fn lead_a_session_on(command: &mut Command, terminal: OwnedFd) {
    let start = move || {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(&terminal)?;
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. `start` makes two
    // bare system calls on values that it owns; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(start) };
}
