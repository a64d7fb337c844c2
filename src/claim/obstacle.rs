//! Who is in the way of a claim, as far as that can be seen without touching anything.

use super::holders::Flocks;
use super::lock_set::LockSet;
use super::refusal::{Refusal, Suspects};
use super::{Request, refuse_if_open};
use crate::process::{Openers, Presence, Process};

impl Request<'_> {
    /// Refuses if it can be seen that somebody has the console: by a lock file, by `flock`, or by having
    /// it open. Nothing is opened or taken; only a claim can see an exclusive flag.
    pub fn look(&self, openers: &Openers) -> Result<(), Refusal> {
        drop(LockSet::look(self)?);
        let flocks = Flocks::read();
        let alive = |pid: &i32| match Process::find(*pid) {
            Presence::Alive(process) => Some(process),
            Presence::Gone => None,
        };
        let named = flocks.of(self.target).iter().filter(|pid| **pid > 0);
        let by: Vec<Process> = named.filter_map(alive).collect();
        if !by.is_empty() {
            return Err(Refusal::Flock { console: self.target.to_string(), by: Suspects(by) });
        }
        refuse_if_open(self.target, openers)
    }
}
