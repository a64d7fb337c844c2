//! `attach --ask`: who is refused is asked what to do.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::harness::{
    DEADLINE, Guest, Locks, Piped, Program, SOMEBODY, Session, Terminal, Vconsole, not_root,
    silence, until,
};

/// A console that somebody operates, and a terminal at which somebody else wants it.
struct Busy {
    guest: Guest,
    locks: Locks,
    operator: Piped,
    desk: Terminal,
}

const QUESTION: &str = "(w)ait for it, (t)ake it over, or (q)uit?";

impl Busy {
    fn new() -> Self {
        let (guest, locks) = (Guest::new(), Locks::new());
        let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
        Self { guest, locks, operator, desk: Terminal::new() }
    }

    fn asking(&self) -> Program {
        Vconsole::attach(&self.guest).arg("--ask").locks(&self.locks)
    }

    /// The program is run, and has asked.
    #[track_caller]
    fn asks(&self, program: &Program) -> Session {
        let session = program.on(&self.desk);
        self.desk.shows(QUESTION);
        session
    }

    /// Whoever asked has gone, and nobody has noticed.
    #[track_caller]
    fn is_undisturbed(&self) {
        self.guest.say("undisturbed");
        self.operator.stdout().receives("undisturbed");
        for name in self.locks.names() {
            let holder = String::from_utf8(self.locks.read(&name).unwrap()).unwrap();
            assert_eq!(holder.trim().parse(), Ok(self.operator.pid()), "{name}");
        }
    }
}

#[test]
fn the_answer_w_waits_and_what_is_typed_after_it_reaches_the_console() {
    let busy = Busy::new();
    let before = busy.desk.settings();
    let session = busy.asks(&busy.asking());
    busy.desk.shows(format!("is held by vconsole (pid {}", busy.operator.pid()));
    assert_eq!(busy.desk.settings(), before);
    // In one go: nothing of it may stay in a buffer of ours.
    busy.desk.types("w\nfirst\nsecond\nthird");
    busy.desk.shows("waiting for");
    busy.operator.signal(Signal::TERM);
    assert_eq!(busy.operator.wait(), 143);
    busy.desk.shows("connected to");
    busy.guest.receives_exactly("first\nsecond\nthird");
    busy.desk.types("\x1d.");
    assert_eq!(session.wait(), 0);
    assert_eq!(busy.desk.settings(), before);
}

#[test]
fn the_answer_t_takes_it_over_and_what_is_typed_after_it_reaches_the_console() {
    let busy = Busy::new();
    let before = busy.desk.settings();
    let session = busy.asks(&busy.asking());
    busy.desk.types("t\nuptime\n");
    assert_eq!(busy.operator.wait(), 4);
    busy.desk.shows("connected to");
    busy.guest.receives_exactly("uptime\n");
    busy.guest.say("a long time");
    busy.desk.shows("a long time");
    busy.desk.types("\x1d.");
    assert_eq!(session.wait(), 0);
    assert_eq!(busy.desk.settings(), before);
}

#[test]
fn q_enter_and_the_end_of_input_quit_with_3() {
    let busy = Busy::new();
    let before = busy.desk.settings();
    for answer in ["q\n", "Q\r", "\n", "\x04"] {
        busy.desk.clear();
        let session = busy.asks(&busy.asking());
        busy.desk.types(answer);
        assert_eq!(session.wait(), 3, "{answer:?}");
        assert_eq!(busy.desk.settings(), before, "{answer:?}");
    }
    busy.is_undisturbed();
}

#[test]
fn nothing_said_until_the_limit_quits_with_3() {
    let busy = Busy::new();
    let before = busy.desk.settings();
    let start = Instant::now();
    let session = busy.asks(&busy.asking().env("VCONSOLE_TEST_ASK_LIMIT", "1000"));
    // A line that is not ended is no answer.
    busy.desk.types("t");
    assert_eq!(session.wait(), 3);
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    busy.desk.shows("no answer in 1 s");
    assert_eq!(busy.desk.settings(), before);
    busy.is_undisturbed();
}

#[test]
#[ignore = "it takes that long"]
fn the_limit_is_half_a_minute() {
    let busy = Busy::new();
    let start = Instant::now();
    let session = busy.asks(&busy.asking());
    std::thread::sleep(Duration::from_secs(29).saturating_sub(start.elapsed()));
    assert!(!session.has_ended(), "after {:?}", start.elapsed());
    assert_eq!(session.wait(), 3);
    assert!(start.elapsed() < Duration::from_secs(30) + DEADLINE, "{:?}", start.elapsed());
}

#[test]
fn signals_end_a_question_and_the_terminal_is_as_it_was() {
    let busy = Busy::new();
    let before = busy.desk.settings();
    let session = busy.asks(&busy.asking());
    busy.desk.types("\x03");
    assert_eq!(session.wait(), 130);
    for (signal, status) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::KILL, 137)] {
        busy.desk.clear();
        let session = busy.asks(&busy.asking());
        session.signal(signal);
        assert_eq!(session.wait(), status);
        assert_eq!(busy.desk.settings(), before);
    }
    busy.is_undisturbed();
}

#[test]
fn a_terminal_that_vanishes_ends_a_question_with_129() {
    for ignored in [false, true] {
        let mut busy = Busy::new();
        let program = busy.asking();
        let program = if ignored { program.ignoring(Signal::HUP) } else { program };
        let session = busy.asks(&program);
        busy.desk.vanishes();
        assert_eq!(session.wait(), 129, "SIGHUP ignored: {ignored}");
        busy.is_undisturbed();
    }
}

#[test]
fn a_question_that_was_stopped_is_asked_again() {
    let busy = Busy::new();
    let session = busy.asks(&busy.asking());
    for _ in 0..2 {
        busy.desk.types("\x1a");
        session.is_stopped();
        busy.desk.clear();
        session.fg();
        busy.desk.shows(QUESTION);
    }
    busy.desk.types("q\n");
    assert_eq!(session.wait(), 3);
}

#[test]
fn in_the_background_it_asks_nothing_and_stops_again() {
    let busy = Busy::new();
    let session = busy.asks(&busy.asking());
    busy.desk.types("\x1a");
    busy.desk.shows("^Z");
    session.is_stopped();
    until("the shell has its terminal back", || busy.desk.foreground() != session.pid());
    busy.desk.clear();
    session.signal(Signal::CONT);
    session.is_stopped();
    silence(busy.desk.ear(), Duration::from_millis(200));
    session.fg();
    busy.desk.shows(QUESTION);
    busy.desk.types("q\n");
    assert_eq!(session.wait(), 3);
}

#[test]
fn a_question_on_a_frozen_terminal_is_seen_when_it_thaws() {
    let busy = Busy::new();
    busy.desk.freezes();
    let session = busy.asking().on(&busy.desk);
    session.reads_no_more();
    silence(busy.desk.ear(), Duration::from_millis(300));
    busy.desk.thaws();
    busy.desk.shows(QUESTION);
    let before = session.cpu_time();
    silence(busy.desk.ear(), Duration::from_millis(300));
    assert!(session.cpu_time() < before + Duration::from_millis(100), "it does not sleep");
    busy.desk.types("q\n");
    assert_eq!(session.wait(), 3);
}

#[test]
fn what_is_no_answer_is_asked_again() {
    let busy = Busy::new();
    let session = busy.asks(&busy.asking());
    // Typed for the console, perhaps: it begins like an answer.
    busy.desk.types("top\n");
    busy.desk.shows("answer with one of these letters");
    busy.desk.types("w\n");
    busy.desk.shows("waiting for");
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
    busy.is_undisturbed();
}

#[test]
fn a_terminal_that_was_left_raw_can_answer() {
    let busy = Busy::new();
    let mut raw = rustix::termios::tcgetattr(busy.desk.open()).unwrap();
    raw.make_raw();
    rustix::termios::tcsetattr(busy.desk.open(), rustix::termios::OptionalActions::Now, &raw)
        .unwrap();
    let session = busy.asks(&busy.asking());
    busy.desk.types("t\ruptime\r");
    busy.guest.receives_exactly("uptime\r");
    busy.desk.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

#[test]
fn quiet_asks_as_well() {
    let busy = Busy::new();
    let session = busy.asks(&busy.asking().arg("--quiet"));
    busy.desk.shows("is held by vconsole");
    busy.desk.types("q\n");
    assert_eq!(session.wait(), 3);
}

#[test]
fn who_sits_at_no_terminal_is_refused_without_a_question() {
    let busy = Busy::new();
    let refused = busy.asking().output();
    assert_eq!(refused.status, 3, "{refused:?}");
    assert!(refused.stderr().contains("hint: ") && !refused.stderr().contains(QUESTION));
    let session = busy.asking().stdin_from("/dev/null").on(&busy.desk);
    assert_eq!(session.wait(), 3);
    busy.desk.shows("hint: ");
    assert!(!busy.desk.screen_so_far().contains(QUESTION));
    let session = busy.asking().redirected("2>/dev/null").on(&busy.desk);
    assert_eq!(session.wait(), 3);
    busy.is_undisturbed();
}

#[test]
fn a_free_console_is_attached_to_without_a_question() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let session = Vconsole::attach(&guest).arg("--ask").locks(&locks).attached_on(&desk);
    assert!(!desk.screen_so_far().contains("(q)uit"), "{}", desk.screen_so_far());
    desk.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

#[test]
fn a_takeover_that_is_refused_is_not_offered_again() {
    if not_root() {
        return;
    }
    let busy = Busy::new();
    std::fs::set_permissions(busy.guest.path(), Permissions::from_mode(0o666)).unwrap();
    let session = busy.asks(&busy.asking().as_user(SOMEBODY, SOMEBODY));
    busy.desk.clear();
    busy.desk.types("t\n");
    busy.desk.shows("was not given away by");
    busy.desk.shows("(w)ait for it, or (q)uit?");
    busy.desk.clear();
    busy.desk.types("t\n");
    busy.desk.shows("answer with one of these letters");
    busy.desk.types("w\n");
    busy.desk.shows("waiting for");
    busy.operator.signal(Signal::TERM);
    assert_eq!(busy.operator.wait(), 143);
    busy.desk.shows("connected to");
    busy.desk.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

#[test]
fn only_who_was_named_is_taken_over() {
    let mut busy = Busy::new();
    let session = busy.asks(&busy.asking());
    busy.operator.signal(Signal::TERM);
    assert_eq!(busy.operator.wait(), 143);
    busy.operator = Vconsole::attach(&busy.guest).locks(&busy.locks).attached_to_pipes();
    busy.desk.clear();
    busy.desk.types("t\n");
    busy.desk.shows(format!("is held by vconsole (pid {}", busy.operator.pid()));
    busy.desk.shows(QUESTION);
    busy.is_undisturbed();
    busy.desk.types("t\n");
    assert_eq!(busy.operator.wait(), 4);
    busy.desk.shows("connected to");
    busy.desk.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

#[test]
fn asking_is_instead_of_force_and_wait() {
    for other in ["--force", "--wait", "--wait=1s"] {
        let wrong = Vconsole::attach("/dev/null").args(["--ask", other]).output();
        assert_eq!(wrong.status, 2, "{wrong:?}");
        assert!(wrong.stderr().contains("--ask"), "{wrong:?}");
    }
}
