//! Lock files of tomorrow, and of 1970: the clock was set since. And clocks that differ: who is in a time
//! namespace of its own.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use super::{Stage, said};
use crate::harness::{Bystander, Program, missing, not_root, skip};
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
fn of_whatever_date_its_locks_are_a_session_refuses_others_and_is_taken_over_by_force() {
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
fn of_whatever_date_its_locks_are_a_killed_session_gives_them_back() {
    for time in times() {
        let stage = Stage::new();
        let session = stage.attach().attached_on(&stage.terminal);
        date(&stage, time);
        stage.talks("hello");
        session.signal(Signal::KILL);
        assert_eq!(session.wait(), 137);
        stage.nothing_is_left();
        stage.is_as_before();
    }
}

#[test]
fn of_whatever_date_it_is_a_dead_lock_is_reclaimed_and_a_holders_is_not() {
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

/// In a time namespace of its own: there the clocks that count since boot, by which the kernel says when
/// processes began, are months ahead of everybody else's (`time_namespaces(7)`).
fn ahead(program: Program) -> Program {
    program.under(["unshare", "--time", "--boottime", "10000000", "--monotonic", "10000000"])
}

#[test]
fn who_has_another_clock_is_a_session_like_any_other() {
    if not_root() || missing("unshare") {
        return;
    }
    if !Path::new("/proc/self/ns/time").exists() {
        return skip("this kernel has no time namespaces");
    }
    let stage = Stage::new();
    let usual = |options: &[&str]| stage.attach().args(options);
    let apart = |options: &[&str]| ahead(stage.attach().args(options));
    let mut piped = apart(&[]).attached_to_pipes();
    stage.carries(&mut piped, 100_000);
    assert_eq!(piped.wait(), 0);
    stage.nothing_is_left();

    // Neither takes the other for dead, or its number for another's.
    for (has, wants) in [
        (apart(&[]), [usual(&[]), usual(&["--force"])]),
        (usual(&[]), [apart(&[]), apart(&["--force"])]),
    ] {
        let session = has.attached_on(&stage.terminal);
        let [refused, forced] = wants.map(|program| program.output());
        assert_eq!(refused.status, 3, "{refused:?}");
        assert_eq!(forced.status, 0, "{forced:?}");
        assert!(said(&forced.stderr, "took"), "{forced:?}");
        assert_eq!(session.wait(), 4);
        stage.is_as_before();
    }
    let session = apart(&[]).attached_on(&stage.terminal);
    stage.talks("hello");
    stage.is_put_right_when_killed(&session);

    // A lock of somebody who is gone.
    stage.locks.write(&path_name(&stage.guest), NOBODY);
    assert_eq!(apart(&[]).output().status, 0);
    stage.is_as_before();
}
