//! Event sources of a relay beside bytes and signals, and taps, which copy the console's output.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use crate::messages::Messages;
use crate::relay::PendingBytes;

/// Something that a relay looks after while it moves bytes. It must never block.
pub(crate) trait EventSource {
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    fn next_look(&self) -> Option<Instant> {
        None
    }

    /// Called when the descriptor is readable or the time of [`Self::next_look`] has come.
    fn look(&mut self, messages: &mut Messages) -> Action;

    /// Hands the console over with the undelivered bytes, as [`Action::HandOver`] asked. Returns
    /// false if nobody took it: then the relay goes on.
    fn hand_over(&mut self, _pending: &PendingBytes, _messages: &mut Messages) -> bool {
        false
    }

    /// Lines for the status command, safe to show.
    fn state(&self) -> Option<String> {
        None
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Action {
    Continue,
    HandOver,
}

/// Gets a copy of the console's output as it is read. It must never block.
pub(crate) trait Tap {
    fn write(&mut self, printed: &[u8]);
}
