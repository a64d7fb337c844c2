//! What the tests are told with: guests, terminals, lock directories and running programs, in the
//! words of the design.
//!
//! Nothing here sleeps to be safe: every wait is for an event, ends as soon as it comes, and panics
//! with what was seen so far when [`DEADLINE`] passes. Whatever a test started is killed and reaped
//! when its value is dropped.

// A vocabulary: not every word is in use at every time.
#![allow(dead_code, unused_imports)]

mod bystander;
mod ear;
mod guest;
mod leader;
mod locks;
mod pause;
mod process;
mod program;
mod pty;
mod session;
mod terminal;
mod time;

use std::io::Write as _;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};

pub(crate) use bystander::Bystander;
pub(crate) use ear::{Ear, contains, silence};
pub(crate) use guest::{Client, Flood, Guest, counting_from};
pub(crate) use locks::Locks;
pub(crate) use pause::Pause;
pub(crate) use process::{Process, is_alive};
pub(crate) use program::{Program, Vconsole};
pub(crate) use session::{Output, Piped, Session};
pub(crate) use terminal::{Settings, Terminal};
pub(crate) use time::{in_time, lies_between, took_less_than};

/// How long a test waits for what should come at once.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// An ordinary user and their group, by number: `nobody`, who has no files and no processes.
pub(crate) const SOMEBODY: u32 = 65534;

/// How often to look again at what the kernel has no event for.
const GLANCE: Duration = Duration::from_millis(2);

/// How many times to repeat what races: `VCONSOLE_ROUNDS`, or `default`.
pub(crate) fn rounds(default: usize) -> usize {
    std::env::var("VCONSOLE_ROUNDS").ok().and_then(|count| count.parse().ok()).unwrap_or(default)
}

/// Says why a test does not run here. The line goes past the test runner's capture, so that a run
/// which skipped something always shows it. Panics where `VCONSOLE_REQUIRE_PEERS=1`.
pub(crate) fn skip(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let required = std::env::var_os("VCONSOLE_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(!required, "{test} must not be skipped: {why}");
    drop(writeln!(std::io::stderr(), "skipped: {test}: {why}"));
}

/// Whether `program` is not on the `PATH`; if so the test is skipped, and should return.
pub(crate) fn missing(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !found {
        skip(&format!("{program} is not installed"));
    }
    !found
}

/// Whether we are not root; if so the test is skipped, and should return.
pub(crate) fn not_root() -> bool {
    let ordinary = !rustix::process::geteuid().is_root();
    if ordinary {
        skip("only root can start programs as somebody else");
    }
    ordinary
}

/// Between two looks no more than this is counted.
const STANDSTILL: Duration = Duration::from_secs(1);

/// Waits until `condition` holds, for what the kernel sends no event about.
#[track_caller]
pub(crate) fn until(what: &str, condition: impl FnMut() -> bool) {
    until_within(DEADLINE, what, condition);
}

/// The same, for what may take longer.
#[track_caller]
pub(crate) fn until_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let (mut waited, mut last) = (Duration::ZERO, Instant::now());
    while !condition() {
        assert!(waited < limit, "after {limit:?} still not: {what}");
        std::thread::sleep(GLANCE);
        // A machine that stands still, as one in a virtual machine can, gives nobody time.
        waited += last.elapsed().min(STANDSTILL);
        last = Instant::now();
    }
}

/// Waits until one of `events` is there on `descriptor`, or a hang-up; false when `limit` passed.
pub(crate) fn ready(descriptor: impl AsFd, events: PollFlags, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).unwrap();
    let mut set = [PollFd::new(&descriptor, events)];
    retry_on_intr(|| poll(&mut set, Some(&limit))).unwrap() > 0
}

/// Writes all of `bytes` to a non-blocking descriptor, for as long as it goes on: the deadline is
/// for each step.
#[track_caller]
pub(crate) fn write_all(descriptor: impl AsFd, bytes: &[u8], to: &str) {
    let mut rest = bytes;
    let mut last = Instant::now();
    while !rest.is_empty() {
        match rustix::io::write(&descriptor, rest) {
            Ok(count) => (rest, last) = (&rest[count..], Instant::now()),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let taken = bytes.len() - rest.len();
                assert!(
                    last.elapsed() < DEADLINE,
                    "{to} took {taken} of {} bytes, then none for {DEADLINE:?}",
                    bytes.len(),
                );
                // A master whose slave is closed is ready at once, for nothing.
                if ready(&descriptor, PollFlags::OUT, DEADLINE) {
                    std::thread::sleep(GLANCE / 20);
                }
            }
            Err(error) => panic!("cannot write to {to}: {error}"),
        }
    }
}

/// The process's environment for a program under test: ours without what would change its
/// behaviour, or the runtime's.
fn is_neutral(variable: &std::ffi::OsStr) -> bool {
    let name = variable.as_encoded_bytes();
    !name.starts_with(b"VCONSOLE_") && !name.starts_with(b"RUST_")
}

/// Makes `path` what `chmod` would.
pub(crate) fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
