//! Locks and their directory, changed by somebody while a session holds them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Stage;
use crate::harness::{
    Bystander, Pause, Session, in_time, missing, set_mode, took_less_than, until,
};
use crate::locks::{NOBODY, all_names, path_name};

/// So soon it is noticed.
const SOON: Duration = Duration::from_secs(3);

/// All names are there again, and name the session.
#[track_caller]
fn are_there_again(stage: &Stage, session: &Session) {
    let start = Instant::now();
    let (names, lock) = (all_names(&stage.guest), format!("{:>10}\n", session.pid()));
    until("all locks are there again", || {
        stage.locks.names() == names
            && names
                .iter()
                .all(|name| stage.locks.read(name).is_some_and(|it| it == lock.as_bytes()))
    });
    took_less_than(SOON, start);
}

#[test]
fn an_overwritten_lock_is_reported_once_and_removed_at_the_end() {
    in_time(|| {
        for contents in ["", "garbage", NOBODY] {
            let stage = Stage::new();
            let session = stage.attach().attached_on(&stage.terminal);
            // In place: it is the same file, and so are the other names.
            for _ in 0..2 {
                stage.locks.write(&path_name(&stage.guest), contents);
                stage.terminal.shows("it is not ours any more");
                stage.talks("still here");
            }
            let changed = format!("{}: it is not ours any more", path_name(&stage.guest));
            assert_eq!(stage.terminal.screen_so_far().matches(&changed).count(), 1);
            session.signal(Signal::TERM);
            assert_eq!(session.wait(), 143);
            stage.is_as_before();
        }
    });
}

#[test]
fn an_overwritten_lock_of_a_killed_session_is_left() {
    let stage = Stage::new();
    let session = stage.attach().attached_on(&stage.terminal);
    stage.locks.write(&path_name(&stage.guest), NOBODY);
    stage.terminal.shows("it is not ours any more");
    session.signal(Signal::KILL);
    assert_eq!(session.wait(), 137);
    until("the terminal is restored", || stage.terminal.settings() == stage.before);
    assert_eq!(stage.locks.read(&path_name(&stage.guest)).unwrap(), NOBODY.as_bytes());
    // Its pid is dead, so that the next session removes it.
    let next = stage.attach().attached_on(&stage.terminal);
    stage.terminal.types("\x1d.");
    assert_eq!(next.wait(), 0);
    stage.is_as_before();
}

#[test]
fn a_lock_that_a_living_program_overwrites_is_theirs() {
    let stage = Stage::new();
    let other = Bystander::new();
    let session = stage.attach().attached_on(&stage.terminal);
    let path = stage.locks.path().join(path_name(&stage.guest));
    // At once, so that it is never empty.
    rustix::io::pwrite(
        fs::File::options().write(true).open(&path).unwrap(),
        other.lock().as_bytes(),
        0,
    )
    .unwrap();
    stage.terminal.shows("somebody changed the lock");
    stage.talks("still here");
    stage.terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    assert_eq!(fs::read_to_string(&path).unwrap(), other.lock());
    assert_eq!(stage.terminal.settings(), stage.before);
}

#[test]
fn a_lock_directory_that_is_moved_or_replaced_is_reported() {
    in_time(|| {
        for (replaced, signal) in
            [(false, Signal::TERM), (true, Signal::TERM), (true, Signal::KILL)]
        {
            let stage = Stage::new();
            let session = stage.attach().attached_on(&stage.terminal);
            let moved = stage.runtime.path().join("old-locks");
            fs::rename(stage.locks.path(), &moved).unwrap();
            if replaced {
                fs::create_dir(stage.locks.path()).unwrap();
                set_mode(stage.locks.path(), 0o1777);
            }
            stage.terminal.shows("was moved or removed");
            stage.talks("still here");
            session.signal(signal);
            assert_eq!(session.wait(), 128 + signal.as_raw());
            // Released where they are.
            until("nothing is left", || fs::read_dir(&moved).unwrap().count() == 0);
            fs::remove_dir(&moved).unwrap();
            if !replaced {
                fs::create_dir(stage.locks.path()).unwrap();
            }
            stage.nothing_is_left();
            stage.is_as_before();
        }
    });
}

#[test]
fn a_lock_directory_that_is_moved_while_a_newcomer_is_offered_the_console_is_reported() {
    in_time(|| {
        let stage = Stage::new();
        let given = Pause::held_at("given-to-us");
        let session = stage.attach().attached_on(&stage.terminal);
        let newcomer = given.of(stage.attach().arg("--force")).piped();
        given.reached();
        let moved = stage.runtime.path().join("old-locks");
        fs::rename(stage.locks.path(), &moved).unwrap();
        newcomer.kill();
        stage.terminal.shows("was moved or removed");
        fs::rename(&moved, stage.locks.path()).unwrap();
        stage.terminal.types("\x1d.");
        assert_eq!(session.wait(), 0);
        stage.is_as_before();
    });
}

#[test]
fn the_locks_in_a_directory_that_is_removed_are_reported() {
    in_time(|| {
        let stage = Stage::new();
        let session = stage.attach().attached_on(&stage.terminal);
        // The session may create its locks again in between.
        until("the directory is removed", || fs::remove_dir_all(stage.locks.path()).is_ok());
        stage.terminal.shows("somebody removed the lock");
        stage.talks("still here");
        stage.terminal.types("\x1d.");
        assert_eq!(session.wait(), 0);
        fs::create_dir(stage.locks.path()).unwrap();
        stage.is_as_before();
    });
}

#[test]
fn what_others_do_in_the_lock_directory_costs_a_session_next_to_nothing() {
    in_time(|| {
        if missing("strace") {
            return;
        }
        let stage = Stage::new();
        let trace = stage.runtime.path().join("trace");
        let path = trace.to_str().unwrap();
        let strace = ["strace", "-DDD", "-e", "trace=openat,newfstatat,statx", "-o", path];
        let session = stage.attach().under(strace).attached_on(&stage.terminal);
        let looks = || {
            let trace = fs::read_to_string(&trace).unwrap();
            trace.lines().filter(|line| line.contains("LCK..")).count()
        };
        for _ in 0..200 {
            let path = stage.locks.write("LCK..another", NOBODY);
            fs::remove_file(path).unwrap();
        }
        let before = looks();
        // What is done to its own it sees after that.
        fs::remove_file(stage.locks.path().join(path_name(&stage.guest))).unwrap();
        are_there_again(&stage, &session);
        stage.terminal.types("\x1d.");
        assert_eq!(session.wait(), 0);
        let after = looks();
        stage.is_as_before();
        fs::remove_file(&trace).unwrap();
        assert!(before < 200 && after < 200, "{before} and {after} looks at its locks");
    });
}

#[test]
fn a_lock_is_made_again_by_the_name_of_another_where_no_file_is_without_a_name() {
    in_time(|| {
        if missing("strace") {
            return;
        }
        let stage = Stage::new();
        let trace = stage.runtime.path().join("trace");
        // In the lock directory a file without a name is what is opened first, after itself and lockdev's. On
        // some architectures the call that opens itself is another.
        let nth = if cfg!(target_arch = "x86_64") { 2 } else { 3 };
        let inject = format!("inject=openat:error=EOPNOTSUPP:when={nth}");
        let (path, directory) = (trace.to_str().unwrap(), stage.locks.path().to_str().unwrap());
        let strace = ["strace", "-DDD", "-o", path, "-P", directory, "-e", &inject];
        let session = stage.attach().under(strace).attached_on(&stage.terminal);
        let trace = fs::read_to_string(path).unwrap();
        let is_injected = |line: &str| line.contains("O_TMPFILE") && line.contains("(INJECTED)");
        assert!(trace.lines().any(is_injected), "{trace}");
        let inode = |name: &str| fs::metadata(stage.locks.path().join(name)).unwrap().ino();
        let names = all_names(&stage.guest);
        let before = inode(&names[0]);
        fs::remove_file(stage.locks.path().join(&names[1])).unwrap();
        are_there_again(&stage, &session);
        assert!(names.iter().all(|name| inode(name) == before), "all are names of one file");
        stage.terminal.types("\x1d.");
        assert_eq!(session.wait(), 0);
        fs::remove_file(path).unwrap();
        stage.is_as_before();
    });
}
