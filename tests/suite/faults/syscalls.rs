//! System calls that fail or are interrupted, by strace's fault injection (strace(1), `-e inject`).
//!
//! Not from the first call on: the dynamic loader reads its libraries without a thought of failure.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use super::{Stage, said};
use crate::guard::{awaited_guard_of, what_it_guards};
use crate::harness::{Bystander, Program, Session, missing, until};
use crate::locks::{NOBODY, path_name};
use crate::pipes::noise;

/// Has system calls fail as `inject` says; those on `path` alone, if there is one.
pub(crate) fn failing(program: Program, inject: &str, path: Option<&str>) -> Program {
    // The tracer in a session of its own: so the program is who was started.
    let strace = ["strace", "-DDD", "-o", "/dev/null", "-e"];
    let inject = format!("inject={inject}");
    let path = path.map_or(vec![], |path| vec!["-P", path]);
    program.under(strace.into_iter().chain([inject.as_str()]).chain(path))
}

/// Interrupts every third call of the kinds that are made all the time, once the libraries are read, and
/// the first and every second of those that are rare; `how`: with `-f` also those of its guard.
fn interrupted(program: Program, how: &[&str]) -> Program {
    let often = "read,write,ppoll,preadv2,pwritev2,sendmsg,recvmsg,sendto,recvfrom,wait4,waitid";
    // Not every architecture has both of the last.
    let rare = "connect,accept4,flock,?epoll_wait,epoll_pwait";
    let often = format!("inject={often}:error=EINTR:when=8+3");
    let rare = format!("inject={rare}:error=EINTR:when=1+2");
    let strace = ["strace", "-DDD", "-o", "/dev/null", "-e", &often, "-e", &rare];
    program.under(strace.into_iter().chain(how.iter().copied()))
}

#[test]
fn interrupted_system_calls_are_made_again() {
    if missing("strace") {
        return;
    }
    let stage = Stage::new();
    let attach = interrupted(stage.attach(), &[]);
    let mut piped = attach.attached_to_pipes();
    stage.carries(&mut piped, 200_000);
    assert_eq!(piped.wait(), 0);
    stage.nothing_is_left();

    let session = attach.attached_on(&stage.terminal);
    stage.talks("good morning");
    stage.talks("good evening");
    is_taken_over(&stage, &session);
}

/// The guard is a copy of its session: it has its own count of calls.
#[test]
fn a_guard_whose_system_calls_are_interrupted_puts_everything_right() {
    if missing("strace") {
        return;
    }
    let stage = Stage::new();
    let attach = interrupted(stage.attach(), &["-f"]);
    let session = attach.attached_on(&stage.terminal);
    stage.talks("hello");
    is_taken_over(&stage, &session);

    let session = attach.attached_on(&stage.terminal);
    stage.talks("hello");
    stage.is_put_right_when_killed(&session);
}

/// One whose calls are interrupted as well asks the session for the console, and has it.
#[track_caller]
fn is_taken_over(stage: &Stage, session: &Session) {
    let next = interrupted(stage.attach().arg("--force"), &[]).output();
    assert_eq!(next.status, 0, "{next:?}");
    assert!(said(&next.stderr, "took"), "{next:?}");
    assert_eq!(session.wait(), 4);
    stage.is_as_before();
}

#[test]
fn what_is_never_ready_at_the_first_time_is_moved_at_the_next() {
    if missing("strace") {
        return;
    }
    let stage = Stage::new();
    let console = stage.guest.path().to_str().unwrap();
    for (calls, path) in [("read,write", Some(console)), ("preadv2,pwritev2", None)] {
        let inject = format!("{calls}:error=EAGAIN:when=1+2");
        let mut piped = failing(stage.attach(), &inject, path).attached_to_pipes();
        stage.carries(&mut piped, 200_000);
        assert_eq!(piped.wait(), 0, "{calls}");
        stage.nothing_is_left();
    }
}

#[test]
fn a_console_that_fails_has_hung_up() {
    if missing("strace") {
        return;
    }
    for inject in ["read:error=EIO:when=3", "write:error=EIO:when=2", "read:error=ENODEV:when=3"] {
        let stage = Stage::new();
        let console = stage.guest.path().to_str().unwrap();
        let session = failing(stage.attach(), inject, Some(console)).attached_on(&stage.terminal);
        stage.guest.say("said before");
        stage.terminal.shows("said before");
        // Calls of each kind, until one fails.
        until("it ends", || {
            stage.guest.say("x");
            stage.terminal.types("y");
            session.has_ended()
        });
        assert_eq!(session.wait(), 5, "{inject}");
        stage.terminal.shows("hung up");
        stage.is_as_before();
    }
}

#[test]
fn what_was_printed_is_shown_where_the_console_takes_nothing_any_more() {
    if missing("strace") {
        return;
    }
    let stage = Stage::new();
    let console = stage.guest.path().to_str().unwrap();
    let attach = failing(stage.attach(), "write:error=EINVAL:when=1+", Some(console));
    let piped = attach.attached_to_pipes();
    piped.stdout().pause();
    // More than may wait for the pipe, and less than the two take together.
    let said = noise(90_000);
    stage.guest.say(&said);
    piped.reads_no_more();
    piped.signal(Signal::STOP);
    piped.types("y");
    piped.stdout().resume();
    let mut heard = 0;
    until("the pipe is empty", || {
        let before = std::mem::replace(&mut heard, piped.stdout().so_far().len());
        std::thread::sleep(Duration::from_millis(50));
        heard > 0 && heard == before
    });
    assert!(heard < said.len(), "nothing waits for the pipe");
    piped.signal(Signal::CONT);
    let output = piped.output();
    assert_eq!(output.status, 1, "{}", output.stderr());
    assert!(said == output.stdout, "{} bytes of {}", output.stdout.len(), said.len());
    stage.nothing_is_left();
}

#[test]
fn a_holder_that_ends_while_it_is_looked_at_is_gone() {
    if missing("strace") {
        return;
    }
    let stage = Stage::new();
    stage.locks.write(&path_name(&stage.guest), NOBODY);
    // When it is first asked after it lives.
    let attach = failing(stage.attach(), "kill:retval=0:when=1", None);
    let session = attach.attached_on(&stage.terminal);
    stage.terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    stage.nothing_is_left();
}

#[test]
fn a_holder_that_ends_when_its_name_was_read_and_not_whose_it_is_is_gone() {
    if missing("strace") {
        return;
    }
    let (stage, holder) = (Stage::new(), Bystander::new());
    stage.locks.write(&path_name(&stage.guest), holder.lock());
    let (trace, stat) =
        (stage.runtime.path().join("trace"), format!("/proc/{}/stat", holder.pid()));
    let inject = "inject=close:signal=SIGSTOP:when=1";
    let strace = ["strace", "-DDD", "-o", trace.to_str().unwrap(), "-e", inject, "-P", &stat];
    let mut session = stage.attach().under(strace).piped();
    until("it is stopped", || {
        fs::read_to_string(&trace).is_ok_and(|it| it.contains("--- stopped by SIGSTOP ---"))
    });
    drop(holder);
    session.signal(Signal::CONT);
    session.stderr().receives("connected to");
    session.closes_stdin();
    assert_eq!(session.wait(), 0);
    fs::remove_file(trace).unwrap();
    stage.nothing_is_left();
}

#[test]
fn a_terminal_that_fails_is_gone() {
    if missing("strace") {
        return;
    }
    let stage = Stage::new();
    let inject = "read:error=EIO:when=9";
    let session = failing(stage.attach(), inject, Some("/dev/tty")).attached_on(&stage.terminal);
    stage.talks("hello");
    until("it ends", || {
        stage.terminal.types("y");
        session.has_ended()
    });
    assert_eq!(session.wait(), 129);
    stage.is_as_before();
}

#[test]
fn an_output_that_fails_is_a_failure_that_says_so() {
    if missing("strace") {
        return;
    }
    for error in ["EIO", "ENOSPC"] {
        let stage = Stage::new();
        let inject = format!("pwritev2:error={error}:when=1+");
        // Its own words go the same way: only those of the guest may fail.
        let attach = stage.attach().redirected("2> /dev/null");
        let piped = failing(attach, &inject, None).piped();
        until("it is attached", || !stage.locks.names().is_empty());
        stage.guest.say("for nobody");
        assert_eq!(piped.wait(), 1, "{error}");
        stage.nothing_is_left();
    }
}

#[test]
fn lock_files_are_made_all_or_none() {
    if missing("strace") {
        return;
    }
    for error in ["ENOSPC", "EDQUOT", "EROFS", "EIO", "EMLINK"] {
        for nth in 1..=4 {
            let stage = Stage::new();
            let inject = format!("linkat:error={error}:when={nth}");
            let output = failing(stage.attach(), &inject, None).output();
            // An ordinary user goes on without files on what is not for writing.
            let goes_on = error == "EROFS" && !rustix::process::geteuid().is_root();
            assert_eq!(output.status, i32::from(!goes_on), "{error} {nth}: {output:?}");
            let hints =
                error != "ENOSPC" && error != "EDQUOT" || said(&output.stderr, "--locks check");
            assert!(hints, "{output:?}");
            assert!(goes_on || !said(&output.stderr, "connected"), "{output:?}");
            stage.nothing_is_left();
        }
    }
}

/// A filesystem that went read-only at an error, as ext4 does: nothing can be removed any more.
#[test]
fn locks_that_cannot_be_removed_at_the_end_are_dead_for_the_next() {
    if missing("strace") {
        return;
    }
    let stage = Stage::new();
    let inject = "renameat,renameat2,unlink,unlinkat:error=EROFS:when=1+";
    // Its sockets have no other fate.
    let attach = failing(stage.attach(), inject, None);
    let session = attach.attached_on(&stage.terminal);
    stage.talks("hello");
    stage.terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    assert_eq!(stage.terminal.settings(), stage.before);
    assert_eq!(stage.locks.names(), crate::locks::all_names(&stage.guest));
    let output = stage.attach().output();
    assert_eq!(output.status, 0, "{output:?}");
    assert!(said(&output.stderr, "is gone"), "{output:?}");
    stage.locks.become_empty();
}

#[test]
fn on_a_kernel_without_close_range_a_guard_holds_no_more_and_puts_things_right() {
    if missing("strace") {
        return;
    }
    let usual = {
        let stage = Stage::new();
        let session = stage.attach().attached_on(&stage.terminal);
        what_its_guard_holds(&stage, &session)
    };
    let stage = Stage::new();
    let strace = ["strace", "-f", "-DDD", "-o", "/dev/null"];
    let old = strace.into_iter().chain(["-e", "inject=close_range:error=ENOSYS"]);
    let session = stage.attach().under(old).attached_on(&stage.terminal);
    assert_eq!(what_its_guard_holds(&stage, &session), usual);
    stage.is_put_right_when_killed(&session);
}

/// In order: what has a path of the stage by that path's place, all else by its kind.
fn what_its_guard_holds(stage: &Stage, session: &Session) -> Vec<String> {
    let places = [stage.guest.path(), stage.locks.path(), stage.terminal.path()];
    let places = places.map(|path| path.display().to_string());
    let place = |thing: &String| places.iter().position(|path| path == thing);
    let things = what_it_guards(awaited_guard_of(session), &stage.terminal).into_iter();
    let mut all: Vec<_> =
        things.map(|thing| place(&thing).map_or(thing, |place| format!("place {place}"))).collect();
    all.sort();
    all
}
