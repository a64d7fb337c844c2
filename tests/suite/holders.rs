//! Who has a console without any lock: found before we attach, and noticed when they come later.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::harness::{
    Bystander, Client, Guest, Locks, Pause, Piped, Process, Program, SOMEBODY, Terminal, Vconsole,
    in_time, missing, not_root, set_mode, took_less_than, until,
};
use super::locks::{attached, try_attach};

#[test]
fn a_program_that_has_it_open_without_a_lock_is_refused_by_name() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let opener = Bystander::with_open(guest.path());
    for options in [&[][..], &["--locks", "off"]] {
        let output = try_attach(&guest, &locks, options);
        assert_eq!(output.status, 3, "{output:?}");
        let who = format!("is open in sleep (pid {}", opener.pid());
        assert!(output.stderr().contains(&who), "{output:?}");
        assert!(output.stderr().contains("without a lock"), "{output:?}");
    }
    locks.assert_empty();
    drop(opener);
    assert_eq!(try_attach(&guest, &locks, &[]).status, 0);
}

#[test]
fn a_program_that_has_it_open_for_a_moment_is_nobody() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let moment = fs::File::open(guest.path()).unwrap();
    let mut passing = Command::new("sleep").arg("0.1").stdin(moment).spawn().unwrap();
    let output = try_attach(&guest, &locks, &[]);
    passing.wait().unwrap();
    assert_eq!(output.status, 0, "{output:?}");
}

#[test]
fn who_may_list_but_not_look_takes_nobody_for_absent() {
    if not_root() || missing("setpriv") {
        return;
    }
    // Root in a container has no CAP_SYS_PTRACE: it may list another user's descriptors, and not look
    // where they lead.
    let (guest, locks) = (Guest::new(), Locks::new());
    guest.chown(SOMEBODY);
    let script = "exec 0<\"$1\"; echo open; exec sleep 1000";
    let theirs = Program::new("sh").args(["-c", script, "sh"]).arg(&guest);
    let theirs = theirs.as_user(SOMEBODY, SOMEBODY).piped();
    theirs.stdout().receives("open");
    let attach = || {
        Program::new("setpriv")
            .args(["--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"])
            .arg(env!("CARGO_BIN_EXE_vconsole"))
            .args(["attach", "--linger", "0"])
            .arg(&guest)
            .locks(&locks)
            .output()
    };
    let output = attach();
    assert!(output.stderr().contains("/proc hides from you"), "{output:?}");
    // Its lock is older than itself, so that its number may be another's; but who can tell?
    let lock = locks.write(&super::locks::path_name(&guest), format!("{:>10}\n", theirs.pid()));
    let file = fs::File::options().write(true).open(&lock).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(60)).unwrap();
    let output = attach();
    assert_eq!(output.status, 3, "{output:?}");
    assert!(output.stderr().contains("may have its number by chance"), "{output:?}");
    assert!(lock.exists());
}

#[test]
fn who_cannot_be_looked_at_for_want_of_means_is_not_taken_for_absent() {
    if missing("strace") {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    let opener = Bystander::with_open(guest.path());
    let descriptors = format!("/proc/{}/fd", opener.pid());
    for error in ["EMFILE", "ENFILE", "ENOMEM"] {
        let inject = format!("inject=openat:error={error}");
        let output = Vconsole::attach(&guest)
            .args(["--linger", "0"])
            .locks(&locks)
            .under(["strace", "-DDD", "-o", "/dev/null", "-P", &descriptors, "-e", &inject])
            .output();
        assert!(output.stderr().contains("/proc hides from you"), "{error}: {output:?}");
    }
}

#[test]
fn who_hides_one_thing_hides_all_and_is_asked_once() {
    if not_root() || missing("setpriv") || missing("strace") || missing("bash") {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    let script =
        "for i in {10..209}; do eval \"exec $i</dev/null\"; done; echo open; exec sleep 1000";
    let theirs = Program::new("bash").args(["-c", script]).as_user(SOMEBODY, SOMEBODY).piped();
    theirs.stdout().receives("open");
    let trace = tempfile::NamedTempFile::new().unwrap();
    let output = Program::new("strace")
        .args(["-e", "trace=openat,statx,newfstatat,readlinkat,close", "-o"])
        .arg(trace.path())
        .args(["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"])
        .arg(env!("CARGO_BIN_EXE_vconsole"))
        .args(["attach", "--linger", "0"])
        .arg(&guest)
        .locks(&locks)
        .output();
    assert!(output.stderr().contains("/proc hides from you"), "{output:?}");
    let trace = fs::read_to_string(trace.path()).unwrap();
    let directory = format!("\"/proc/{}/fd\"", theirs.pid());
    let lines = trace.lines().skip_while(|line| !line.contains(&directory));
    let calls = lines.take_while(|line| !line.starts_with("close(")).count();
    assert!((3..10).contains(&calls), "{calls} calls for who hides all:\n{trace}");
}

/// Makes a node of a virtual terminal, a line that is no PTY. No two tests have the same. Where that cannot
/// be, the test is skipped, and should return.
fn is_node_of_terminal(path: &Path, number: u32) -> bool {
    let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::RUSR);
    let line = rustix::fs::makedev(4, number);
    let done = rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, line);
    let is_there = done.is_ok() && fs::File::open(path).is_ok();
    if !is_there {
        super::harness::skip("there is no virtual terminal here");
    }
    is_there
}

/// udev changes it, and whoever gives a user access to it.
#[test]
fn a_port_stays_the_same_whatever_becomes_of_its_node_s_mode_while_it_is_waited_for() {
    if not_root() {
        return;
    }
    let (locks, directory) = (Locks::new(), tempfile::tempdir().unwrap());
    let node = directory.path().join("tty41");
    if !is_node_of_terminal(&node, 41) {
        return;
    }
    let operator = Vconsole::attach(&node).locks(&locks).attached_to_pipes();
    let waiter = Vconsole::attach(&node).locks(&locks).arg("--wait").piped();
    waiter.stderr().receives("waiting for");
    set_mode(&node, 0o640);
    operator.signal(Signal::TERM);
    assert_eq!(operator.wait(), 143);
    waiter.stderr().receives("connected to");
}

#[test]
fn a_port_stays_the_same_whatever_becomes_of_its_node_s_mode_while_it_is_hung_up() {
    if not_root() {
        return;
    }
    let (locks, directory) = (Locks::new(), tempfile::tempdir().unwrap());
    let node = directory.path().join("tty42");
    if !is_node_of_terminal(&node, 42) {
        return;
    }
    let _opener = Bystander::with_open(&node);
    let pause = Pause::at("hung-up");
    let forced = pause.of(Vconsole::attach(&node).locks(&locks).arg("--force")).piped();
    let paused = pause.reached();
    set_mode(&node, 0o640);
    pause.is_over(&[&paused]);
    forced.stderr().receives("connected to");
}

#[test]
fn a_port_that_a_session_has_by_another_node_is_taken_over_from_it_or_not_at_all() {
    if not_root() {
        return;
    }
    // Two nodes of one line on two filesystems: a container's, say. Their inodes differ, and so do
    // their flocks.
    let (locks, terminal) = (Locks::new(), Terminal::new());
    let nodes = [tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap()];
    let node = |place: usize, name: &str| nodes[place].path().join(name);
    let (one, other) = (node(0, "tty40"), node(1, "foo"));
    if !is_node_of_terminal(&one, 40) || !is_node_of_terminal(&other, 40) {
        return;
    }
    let session = Vconsole::attach(&one).locks(&locks).on(&terminal);
    terminal.shows("connected to");
    let theirs = Locks::new();
    let attach = || Vconsole::attach(&other).locks(&theirs).args(["--linger", "0"]);
    let output = attach().output();
    assert_eq!(output.status, 3, "{output:?}");
    assert!(output.stderr().contains("vconsole"), "{output:?}");
    // By force it is taken over whole, and not for a port that nobody operates.
    let output = attach().arg("--force").output();
    assert_eq!(output.status, 0, "{output:?}");
    assert_eq!(session.wait(), 4);
}

#[test]
fn a_name_makes_no_vconsole() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let directory = tempfile::tempdir().unwrap();
    let cat = directory.path().join("vconsole");
    assert!(Command::new("cp").arg("/bin/cat").arg(&cat).status().unwrap().success());
    let cat = Program::new(&cat).arg(&guest).piped();
    guest.say("hello");
    cat.stdout().receives("hello");
    let output = try_attach(&guest, &locks, &[]);
    assert_eq!(output.status, 3, "{output:?}");
}

#[test]
fn a_vconsole_on_whose_terminal_we_would_sit_is_a_holder() {
    // A session of another console, with ours as its input and output.
    let (guest, other, locks) = (Guest::new(), Guest::new(), Locks::new());
    let line = fs::File::options().read(true).write(true).open(guest.path()).unwrap();
    let copy = line.try_clone().unwrap();
    let mut session = Command::new(env!("CARGO_BIN_EXE_vconsole"))
        .args(["attach", "--quiet", "--lock-dir"])
        .arg(locks.path())
        .arg(other.path())
        .stdin(line)
        .stdout(copy)
        .spawn()
        .unwrap();
    other.say("hello");
    guest.receives("hello");
    let output = try_attach(&guest, &locks, &[]);
    session.kill().unwrap();
    session.wait().unwrap();
    assert_eq!(output.status, 3, "{output:?}");
    assert!(output.stderr().contains("is open in vconsole"), "{output:?}");
}

#[test]
fn who_has_the_master_is_the_other_end_and_no_client() {
    // The guest is in this very process, which opens the slave as well: many who offer a PTY do.
    let (guest, locks) = (Guest::new(), Locks::new());
    let _line = Client::asleep(guest.path());
    assert_eq!(try_attach(&guest, &locks, &[]).status, 0);
}

#[test]
fn who_opens_it_later_is_told_of_within_a_second() {
    in_time(|| {
        if not_root() {
            return;
        }
        let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
        let session = attached(&guest, &locks, &terminal);
        let start = Instant::now();
        let opener = Bystander::with_open(guest.path());
        terminal
            .shows(format!("sleep (pid {}, root) has opened the console as well", opener.pid()));
        took_less_than(Duration::from_secs(1), start);
        // Once is enough, and the next one is another matter.
        terminal.clear();
        let next = Bystander::with_open(guest.path());
        terminal.shows(format!("sleep (pid {}", next.pid()));
        assert!(!terminal.screen_so_far().contains(&format!("pid {}", opener.pid())));
        guest.say("still relayed");
        terminal.shows("still relayed");
        terminal.types("\x1d.");
        assert_eq!(session.wait(), 0);
    });
}

#[test]
fn an_intruder_that_proc_hides_is_told_of_all_the_same() {
    if not_root() {
        return;
    }
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    guest.chown(SOMEBODY);
    let session = Vconsole::attach(&guest).locks(&locks).as_user(SOMEBODY, SOMEBODY).on(&terminal);
    terminal.shows("connected to");
    let _opener = Bystander::with_open(guest.path());
    terminal.shows("somebody whom /proc hides from you has opened the console as well");
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

#[test]
fn who_only_looks_in_is_not_told_of() {
    if not_root() {
        return;
    }
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = attached(&guest, &locks, &terminal);
    for _ in 0..20 {
        drop(fs::File::open(guest.path()).unwrap());
    }
    let refused = try_attach(&guest, &locks, &["--locks", "off"]);
    assert_eq!(refused.status, 3);
    // Whoever stays is told of after them, and so is the proof that they were looked at.
    let _opener = Bystander::with_open(guest.path());
    terminal.shows("sleep (pid ");
    assert_eq!(terminal.screen_so_far().matches("has opened the console").count(), 1);
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

/// A container of sorts: it has a devpts instance of its own, and a shell on the PTY with this number
/// there. Everything in it ends with its first process.
#[track_caller]
fn container_with_a_shell_on(number: &str) -> Piped {
    let script = r#"
        mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts /dev/pts || exit
        mount --bind /dev/pts/ptmx /dev/ptmx || exit
        count() { ls /dev/pts | grep -c '^[0-9]'; }
        while [ "$(count)" -lt "$1" ]; do
            before=$(count); sleep 1000 <>/dev/ptmx >/dev/null 2>&1 &
            while [ "$(count)" = "$before" ]; do sleep 0.01; done
        done
        exec script -qec 'tty; read -r _' /dev/null"#;
    let container = Program::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child=KILL", "sh", "-c", script, "sh", number])
        .piped();
    container.stdout().receives(format!("/dev/pts/{number}\r\n"));
    container
}

#[test]
fn a_shell_on_a_pty_of_the_same_name_elsewhere_makes_it_no_login_terminal() {
    if not_root() || missing("unshare") || missing("script") {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    let container = container_with_a_shell_on(&super::locks::number(&guest));
    let output = try_attach(&guest, &locks, &[]);
    drop(container);
    assert_eq!(output.status, 0, "{output:?}");
}

#[test]
fn a_client_without_a_terminal_is_a_holder_and_no_login() {
    let (guest, locks) = (Guest::new(), Locks::new());
    // It opens the console without O_NOCTTY, and so has it as its controlling terminal by accident.
    let script = "exec 7<>\"$1\"; echo open; read -r _";
    let mut client = Program::new("sh").args(["-c", script, "sh"]).arg(&guest).piped();
    client.stdout().receives("open");
    let output = try_attach(&guest, &locks, &[]);
    assert_eq!(output.status, 3, "{output:?}");
    assert!(
        output.stderr().contains(&format!("is open in sh (pid {}", client.pid())),
        "{output:?}"
    );
    client.closes_stdin();
}

/// How often `/proc` was listed to attach and leave.
fn walks(attach: &Program) -> usize {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let path = trace.path().to_str().unwrap();
    let strace = ["strace", "-DDD", "-e", "trace=openat", "-o", path];
    let session = attach.clone().under(strace).attached_to_pipes();
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
    let read = || fs::read_to_string(path).unwrap();
    until("the trace is whole", || read().contains("+++"));
    read().matches("\"/proc\",").count()
}

#[test]
fn one_walk_over_proc_is_enough_to_attach() {
    if missing("strace") {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    assert_eq!(walks(&Vconsole::attach(&guest).locks(&locks)), 1);
}

#[test]
fn a_program_that_opens_the_console_after_the_walk_is_a_holder() {
    for point in ["locks-seen", "names-taken"] {
        let (guest, locks) = (Guest::new(), Locks::new());
        let pause = Pause::held_at(point);
        let session = pause.of(Vconsole::attach(&guest).locks(&locks)).piped();
        let stopped = pause.reached();
        let opener = Bystander::with_open(guest.path());
        pause.is_over(&[&stopped]);
        assert_eq!(session.wait(), 3);
        session.stderr().receives(format!("open in sleep (pid {}", opener.pid()));
        locks.assert_empty();
    }
}

/// The child of a program that has the console gets it without opening it.
#[test]
fn a_child_that_gets_the_console_while_we_look_is_a_holder() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let note = tempfile::NamedTempFile::new().unwrap();
    let (console, pid) = (guest.path().display(), note.path().display());
    let script = format!("exec 3<>{console}; echo; read go; sleep 1000 & echo $! >{pid}");
    let mut parent = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    parent.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let pause = Pause::held_at("locks-seen");
    let session = pause.of(Vconsole::attach(&guest).locks(&locks)).piped();
    let stopped = pause.reached();
    parent.stdin.take().unwrap().write_all(b"go\n").unwrap();
    parent.wait().unwrap();
    let child = fs::read_to_string(note.path()).unwrap().trim().parse().unwrap();
    let child = Process::find(Pid::from_raw(child).unwrap()).unwrap();
    pause.is_over(&[&stopped]);
    assert_eq!(session.wait(), 3);
    session.stderr().receives(format!("open in sleep (pid {}", child.pid()));
    locks.assert_empty();
    child.kill();
}
