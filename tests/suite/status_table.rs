//! `status`: the table as it is seen, on terminals of every width and in pipes.

use super::harness::{Guest, Locks, Program, Terminal, Vconsole, missing, not_root, skip, until};
use super::locks::NOBODY;

/// A lock directory in which there is something of every state.
fn some_locks() -> Locks {
    let locks = Locks::new();
    locks.write("LCK..ttyUSB77", NOBODY);
    locks.write("LCK..a-rather-long-name-of-a-port-that-nobody-has", "");
    locks.write("LCK.._pts_99999", format!("{:>10}\n", std::process::id()));
    locks
}

/// What `status` shows on a terminal of so many columns, line by line, without colours.
fn shown(program: &Program, columns: u16) -> (String, Vec<String>) {
    let terminal = Terminal::new();
    terminal.set_size(24, columns);
    assert_eq!(program.on(&terminal).wait(), 0);
    until("all of it is shown", || {
        let screen = terminal.screen_so_far();
        screen.split("/dev/ttyUSB77").nth(1).is_some_and(|last| last.contains('\n'))
    });
    let screen = terminal.screen_so_far();
    let mut plain = String::new();
    let mut rest = screen.as_str();
    while let Some((before, sequence)) = rest.split_once("\x1b[") {
        plain += before;
        rest = sequence.split_once('m').unwrap().1;
    }
    plain += rest;
    let lines = plain.lines().map(|line| line.trim_end_matches('\r').to_owned()).collect();
    (screen, lines)
}

#[test]
fn on_a_terminal_no_line_is_wider_and_in_a_pipe_nothing_is_cut() {
    let (guest, locks) = (Guest::new(), some_locks());
    let status = Vconsole::status().arg("--all").locks(&locks);
    for columns in [200, 132, 100, 80, 70] {
        let (_, lines) = shown(&status, columns);
        assert!(lines.len() > 4, "{lines:#?}");
        let widest = lines.iter().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= columns.into(), "{widest} > {columns}: {lines:#?}");
        let its = lines.iter().find(|line| line.contains("ttyUSB77")).unwrap();
        assert!(its.contains("dead"), "{lines:#?}");
    }
    let (_, lines) = shown(&status, 80);
    assert!(lines.iter().any(|line| line.contains('…')), "{lines:#?}");
    let piped = status.output().stdout();
    assert!(!piped.contains('…'), "{piped}");
    assert!(piped.contains("LCK..a-rather-long-name-of-a-port-that-nobody-has: it is empty"));
    assert!(piped.contains(guest.path().to_str().unwrap()), "{piped}");
}

#[test]
fn states_have_colours_on_terminals_alone_and_not_where_they_are_not_wanted() {
    let locks = some_locks();
    let status = Vconsole::status().locks(&locks).env("TERM", "xterm");
    let (screen, _) = shown(&status, 80);
    assert!(screen.contains("\x1b[90mdead\x1b[0m"), "{screen:?}");
    assert!(screen.contains("\x1b[33msuspect\x1b[0m"), "{screen:?}");
    let (screen, _) = shown(&status.clone().env("NO_COLOR", "1"), 80);
    assert!(!screen.contains('\x1b'), "{screen:?}");
    let (screen, _) = shown(&status.clone().env("NO_COLOR", ""), 80);
    assert!(screen.contains('\x1b'), "{screen:?}");
    let (screen, _) = shown(&status.clone().env("TERM", "dumb"), 80);
    assert!(!screen.contains('\x1b'), "{screen:?}");
    assert!(!status.output().stdout().contains('\x1b'));
}

#[test]
fn what_could_not_be_seen_is_said_also_where_nothing_was_found() {
    if not_root() || missing("unshare") {
        return;
    }
    // PTYs of its own and no ports, and a /proc that is that of another pid namespace.
    let mounts = "mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts && \
                  mount -t tmpfs tmpfs /sys/class/tty";
    let alone = |script: &str| {
        Program::new("unshare").args(["-m", "--pid", "--fork", "sh", "-c", script, "sh"])
    };
    if alone(mounts).output().status != 0 {
        return skip("PTYs of its own need leave to mount");
    }
    let (locks, terminal) = (Locks::new(), Terminal::new());
    let status = alone(&format!("{mounts} && exec \"$@\""));
    let status = status.args([env!("CARGO_BIN_EXE_vconsole"), "status"]).locks(&locks);
    let unseen = "(not seen: the processes that /proc does not show; root sees all)";
    assert_eq!(status.output().stdout(), format!("{unseen}\n"));
    assert_eq!(status.on(&terminal).wait(), 0);
    terminal.shows("no consoles found");
    assert!(terminal.screen_so_far().starts_with(unseen), "{}", terminal.screen_so_far());
}
