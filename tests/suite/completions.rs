//! The completions in the real shells: after `attach` and `status` they offer the consoles that there
//! are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::harness::{Guest, Program, Terminal, missing, rounds};

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

#[test]
fn the_consoles_are_there_before_a_finger_has_left_the_key() {
    let _guest = Guest::new();
    let quickest = (0..rounds(5)).map(|_| {
        let start = Instant::now();
        assert!(!lines(Command::new("vconsole").args(["status", "--names"])).is_empty());
        start.elapsed()
    });
    // What takes a tenth of a second is felt as immediate; the rest is for busy machines.
    let quickest = quickest.min().unwrap();
    assert!(quickest < Duration::from_millis(100), "{quickest:?}");
}
