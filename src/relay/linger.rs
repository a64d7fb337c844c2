//! How long to stay after the end of input.

use std::time::{Duration, Instant};

/// How long to stay after the end of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linger {
    /// Until nothing came from the console for so long.
    Quiet(Duration),
    /// For ever.
    Forever,
}

/// Without a wish of the user's: so long an answer may take to begin, ...
const FIRST_BYTE: Duration = Duration::from_secs(3);
/// ... and so long it may pause.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells when to leave after the end of input.
#[derive(Debug)]
pub(super) struct Clock {
    wish: Option<Linger>,
    limit: Option<Duration>,
    /// When the input ended.
    ended: Option<Instant>,
    /// Since when the console is quiet, once it has all of the input.
    quiet: Option<Instant>,
    /// Whether it said anything since.
    answered: bool,
}

impl Clock {
    /// `wish` as the user has it, and at most `limit` after the end of input.
    pub(super) fn new(wish: Option<Linger>, limit: Option<Duration>) -> Self {
        Self { wish, limit, ended: None, quiet: None, answered: false }
    }

    /// There is no more input, though the console may not have all of it yet.
    pub(super) fn input_ended(&mut self, now: Instant) {
        self.ended.get_or_insert(now);
    }

    /// The console has all of the input. Said again it changes nothing.
    pub(super) fn all_delivered(&mut self, now: Instant) {
        self.quiet.get_or_insert(now);
    }

    /// The console said something.
    pub(super) fn heard(&mut self, now: Instant) {
        self.answered |= self.quiet.is_some();
        self.shown(now);
    }

    /// Something that the console said was shown: until then it had to wait with the next.
    pub(super) fn shown(&mut self, now: Instant) {
        if let Some(quiet) = &mut self.quiet {
            *quiet = now;
        }
    }

    /// When the console will have been quiet for long enough. `None`: not in sight.
    pub(super) fn quiet_until(&self) -> Option<Instant> {
        let patience = match self.wish {
            Some(Linger::Forever) => return None,
            Some(Linger::Quiet(time)) => time,
            None if self.answered => PAUSE,
            None => FIRST_BYTE,
        };
        self.quiet?.checked_add(patience)
    }

    /// When to leave whatever happens. `None`: never, or not yet known.
    pub(super) fn limit_at(&self) -> Option<Instant> {
        self.ended?.checked_add(self.limit?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn by_default_an_answer_has_three_seconds_to_begin_and_pauses_of_one() {
        let start = Instant::now();
        let mut clock = Clock::new(None, None);
        clock.heard(start);
        clock.input_ended(start);
        assert_eq!(clock.quiet_until(), None, "the console does not have it all yet");
        clock.all_delivered(start + SECOND);
        clock.all_delivered(start + 2 * SECOND);
        assert_eq!(clock.quiet_until(), Some(start + 4 * SECOND));
        clock.shown(start + 2 * SECOND);
        assert_eq!(clock.quiet_until(), Some(start + 5 * SECOND), "shown is not yet answered");
        clock.heard(start + 3 * SECOND);
        assert_eq!(clock.quiet_until(), Some(start + 4 * SECOND));
        clock.shown(start + 5 * SECOND);
        assert_eq!(clock.quiet_until(), Some(start + 6 * SECOND));
        assert_eq!(clock.limit_at(), None);
    }

    #[test]
    fn a_wish_for_quiet_counts_from_the_last_byte_and_the_limit_from_the_end_of_input() {
        let start = Instant::now();
        let mut clock = Clock::new(Some(Linger::Quiet(5 * SECOND)), Some(7 * SECOND));
        assert_eq!(clock.limit_at(), None);
        clock.input_ended(start);
        clock.all_delivered(start + SECOND);
        assert_eq!(clock.quiet_until(), Some(start + 6 * SECOND));
        clock.heard(start + 4 * SECOND);
        assert_eq!(clock.quiet_until(), Some(start + 9 * SECOND));
        assert_eq!(clock.limit_at(), Some(start + 7 * SECOND));
    }

    #[test]
    fn times_beyond_all_clocks_mean_never() {
        let mut clock = Clock::new(Some(Linger::Quiet(Duration::MAX)), Some(Duration::MAX));
        clock.input_ended(Instant::now());
        clock.all_delivered(Instant::now());
        assert_eq!((clock.quiet_until(), clock.limit_at()), (None, None));
        let mut clock = Clock::new(Some(Linger::Forever), None);
        clock.all_delivered(Instant::now());
        assert_eq!(clock.quiet_until(), None);
    }
}
