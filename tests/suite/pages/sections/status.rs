//! The sections of vconsole-status(1).

use super::Part::{Example, Item, Text};
use super::{LOCK_DIR_VARIABLE, LOCK_DIRECTORY, Section, TIME_ZONE};

pub(super) const SECTIONS: &[Section] = &[
    (
        "CONSOLES",
        &[
            Text(
                "Without arguments status finds by itself: PTYs at whose other end is a virtual machine, a container or any program but one that shows terminals to people (a terminal emulator, screen, tmux, sshd, script, sudo and the like); serial ports with hardware behind them; and whatever has a lock file or a session of vconsole. A terminal that somebody is logged in on is no console.",
            ),
            Text(
                "Who has a console is known by its lock files, by the kernel's table of flock(2), and by who has it open, whatever lock they ask for or not. The exclusive flag (TIOCEXCL) cannot be asked for without opening a console, which status never does. A program that is only opening a console for a moment may be shown as its holder.",
            ),
        ],
    ),
    (
        "STATES",
        &[
            Item("free", "Nobody has it, as far as can be seen."),
            Item("dead", "Nobody has it. The process that its lock file names is gone."),
            Item("suspect", "Nobody can vouch for its lock file; the column BY says why."),
            Item("held", "Somebody has it."),
            Item("missing", "It does not exist, or is no console."),
        ],
    ),
    COLUMNS,
    JSON,
    (
        "EXIT STATUS",
        &[
            Item("0", "Every console named is free or has a dead lock; or none was named."),
            Item("1", "Something failed."),
            Item("2", "Wrong usage."),
            Item("3", "One is held, or has a suspect lock."),
            Item("6", "One does not exist, or is no console."),
            Item("128+N", "Ended by signal N; 141 when the reader of stdout left."),
            Text(
                "Of several the gravest counts: 6, then 3, then 0. With --watch: 0 after q, 130 after Ctrl-C.",
            ),
        ],
    ),
    ("FILES", &[LOCK_DIRECTORY]),
    (
        "ENVIRONMENT",
        &[
            LOCK_DIR_VARIABLE,
            Item("NO_COLOR", "If it is not empty, states have no colours on a terminal either."),
            TIME_ZONE,
        ],
    ),
    (
        "EXAMPLES",
        &[
            Text("Wait until a console is free:"),
            Example("while vconsole status /dev/pts/5 > /dev/null; [ $? = 3 ]; do sleep 1; done"),
            Text("Who has which guest's console:"),
            Example(
                "vconsole status --json | jq -r '.consoles[] | [.other_end[0].name, .holders[0].user] | @tsv'",
            ),
        ],
    ),
    ("SEE ALSO", &[Text("vconsole(1), vconsole-attach(1), vconsole-host(1), proc(5)")]),
];

const COLUMNS: Section = (
    "COLUMNS",
    &[
        Text(
            "One line for each holder, and one for each lock file that nobody has. On a terminal they are fitted to its width: what is least important is cut or left out. In a pipe nothing is. What is not known is a dash.",
        ),
        Item("CONSOLE", "Its path; a dash where a lock file's name does not tell it."),
        Item("PID, PROGRAM, USER", "The holder."),
        Item(
            "TTY",
            "The holder's controlling terminal. Its name is that of this /dev/pts, also where the holder has another one.",
        ),
        Item(
            "SINCE",
            "When the lock file was written; without one, when the holder's program was started.",
        ),
        Item(
            "BY",
            "How it is held: the conventions under which there are lock files (path, base-name, libvirt, device-numbers; \"lock files\" is at least three of them), flock, open. For a lock file that nobody has: its path, and what is wrong with it.",
        ),
        Item(
            "OTHER END",
            "Who has the master of a PTY: the QEMU guest with its name, the container, or the program.",
        ),
        Text(
            "Where something could not be seen, a last line in parentheses says what: to ordinary users /proc does not show what the processes of others have open.",
        ),
    ],
);

const JSON: Section = (
    "JSON",
    &[
        Text(
            "One object; with --watch one on each line. Fields may be added; version grows when one changes its meaning or goes. Times are in RFC 3339. What is not known is null.",
        ),
        Item("version", "1."),
        Item("complete", "false where something was hidden from us."),
        Item("unseen", "What could not be seen, in a line; else null."),
        Item(
            "consoles",
            "For each console: console (as it was given, or its path), path, kind (pty or serial), state (one of the above), holders, other_end, other_end_unseen (true where it has another end that could not be seen).",
        ),
        Item(
            "holders",
            "For each: pid, program, user, terminal, since, by (a list of path, base-name, libvirt, device-numbers, flock, open). pid is null where only the lock can be seen.",
        ),
        Item(
            "other_end",
            "For each process that has the master: kind (guest, container or program), name (the guest's or container's), pid, program, user.",
        ),
        Item(
            "locks",
            "For each lock file: lock (its path), convention, console (null where the name does not tell), state (dead, suspect or live), note (why it is dead or suspect), pid, program and user of who it is thought to name, since. Where consoles were named, theirs alone.",
        ),
        Text("Control characters in names are written as escapes, as in the table."),
    ],
);
