//! The harness holds what its words say.

use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Client, Guest, Locks, Program, Settings, Terminal, not_root};

#[test]
fn a_guest_and_its_client_hear_each_other() {
    let mut guest = Guest::new();
    let client = Client::of(guest.path());
    guest.say("login: ");
    client.shows("login: ");
    client.types("root\r");
    guest.receives_exactly("root\r");
    guest.hang_up();
    assert_eq!(client.ear().to_the_end(), b"login: ");
}

#[test]
fn a_guests_line_is_raw_and_stays_so_while_nobody_has_it_open() {
    let (raw, cooked) = (Guest::new(), Guest::cooked());
    assert!(!raw.echoes());
    assert!(cooked.echoes());
    raw.say("not echoed");
    let client = Client::of(raw.path());
    client.shows("not echoed");
    assert_eq!(raw.ear().so_far(), b"");
}

#[test]
fn a_terminal_runs_programs_as_jobs() {
    let terminal = Terminal::new();
    let before = terminal.settings();
    let first = Program::new("cat").on(&terminal);
    terminal.types("to be echoed\n");
    terminal.shows("to be echoed\r\nto be echoed\r\n");
    terminal.types("\x03");
    assert_eq!(first.wait(), 130);
    let second = Program::new("sh").args(["-c", "stty raw; exit 7"]).on(&terminal);
    assert_eq!(second.wait(), 7);
    assert_ne!(terminal.settings(), before);
}

#[test]
fn a_job_is_stopped_and_continued_as_a_shell_does_it() {
    let terminal = Terminal::new();
    let job = Program::new("cat").on(&terminal);
    terminal.types("\x1a");
    job.is_stopped();
    job.fg();
    terminal.types("again\n");
    terminal.shows("again\r\nagain\r\n");
    job.signal(Signal::TSTP);
    job.is_stopped();
    job.signal(Signal::KILL);
    assert_eq!(job.wait(), 137);
}

#[test]
fn a_job_in_the_background_does_not_get_what_is_typed() {
    let terminal = Terminal::new();
    let job = Program::new("cat").in_background_of(&terminal);
    job.is_stopped();
    job.signal(Signal::TERM);
    job.signal(Signal::CONT);
    assert_eq!(job.wait(), 143);
}

#[test]
fn a_program_learns_of_its_terminals_end_unless_it_ignores_it() {
    let mut terminal = Terminal::new();
    let job = Program::new("sleep").arg("1000").on(&terminal);
    terminal.vanishes();
    assert_eq!(job.wait(), 129);

    let mut terminal = Terminal::new();
    let job = Program::new("sh")
        .args(["-c", "while read -r line; do :; done; exit 9"])
        .ignoring(Signal::HUP)
        .on(&terminal);
    terminal.vanishes();
    assert_eq!(job.wait(), 9);
}

#[test]
fn arguments_and_environment_arrive_byte_by_byte() {
    let words = ["a\nb", "it's", "\x1b[2J", ""];
    let program = Program::new("sh").args(["-c", r#"printf '%s.' "$@" "$ODD""#, "sh"]).args(words);
    let program = program.env("ODD", "1'2\n3");
    let wanted = "a\nb.it's.\x1b[2J..1'2\n3.";
    assert_eq!(program.output().stdout(), wanted);
    let terminal = Terminal::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("out");
    assert_eq!(program.stdout_to(&file).on(&terminal).wait(), 0);
    assert_eq!(std::fs::read_to_string(file).unwrap(), wanted);
}

#[test]
fn the_processor_time_of_a_job_is_its_own() {
    let burn = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
    let terminal = Terminal::new();
    for _ in 0..2 {
        let (busy, lazy) = (
            Program::new("sh").args(["-c", burn]).on(&terminal),
            Program::new("sh").args(["-c", burn]).piped(),
        );
        busy.wait();
        lazy.wait();
        let (one, other) = (busy.cpu_time(), lazy.cpu_time());
        assert!(one > Duration::from_millis(10) && one < other * 4, "{one:?} {other:?}");
    }
    let idle = Program::new("true").on(&terminal);
    idle.wait();
    assert!(idle.cpu_time() < Duration::from_millis(30), "{:?}", idle.cpu_time());
}

#[test]
fn another_user_owns_the_terminal_and_the_program() {
    if not_root() {
        return;
    }
    let terminal = Terminal::new();
    let who = Program::new("sh").args(["-c", "id -u; id -G; stat -c %u $(tty)"]);
    assert_eq!(who.clone().as_user(65534, 65534).on(&terminal).wait(), 0);
    terminal.shows("65534\r\n65534\r\n65534\r\n");
    let output = who.as_user(65534, 65534).output();
    assert!(output.stdout().starts_with("65534\n65534\n"), "{output:?}");
    let version = crate::harness::Vconsole::with(["--version"]).as_user(65534, 65534);
    assert!(version.output().stdout().starts_with("vconsole "));
}

#[test]
fn a_stuck_terminal_takes_no_more() {
    let terminal = Terminal::new();
    terminal.is_stuck();
    let flood = Program::new("sh").args(["-c", "yes | head -c 1000000; echo done"]).on(&terminal);
    // It cannot end: a PTY holds less than 100 KB.
    std::thread::sleep(Duration::from_millis(50));
    assert!(!flood.has_ended());
    terminal.goes_on();
    terminal.shows("done");
    assert_eq!(flood.wait(), 0);
}

#[test]
fn a_lock_directory_lists_all_that_is_in_it() {
    let locks = Locks::new();
    locks.assert_empty();
    locks.write("LCK..b", "1");
    locks.write(".hidden", "2");
    assert_eq!(locks.names(), [".hidden", "LCK..b"]);
    assert_eq!(locks.read("LCK..b").as_deref(), Some(&b"1"[..]));
}

#[test]
fn settings_differ_in_every_detail() {
    let (one, other) = (Terminal::new(), Terminal::new());
    assert_eq!(one.settings(), other.settings());
    let line = other.open();
    let mut settings = rustix::termios::tcgetattr(&line).unwrap();
    settings.special_codes[rustix::termios::SpecialCodeIndex::VTIME] = 1;
    rustix::termios::tcsetattr(&line, rustix::termios::OptionalActions::Now, &settings).unwrap();
    assert_ne!(one.settings(), Settings::of(&line));
}
