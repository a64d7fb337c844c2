//! The completions in the real shells: after `attach` and `status` they offer the consoles that there
//! are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::harness::{Guest, Locks, Program, Terminal, missing, not_root};
use super::locks::NOBODY;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("completions").join(name)
}

/// A search path on which this vconsole is the first.
fn search_path() -> OsString {
    let own = Path::new(env!("CARGO_BIN_EXE_vconsole")).parent().unwrap().to_path_buf();
    let rest = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths([own].into_iter().chain(std::env::split_paths(&rest))).unwrap()
}

fn lines(command: &mut Command) -> Vec<String> {
    let output = command.env("PATH", search_path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// What bash itself does for a line: it calls the function that is registered for the command.
const COMPLETE: &str = r#"
    source "$1"; shift
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    compopt() { :; }
    registered=$(complete -p vconsole); registered=${registered#*-F }
    "${registered%% *}" vconsole "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    printf '%s\n' "${COMPREPLY[@]}"
"#;

#[test]
fn bash_offers_the_consoles() {
    if missing("bash") {
        return;
    }
    let offered = |words: &[&str]| {
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", COMPLETE, "bash"]).arg(script("vconsole.bash")).args(words);
        lines(&mut bash)
    };
    let guest = Guest::new();
    let console = guest.path().to_str().unwrap().to_owned();
    assert!(offered(&["vconsole", "attach", ""]).contains(&console));
    assert!(offered(&["vconsole", "attach", "--force", "/dev/p"]).contains(&console));
    assert!(offered(&["vconsole", "status", "--watch", &console]).contains(&console));
    assert!(!offered(&["vconsole", "attach", "/dev/ttyNOT"]).contains(&console));
    assert!(!offered(&["vconsole", "attach", "--lock-dir", ""]).contains(&console));
    assert!(!offered(&["vconsole", "host", ""]).contains(&console));
    assert!(offered(&["vconsole", "status", "--w"]).contains(&"--watch".to_owned()));
    assert!(!offered(&["vconsole", "status", "--"]).contains(&"--names".to_owned()));
    assert!(offered(&["vconsole", "at"]).contains(&"attach".to_owned()));
}

#[test]
fn fish_offers_the_consoles_or_else_files() {
    if missing("fish") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let offered = |line: &str| {
        let mut fish = Command::new("fish");
        let commands = format!("source $argv[1]; complete -C '{line}'");
        fish.args(["--no-config", "-c", &commands]).arg(script("vconsole.fish"));
        lines(fish.env("HOME", home.path()).current_dir(env!("CARGO_MANIFEST_DIR")))
    };
    let guest = Guest::new();
    let console = guest.path().to_str().unwrap().to_owned();
    assert!(offered("vconsole attach ").contains(&console));
    assert!(offered("vconsole status /dev/p").contains(&console));
    assert!(offered("vconsole status --watch /dev/p").contains(&console));
    assert!(!offered("vconsole host ").contains(&console));
    assert!(offered("vconsole attach src/cla").contains(&"src/claim/".to_owned()));
}

#[test]
fn zsh_offers_the_consoles() {
    if missing("zsh") {
        return;
    }
    let (guest, terminal) = (Guest::new(), Terminal::new());
    let home = tempfile::tempdir().unwrap();
    let zsh = Program::new("zsh").args(["-f", "-i"]).env("PATH", search_path());
    let _zsh = zsh.env("HOME", home.path()).env("TERM", "xterm").on(&terminal);
    let functions = script("");
    terminal.types(format!(
        "PS1='% '; LISTMAX=0; fpath=({} $fpath); autoload -U compinit; compinit -u -D; echo re''ady\r",
        functions.display()
    ));
    terminal.shows("ready");
    terminal.clear();
    // There is another console than this one: so the second time all of them are listed.
    let _another = Guest::new();
    terminal.types("vconsole attach --force /dev/p\t\t");
    terminal.shows(guest.path().to_str().unwrap());
}

/// How many system calls it takes to find the consoles among so many processes and lock files more.
fn calls_among(processes: usize, lock_files: usize) -> usize {
    let (locks, directory) = (Locks::new(), tempfile::tempdir().unwrap());
    for number in 0..lock_files {
        locks.write(&format!("LCK..ttyTEST{number}"), NOBODY);
    }
    let trace = directory.path().join("trace");
    // In a namespace where there is nobody else. All of them end with the first, which is the shell: a
    // tracer would wait for them.
    let crowd = "for _ in $(seq \"$1\"); do sleep 1000 & done; shift; \"$@\"; exit";
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "sh", "-c", crowd, "sh"]);
    command.arg(processes.to_string()).args(["strace", "-o"]).arg(&trace);
    command.args(["vconsole", "status", "--names", "--lock-dir"]).arg(locks.path());
    lines(&mut command);
    let trace = std::fs::read_to_string(trace).unwrap();
    assert!(trace.contains("exited with 0"), "{trace}");
    trace.lines().count()
}

/// The time that a key takes is for `cargo bench --bench status`: this is the work that is in it.
#[test]
fn one_more_process_or_lock_file_costs_a_completion_a_few_system_calls() {
    if not_root() || missing("strace") || missing("unshare") {
        return;
    }
    // A process is what a plain walk reads of it: its state, and each of its descriptors.
    for (what, most, sizes) in [
        ("process", 20, [(0, 0), (50, 0), (150, 0)]),
        ("lock file", 3, [(0, 0), (0, 200), (0, 600)]),
    ] {
        let [none, few, many] = sizes.map(|(processes, locks)| calls_among(processes, locks));
        let [_, first, all] = sizes.map(|(processes, locks)| processes + locks);
        let (among_few, among_many) = (few - none, many - few);
        assert!(among_few <= most * first, "{among_few} calls for {first} of {what}");
        assert!(among_many <= most * (all - first), "{among_many} more for the next {what}");
    }
}
