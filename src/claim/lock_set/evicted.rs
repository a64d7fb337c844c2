//! The locks of those who were evicted.

use std::thread;
use std::time::{Duration, Instant};

use super::super::judge::{Verdict, judge};
use super::super::lock_file::LockFile;
use super::super::{Refusal, Request};
use super::{LockSet, Stop, Way};
use crate::process::Process;

/// How long those who were evicted may take to remove their locks themselves.
const FAREWELL: Duration = Duration::from_millis(1500);

impl LockSet {
    /// Takes the names of those who were evicted. Most remove their locks themselves when they leave, and
    /// some do so by name, whoever's lock that is by then: those are made again.
    pub(in crate::claim) fn take_from(
        &mut self,
        request: &Request<'_>,
        evicted: &[Process],
    ) -> Result<(), Stop> {
        let until = Instant::now() + FAREWELL;
        while !self.pending.is_empty() {
            if Instant::now() >= until {
                self.evicted = evicted.to_vec();
            }
            for slot in std::mem::take(&mut self.pending) {
                let way = self.way(request, &slot)?;
                match &way {
                    Way::Held(held) if evicted.iter().any(|it| it.is(&held.holder)) => {
                        self.pending.push(slot);
                    }
                    Way::Break(lock, _) if self.is_of_the_evicted(lock) => {
                        self.take_one(request, &slot, way)?;
                    }
                    // Another's by now, or one that is being written: nobody vouched for that.
                    Way::Held(_) | Way::Break(..) => return Err(Stop::LookAgain),
                    _ => self.take_one(request, &slot, way)?,
                }
            }
            if request.asker.gives_up() {
                return Err(Refusal::GivenUp { console: request.target.to_string() }.into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        for line in self.mend(request.guard) {
            request.asker.hears(&line);
        }
        Ok(())
    }

    fn is_of_the_evicted(&self, lock: &LockFile) -> bool {
        match judge(&self.processes, lock, None) {
            Verdict::Foreign(holder) => self.evicted.iter().any(|it| it.is(&holder)),
            _ => false,
        }
    }
}
