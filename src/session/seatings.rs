//! How often somebody may come to watch. Each costs the driver a line on the screen and one in the audit
//! trail, and whoever came and left again and again would fill both.

use std::time::{Duration, Instant};

/// So many may come at once: all that watch follow a console to its next driver.
const AT_ONCE: u32 = 500;
/// Then one more in this time.
const EACH: Duration = Duration::from_millis(250);

/// How many may still come to watch.
#[derive(Debug)]
pub struct Seatings {
    left: u32,
    /// Since when the next one is being earned.
    since: Instant,
}

impl Seatings {
    /// Nobody has come yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { left: AT_ONCE, since: now }
    }

    /// Whether one more may come now; then it is counted.
    pub fn permit(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since);
        let earned = u32::try_from(passed.as_millis() / EACH.as_millis()).unwrap_or(AT_ONCE);
        self.left = self.left.saturating_add(earned).min(AT_ONCE);
        // Time beyond what can be earned is not kept for later.
        self.since = if self.left == AT_ONCE { now } else { self.since + EACH * earned };
        let permitted = self.left > 0;
        self.left -= u32::from(permitted);
        permitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_may_come_at_once_and_then_a_few_in_a_second() {
        let start = Instant::now();
        let mut seatings = Seatings::new(start);
        let count = |seatings: &mut Seatings, at: Duration| {
            (0..10_000).filter(|_| seatings.permit(start + at)).count()
        };
        assert_eq!(count(&mut seatings, Duration::ZERO), 500);
        assert_eq!(count(&mut seatings, Duration::from_millis(100)), 0);
        assert_eq!(count(&mut seatings, Duration::from_secs(10)), 40);
        assert_eq!(count(&mut seatings, Duration::from_secs(100_000)), 500);
    }
}
