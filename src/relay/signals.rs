//! Signals, as something to wait for and to look at.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use signal_hook::consts::{SIGCONT, SIGTSTP, SIGWINCH, SIGXFSZ};
use signal_hook::low_level::emulate_default_handler;

use crate::signals::{Delivery, ENDING, deliver};

/// Signals for us, from its making on: none of them ends or stops the process any more.
///
/// To be made before there is anything to clean up. It can be waited for with poll: readable when a
/// signal has come.
#[derive(Debug)]
pub struct Signals {
    delivery: Delivery,
    arrived: Arrived,
}

/// What has come and was not yet obeyed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrived {
    /// A signal that ends the session.
    pub(super) ending: Option<i32>,
    /// Asked to stop, and not told to go on since.
    pub(super) stop: bool,
    /// Running again, perhaps after a SIGSTOP that nobody sees coming.
    pub(super) continued: bool,
    /// The window has another size.
    pub(super) resized: bool,
}

/// What there was to obey.
#[derive(Clone, Copy, Debug, Default)]
pub struct Obeyed {
    /// The signal that asks us to end, if one has come. It stays, for whoever asks next.
    pub ending: Option<i32>,
    /// We were stopped, and run again.
    pub continued: bool,
}

impl Signals {
    /// Takes over the signals that end, stop, continue and resize a session.
    pub fn new() -> io::Result<Self> {
        let delivery = deliver(&[&ENDING[..], &[SIGTSTP]].concat(), &[SIGWINCH, SIGCONT, SIGXFSZ])?;
        Ok(Self { delivery, arrived: Arrived::default() })
    }

    /// The signal that asks us to end, if one has come. It stays, for whoever asks next.
    pub fn ending(&mut self) -> Option<i32> {
        self.look();
        self.arrived.ending
    }

    /// Obeys what has come, for who has nothing to give back before it is stopped.
    pub fn obey(&mut self) -> io::Result<Obeyed> {
        self.look();
        if std::mem::take(&mut self.arrived.stop) {
            // Returns when we are continued.
            emulate_default_handler(SIGTSTP)?;
            self.look();
        }
        // Taken each time: to have gone on once is no reason never to stop again.
        let continued = std::mem::take(&mut self.arrived.continued);
        Ok(Obeyed { ending: self.arrived.ending, continued })
    }

    /// What has come since the last time.
    pub(super) fn take(&mut self) -> Arrived {
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
                // The write that went beyond the limit to files fails as well, and is told of.
                SIGXFSZ => {}
                ending => arrived.ending = arrived.ending.or(Some(ending)),
            }
        }
        // Which of the two came first cannot be told. Who is stopped by mistake waits for somebody
        // to notice; so going on wins.
        arrived.stop &= !arrived.continued;
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use signal_hook::consts::{SIGHUP, SIGTERM};
    use signal_hook::low_level::raise;

    use super::*;

    // One test, because signals are for the whole process.
    #[test]
    fn signals_are_kept_until_they_are_taken() {
        let mut signals = Signals::new().unwrap();
        assert_eq!(signals.ending(), None);

        raise(SIGTERM).unwrap();
        raise(SIGHUP).unwrap();
        raise(SIGWINCH).unwrap();
        assert_eq!(signals.ending(), Some(SIGHUP));
        let arrived = signals.take();
        assert_eq!((arrived.ending, arrived.resized), (Some(SIGHUP), true));
        assert_eq!((signals.ending(), signals.take().resized), (None, false));

        raise(SIGTSTP).unwrap();
        raise(SIGCONT).unwrap();
        let arrived = signals.take();
        assert!(arrived.continued && !arrived.stop, "going on wins");
        raise(SIGTSTP).unwrap();
        assert!(signals.take().stop);
    }
}
