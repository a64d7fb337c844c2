//! A clock that jumps: lock files of tomorrow, and of 1970.

use std::fs::File;
use std::time::{Duration, SystemTime};

use super::{Stage, said};
use crate::harness::Bystander;
use crate::locks::{NOBODY, path_name};

/// The times that a lock file can have when the clock was set after it was written.
fn times() -> [SystemTime; 3] {
    const DAY: Duration = Duration::from_secs(86_400);
    let now = SystemTime::now();
    [now + DAY, now + DAY * 36_500, SystemTime::UNIX_EPOCH + DAY]
}

fn date(stage: &Stage, time: SystemTime) {
    for name in stage.locks.names() {
        let lock = File::options().write(true).open(stage.locks.path().join(name)).unwrap();
        lock.set_modified(time).unwrap();
    }
}

#[test]
fn whatever_the_clock_says_a_session_refuses_others_and_is_taken_over_by_force() {
    for time in times() {
        let stage = Stage::new();
        let session = stage.attach().attached_on(&stage.terminal);
        date(&stage, time);
        let refused = stage.attach().output();
        assert_eq!(refused.status, 3, "{time:?}: {refused:?}");
        let forced = stage.attach().arg("--force").output();
        assert_eq!(forced.status, 0, "{time:?}: {forced:?}");
        assert!(said(&forced.stderr, "took"), "{forced:?}");
        assert_eq!(session.wait(), 4, "{time:?}");
        stage.is_as_before();
    }
}

#[test]
fn whatever_the_clock_says_a_session_gives_its_locks_back() {
    for time in times() {
        let stage = Stage::new();
        let session = stage.attach().attached_on(&stage.terminal);
        date(&stage, time);
        stage.talks("hello");
        session.signal(rustix::process::Signal::KILL);
        assert_eq!(session.wait(), 137);
        stage.nothing_is_left();
        stage.is_as_before();
    }
}

#[test]
fn whatever_the_clock_says_a_dead_lock_is_reclaimed_and_a_holders_is_not() {
    for time in times() {
        let stage = Stage::new();
        stage.locks.write(&path_name(&stage.guest), NOBODY);
        date(&stage, time);
        let output = stage.attach().output();
        assert_eq!(output.status, 0, "{time:?}: {output:?}");

        let holder = Bystander::with_open(stage.guest.path());
        stage.locks.write(&path_name(&stage.guest), holder.lock());
        date(&stage, time);
        let output = stage.attach().output();
        assert_eq!(output.status, 3, "{time:?}: {output:?}");
        assert!(said(&output.stderr, &format!("pid {}", holder.pid())), "{output:?}");
    }
}
