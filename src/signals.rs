//! Signals, delivered where a poll can wait for them.

use std::io;
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::sys;

/// The signals that end a program.
pub const ENDING: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// What delivers signals: its read end is readable when one has come.
pub type Delivery = SignalDelivery<UnixStream, SignalOnly>;

/// Delivers the signals `wished` from now on, and those `needed` in any case: none of them ends or stops
/// the process any more.
///
/// Who starts us may wish some ignored, as nohup(1) does with SIGHUP and a shell with SIGINT for its
/// background jobs: so those of `wished` stay.
pub fn deliver(wished: &[i32], needed: &[i32]) -> io::Result<Delivery> {
    let (read, write) = UnixStream::pair()?;
    let wished = wished.iter().filter(|signal| !sys::is_ignored(**signal));
    SignalDelivery::with_pipe(read, write, SignalOnly, wished.chain(needed))
}
