//! Signals, delivered where poll can wait for them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH, SIGXFSZ};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use signal_hook::low_level::emulate_default_handler;

use crate::sys;

/// The signals that end a program.
pub(crate) const ENDING: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// The delivery of signals: its read end is readable when one has arrived.
pub(crate) type Delivery = SignalDelivery<UnixStream, SignalOnly>;

/// Delivers the signals `wished` and `needed` from now on: none of them ends or stops the process
/// any more. Those of `wished` that are ignored stay so: nohup(1) ignores SIGHUP for us, and a
/// shell ignores SIGINT for background jobs.
pub(crate) fn deliver(wished: &[i32], needed: &[i32]) -> io::Result<Delivery> {
    let (read, write) = UnixStream::pair()?;
    let wished = wished.iter().filter(|signal| !sys::is_ignored(**signal));
    SignalDelivery::with_pipe(read, write, SignalOnly, wished.chain(needed))
}

/// The signals for this process. Make it before there is anything to clean up: from then on none of
/// them ends or stops the process. Readable for poll when a signal has arrived.
#[derive(Debug)]
pub(crate) struct Signals {
    delivery: Delivery,
    arrived: Arrived,
}

/// The signals that have arrived and were not yet obeyed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrived {
    /// A signal that ends the session.
    pub(crate) ending: Option<i32>,
    /// Asked to stop, and not continued since.
    pub(crate) stop: bool,
    /// Running again, perhaps after a SIGSTOP, which no process can notice beforehand.
    pub(crate) continued: bool,
    pub(crate) resized: bool,
}

/// The result of [`Signals::obey`].
pub(crate) struct Obeyed {
    /// The signal that ends us, if one has arrived. It stays for the next call.
    pub(crate) ending: Option<i32>,
    pub(crate) continued: bool,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        let delivery = deliver(&[&ENDING[..], &[SIGTSTP]].concat(), &[SIGWINCH, SIGCONT, SIGXFSZ])?;
        Ok(Self { delivery, arrived: Arrived::default() })
    }

    /// The signal that ends us, if one has arrived. It stays for the next call.
    pub(crate) fn ending(&mut self) -> Option<i32> {
        self.look();
        self.arrived.ending
    }

    /// Obeys what has arrived, if there is nothing to restore before we are stopped.
    pub(crate) fn obey(&mut self) -> io::Result<Obeyed> {
        self.look();
        if std::mem::take(&mut self.arrived.stop) {
            // Returns when we are continued.
            emulate_default_handler(SIGTSTP)?;
            self.look();
        }
        // Reset each time, or the next stop would be ignored.
        let continued = std::mem::take(&mut self.arrived.continued);
        Ok(Obeyed { ending: self.arrived.ending, continued })
    }

    pub(crate) fn take(&mut self) -> Arrived {
        self.look();
        std::mem::take(&mut self.arrived)
    }

    fn look(&mut self) {
        let arrived = &mut self.arrived;
        for signal in self.delivery.pending() {
            match signal {
                SIGWINCH => arrived.resized = true,
                SIGCONT => arrived.continued = true,
                SIGTSTP => arrived.stop = true,
                // The write beyond the file size limit fails as well, and is reported.
                SIGXFSZ => {}
                ending => arrived.ending = arrived.ending.or(Some(ending)),
            }
        }
        // Which came first is unknown. Nobody may notice a process stopped by mistake: so continue.
        arrived.stop &= !arrived.continued;
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

pub(crate) fn name_of(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string())
}

#[cfg(test)]
mod tests {
    use signal_hook::low_level::raise;

    use super::*;

    // One test, because signals are for the whole process.
    #[test]
    fn signals_are_kept_until_they_are_taken() {
        let mut signals = Signals::new().unwrap();
        assert_eq!(signals.ending(), None);

        // Not SIGHUP or SIGINT: nohup(1) and a shell's background jobs ignore them.
        raise(SIGTERM).unwrap();
        raise(SIGWINCH).unwrap();
        assert_eq!(signals.ending(), Some(SIGTERM));
        let arrived = signals.take();
        assert_eq!((arrived.ending, arrived.resized), (Some(SIGTERM), true));
        assert_eq!((signals.ending(), signals.take().resized), (None, false));

        raise(SIGTSTP).unwrap();
        raise(SIGCONT).unwrap();
        let arrived = signals.take();
        assert!(arrived.continued && !arrived.stop, "going on wins");
        raise(SIGTSTP).unwrap();
        assert!(signals.take().stop);
    }
}
