//! Who is in the way of a claim, as far as that can be seen without touching anything.

use super::lock_set::LockSet;
use super::refusal::{Refusal, Suspects};
use super::{Request, holders, refuse_if_open};
use crate::process::Openers;

impl Request<'_> {
    /// Refuses if it can be seen that somebody has the console: by a lock file, by `flock`, or by having
    /// it open. Nothing is opened or taken; only a claim can see an exclusive flag.
    pub fn look(&self, openers: &Openers) -> Result<(), Refusal> {
        drop(LockSet::look(self)?);
        let by = holders::of_flock_as_seen(self.target, openers);
        if !by.is_empty() {
            return Err(Refusal::Flock { console: self.target.to_string(), by: Suspects(by) });
        }
        refuse_if_open(self.target, openers)
    }
}
