//! What cannot be attached to is refused before anything is touched: one clear line, a hint, and the
//! right exit status.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use super::harness::{Guest, Locks, Output, Program, Terminal, Vconsole, not_root};

#[track_caller]
fn refused(console: impl AsRef<std::ffi::OsStr>, because: &str) -> Output {
    let locks = Locks::new();
    let output = Vconsole::attach(console).locks(&locks).output();
    locks.assert_empty();
    assert_eq!(output.status, 6, "{output:?}");
    let said = output.stderr();
    assert!(said.contains(because), "{said}");
    let [error, hint] = said.lines().collect::<Vec<_>>().try_into().expect("a line and a hint");
    assert!(error.starts_with("vconsole: ") && hint.starts_with("vconsole: hint: "), "{said}");
    output
}

#[test]
fn what_does_not_exist_is_refused() {
    refused("/dev/pts/999999", "there is no console /dev/pts/999999");
    refused("/nowhere/at/all", "No such file or directory");
    refused("/etc/passwd/x", "Not a directory");
}

#[test]
fn other_kinds_of_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("file"), "").unwrap();
    refused(path("file"), "is a regular file, not a console");
    refused(directory.path(), "is a directory, not a console");
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o644));
    rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), kind, mode, 0).unwrap();
    refused(path("fifo"), "is a fifo, not a console");
    let _listener = UnixListener::bind(path("socket")).unwrap();
    refused(path("socket"), "is a socket, not a console");
    symlink("nothing", path("dangling")).unwrap();
    refused(path("dangling"), "there is no console");
    symlink("loop", path("loop")).unwrap();
    refused(path("loop"), "Too many levels of symbolic links");
    refused("/dev/null", "is a character device that is no terminal line");
    refused("/dev/urandom", "no terminal line");
}

#[test]
fn a_master_is_refused() {
    refused("/dev/ptmx", "is the master side of a PTY");
    refused("/dev/pts/ptmx", "is the master side of a PTY");
}

#[test]
fn a_console_that_may_not_be_opened_is_refused_and_its_owner_said() {
    if not_root() {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    let output = Vconsole::attach(&guest).locks(&locks).as_user(65534, 65534).output();
    assert_eq!(output.status, 6, "{output:?}");
    assert!(output.stderr().contains("may not be opened: it belongs to root"), "{output:?}");
    locks.assert_empty();
}

#[test]
fn ones_own_terminal_is_refused() {
    let (terminal, locks) = (Terminal::new(), Locks::new());
    let before = terminal.settings();
    for console in [terminal.path().to_path_buf(), "/dev/tty".into()] {
        let attach = Vconsole::attach(&console).locks(&locks).arg("--force");
        assert_eq!(attach.on(&terminal).wait(), 6);
        terminal.shows("is your own terminal");
        terminal.clear();
    }
    assert_eq!(terminal.settings(), before);
    locks.assert_empty();
}

#[test]
fn somebodys_login_terminal_is_refused_also_by_force() {
    let (theirs, locks) = (Terminal::new(), Locks::new());
    let shell = Program::new("cat").on(&theirs);
    let attach = Vconsole::attach(theirs.path()).locks(&locks).arg("--force");
    let output = attach.output();
    assert_eq!(output.status, 6, "{output:?}");
    assert!(output.stderr().contains("is the terminal of "), "{output:?}");
    locks.assert_empty();
    theirs.types("still mine\n");
    theirs.shows("still mine\r\nstill mine");
    drop(shell);
}

#[test]
fn a_client_that_took_a_console_for_its_terminal_by_accident_makes_it_no_login_terminal() {
    // A program without a terminal that opens the console without O_NOCTTY: it becomes its
    // controlling terminal, but neither its input nor its output.
    let (guest, locks) = (Guest::new(), Locks::new());
    let script = "exec 7<>\"$1\"; echo open; read -r _";
    let mut client = Program::new("sh").args(["-c", script, "sh"]).arg(&guest).piped();
    client.stdout().receives("open");
    let output = Vconsole::attach(&guest).locks(&locks).args(["--linger", "0"]).output();
    assert_ne!(output.status, 6, "{output:?}");
    client.closes_stdin();
}

#[test]
fn the_exclusive_flag_is_busy_and_explained() {
    if not_root() {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    guest.chown(65534);
    let other = super::harness::Client::asleep(guest.path());
    rustix::termios::ioctl_tiocexcl(other.line()).unwrap();
    let output = Vconsole::attach(&guest).locks(&locks).as_user(65534, 65534).output();
    assert_eq!(output.status, 3, "{output:?}");
    assert!(output.stderr().contains("has the exclusive flag (TIOCEXCL)"), "{output:?}");
    assert!(output.stderr().contains("outlives a program that was killed"), "{output:?}");
    locks.assert_empty();
}

#[test]
fn names_are_shown_escaped() {
    use std::os::unix::ffi::OsStrExt as _;
    let name = std::ffi::OsStr::from_bytes(b"/tmp/\x1b]0;x\x07\n\xff");
    let output = refused(name, r"/tmp/\x1b]0;x\x07\n\xff");
    assert!(output.stderr.iter().all(|&byte| byte == b'\n' || byte >= b' '), "{output:?}");
}

#[test]
fn a_bare_name_is_looked_for_in_dev() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let bare = guest.path().strip_prefix("/dev").unwrap();
    let output = Vconsole::attach(bare).locks(&locks).args(["--linger", "0"]).output();
    assert_eq!(output.status, 0, "{output:?}");
    assert!(output.stderr().contains(&format!("connected to {}", guest.path().display())));
}

#[test]
fn a_serial_port_that_is_not_there_may_not_be_plugged_in() {
    for port in ["/dev/ttyUSB999", "ttyACM999"] {
        let output = refused(port, &format!("there is no console {port}"));
        let said = output.stderr();
        assert!(said.contains("`vconsole status` shows") && said.contains("plugged in"), "{said}");
        assert!(!said.contains("virsh"), "{said}");
    }
    let other = refused("/dev/pts/999999", "there is no console");
    assert!(other.stderr().contains("virsh ttyconsole"), "{other:?}");
}

#[track_caller]
fn wrong_usage(arguments: &[&str]) -> String {
    let output = Vconsole::with(arguments).output();
    assert_eq!(output.status, 2, "{output:?}");
    output.stderr()
}

#[test]
fn who_wants_to_set_the_speed_is_told_what_does() {
    let port = "/dev/ttyS0";
    for speed in [&["-b", "115200"][..], &["-b9600"], &["--baud", "115200"], &["--speed=9600"]] {
        let arguments = [&["attach"], speed, &[port]].concat();
        let said = wrong_usage(&arguments);
        assert!(said.contains("stty -F DEVICE 115200"), "{said}");
        assert!(!said.contains("as a value"), "{said}");
    }
    assert!(!wrong_usage(&["attach", "--no-such-flag", port]).contains("stty"));
}

#[test]
fn who_names_a_console_and_no_command_is_told_the_command() {
    for console in ["/dev/pts/0", "pts/7", "ttyUSB0", "./console"] {
        let said = wrong_usage(&[console]);
        assert!(
            said.contains(&format!("tip: to attach to it: vconsole attach {console}\n")),
            "{said}"
        );
    }
    assert!(!wrong_usage(&["no-such-command"]).contains("to attach to it"));
    let said = wrong_usage(&["/tmp/\u{202e}x"]);
    assert!(said.contains(r"vconsole attach /tmp/\u{202e}x"), "{said}");
}

#[test]
fn wrong_usage_is_status_2() {
    for arguments in [
        &["attach"][..],
        &["attach", ""],
        &["attach", "/dev/null", "/dev/null"],
        &["attach", "--escape", "x", "/dev/null"],
        &["attach", "--linger", "soon", "/dev/null"],
        &["attach", "--locks", "maybe", "/dev/null"],
        &["attach", "--no-such-flag", "/dev/null"],
        &["no-such-command"],
        &[],
    ] {
        assert_eq!(Vconsole::with(arguments).output().status, 2, "{arguments:?}");
    }
}
