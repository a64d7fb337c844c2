//! `vconsole host`: a command, offered as a console.

mod attached;
mod ends;
mod links;
mod output;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use rustix::termios::{LocalModes, OutputModes, tcgetattr};
use tempfile::TempDir;

use crate::harness::{Client, Piped, Process, Program, Vconsole, missing, skip, until};

/// A host that has said where its console is.
struct Hosted {
    host: Piped,
    console: PathBuf,
}

impl Hosted {
    /// Starts `program`, which is a `vconsole host`.
    #[track_caller]
    fn start(program: &Program) -> Self {
        let host = program.piped();
        let console = host.stdout().wait_for("the path", |text| {
            let line = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
            Some(PathBuf::from(line))
        });
        Self { host, console }
    }

    /// Hosts a script of the shell, on a line where nothing changes or echoes its bytes; it has begun
    /// when this returns.
    #[track_caller]
    fn script(script: &str) -> Self {
        Self::script_of(&Vconsole::host(), script)
    }

    /// The same with a host of its own.
    #[track_caller]
    fn script_of(host: &Program, script: &str) -> Self {
        let notes = Notes::new();
        notes.are_open_to_all();
        let begun = notes.path("begun");
        let script = format!("stty raw -echo; : >{begun}; {script}");
        let hosted = Self::start(&host.clone().running(["sh", "-c", &script]));
        notes.wait_for("begun");
        hosted
    }

    /// A client of its console.
    #[track_caller]
    fn client(&self) -> Client {
        Client::of(&self.console)
    }
}

/// A place where a command under test can leave word.
struct Notes(TempDir);

impl Notes {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn are_open_to_all(&self) {
        let all = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(self.0.path(), all).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Waits until the command has made this file.
    #[track_caller]
    fn wait_for(&self, name: &str) {
        until(name, || self.0.path().join(name).exists());
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.path().join(name)).unwrap()
    }
}

/// `count` bytes of every value, in an order that repeats nowhere near.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..count).map(step).collect()
}

#[test]
fn the_path_is_the_only_line_on_stdout_and_a_hint_is_on_stderr() {
    let hosted = Hosted::start(&Vconsole::host().running(["cat"]));
    assert!(hosted.console.starts_with("/dev/pts/"));
    let hint = format!("attach with: vconsole attach {}\n", hosted.console.display());
    hosted.host.stderr().receives(hint);
    hosted.host.signal(Signal::TERM);
    let output = hosted.host.output();
    assert_eq!(output.stdout(), format!("{}\n", hosted.console.display()));
}

#[test]
fn the_console_is_raw_and_its_users_alone() {
    let hosted = Hosted::start(&Vconsole::host().running(["cat"]));
    let found = std::fs::metadata(&hosted.console).unwrap();
    assert_eq!(found.permissions().mode() & 0o7777, 0o600);
    assert_eq!(found.uid(), rustix::process::geteuid().as_raw());
    let settings = tcgetattr(hosted.client().line()).unwrap();
    assert!(!settings.local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO));
    assert!(!settings.output_modes.contains(OutputModes::OPOST));
}

#[test]
fn the_console_is_its_users_alone_even_where_ptys_are_not() {
    // As most distributions mount it: a group may write to every PTY.
    let mount = "mount -t devpts -o newinstance,mode=620,gid=5,ptmxmode=666 devpts /dev/pts";
    let alone = Program::new("unshare").args(["-m", "sh", "-c", mount]).output();
    if alone.status != 0 {
        return skip("PTYs of its own need root, and leave to mount");
    }
    let script = format!("{mount}; exec \"$@\"");
    let host = Program::new("unshare").args(["-m", "sh", "-c", &script, "sh"]);
    let host = host.args([env!("CARGO_BIN_EXE_vconsole"), "host", "--", "cat"]);
    let hosted = Hosted::start(&host);
    let seen = format!("/proc/{}/root{}", hosted.host.pid(), hosted.console.display());
    assert_eq!(std::fs::metadata(seen).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn host_itself_does_not_have_the_console_open() {
    let hosted = Hosted::start(&Vconsole::host().running(["cat"]));
    assert!(!hosted.host.open_files().contains(&hosted.console));
}

#[test]
fn a_shell_has_its_terminal_and_answers() {
    if missing("ps") {
        return;
    }
    let hosted = Hosted::start(&Vconsole::host().env("SHELL", "/bin/sh").env("PS1", "ready> "));
    let client = hosted.client();
    client.shows("ready> ");
    client.types("echo $((40 + 2)) $(ps -o tty= -p $$ | tr -d ' ') end\r");
    client.shows("42 pts/");
    client.types("sh -c 'echo as''leep; exec sleep 1000'\r");
    client.shows("asleep");
    client.types("\x03");
    client.types("exit 5\r");
    assert_eq!(hosted.host.wait(), 5);
}

#[test]
fn without_shell_in_the_environment_it_is_the_users_own() {
    let host = Hosted::start(&Vconsole::host().env("SHELL", ""));
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap();
    let client = host.client();
    client.types("echo \"<$0>\"\r");
    client.shows(format!("<{}>", user.shell.display()));
}

#[test]
fn the_command_has_hosts_environment_and_directory() {
    let hosted = Hosted::start(&Vconsole::host().env("ODD", "a b").running([
        "sh",
        "-c",
        "echo $ODD; pwd -P; cat",
    ]));
    let here = std::env::current_dir().unwrap();
    hosted.client().shows(format!("a b\r\n{}\r\n", here.display()));
}

#[test]
fn the_size_of_the_clients_window_reaches_the_command() {
    let hosted =
        Hosted::script("trap 'stty size' WINCH; echo ready; while :; do sleep 9 & wait; done");
    let client = hosted.client();
    client.shows("ready");
    client.set_size(33, 101);
    client.shows("33 101");
    client.set_size(44, 99);
    client.shows("44 99");
}

#[test]
fn nothing_wakes_it_while_nobody_is_attached() {
    let hosted = Hosted::script("echo ready; cat");
    hosted.client().shows("ready");
    // It has seen the client leave when it sleeps for good.
    let length = Duration::from_millis(600);
    let mut before = hosted.host.naps();
    until("it is not woken any more", || {
        std::thread::sleep(length);
        let now = hosted.host.naps();
        std::mem::replace(&mut before, now) == now
    });
    assert!(hosted.host.cpu_time() < Duration::from_millis(50));
}

#[test]
fn a_command_that_closed_its_terminal_costs_nothing_and_its_end_is_seen() {
    let notes = Notes::new();
    let left = notes.path("left");
    let hosted = Hosted::script(&format!(
        "exec </dev/null >/dev/null 2>&1; : > {left}; kill -STOP $$; exit 4"
    ));
    notes.wait_for("left");
    let client = hosted.client();
    let before = hosted.host.cpu_time();
    std::thread::sleep(Duration::from_millis(300));
    assert!(hosted.host.cpu_time() < before + Duration::from_millis(30));
    let children = format!("/proc/{0}/task/{0}/children", hosted.host.pid());
    let child = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
    let child = Process::find(Pid::from_raw(child).unwrap()).unwrap();
    // Whom SIGCONT reaches before it has stopped stays stopped.
    child.is_stopped();
    child.signal(Signal::CONT);
    assert_eq!(hosted.host.wait(), 4);
    assert_eq!(client.ear().to_the_end(), b"");
}

#[test]
fn ten_megabytes_of_every_byte_arrive_whole_in_both_directions() {
    let notes = Notes::new();
    let (down, up) = (noise(10_000_000), noise(10_000_001));
    std::fs::write(notes.path("down"), &down).unwrap();
    let hosted = Hosted::script(&format!(
        "read -r go; cat {} & head -c {} >{}; wait",
        notes.path("down"),
        up.len(),
        notes.path("up"),
    ));
    let client = hosted.client();
    client.types("\n");
    client.types(&up);
    client.ear().receives_exactly(&down);
    assert_eq!(hosted.host.wait(), 0);
    assert!(notes.read("up") == up);
}
