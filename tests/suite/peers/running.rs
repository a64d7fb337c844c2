//! A program of the field that runs: whether it got the console, and how it ends.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use rustix::termios::ioctl_tiocnxcl;

use super::super::harness::{DEADLINE, Process, Program, Session, Terminal, contains, missing};
use super::console::{Console, openers_of, parent_of, processes, remove_locks_of};
use super::peer::{Home, Peer};
use super::{User, token};

/// Who got the console, seen from a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has the console open and relays.
    Attached,
    /// It was kept out: it ended, said so, or waits for the console to become free.
    KeptOut,
}

/// A program of the field on a terminal of its own. Dropping it ends it, and all that it started.
pub(super) struct Running {
    peer: Peer,
    terminal: Terminal,
    session: Session,
    home: Home,
    path: PathBuf,
}

/// tio waits for a console that it cannot open, and says nothing more than how to quit. It looks at
/// once, and then every second: after so long it was kept out.
const TIO_WAITS: Duration = Duration::from_millis(1200);

/// Who only reads, and shares the console with others, has it when it stays open so long.
const STAYS: Duration = Duration::from_millis(500);

/// How long lie between two tries to be heard: a guest may look only now and then whether somebody is
/// there.
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// How a user has started a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// As a job of a shell.
    Job,
    /// As the leader of a session on a terminal of its own: `xterm -e cu`, a window of tmux.
    Leader,
    /// As a job of a shell, which was stopped since.
    Suspended,
    /// In a session without a controlling terminal, with the user's terminal as standard input.
    Setsid,
    /// Under `script`, which records a terminal.
    Script,
    /// Under `sudo`, which gives it a terminal of its own.
    Sudo,
}

/// Runs its arguments on a terminal of their own.
const ON_ITS_OWN_TERMINAL: &str = "import pty, sys; pty.spawn(sys.argv[1:])";

/// Runs its arguments under `script`, which takes one string.
const RECORDED: &str = r#"exec script -qec "exec $(printf '%q ' "$@")" /dev/null"#;

impl Shape {
    pub(super) const ALL: [Self; 6] =
        [Self::Job, Self::Leader, Self::Suspended, Self::Setsid, Self::Script, Self::Sudo];

    /// Whether it needs a program that is not installed; if so it is said, and it should be left out.
    pub(super) fn is_missing(self) -> bool {
        match self {
            Self::Job | Self::Suspended => false,
            Self::Leader => missing("python3"),
            Self::Setsid => missing("setsid"),
            Self::Script => missing("script"),
            Self::Sudo => missing("sudo"),
        }
    }

    /// Starts `program` of `user` so.
    fn runs(self, program: Program, user: User) -> Program {
        match self {
            Self::Job | Self::Suspended => user.runs(program),
            Self::Leader => user.runs(program.under(["python3", "-c", ON_ITS_OWN_TERMINAL])),
            Self::Setsid => user.runs(program.under(["setsid", "-w"])),
            Self::Script => user.runs(program.under(["bash", "-c", RECORDED, "bash"])),
            Self::Sudo => {
                let (user, group) = user.ids().unwrap_or((0, 0));
                let (user, group) = (format!("#{user}"), format!("#{group}"));
                program.under(["sudo", "-E", "-u", &user, "-g", &group, "--"])
            }
        }
    }
}

impl Peer {
    /// Starts it on `console`.
    #[track_caller]
    pub(super) fn start(self, console: &dyn Console, user: User) -> Running {
        self.start_as(Shape::Job, console, user)
    }

    fn start_as(self, shape: Shape, console: &dyn Console, user: User) -> Running {
        let (terminal, home) = (Terminal::new(), Home::of(user));
        let session = shape.runs(self.program(console, &home), user).on(&terminal);
        Running { peer: self, terminal, session, home, path: console.path().into() }
    }

    /// Starts it on `console`, and waits until it has it.
    #[track_caller]
    pub(super) fn attach(self, console: &dyn Console, user: User) -> Running {
        self.attach_as(Shape::Job, console, user)
    }

    /// The same, in this shape.
    #[track_caller]
    pub(super) fn attach_as(self, shape: Shape, console: &dyn Console, user: User) -> Running {
        let running = self.start_as(shape, console, user);
        let outcome = running.outcome(console);
        assert_eq!(outcome, Outcome::Attached, "{}: {}", self.name(), running.screen());
        if shape == Shape::Suspended {
            for pid in running.pids() {
                let process = Process::find(Pid::from_raw(pid).unwrap()).unwrap();
                process.signal(Signal::STOP);
                process.is_stopped();
            }
        }
        running
    }
}

impl Running {
    /// What is on its terminal.
    pub(super) fn screen(&self) -> String {
        self.terminal.screen_so_far().replace('\0', "")
    }

    /// Its user types `text`.
    pub(super) fn types(&self, text: &str) {
        self.terminal.types(text);
    }

    /// Waits until it is clear whether it got the console.
    #[track_caller]
    pub(super) fn outcome(&self, console: &dyn Console) -> Outcome {
        let mut sent = String::new();
        let (mut waits_since, mut open_since) = (None, None);
        let start = Instant::now();
        loop {
            let last = std::mem::replace(&mut sent, token());
            if !last.is_empty() && self.passed_on(console, &last) {
                return Outcome::Attached;
            }
            let waits = self.peer == Peer::Tio && self.screen().contains("to quit");
            waits_since = waits.then(|| waits_since.unwrap_or_else(Instant::now));
            let waited = waits_since.is_some_and(|since: Instant| since.elapsed() > TIO_WAITS);
            if self.was_refused() || (waited && !self.has_open()) {
                return Outcome::KeptOut;
            }
            // Two that read one console share its bytes as it happens; one of them may get them all.
            let open = !self.peer.types() && self.has_open();
            open_since = open.then(|| open_since.unwrap_or_else(Instant::now));
            if open_since.is_some_and(|since: Instant| since.elapsed() > STAYS) {
                return Outcome::Attached;
            }
            assert!(
                start.elapsed() < 2 * DEADLINE,
                "{} neither got the console nor was kept out: {:?}; {:?}",
                self.peer.name(),
                self.screen(),
                console.openers(),
            );
            self.send(console, &sent);
        }
    }

    fn has_open(&self) -> bool {
        let pids = self.pids();
        openers_of(&self.path).iter().any(|opener| pids.contains(&opener.pid))
    }

    /// Asserts that it still has the console.
    #[track_caller]
    pub(super) fn relays(&self, console: &dyn Console) {
        assert_eq!(
            self.outcome(console),
            Outcome::Attached,
            "{}: {}",
            self.peer.name(),
            self.screen()
        );
    }

    /// Sends `text` the way that this program passes it on.
    fn send(&self, console: &dyn Console, text: &str) {
        if self.peer.types() {
            self.terminal.types(text);
        } else {
            console.say(text);
        }
    }

    /// Whether `text` got through, after a moment.
    fn passed_on(&self, console: &dyn Console, text: &str) -> bool {
        let start = Instant::now();
        while start.elapsed() < BETWEEN_TRIES {
            let arrived = match self.peer {
                Peer::Cat => contains(&self.terminal.ear().so_far(), text.as_bytes()),
                Peer::Conserver => contains(
                    &std::fs::read(self.home.conserver_log()).unwrap_or_default(),
                    text.as_bytes(),
                ),
                _ => console.has_heard(text),
            };
            if arrived {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        false
    }

    fn was_refused(&self) -> bool {
        self.session.has_ended()
            || self.peer.says_refused().is_some_and(|words| self.screen().contains(words))
    }

    /// All its processes: the one we started, its children, and screen's daemon, which is named in
    /// its socket's name.
    pub(super) fn pids(&self) -> Vec<i32> {
        let own = self.session.pid();
        let sockets = std::fs::read_dir(self.home.screens()).into_iter().flatten().flatten();
        let daemons = sockets.filter_map(|socket| {
            socket.file_name().to_str()?.split('.').next()?.parse::<i32>().ok()
        });
        let mut pids: Vec<i32> = std::iter::once(own).chain(daemons).collect();
        let mut next = 0;
        while let Some(&parent) = pids.get(next) {
            pids.extend(
                children_of(parent).filter(|child| !pids.contains(child)).collect::<Vec<_>>(),
            );
            next += 1;
        }
        pids
    }

    /// Asserts that none of `pids` uses more than half of a processor.
    #[track_caller]
    pub(super) fn do_not_spin(pids: &[i32]) {
        const LOOK: Duration = Duration::from_millis(500);
        let processes = pids.iter().filter_map(|&pid| Process::find(Pid::from_raw(pid)?));
        let processes: Vec<_> = processes.filter(|process| !process.has_ended()).collect();
        let before: Vec<_> = processes.iter().map(Process::cpu_time).collect();
        std::thread::sleep(LOOK);
        for (process, before) in processes.iter().zip(before) {
            let used = process.cpu_time().saturating_sub(before);
            assert!(used < LOOK / 2, "{} used {used:?} in {LOOK:?}", process.pid());
        }
    }

    /// Ends it and all that it started, and puts right what it leaves behind when it is killed.
    pub(super) fn end(self) {
        drop(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pids = self.pids();
        let processes = pids.iter().filter_map(|&pid| Process::find(Pid::from_raw(pid)?));
        processes.collect::<Vec<_>>().iter().for_each(Process::kill);
        remove_locks_of(&self.path, &pids);
        match self.peer {
            // The flag stays as long as anybody has the line open, at either end. A vconsole's own is
            // not ours to clear.
            Peer::Screen if !openers_of(&self.path).iter().any(|it| it.program == "vconsole") => {
                let line = std::fs::File::options().read(true).write(true).open(&self.path);
                let _ = line.map(ioctl_tiocnxcl);
            }
            // libvirtd gives the console back when it sees that its client is gone.
            Peer::Virsh => {
                let start = Instant::now();
                let has_it = || openers_of(&self.path).iter().any(|it| it.program == "libvirtd");
                while has_it() && start.elapsed() < DEADLINE {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            _ => {}
        }
    }
}

/// The processes that `parent` started.
fn children_of(parent: i32) -> impl Iterator<Item = i32> {
    processes().filter(move |&pid| parent_of(pid) == Some(parent))
}
