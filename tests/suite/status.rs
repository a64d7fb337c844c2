//! `status`: what it says of every lock, and that it touches none.

use std::fs;
use std::process::Command;

use super::harness::{Guest, Locks, Output, Program, Terminal, Vconsole, missing, until};
use super::locks::{NOBODY, all_names, attached, path_name};

pub(crate) fn status(locks: &Locks, arguments: &[&str]) -> Output {
    Vconsole::status().locks(locks).args(arguments).output()
}

pub(crate) fn json(locks: &Locks, arguments: &[&str]) -> serde_json::Value {
    let output = status(locks, &[&["--json"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_session_is_shown_once_with_its_pid_program_user_and_since_when() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = attached(&guest, &locks, &terminal);
    let console = guest.path().to_str().unwrap();
    let output = status(&locks, &[console]);
    assert_eq!(output.status, 3, "{output:?}");
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    let text = output.stdout();
    let line = text.lines().nth(1).unwrap();
    let cells: Vec<_> = line.split_whitespace().collect();
    let pid = session.pid().to_string();
    let tty = terminal.path().strip_prefix("/dev").unwrap().to_str().unwrap();
    assert_eq!(cells[..6], [console, "held", &pid, "vconsole", &user, tty], "{line}");
    assert!(line.contains("lock files, flock, open"), "{line}");
    assert_eq!(text.lines().count(), 2, "its guard is not shown: {text}");

    let document = json(&locks, &[console]);
    assert_eq!((&document["version"], &document["complete"]), (&1.into(), &true.into()));
    let row = &document["consoles"][0];
    assert_eq!((&row["state"], &row["kind"]), (&"held".into(), &"pty".into()));
    let holder = &row["holders"][0];
    assert_eq!((&holder["pid"], &holder["program"]), (&session.pid().into(), &"vconsole".into()));
    assert_eq!((&holder["user"], &holder["terminal"]), (&user.into(), &tty.into()));
    let forms = ["path", "base-name", "libvirt", "device-numbers", "flock", "open"];
    assert_eq!(holder["by"], serde_json::json!(forms));
    let since: jiff::Timestamp = holder["since"].as_str().unwrap().parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(since).as_secs() < 60);
    assert_eq!(document["locks"].as_array().unwrap().len(), all_names(&guest).len());
    assert_eq!(document["locks"][0]["state"], "live");

    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    let output = status(&locks, &[console]);
    assert_eq!(output.status, 0);
    assert!(output.stdout().contains("free"), "{output:?}");
}

#[test]
fn a_lock_under_a_symlinks_name_is_that_of_the_console_behind_it() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("vm0");
    std::os::unix::fs::symlink(guest.path(), &link).unwrap();
    let session = Vconsole::attach(&link).locks(&locks).on(&terminal);
    terminal.shows("connected to");
    let text = status(&locks, &[]).stdout();
    let row = text.lines().find(|line| line.contains("LCK..vm0")).unwrap();
    assert!(row.starts_with(guest.path().to_str().unwrap()), "{text}");
    assert!(!text.contains("/dev/vm0"), "{text}");
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

#[test]
fn of_several_consoles_the_gravest_state_is_the_exit_status() {
    let (free, dead, suspect, held) = (Guest::new(), Guest::new(), Guest::new(), Guest::new());
    let locks = Locks::new();
    locks.write(&path_name(&dead), NOBODY);
    locks.write(&path_name(&suspect), "");
    locks.write(&path_name(&held), format!("{:>10}\n", std::process::id()));
    let path = |guest: &Guest| guest.path().to_str().unwrap().to_owned();
    let (free, dead, suspect, held) = (path(&free), path(&dead), path(&suspect), path(&held));
    let code = |consoles: &[&str]| status(&locks, consoles).status;
    assert_eq!(code(&[&free]), 0);
    assert_eq!(code(&[&dead, &free]), 0);
    assert_eq!(code(&[&suspect]), 3);
    assert_eq!(code(&[&free, &held, &dead]), 3);
    assert_eq!(code(&[&held, "/dev/null"]), 6);
    assert_eq!(code(&["/nowhere/at/all", &free]), 6);
    assert_eq!(code(&[]), 0);

    let document = json(&locks, &[&free, &dead, &suspect, &held, "/dev/null"]);
    let states: Vec<_> =
        document["consoles"].as_array().unwrap().iter().map(|console| &console["state"]).collect();
    assert_eq!(states, ["free", "dead", "suspect", "held", "missing"]);
}

#[test]
fn without_a_console_every_lock_file_is_shown() {
    let locks = Locks::new();
    // Not ourselves: who has another console open is taken to mean that one.
    let holder = Program::new("sleep").arg("1000").piped();
    locks.write("LCK..ttyUSB77", NOBODY);
    locks.write("LCK..99997", "");
    locks.write("LCK.._pts_99999", format!("{:>10}\n", holder.pid()));
    locks.write("LK.000.136.99998", "rubbish");
    locks.write("unrelated", "");
    let output = status(&locks, &[]);
    assert_eq!(output.status, 0);
    let text = output.stdout();
    let line = |lock: &str| text.lines().find(|line| line.contains(lock)).unwrap().to_owned();
    assert!(line("LCK..ttyUSB77").starts_with("/dev/ttyUSB77"), "{text}");
    assert!(line("LCK..ttyUSB77").contains("dead"), "{text}");
    let base = line("LCK..99997");
    assert!(base.starts_with('-') && base.contains("it is empty"), "{text}");
    assert!(line("LCK.._pts_99999").starts_with("/dev/pts/99999"), "{text}");
    assert!(line("LCK.._pts_99999").contains("held"), "{text}");
    assert!(line("LK.000.136.99998").starts_with("/dev/pts/99998"), "{text}");
    assert!(!text.contains("unrelated"), "{text}");
    assert_eq!(locks.names().len(), 5);
}

#[test]
fn what_others_wrote_cannot_drive_the_terminal() {
    let locks = Locks::new();
    locks.write("LCK..\x1b[2J\n", "\x1b[2J");
    let output = status(&locks, &[]);
    assert!(output.stdout.iter().all(|&byte| byte == b'\n' || byte >= b' '), "{output:?}");
    assert!(output.stdout().contains(r"LCK..\x1b[2J\n"), "{output:?}");
    assert_eq!(json(&locks, &[])["locks"].as_array().unwrap().len(), 1);
}

#[test]
fn a_reader_that_left_is_status_141_and_a_full_disk_is_1() {
    let locks = Locks::new();
    locks.write("LCK..ttyUSB7", NOBODY);
    let mut status = Vconsole::status().locks(&locks).piped();
    status.breaks_stdout();
    // It may have been quicker than we were.
    assert!([0, 141].contains(&status.wait()));
    let terminal = Terminal::new();
    let full = Vconsole::status().locks(&locks).stdout_to("/dev/full").on(&terminal);
    assert_eq!(full.wait(), 1);
}

#[test]
fn what_is_missing_is_said_with_the_reason_and_what_to_do_or_by_the_status_alone() {
    let locks = Locks::new();
    let missing = Vconsole::status().locks(&locks).arg("/dev/nope");
    let output = missing.output();
    assert_eq!(output.status, 6);
    assert!(output.stderr().contains("/dev/nope: No such file"), "{output:?}");
    assert!(output.stderr().contains("hint: `virsh ttyconsole"), "{output:?}");
    assert_eq!(missing.redirected("2> /dev/full").output().status, 6);
}

#[test]
fn a_lock_directory_that_was_named_and_is_none_is_an_error() {
    let locks = Locks::new();
    locks.write("file", "");
    for no_directory in ["typo", "file"].map(|name| locks.path().join(name)) {
        let output = Vconsole::status().arg("--lock-dir").arg(&no_directory).output();
        assert_eq!(output.status, 1, "{output:?}");
        assert!(output.stderr().contains(no_directory.to_str().unwrap()), "{output:?}");
    }
}

#[test]
fn looking_opens_no_terminal_and_takes_no_lock() {
    if missing("strace") {
        return;
    }
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = attached(&guest, &locks, &terminal);
    let before = locks.names();
    for (named, code) in [(Some(guest.path()), 3), (None, 0)] {
        let trace = tempfile::NamedTempFile::new().unwrap();
        let done = Command::new("strace")
            .args(["-f", "-e", "trace=open,openat,flock,ioctl", "-o"])
            .arg(trace.path())
            .arg(env!("CARGO_BIN_EXE_vconsole"))
            .args(["status", "--lock-dir"])
            .arg(locks.path())
            .args(named)
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(code), "{done:?}");
        let trace = fs::read_to_string(trace.path()).unwrap();
        assert!(trace.contains("openat(") && trace.contains("/proc/"), "{trace}");
        assert!(!trace.contains("flock("), "{trace}");
        // The directory of the PTYs is listed, and O_PATH opens nothing.
        let harmless = |line: &&str| line.contains("O_DIRECTORY") || line.contains("O_PATH");
        let opened = trace.lines().filter(|line| line.contains("open") && !harmless(line));
        let terminals: Vec<_> =
            opened.filter(|line| line.contains("\"/dev/") || line.contains("/fd/")).collect();
        assert_eq!(terminals, [""; 0]);
    }
    assert_eq!(locks.names(), before);
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    until("it is over", || locks.names().is_empty());
}
