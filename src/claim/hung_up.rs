//! A line that hung up though its other end is still there: somebody hung it up for all who had it open.

use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;

use super::{Claim, openers_but_the_other_end};
use crate::console::{Console, OpenError, Target};

impl Claim {
    /// Clears our exclusive flag after a hang-up. The flag outlives it, and what we have open leads to the
    /// line no more: it has to be opened again, which the flag lets nobody do but root. Gives what the user
    /// should know.
    pub fn flag_after_hang_up(&self, target: &Target) -> Option<String> {
        if !self.console.has_own_flag() {
            return None;
        }
        match Console::open(target) {
            Ok(line) => {
                // A descriptor that was hung up still has flock.
                let _ = retry_on_intr(|| flock(&self.console, FlockOperation::Unlock));
                // Whoever hung it up may have it by now, and the flag with it.
                let free = line.lock().is_ok_and(|ours| ours);
                if free && openers_but_the_other_end(target).is_empty() {
                    // It came back cooked, with echo, which the guest would read.
                    let _ = line.set_raw();
                    line.clear_exclusive();
                }
                Some(format!("somebody hung {target} up: its other end is still there"))
            }
            Err(OpenError::Exclusive) => Some(format!(
                "somebody hung {target} up, and so its exclusive flag is still set: root clears it: \
                 sudo vconsole attach --force {target}"
            )),
            // The other end is gone, and the flag with it.
            Err(OpenError::NotAConsole(_) | OpenError::Failed(_)) => None,
        }
    }
}
