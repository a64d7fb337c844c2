//! The bound: the least that any program must do which moves bytes between a console and a terminal.

use std::io;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{read, write};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// The argument that makes this program the bound on the console behind it.
pub(crate) const BOUND: &str = "--bound";

/// The console, where this program was started to be the bound.
pub(crate) fn is_meant(mut arguments: impl Iterator<Item = String>) -> Option<String> {
    (arguments.nth(1)? == BOUND).then(|| arguments.next()).flatten()
}

/// Reads then writes, until there is no more.
pub(crate) fn run(path: &str) {
    let console = open(path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let (stdin, stdout) = (io::stdin(), io::stdout());
    for line in [&console as &dyn std::os::fd::AsFd, &stdin] {
        let line = line.as_fd();
        let mut settings = tcgetattr(line).unwrap();
        settings.make_raw();
        tcsetattr(line, OptionalActions::Now, &settings).unwrap();
    }
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&console, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        let ready = fds.map(|fd| !fd.revents().is_empty());
        if ready[0] && !pass(&stdin, &console, &mut bytes) {
            return;
        }
        if ready[1] && !pass(&console, &stdout, &mut bytes) {
            return;
        }
    }
}

fn pass(from: impl std::os::fd::AsFd, to: impl std::os::fd::AsFd, bytes: &mut [u8]) -> bool {
    let Ok(count) = read(from, &mut *bytes) else { return false };
    let mut left = &bytes[..count];
    while !left.is_empty() {
        let Ok(written) = write(&to, left) else { return false };
        left = &left[written..];
    }
    count > 0
}
