//! `status`: it finds consoles by itself, and who has each without any lock, and knows what is at the
//! other end.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::harness::{Client, Guest, Locks, Program, Terminal, Vconsole, missing, not_root, until};
use super::locks::{attached, number, path_name};
use super::status::{json, status};

/// A program that is killed when the test is over.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> Value {
        self.0.id().into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn path(guest: &Guest) -> &str {
    guest.path().to_str().unwrap()
}

/// The console's row of a report without arguments, if it is there.
fn listed(locks: &Locks, console: &Path) -> Option<Value> {
    row_in(&json(locks, &[]), console)
}

/// The same with `--all`.
fn listed_by_all(locks: &Locks, console: &Path) -> Option<Value> {
    row_in(&json(locks, &["--all"]), console)
}

fn row_in(document: &Value, console: &Path) -> Option<Value> {
    let rows = document["consoles"].as_array().unwrap();
    rows.iter().find(|row| row["path"] == console.to_str().unwrap()).cloned()
}

/// A PTY of socat's, under the name that its program is given.
fn socat(directory: &TempDir, program: &str) -> (Running, PathBuf) {
    let copy = directory.path().join(program);
    let socat = Command::new("sh").args(["-c", "command -v socat"]).output().unwrap();
    let socat = String::from_utf8(socat.stdout).unwrap();
    assert!(Command::new("cp").arg(socat.trim()).arg(&copy).status().unwrap().success());
    let link = directory.path().join(format!("{program}.tty"));
    let address = format!("PTY,raw,echo=0,link={}", link.display());
    let running = Running::start(Command::new(&copy).arg(address).arg("PTY,raw,echo=0"));
    until("socat has made its PTY", || link.exists());
    (running, fs::canonicalize(link).unwrap())
}

#[test]
fn who_has_it_open_without_any_lock_is_a_holder() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let line = File::options().read(true).write(true).open(guest.path()).unwrap();
    let sleep = Running(Command::new("sleep").arg("1000").stdin(line).spawn().unwrap());
    let document = json(&locks, &[path(&guest)]);
    let row = &document["consoles"][0];
    assert_eq!(row["state"], "held", "{document:#}");
    assert_eq!(row["holders"].as_array().unwrap().len(), 1, "{document:#}");
    let holder = &row["holders"][0];
    assert_eq!((&holder["pid"], &holder["program"]), (&sleep.pid(), &json!("sleep")));
    assert_eq!(holder["by"], json!(["open"]));
    assert_eq!(listed(&locks, guest.path()).unwrap()["holders"][0]["pid"], sleep.pid());
    assert_eq!(status(&locks, &[path(&guest)]).status, 3);
}

#[test]
fn a_name_makes_no_guard() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let directory = tempfile::tempdir().unwrap();
    let sleep = directory.path().join("vconsole-guard");
    assert!(Command::new("cp").arg("/bin/sleep").arg(&sleep).status().unwrap().success());
    let line = File::options().read(true).write(true).open(guest.path()).unwrap();
    let sleep = Running(Command::new(&sleep).arg("1000").stdin(line).spawn().unwrap());
    until("it runs", || json(&locks, &[path(&guest)])["consoles"][0]["state"] == "held");
    let document = json(&locks, &[path(&guest)]);
    let holder = &document["consoles"][0]["holders"][0];
    assert_eq!((&holder["pid"], &holder["program"]), (&sleep.pid(), &json!("vconsole-guard")));
}

#[test]
fn who_is_at_the_other_end_is_no_holder_though_it_has_the_console_open() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let _open = Client::asleep(guest.path());
    let document = json(&locks, &[path(&guest)]);
    let row = &document["consoles"][0];
    assert_eq!((&row["state"], &row["holders"]), (&json!("free"), &json!([])), "{document:#}");
    assert_eq!(row["other_end"][0]["kind"], "program");
    assert_eq!(row["other_end"][0]["pid"], std::process::id());
    assert_eq!(row["other_end_unseen"], false);
}

#[test]
fn who_has_flock_on_it_is_a_holder_by_that() {
    if missing("flock") {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    let flock = Running::start(Command::new("flock").arg(&guest).args(["sleep", "1000"]));
    let holders = || json(&locks, &[path(&guest)])["consoles"][0]["holders"].clone();
    until("flock and what it started have it", || holders().as_array().unwrap().len() == 2);
    let holders = holders();
    let holder = holders.as_array().unwrap().iter().find(|holder| holder["pid"] == flock.pid());
    assert_eq!(holder.unwrap()["by"], json!(["flock", "open"]), "{holders:#}");
    // Flock's child outlives it.
    let child = holders.as_array().unwrap().iter().find(|holder| holder["pid"] != flock.pid());
    let child = i32::try_from(child.unwrap()["pid"].as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), nix::sys::signal::SIGKILL).unwrap();
}

#[test]
fn a_terminal_that_somebody_is_logged_in_on_is_no_console() {
    let (terminal, locks) = (Terminal::new(), Locks::new());
    let _job = Program::new("sleep").arg("1000").on(&terminal);
    assert_eq!(listed(&locks, terminal.path()), None);
    let named = status(&locks, &[terminal.path().to_str().unwrap()]);
    assert_eq!(named.status, 6, "{named:?}");
    assert!(named.stderr().contains("is the terminal of"), "{named:?}");
    // A client that has a console as its controlling terminal by accident is a holder all the same.
    let guest = Guest::new();
    assert_eq!(listed_by_all(&locks, terminal.path()), None);
    assert!(listed_by_all(&locks, guest.path()).is_some());
}

#[test]
fn a_free_pty_of_an_unknown_program_is_listed_with_all_alone() {
    if missing("socat") {
        return;
    }
    let (locks, directory) = (Locks::new(), tempfile::tempdir().unwrap());
    let (plain, console) = socat(&directory, "simulator");
    assert_eq!(listed(&locks, &console), None);
    let row = listed_by_all(&locks, &console).unwrap();
    assert_eq!((&row["state"], &row["kind"]), (&json!("free"), &json!("pty")));
    assert_eq!(row["other_end"][0]["program"], "simulator");
    assert_eq!(row["other_end"][0]["pid"], plain.pid());
    // Asked for by its name it is shown.
    let named = status(&locks, &[console.to_str().unwrap()]);
    assert_eq!(named.status, 0, "{named:?}");
    assert!(named.stdout().contains("simulator (pid "), "{named:?}");
}

#[test]
fn a_qemu_guest_is_called_by_its_name_which_cannot_drive_the_terminal() {
    if missing("qemu-system-x86_64") {
        return;
    }
    let locks = Locks::new();
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-S", "-display", "none", "-monitor", "none", "-nic", "none", "-serial", "pty"]);
    qemu.args(["-name", "guest=vm\x1b[2J,,7,debug-threads=on"]).stdout(Stdio::piped());
    let mut qemu = Running::start(&mut qemu);
    let mut line = String::new();
    BufReader::new(qemu.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let console = line.split_whitespace().find(|word| word.starts_with("/dev/pts/")).unwrap();
    let document = json(&locks, &[console]);
    let end = &document["consoles"][0]["other_end"][0];
    assert_eq!((&end["kind"], &end["pid"]), (&json!("guest"), &qemu.pid()), "{document:#}");
    assert_eq!(end["name"], r"vm\x1b[2J,7");
    let table = status(&locks, &[console]).stdout();
    assert!(table.contains(r"guest vm\x1b[2J,7 (pid "), "{table}");
    assert!(listed(&locks, Path::new(console)).is_some());
}

#[test]
fn a_console_that_is_found_by_several_names_is_shown_once() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = attached(&guest, &locks, &terminal);
    let document = json(&locks, &[]);
    let rows = document["consoles"].as_array().unwrap();
    let its = rows.iter().filter(|row| row["path"] == path(&guest)).count();
    assert_eq!(its, 1, "{document:#}");
    let strays = document["locks"].as_array().unwrap().iter();
    assert!(strays.clone().all(|lock| lock["console"] == path(&guest)), "{document:#}");
    assert_eq!(strays.count(), 4);
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);

    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("vm0");
    symlink(guest.path(), &link).unwrap();
    let document = json(&locks, &[link.to_str().unwrap()]);
    assert_eq!(document["consoles"][0]["console"], link.to_str().unwrap());
    assert_eq!(document["consoles"][0]["path"], path(&guest));
}

/// A container-like place: a mount namespace with a devpts instance of its own, in which somebody has
/// the PTY with the number `number` open.
struct Elsewhere(Running);

impl Elsewhere {
    fn with(number: &str) -> Self {
        const SCRIPT: &str = "
            mount --make-rprivate / && mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts || exit 1
            while [ ! -e /dev/pts/$1 ]; do
                before=$(ls /dev/pts | wc -l)
                socat PTY,raw,echo=0 PTY,raw,echo=0 &
                while [ $(ls /dev/pts | wc -l) -lt $((before + 2)) ]; do sleep 0.01; done
            done
            sleep 1000 < /dev/pts/$1 &
            echo ready
            read -r end";
        let mut unshare = Command::new("unshare");
        // All of them end with the first process of their pid namespace.
        unshare.args(["-m", "-p", "--fork", "--kill-child", "sh", "-c", SCRIPT, "sh", number]);
        unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = unshare.spawn().unwrap();
        let mut answer = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
        Self(Running(child))
    }

    /// What status says of the console of this number there.
    fn status(&self, locks: &Locks, console: &Path) -> Value {
        let output = Command::new("nsenter")
            .args(["-m", "-t", &self.0.0.id().to_string()])
            .arg(env!("CARGO_BIN_EXE_vconsole"))
            .args(["status", "--json", "--lock-dir"])
            .args([locks.path(), console])
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // The end of its input ends it, and what it started.
        drop(self.0.0.stdin.take());
        let _ = self.0.0.wait();
    }
}

#[test]
fn consoles_of_one_name_in_two_devpts_instances_do_not_see_each_other() {
    if not_root() || missing("socat") || missing("nsenter") {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    let there = Elsewhere::with(&number(&guest));
    let mut here = Value::Null;
    // A child that another test forks just now has the master as well until it executes its program.
    until("only this process has the master", || {
        here = json(&locks, &[path(&guest)]);
        here["consoles"][0]["other_end"].as_array().unwrap().len() == 1
    });
    let row = &here["consoles"][0];
    assert_eq!((&row["state"], &row["holders"]), (&json!("free"), &json!([])), "{here:#}");
    assert_eq!(row["other_end"][0]["pid"], std::process::id());

    let there = there.status(&locks, guest.path());
    let row = &there["consoles"][0];
    assert_eq!(row["holders"][0]["program"], "sleep", "{there:#}");
    assert_eq!(row["other_end"].as_array().unwrap().len(), 1, "{there:#}");
    assert_eq!(row["other_end"][0]["program"], "socat", "{there:#}");
}

#[test]
fn an_ordinary_user_sees_what_can_be_seen_and_is_told_what_cannot() {
    if not_root() {
        return;
    }
    let (guest, held, locks) = (Guest::new(), Guest::new(), Locks::new().mode(0o755));
    let line = File::options().read(true).write(true).open(guest.path()).unwrap();
    let _cat = Running(Command::new("sleep").arg("1000").stdin(line).spawn().unwrap());
    // Without a lock file, a session is known by its flock.
    let session = Vconsole::attach(&held).args(["--locks", "off"]).attached_to_pipes();
    let nobody = |arguments: &[&str]| {
        Vconsole::status().locks(&locks).as_user(65534, 65534).args(arguments).output()
    };
    let output = nobody(&["--json", path(&guest), path(&held)]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["complete"], false);
    assert_eq!(document["consoles"][0]["state"], "free", "{document:#}");
    assert_eq!(document["consoles"][0]["other_end_unseen"], true);
    let row = &document["consoles"][1];
    assert_eq!(row["state"], "held", "{document:#}");
    assert_eq!(row["holders"][0]["pid"], session.pid(), "{document:#}");
    assert_eq!(row["holders"][0]["program"], "vconsole");
    assert_eq!(row["holders"][0]["user"], "root");
    assert_eq!(row["holders"][0]["by"], json!(["flock"]));
    let table = nobody(&[path(&guest)]).stdout();
    let last = table.lines().last().unwrap();
    assert!(last.starts_with("(not seen: what ") && last.contains("of other users"), "{table}");
    assert!(table.contains("not seen\n"), "{table}");
}

#[test]
fn ten_thousand_lock_files_are_looked_at_in_no_time() {
    let locks = Locks::new();
    let sleep = Running::start(Command::new("sleep").arg("1000"));
    let guest = Guest::new();
    let contents = format!("{:>10}\n", sleep.0.id());
    let long_ago = SystemTime::now() - Duration::from_secs(1000);
    for index in 0..10_000 {
        let path = locks.write(&format!("LCK..ttyX{index}"), &contents);
        if index % 2 == 0 {
            // The process is younger: attach would look twice, and wait in between.
            File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
        }
    }
    let one = locks.write(&path_name(&guest), &contents);
    File::options().write(true).open(one).unwrap().set_modified(long_ago).unwrap();
    let start = Instant::now();
    let document = json(&locks, &[]);
    // A quarter of a second for each of the younger would be twenty minutes.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    assert_eq!(document["locks"].as_array().unwrap().len(), 10_001);
    assert_eq!(listed(&locks, guest.path()).unwrap()["state"], "dead");
}
