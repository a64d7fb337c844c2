//! A machine that lacks what others have.

use super::table::statuses;
use super::{Stage, said};
use crate::harness::{Bystander, Program, SOMEBODY, missing, not_root, set_mode};
use crate::locks::all_names;

/// In a mount namespace of its own, after `mount` was run there.
fn mounted(program: Program, mount: &str) -> Program {
    program.under(["unshare", "--mount", "sh", "-c", &format!("{mount} && exec \"$@\""), "sh"])
}

/// Attaches on pipes and on a terminal, and is as good as ever.
#[track_caller]
fn works(stage: &Stage, attach: &Program) {
    let mut piped = attach.attached_to_pipes();
    stage.carries(&mut piped, 100_000);
    assert_eq!(piped.wait(), 0);
    stage.nothing_is_left();
    let session = attach.attached_on(&stage.terminal);
    stage.talks("hello");
    stage.terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    stage.is_as_before();
}

#[test]
fn without_proc_it_works_and_says_what_it_cannot_see() {
    if not_root() || missing("unshare") {
        return;
    }
    let stage = Stage::new();
    let attach = mounted(stage.attach(), "mount -t tmpfs none /proc");
    works(&stage, &attach);
    let piped = attach.attached_to_pipes();
    assert!(said(&piped.stderr().so_far(), "nobody can be seen who has the console open"));
    assert_eq!(stage.locks.names(), all_names(&stage.guest));
}

#[test]
fn without_a_real_dev_tty_it_works() {
    if not_root() || missing("unshare") {
        return;
    }
    for other in ["/dev/null", "/etc/passwd", "/dev/full"] {
        let stage = Stage::new();
        let mount = format!("mount --bind {other} /dev/tty");
        works(&stage, &mounted(stage.attach(), &mount));
    }
}

#[test]
fn without_any_environment_it_works() {
    let stage = Stage::new();
    let runtime = format!("VCONSOLE_TEST_RUNTIME={}", stage.runtime.path().display());
    works(&stage, &stage.attach().under(["env", "-i", &runtime]));
}

#[test]
fn with_children_that_nobody_waits_for_it_works() {
    let stage = Stage::new();
    works(&stage, &stage.attach().under(["env", "--ignore-signal=CHLD"]));
    works(&stage, &stage.attach().under(["env", "--block-signal=CHLD"]));
}

#[test]
fn where_no_process_can_be_started_it_works_without_a_guard() {
    if not_root() || missing("prlimit") {
        return;
    }
    let stage = Stage::new();
    stage.guest.chown(SOMEBODY);
    let attach = stage.attach().as_user(SOMEBODY, SOMEBODY).under(["prlimit", "--nproc=1:1"]);
    let mut piped = attach.attached_to_pipes();
    assert!(said(&piped.stderr().so_far(), "no guard can be started"));
    assert_eq!(stage.locks.names(), all_names(&stage.guest));
    stage.carries(&mut piped, 100_000);
    assert_eq!(piped.wait(), 0);
    stage.nothing_is_left();
}

#[test]
fn where_nothing_can_be_watched_it_works_and_says_so() {
    if missing("strace") {
        return;
    }
    // As where a user has too many watches already, or the kernel knows of none.
    for inject in ["inotify_init1:error=EMFILE", "inotify_add_watch:error=ENOSPC"] {
        let stage = Stage::new();
        let inject = format!("inject={inject}");
        let attach = stage.attach().under(["strace", "-DDD", "-o", "/dev/null", "-e", &inject]);
        works(&stage, &attach);
        let piped = attach.attached_to_pipes();
        let stderr = piped.stderr().so_far();
        assert!(said(&stderr, "who opens it as well goes unnoticed"), "{inject}");
        assert!(said(&stderr, "who breaks a lock there goes unnoticed"), "{inject}");
    }
}

#[test]
fn where_a_lock_directory_cannot_be_watched_that_is_said_and_the_console_is_watched() {
    if not_root() {
        return;
    }
    let stage = Stage::new();
    stage.guest.chown(SOMEBODY);
    // Everybody may make files there, and nobody but root may see which there are.
    set_mode(stage.locks.path(), 0o1733);
    let session = stage.attach().as_user(SOMEBODY, SOMEBODY).attached_on(&stage.terminal);
    assert_eq!(stage.locks.names(), all_names(&stage.guest));
    assert!(said(&stage.terminal.ear().so_far(), "who breaks a lock there goes unnoticed"));
    assert!(!said(&stage.terminal.ear().so_far(), "who opens it"));
    let _opener = Bystander::with_open(stage.guest.path());
    stage.terminal.shows("has opened the console as well");
    stage.terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Came {
    /// The loader could not begin it.
    Nowhere,
    /// It began, and failed.
    Begun,
    /// It worked.
    Through,
}

/// On a terminal, it is attached and leaves as it should, or it says what it lacks; in any case nothing
/// stays behind, and its status is in the table.
#[track_caller]
fn works_or_fails_well(stage: &Stage, attach: &Program, what: &str) -> Came {
    stage.terminal.clear();
    // The loader tells of its last step (ld.so(8)): what comes after that is ours.
    let session = attach.clone().env("LD_DEBUG", "files").on(&stage.terminal);
    let begins = format!("transferring control: {}", env!("CARGO_BIN_EXE_vconsole"));
    let ear = stage.terminal.ear();
    let attached = || said(&ear.so_far(), "connected to");
    crate::harness::until(what, || session.has_ended() || attached());
    let worked = !session.has_ended();
    if worked {
        stage.terminal.types("typed");
        crate::harness::until(what, || {
            session.has_ended() || said(&stage.guest.ear().so_far(), "typed")
        });
        stage.terminal.types("\x1d.");
    }
    let status = session.wait();
    // What comes after all that it said was heard after it.
    rustix::io::write(stage.terminal.open(), b"it has ended").unwrap();
    stage.terminal.shows("it has ended");
    let heard = stage.terminal.screen_so_far();
    let begun = heard.split_once(&begins).map(|(_, said)| said);
    let statuses = statuses(match begun {
        None => "the loader",
        // The stack grows by itself, or it is SIGSEGV (setrlimit(2), RLIMIT_AS): not once it has begun
        // to do something.
        Some(said) if status == 139 && !said.contains("vconsole: ") => "without a stack",
        Some(_) => "",
    });
    let begun = begun.is_some();
    assert!(statuses.contains(&status), "{what}: {status}: {heard}");
    stage.locks.become_empty();
    crate::harness::until(what, || stage.terminal.settings() == stage.before);
    stage.is_as_before();
    assert!(begun || !worked, "the loader does not say when it begins a program");
    match (begun, status) {
        (true, 0) => Came::Through,
        (true, _) => Came::Begun,
        (false, _) => Came::Nowhere,
    }
}

#[test]
fn with_few_descriptors_it_works_or_says_so() {
    if missing("prlimit") {
        return;
    }
    let stage = Stage::new();
    let mut all = Vec::new();
    for limit in [3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 32] {
        let attach = stage.attach().under(["prlimit", &format!("--nofile={limit}:{limit}")]);
        let what = format!("{limit} descriptors");
        all.push(works_or_fails_well(&stage, &attach, &what));
    }
    for came in [Came::Nowhere, Came::Begun, Came::Through] {
        assert!(all.contains(&came), "never {came:?}");
    }
}

#[test]
fn with_little_memory_it_works_or_ends_well() {
    if missing("prlimit") {
        return;
    }
    let stage = Stage::new();
    let comes = |kilobytes: u32| {
        let attach = stage.attach().under(["prlimit", &format!("--as={}", kilobytes << 10)]);
        works_or_fails_well(&stage, &attach, &format!("{kilobytes} KB"))
    };
    // Where does it begin? From there on little by little, up to where it works.
    let (mut few, mut many) = (4 << 10, 64 << 10);
    assert_eq!((comes(few), comes(many)), (Came::Nowhere, Came::Through));
    while many - few > 64 {
        let middle = u32::midpoint(few, many);
        *(if comes(middle) == Came::Nowhere { &mut few } else { &mut many }) = middle;
    }
    let more = (0..64).map(|step| many + 16 * step);
    let begun = more.take_while(|&kilobytes| comes(kilobytes) != Came::Through).count();
    assert!((1..64).contains(&begun), "{begun}");
}

#[test]
fn a_limit_to_files_is_a_failure_and_no_death() {
    if missing("prlimit") {
        return;
    }
    let stage = Stage::new();
    let attach = |bytes: &str| stage.attach().under(["prlimit", &format!("--fsize={bytes}")]);
    let output = attach("0").output();
    assert_eq!(output.status, 1, "{output:?}");
    assert!(said(&output.stderr, "File too large"), "{output:?}");
    stage.nothing_is_left();

    // Room for lock files, and for no more than that.
    let file = stage.runtime.path().join("output");
    let session = attach("100").stdout_to(&file).attached_on(&stage.terminal);
    stage.guest.say([b'x'; 300]);
    assert_eq!(session.wait(), 1);
    stage.terminal.shows("cannot write to stdout");
    assert_eq!(std::fs::read(&file).unwrap(), [b'x'; 100]);
    stage.is_as_before();
}
