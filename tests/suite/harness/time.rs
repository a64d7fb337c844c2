//! Times that are promised, on a machine that may have other things to do.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::time::{Duration, Instant};

/// How often a promised time may be missed: a machine can stand still for seconds now and then, a fault
/// is there each time.
const TRIES: usize = 4;

/// Something took longer than promised.
struct TooLate;

/// Runs a test in which times are promised: again, where one was missed.
#[track_caller]
pub(crate) fn in_time(test: impl Fn()) {
    for _ in 1..TRIES {
        match catch_unwind(AssertUnwindSafe(&test)) {
            Ok(()) => return,
            Err(cause) if cause.is::<TooLate>() => {}
            Err(cause) => resume_unwind(cause),
        }
    }
    test();
}

/// Sees that it took less than `limit` since `start`. Only within [`in_time`].
#[track_caller]
pub(crate) fn took_less_than(limit: Duration, start: Instant) {
    lies_between(Duration::ZERO, limit, start.elapsed());
}

/// Sees that a time is at least `least`, whatever the machine does, and less than `limit`. Only within
/// [`in_time`].
#[track_caller]
pub(crate) fn lies_between(least: Duration, limit: Duration, time: Duration) {
    assert!(time >= least, "{time:?} is less than {least:?}");
    if time >= limit {
        eprintln!("it took {time:?}, and not less than {limit:?}");
        panic_any(TooLate);
    }
}
