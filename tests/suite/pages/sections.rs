//! What the man pages say beside what the command line's definition knows.

mod status;

/// A part of a section.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    /// A paragraph.
    Text(&'static str),
    /// A term, and what it means.
    Item(&'static str, &'static str),
    /// Lines as they are typed or seen.
    Example(&'static str),
    /// The commands after the escape key, from the program's own table.
    Keys,
}

use Part::{Example, Item, Keys, Text};

type Section = (&'static str, &'static [Part]);

/// The sections that the page called `name` has behind its options.
pub(crate) fn of(name: &str) -> &'static [Section] {
    match name {
        "vconsole" => PROGRAM,
        "vconsole-attach" => ATTACH,
        "vconsole-status" => status::SECTIONS,
        "vconsole-host" => HOST,
        other => panic!("nobody wrote the sections of {other}"),
    }
}

const LOCK_DIRECTORY: Part = Item(
    "/var/lock, else /run/lock",
    "The system's lock directory, unless --lock-dir names another. A directory lockdev in it is used as well.",
);

const LOCK_DIR_VARIABLE: Part = Item("VCONSOLE_LOCK_DIR", "The default of --lock-dir.");

const TIME_ZONE: Part = Item("TZ", "The time zone in which times are shown.");

const PROGRAM: &[Section] = &[
    (
        "EXIT STATUS",
        &[
            Item("0", "Done: detached, or the input ended as asked."),
            Item("1", "Something failed."),
            Item("2", "Wrong usage."),
            Item(
                "3",
                "Busy: somebody has the console. Nothing was touched, but for who was said to be evicted.",
            ),
            Item("4", "Taken over by somebody else."),
            Item("5", "The console hung up."),
            Item("6", "No such console, not a console, or not permitted."),
            Item("101", "A bug (panic), after cleaning up."),
            Item("124", "A time limit passed."),
            Item(
                "128+N",
                "Ended by signal N, after cleaning up: 141 when the reader of stdout left, 129 when the terminal vanished.",
            ),
        ],
    ),
    ("FILES", &[LOCK_DIRECTORY]),
    (
        "ENVIRONMENT",
        &[Item("VCONSOLE_LOCKS", "The default of --locks."), LOCK_DIR_VARIABLE, TIME_ZONE],
    ),
    (
        "EXAMPLES",
        &[
            Text(
                "Try it without a virtual machine: a shell as a console, and this terminal attached to it.",
            ),
            Example("vconsole host --attach"),
            Text("Attach to the console of a libvirt domain, and see who has it."),
            Example(
                "vconsole attach \"$(virsh ttyconsole DOMAIN)\"\nvconsole status \"$(virsh ttyconsole DOMAIN)\"",
            ),
        ],
    ),
    (
        "SEE ALSO",
        &[Text(
            "vconsole-attach(1), vconsole-status(1), vconsole-host(1), pty(7), flock(2), virsh(1)",
        )],
    ),
];

const ATTACH: &[Section] = &[
    (
        "ESCAPE KEY",
        &[
            Text(
                "Where standard input is a terminal, the escape key (^] unless --escape says otherwise) begins a command to vconsole. It works anywhere in the input. Holding Ctrl down for the second key as well makes no difference.",
            ),
            Keys,
            Item("the escape key", "Send the escape key itself."),
        ],
    ),
    (
        "LOCKS",
        &[
            Text(
                "A console is claimed under the conventions of all programs that know one: lock files named after its path as minicom, as UUCP (cu, C-Kermit) and as libvirt do, and after its device numbers as SVR4 does, flock(2) on the open device as picocom and tio do, and the exclusive flag (TIOCEXCL) that keeps out whoever looks at no lock, except root. A symlinked console has the names of the link and of its target. \"connected\" is said only when all is held.",
            ),
            Item("a dead lock", "Its process is gone. It is removed, and a line says so."),
            Item(
                "a suspect lock",
                "Nobody can vouch for it: it is empty, garbage, unreadable or no regular file, or its process may live in another pid namespace. Refused with status 3; --force breaks it.",
            ),
            Item(
                "a live lock",
                "A running program holds it. Refused with status 3; --force evicts the program, if that has the console open, and takes the lock. If it does not have the console open, at two looks half a second apart, root's --force breaks the lock and says whose it was.",
            ),
            Item(
                "a live vconsole's lock",
                "Refused with status 3. With --force the same user, or root, takes the console over: the open console passes to the newcomer with all its locks and with the bytes that were not delivered yet. A session that is stopped is continued (SIGCONT). One that does not answer within 2 seconds all the same is ended by its guard, which hands the console over. One that cannot be asked, since it has no socket, speaks another version of the protocol, or has lost its guard and hangs, is ended by SIGTERM, and after 2 seconds by SIGKILL. A newcomer that ends, or sleeps for a second, before it has everything changes nothing. Sessions are found in /run/user/UID/vconsole, where there is no /run/user/UID in /tmp/vconsole-UID, and root's in /run/vconsole.",
            ),
            Item(
                "a program without any lock",
                "It has the console open for longer than a moment. Refused with status 3; --force evicts it. Who comes later, which only root can, is told of within a second.",
            ),
            Item(
                "the exclusive flag, and nobody in sight",
                "The flag outlives a program that was killed, for as long as anything, such as the virtual machine, has the line open. Refused with status 3; root's --force clears it.",
            ),
            Text(
                "A helper process, vconsole-guard, lives as long as the session: should the session be killed, it gives the terminal, the flag and the lock files back.",
            ),
            Text(
                "Session mode: with --locks auto, an ordinary user who may not write to the lock directory, or where there is none, goes on without lock files after checking them all. flock(2) still keeps others out. In a sticky directory another user's dead lock cannot be removed: that one name is done without.",
            ),
            Text(
                "The last part of a path is a lock's name under the convention of UUCP, and two devices can share it. A holder that has another device of that name open, and not this one, is not in the way; nor is a vconsole that does not have this one open, which came by a link of that name.",
            ),
        ],
    ),
    (
        "WATCHING",
        &[
            Text(
                "With --read-only nothing is typed, and the end of input is no reason to leave. Up to 500 may watch a session of the same user, and root everybody's: they see what its operator sees, beginning with the last 64 KiB. Its user is told who comes and who leaves, sees who watches with the escape key and s, and forbids it with --private.",
            ),
            Item(
                "who cannot keep up",
                "Nobody who watches holds the operator up. Each gets at most 1 MB/s, all together 16 MB/s, and the last 512 KiB are kept for those who are behind; a line says how many bytes they missed. A console that prints less than 100 KB/s loses nothing of that (up to 160 who watch). Who watches runs at the lowest priority.",
            ),
            Item(
                "after a takeover",
                "They watch the next operator, and go on at the byte at which they were. With --stay the former operator watches as well.",
            ),
            Item(
                "without an operator",
                "When the operator leaves or dies, its guard passes the console to one of those who watch, which reads it, and the others follow that one. Where there is no operator, the first who comes to watch claims the console and reads it. Whoever comes to operate gets it from there, without --force.",
            ),
        ],
    ),
    (
        "EVICTION",
        &[
            Text(
                "--force makes programs that are no vconsoles let go of the console, and says what it did: \"evicted minicom (pid 812, bob) by SIGHUP\". Whom it may not evict is known before anybody is disturbed: then it is refused with status 3, with the reason and what would work, and everything is as it was. Where somebody turns out to heed no signal, or to come back each time, it is refused as well, and the locks are as they were; who has let go by then is named, and stays gone.",
            ),
            Item(
                "clients that a user sits at",
                "They have a controlling terminal. They get SIGHUP, which most understand, and after 4 s SIGTERM; 2 s later a client that is suspended again gets SIGKILL. Any other is hung up if root asks; else --force is refused. An ordinary user evicts only their own, root everybody's.",
            ),
            Item(
                "daemons, shells, leaders of sessions with others in them than their own children",
                "They are never sent a signal. Root hangs the console up for them, and for those who heed no signal; others are refused, and so are those whom a hang-up would end, since the console is their controlling terminal. For a daemon of libvirt's, `virsh console --force` frees the console.",
            ),
            Item(
                "hanging up",
                "Every open descriptor of the console becomes good for nothing, whoever has it, and nobody is ended (TIOCVHANGUP, ioctl_tty(2); it needs CAP_SYS_ADMIN). The guest goes on. What nobody had read of its output is gone, as are keystrokes that it had not read; the modem lines of a serial port fall for a moment.",
            ),
        ],
    ),
    (
        "WAITING AND ASKING",
        &[
            Text(
                "--wait sleeps while somebody has the console. Whoever waits has a place in a queue for each console, whatever user they are; one who does not take a free console for two seconds, since they are stopped, is passed over.",
            ),
            Text(
                "--force --wait tries force first, and again on each newcomer who gets the console meanwhile, but only once on each who refuses it, and never on a vconsole that waited before us and has its turn. An eviction is not cut short by the time limit.",
            ),
            Text(
                "--ask says who has the console, and asks. The answer is one letter and Enter: w waits as --wait does, t takes it over as --force does, q quits with status 3. So do Enter alone, the end of input, and 30 seconds without an answer. Where the takeover is refused it is asked again, without t; where another vconsole has come meanwhile, that one is named and asked about first. What is typed after the answer reaches the console. Where standard input or standard error is no terminal, nothing is asked. --ask cannot be combined with --force or --wait.",
            ),
        ],
    ),
    (
        "AUDIT TRAIL",
        &[
            Text(
                "What happens to consoles is sent to the system's log (/dev/log, facility authpriv) where there is one. Each line names the console, the user, their terminal and the host that they say they are logged in from, and begins with one of these:",
            ),
            Item(
                "event=attached how=plain|wait|force|read-only",
                "The session has the console, and operates it unless it is read-only; with reason= if --reason was given.",
            ),
            Item("event=took-over from=", "The same, and that session drove it before."),
            Item("event=refused why=", "It was not let in."),
            Item("event=asked answer=", "--ask asked, and that was the answer."),
            Item(
                "event=waited end= seconds=",
                "A wait has ended: the console was got, the time limit passed, a signal came.",
            ),
            Item(
                "event=watches whom=",
                "The session watches that one; with reason= if --reason was given.",
            ),
            Item("event=watched by=", "That one watches the session."),
            Item(
                "event=watch-refused by= why=",
                "That one wanted to watch the session, and may not.",
            ),
            Item("event=evicted whom= how=", "A program was made to let go of it."),
            Item(
                "event=taken-over by= received= sent=",
                "Another operates it now. This many bytes came from it, and went to it.",
            ),
            Item(
                "event=taken-over by= ended=",
                "The same where the session did not answer: its guard ended that process, and gave it away.",
            ),
            Item(
                "event=not-taken by=",
                "Another asked for it, and did not take it: the session goes on.",
            ),
            Item("event=ended why= received= sent=", "The session has ended."),
            Item(
                "event=peer-refused peer=",
                "A process of another user called at the session's socket.",
            ),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            Item("0", "Detached, or the input ended and the console was quiet as asked."),
            Item("1", "Something failed."),
            Item("2", "Wrong usage."),
            Item(
                "3",
                "Busy: somebody has the console. Nothing was touched, but for who was said to be evicted.",
            ),
            Item(
                "4",
                "Taken over by another vconsole: the terminal is as it was, and a line says by whom.",
            ),
            Item("5", "The console hung up. All that was read from it was written."),
            Item("6", "No such console, not a console, or not permitted."),
            Item("101", "A bug (panic), after cleaning up."),
            Item("124", "The time of --linger-max or --wait passed."),
            Item(
                "128+N",
                "Ended by signal N, after cleaning up: 141 when the reader of stdout left, 129 when the terminal vanished.",
            ),
        ],
    ),
    (
        "FILES",
        &[
            LOCK_DIRECTORY,
            Item(
                "LCK..pts_5, LCK..5, LCK.._pts_5, LK.000.136.005",
                "The lock files of /dev/pts/5. Each holds the process number as ten characters and a newline.",
            ),
        ],
    ),
    (
        "ENVIRONMENT",
        &[Item("VCONSOLE_LOCKS", "The default of --locks."), LOCK_DIR_VARIABLE, TIME_ZONE],
    ),
    (
        "EXAMPLES",
        &[
            Text("Attach, with ^A as the escape key:"),
            Example("vconsole attach --escape ^A /dev/pts/5"),
            Text("Ask a guest something in a script, and get its answer:"),
            Example("printf 'uptime\\r' | vconsole attach --quiet /dev/pts/5 > answer"),
            Text(
                "Log a console until it hangs up, typing nothing, also while somebody operates it:",
            ),
            Example("vconsole attach --read-only /dev/ttyS0 >> console.log"),
        ],
    ),
    (
        "NOTES",
        &[
            Text(
                "Opening a serial port may raise DTR and RTS, which no program can avoid; vconsole does not open it before the lock files say that it is free. Speed and parity stay as stty(1) set them. Closing a port that does not take its output can take as long as its driver waits (30 s by default).",
            ),
            Text(
                "The console is left raw, without echo: to bring echo back would feed a guest its own output.",
            ),
        ],
    ),
    (
        "SEE ALSO",
        &[Text("vconsole(1), vconsole-status(1), vconsole-host(1), stty(1), flock(2), pty(7)")],
    ),
];

const HOST: &[Section] = &[
    (
        "OUTPUT",
        &[Text(
            "The path of the PTY, on a line of its own. What the command prints while nobody is attached is kept, up to 64 KiB, and delivered to whoever attaches next; older output is dropped, and a line says how much. When the command ends, the console stays until an attached reader has taken everything, but 5 s at most, or 1 s where host cannot see whether it reads: as an ordinary user whom the kernel lets trace nobody else (Yama's ptrace_scope=1, say).",
        )],
    ),
    (
        "EXIT STATUS",
        &[
            Item("N", "The status of COMMAND."),
            Item("126, 127", "COMMAND cannot be run, or was not found."),
            Item("128+N", "Signal N ended COMMAND, or host."),
            Item("1, 2", "host itself failed, or wrong usage."),
            Text("With --attach and COMMAND still running: the status of attach."),
        ],
    ),
    ("FILES", &[Item("/dev/pts/N", "The console. It belongs to its user, mode 0600.")]),
    ("ENVIRONMENT", &[Item("SHELL", "What is run without COMMAND.")]),
    (
        "EXAMPLES",
        &[
            Text("A shell as a console, with this terminal attached to it:"),
            Example("vconsole host --attach"),
            Text("A program's console, under a name that stays the same:"),
            Example("vconsole host --link /tmp/vm0 -- ./simulator &\nvconsole attach /tmp/vm0"),
        ],
    ),
    ("SEE ALSO", &[Text("vconsole(1), vconsole-attach(1), vconsole-status(1), pty(7)")]),
];
