//! Those who want to drive instead of us.
//!
//! Whoever is given the console holds it up until they have taken it, or have not. So only a few wait at
//! a time, who asks in vain is soon refused, and while some do the others get less time; between two of
//! them the console moves for as long as it stood still.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::process::Process;
use crate::session::Visitor;
use crate::session::door::refuse;
use crate::session::handover::{self, TO_TAKE_IT};

/// So many wait. All have had their turn before the last of them asks our guard instead.
const MOST: usize = 4;

/// So often one may ask in vain within [`MEMORY`]: it may have been slow, or stopped.
const CHANCES: usize = 3;

/// For so long it is remembered who asked in vain.
const MEMORY: Duration = Duration::from_secs(10);

/// How long one has to take the console while it is remembered that another did not: where others wait, a
/// part of it, but [`AT_LEAST`].
const AFTER_A_FAILURE: Duration = Duration::from_millis(300);
const AT_LEAST: Duration = Duration::from_millis(100);

/// Those who want to drive instead, the first first.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    waiting: VecDeque<Candidate>,
    /// Those who asked and did not take it, and when. There are as many as [`MEMORY`] has time for.
    failures: Vec<(Process, Instant)>,
    /// Until then nobody is given the console.
    rest_until: Option<Instant>,
}

/// Somebody who wants to drive instead.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) line: OwnedFd,
    pub(super) visitor: Visitor,
    /// Only if we do not type.
    pub(super) polite: bool,
}

impl Candidates {
    /// Lets somebody wait, or says why not.
    pub(super) fn admit(&mut self, candidate: Candidate) {
        self.forget_who_left();
        self.failures.retain(|(_, at)| at.elapsed() < MEMORY);
        let process = &candidate.visitor.process;
        let in_vain = self.failures.iter().filter(|(fickle, _)| fickle.is(process)).count();
        if in_vain >= CHANCES {
            refuse(&candidate.line, "you asked before, and did not take it");
        } else if self.waiting.len() >= MOST {
            refuse(&candidate.line, "too many others ask for it at the same moment");
        } else {
            self.waiting.push_back(candidate);
        }
    }

    /// Who asked and left has not asked.
    fn forget_who_left(&mut self) {
        self.waiting.retain(|candidate| handover::is_waiting(&candidate.line));
    }

    /// Whether somebody can be given the console now.
    pub(super) fn is_one_due(&mut self) -> bool {
        self.forget_who_left();
        self.next_look().is_some_and(|at| at <= Instant::now())
    }

    /// From when on somebody can be given it, if anybody waits.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let rested = self.rest_until.unwrap_or_else(Instant::now);
        (!self.waiting.is_empty()).then_some(rested)
    }

    /// The first of them, and how long that one may take to have everything.
    pub(super) fn next(&mut self) -> Option<(Candidate, Duration)> {
        let first = self.waiting.pop_front()?;
        self.failures.retain(|(_, at)| at.elapsed() < MEMORY);
        let all = if self.failures.is_empty() { TO_TAKE_IT } else { AFTER_A_FAILURE };
        let share = u32::try_from(1 + self.waiting.len()).map_or(all, |those| all / those);
        Some((first, share.max(AT_LEAST)))
    }

    /// One has not taken it, and held it up for so long.
    pub(super) fn note_failure(&mut self, process: Process, time: Duration) {
        let now = Instant::now();
        self.failures.push((process, now));
        self.rest_until = Some(now + time.min(TO_TAKE_IT));
        // By now some of them may have asked too often.
        for candidate in std::mem::take(&mut self.waiting) {
            self.admit(candidate);
        }
    }

    /// The lines of all who wait.
    pub(super) fn into_lines(self) -> impl Iterator<Item = OwnedFd> {
        self.waiting.into_iter().map(|candidate| candidate.line)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::session::protocol::About;
    use crate::wire::Peer;

    /// Somebody who asks. There is only this process to be it.
    fn somebody(candidates: &mut Candidates) -> UnixStream {
        let (theirs, ours) = UnixStream::pair().unwrap();
        let visitor = Visitor::at(Peer::of(&ours).unwrap(), About::default()).unwrap();
        candidates.admit(Candidate { line: ours.into(), visitor, polite: false });
        theirs
    }

    #[test]
    fn only_a_few_wait_and_share_the_time_that_one_has() {
        let mut candidates = Candidates::default();
        let _lines = [(); 9].map(|()| somebody(&mut candidates));
        assert!(candidates.is_one_due());
        let times: Vec<_> =
            std::iter::from_fn(|| candidates.next()).map(|(_, time)| time).collect();
        assert_eq!(times.len(), MOST);
        assert!(times.iter().sum::<Duration>() > TO_TAKE_IT && times[0] == TO_TAKE_IT / 4);
        assert_eq!(times.last(), Some(&TO_TAKE_IT));
    }

    #[test]
    fn after_a_failure_the_console_moves_for_as_long_as_it_stood_still() {
        let mut candidates = Candidates::default();
        let _lines = [(); 2].map(|()| somebody(&mut candidates));
        let (first, _) = candidates.next().unwrap();
        let stood_still = Duration::from_millis(200);
        let start = Instant::now();
        candidates.note_failure(first.visitor.process, stood_still);
        assert!(!candidates.is_one_due());
        assert!(candidates.next_look().unwrap() >= start + stood_still);
        std::thread::sleep(stood_still);
        assert!(candidates.is_one_due());
        assert_eq!(candidates.next().unwrap().1, AFTER_A_FAILURE);
    }

    #[test]
    fn who_was_slow_may_ask_again_and_not_for_ever() {
        let mut candidates = Candidates::default();
        for _ in 0..CHANCES {
            let _line = somebody(&mut candidates);
            let (one, _) = candidates.next().expect("may ask again");
            candidates.note_failure(one.visitor.process, Duration::ZERO);
        }
        let _line = somebody(&mut candidates);
        assert!(candidates.next().is_none());
    }
}
