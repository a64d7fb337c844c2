//! `vconsole-guard`: not for users. A session starts it; `claim::guard` says what it is for.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::sys::signal::SigSet;

use crate::claim::guard::{GUARD, is_wire, stand_guard};
use crate::exit_status::ExitStatus;
use crate::sys;

/// Whether this process was started to be a guard.
#[must_use]
pub fn is_meant() -> bool {
    let name = env::args_os().next().unwrap_or_default();
    Path::new(&name).file_name().is_some_and(|name| name.as_bytes() == GUARD.as_bytes())
}

/// Guards the session that started it.
#[must_use]
pub fn run() -> ExitStatus {
    // What a terminal sends to its session is not for us. Blocked, and not only ignored: so the kernel
    // also lets us set a terminal in whose background we are (SIGTTOU).
    let blocked = SigSet::all().thread_block();
    sys::close_inherited();
    let session = env::args().nth(1).and_then(|pid| pid.parse().ok());
    let (Some(session), Ok(()), Ok(wire)) = (session, blocked, take_wire()) else {
        eprintln!("{GUARD} is a part of vconsole attach, which starts it");
        return ExitStatus::Failed;
    };
    // It fails only where we lead a process group, which is as good.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"vconsole-guard");
    stand_guard(session, wire);
    ExitStatus::Done
}

/// Takes the session's wire, which is standard input, away from there.
fn take_wire() -> io::Result<OwnedFd> {
    if !is_wire(io::stdin()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let wire = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(wire)
}
