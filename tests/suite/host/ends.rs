//! How it ends, and with what status.

use std::time::{Duration, Instant};

use rustix::io::read;
use rustix::process::Signal;
use rustix::termios::ioctl_tiocexcl;

use super::{Hosted, Notes, noise};
use crate::harness::{Client, Vconsole, in_time, is_alive, not_root, took_less_than, until};

#[test]
fn with_nobody_attached_it_ends_with_its_command() {
    in_time(|| {
        let start = Instant::now();
        let output = Vconsole::host().running(["sh", "-c", "echo hi"]).output();
        assert_eq!(output.status, 0);
        took_less_than(Duration::from_secs(2), start);
    });
}

#[test]
fn the_commands_exit_status_is_its_own() {
    for status in [0, 1, 7, 255] {
        let exit = format!("exit {status}");
        assert_eq!(Vconsole::host().running(["sh", "-c", &exit]).output().status, status);
    }
}

#[test]
fn a_signal_that_ended_the_command_is_added_to_128() {
    for (signal, status) in [("TERM", 143), ("KILL", 137)] {
        let kill = format!("kill -{signal} $$");
        assert_eq!(Vconsole::host().running(["sh", "-c", &kill]).output().status, status);
    }
}

#[test]
fn the_exit_status_is_known_even_if_sigchld_was_ignored() {
    let host = Vconsole::host().running(["sh", "-c", "exit 9"]).ignoring(Signal::CHILD);
    assert_eq!(host.output().status, 9);
}

#[test]
fn what_cannot_be_run_is_127_or_126_before_a_path_is_printed() {
    let notes = Notes::new();
    std::fs::write(notes.path("plain"), "text").unwrap();
    let plain = notes.path("plain");
    for (command, status) in [("/no/such/program", 127), ("no-such-program", 127), (&plain, 126)] {
        let output = Vconsole::host().running([command]).output();
        assert_eq!((output.status, output.stdout()), (status, String::new()));
        assert!(output.stderr().starts_with(&format!("vconsole: cannot run {command}: ")));
        assert_eq!(output.stderr().lines().count(), 1);
    }
}

#[test]
fn the_attached_get_the_commands_last_words() {
    let words = noise(60_000);
    let notes = Notes::new();
    std::fs::write(notes.path("words"), &words).unwrap();
    let hosted = Hosted::script(&format!("read -r go; cat {}; exit 3", notes.path("words")));
    let client = hosted.client();
    client.types("\n");
    assert!(client.ear().to_the_end() == words);
    assert_eq!(hosted.host.wait(), 3);
}

#[test]
fn a_slow_reader_gets_them_too() {
    let words = noise(60_000);
    let notes = Notes::new();
    std::fs::write(notes.path("words"), &words).unwrap();
    let hosted = Hosted::script(&format!("read -r go; cat {}; exit 3", notes.path("words")));
    let client = Client::asleep(&hosted.console);
    client.types("\n");
    let mut heard = Vec::new();
    let mut piece = [0; 300];
    while heard.len() < words.len() {
        // Slow: it takes more than the five seconds for which one who does not read at all is waited.
        std::thread::sleep(Duration::from_millis(30));
        match read(client.line(), &mut piece) {
            Ok(0) => break,
            Ok(count) => heard.extend_from_slice(&piece[..count]),
            Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => panic!("after {} bytes: {error}", heard.len()),
        }
    }
    assert!(heard == words);
    assert_eq!(hosted.host.wait(), 3);
}

#[test]
fn a_reader_who_never_reads_holds_it_up_for_five_seconds() {
    let hosted = Hosted::script("head -c 30000 /dev/zero; read -r go; exit 3");
    let client = Client::asleep(&hosted.console);
    until("all is written", || client.unread() > 0);
    client.types("\n");
    let start = Instant::now();
    assert_eq!(hosted.host.wait(), 3);
    assert!(start.elapsed() > Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn a_reader_who_leaves_at_the_end_holds_it_up_no_longer() {
    in_time(|| {
        let hosted = Hosted::script("head -c 30000 /dev/zero; read -r go; exit 3");
        let client = Client::asleep(&hosted.console);
        until("something is written", || client.unread() > 0);
        client.types("\n");
        std::thread::sleep(Duration::from_millis(200));
        assert!(!hosted.host.has_ended());
        drop(client);
        let start = Instant::now();
        assert_eq!(hosted.host.wait(), 3);
        took_less_than(Duration::from_secs(2), start);
    });
}

#[test]
fn a_reader_who_wants_the_console_alone_gets_the_last_words() {
    if not_root() {
        return;
    }
    let host = Vconsole::host().as_user(65534, 65534);
    let hosted = Hosted::script_of(&host, "read -r go; seq 1000; exit 3");
    let client = hosted.client();
    ioctl_tiocexcl(client.line()).unwrap();
    client.types("\n");
    let words: Vec<_> = (1..=1000).map(|number| number.to_string()).collect();
    let heard = String::from_utf8(client.ear().to_the_end()).unwrap();
    assert_eq!(heard.lines().collect::<Vec<_>>(), words);
    assert_eq!(hosted.host.wait(), 3);
}

#[test]
fn whoever_the_command_leaves_behind_does_not_hold_it_up() {
    // The flood ends by itself when it can no longer write.
    let hosted = Hosted::script("trap '' HUP; read -r go; yes flood & exit 6");
    let client = hosted.client();
    client.types("\n");
    assert_eq!(hosted.host.wait(), 6);
    let heard = client.ear().to_the_end();
    assert!(heard.len() < 300_000, "{}", heard.len());
}

#[test]
fn signals_end_the_command_and_the_status_says_which() {
    let cases = [(Signal::HUP, 129), (Signal::INT, 130), (Signal::QUIT, 131), (Signal::TERM, 143)];
    for (signal, status) in cases {
        let hosted = Hosted::script("echo pid $$ end; exec sleep 1000");
        let client = hosted.client();
        let command = pid_in(&client);
        hosted.host.signal(signal);
        assert_eq!(hosted.host.wait(), status);
        assert!(!is_alive(command));
        assert!(!hosted.console.exists());
        client.ear().to_the_end();
    }
}

#[test]
fn a_command_that_ignores_the_hang_up_is_killed() {
    let hosted = Hosted::script("trap '' HUP TERM; echo pid $$ end; while :; do sleep 1; done");
    let command = pid_in(&hosted.client());
    hosted.host.signal(Signal::TERM);
    assert_eq!(hosted.host.wait(), 143);
    assert!(!is_alive(command));
}

#[test]
fn a_signal_that_was_ignored_from_the_start_stays_ignored() {
    let host = Vconsole::host().running(["cat"]).ignoring(Signal::INT).ignoring(Signal::HUP);
    let hosted = Hosted::start(&host);
    hosted.host.signal(Signal::INT);
    hosted.host.signal(Signal::HUP);
    let client = hosted.client();
    client.types("still here\r");
    client.shows("still here\r\nstill here\r\n");
    hosted.host.signal(Signal::TERM);
    assert_eq!(hosted.host.wait(), 143);
}

#[test]
fn without_a_reader_for_the_path_it_ends_like_any_writer_to_a_broken_pipe() {
    let mut host = Vconsole::host().running(["sleep", "1000"]).piped();
    host.breaks_stdout();
    // Unless the path was printed before.
    if host.stderr().wait_for_or_end("a word", |text| (!text.is_empty()).then_some(())).is_none() {
        assert_eq!(host.wait(), 141);
    }
}

/// The process number that the command prints as `pid N end`.
fn pid_in(client: &Client) -> i32 {
    client.ear().wait_for("the command's number", |heard| {
        let text = String::from_utf8_lossy(heard).into_owned();
        text.split_once("pid ")?.1.split_once(" end")?.0.parse().ok()
    })
}
