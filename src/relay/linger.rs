//! How long to stay after the end of input.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Linger {
    /// Until nothing came from the console for this long.
    Quiet(Duration),
    Forever,
}

/// By default an answer may take this long to begin, and pause this long.
const FIRST_BYTE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct LingerTimer {
    wish: Option<Linger>,
    limit: Option<Duration>,
    ended: Option<Instant>,
    /// Since when the console is quiet, once it has all of the input.
    quiet: Option<Instant>,
    /// Whether the console printed anything since it has all of the input.
    answered: bool,
}

impl LingerTimer {
    /// `limit`: the longest time to stay after the end of input.
    pub(super) fn new(wish: Option<Linger>, limit: Option<Duration>) -> Self {
        Self { wish, limit, ended: None, quiet: None, answered: false }
    }

    /// Input ended, though the console may not have all of it yet.
    pub(super) fn input_ended(&mut self, now: Instant) {
        self.ended.get_or_insert(now);
    }

    /// The console has all of the input. Repeated calls change nothing.
    pub(super) fn all_delivered(&mut self, now: Instant) {
        self.quiet.get_or_insert(now);
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.answered |= self.quiet.is_some();
        self.shown(now);
    }

    /// Some of the output was shown: only now can the console print more.
    pub(super) fn shown(&mut self, now: Instant) {
        if let Some(quiet) = &mut self.quiet {
            *quiet = now;
        }
    }

    /// When the console will have been quiet for long enough, if that is known.
    pub(super) fn quiet_until(&self) -> Option<Instant> {
        let patience = match self.wish {
            Some(Linger::Forever) => return None,
            Some(Linger::Quiet(time)) => time,
            None if self.answered => PAUSE,
            None => FIRST_BYTE,
        };
        self.quiet?.checked_add(patience)
    }

    /// When to leave in any case, if that is known.
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
        let mut clock = LingerTimer::new(None, None);
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
        let mut clock = LingerTimer::new(Some(Linger::Quiet(5 * SECOND)), Some(7 * SECOND));
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
        let mut clock = LingerTimer::new(Some(Linger::Quiet(Duration::MAX)), Some(Duration::MAX));
        clock.input_ended(Instant::now());
        clock.all_delivered(Instant::now());
        assert_eq!((clock.quiet_until(), clock.limit_at()), (None, None));
        let mut clock = LingerTimer::new(Some(Linger::Forever), None);
        clock.all_delivered(Instant::now());
        assert_eq!(clock.quiet_until(), None);
    }
}
