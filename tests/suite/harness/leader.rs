//! The shell on a terminal, which starts the programs there as its jobs.
//!
//! A user's program does not lead its session: it is a shell's job, in a process group of its own, and
//! so it can be stopped and continued, put into the background, and sent SIGHUP when the terminal
//! vanishes.
//!
//! The session is led by a process that does nothing else. When the terminal vanishes it dies of
//! SIGHUP, at which the kernel sends SIGHUP to the job in the foreground; the shell does not die, and
//! tells how the job ended.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::{ChildStdin, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use vconsole::sys::lead_a_session_on;

use super::ear::{Ear, Ends};
use super::process::{Ended, Process, adopt_orphans};
use super::program::{Program, neutral, public_directory, traps, with_default_signals};

/// Starts the shell as a child: the last command of `sh -c` would be executed in its place. The shell
/// reads its commands from its standard input, since it would leave a loop of its own whenever a job
/// stops; and it is bash, since dash gives up when it cannot take back a terminal that is gone.
const LEADER: &str = "bash -m; exit";

/// What the shell is told first. It reports on descriptor 8. It got the terminal as its standard
/// error and keeps it as descriptor 7; its own words about its jobs go nowhere.
const FIRST_WORDS: &str = r#"exec 8>&1 7>&2 1>&2 2>/dev/null; trap : HUP INT; echo "shell $$" >&8"#;

/// What a job's descriptors are: one open file, shared by the three, as in a user's own shell.
const ON_THE_TERMINAL: &[u8] = b" 0<&7 1>&7 2>&7 7>&- 8>&-";

/// The leader of a terminal's session, and the shell.
pub(super) struct Leader {
    head: Process,
    shell: Process,
    commands: Mutex<ChildStdin>,
    reports: Ear,
    directory: TempDir,
    user: Option<(u32, u32)>,
    /// The numbers of jobs and of commands.
    next: AtomicUsize,
    /// The processor time of those jobs whose end was reported.
    accounted: Mutex<Duration>,
}

/// A job of the leader's.
pub(super) struct Job {
    /// The command whose end is the next news of this job; none while it is in the background.
    awaited: Mutex<Option<usize>>,
}

/// What the leader said when it got its terminal back.
struct Back {
    status: i32,
    /// The processor time of all jobs that ended so far.
    children: Duration,
}

impl Back {
    /// Whether the job did not end but was stopped: a shell says 128 + SIGSTOP, SIGTSTP, SIGTTIN or
    /// SIGTTOU then.
    fn is_a_stop(&self) -> bool {
        (128 + 19..=128 + 22).contains(&self.status)
    }
}

impl Leader {
    /// Starts a shell whose controlling terminal is `terminal`.
    pub(super) fn start(terminal: OwnedFd, user: Option<(u32, u32)>) -> Arc<Self> {
        adopt_orphans();
        let mut command = with_default_signals("sh");
        command.args(["-c", LEADER]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(terminal.try_clone().unwrap());
        neutral(&mut command, user);
        lead_a_session_on(&mut command, terminal);
        #[expect(clippy::zombie_processes, reason = "reaped by its pidfd when it is dropped")]
        let mut child = command.spawn().unwrap();
        let reports = Arc::new(child.stdout.take().unwrap().into());
        let reports = Ear::on(reports, "the terminal's shell", Ends::AtHangUp);
        let mut commands = child.stdin.take().unwrap();
        writeln!(commands, "{FIRST_WORDS}").unwrap();
        let shell = reports.wait_for("its start", |text| number_after(text, "shell "));
        Arc::new(Self {
            head: Process::find(Pid::from_child(&child)).unwrap(),
            shell: Process::find(shell).unwrap(),
            commands: Mutex::new(commands),
            reports,
            directory: public_directory(),
            user,
            next: AtomicUsize::new(0),
            accounted: Mutex::default(),
        })
    }

    /// As whom it runs.
    pub(super) fn user(&self) -> Option<(u32, u32)> {
        self.user
    }

    /// Starts `program` as a job.
    #[track_caller]
    pub(super) fn run(&self, program: &Program, foreground: bool) -> (Job, Process) {
        let job = self.next.fetch_add(1, Ordering::Relaxed);
        let gate = self.directory.path().join(format!("gate-{job}"));
        mknodat(CWD, &gate, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
        let script = self.script(job, program, &gate);
        let awaited = if foreground {
            Some(self.command(&format!("sh {}", script.display())))
        } else {
            self.send(&format!("sh {} &", script.display()));
            None
        };
        let words = format!("started {job} ");
        let pid = self.reports.wait_for("a job's start", |text| number_after(text, &words));
        let process = Process::find(pid).expect("it waits at its gate");
        // Opening waits for the job to open it as well, which ends its waiting.
        drop(std::fs::OpenOptions::new().write(true).open(gate).unwrap());
        (Job { awaited: Mutex::new(awaited) }, process)
    }

    /// The script that a job is: it says who it is, waits until we hold its pidfd, and becomes the
    /// program.
    fn script(&self, job: usize, program: &Program, gate: &std::path::Path) -> PathBuf {
        let mut text = traps(&program.ignored).into_bytes();
        let start = format!("echo \"started {job} $$\" >&8\nread -r go <'{}'\n", gate.display());
        text.extend(start.into_bytes());
        for (name, value) in &program.environment {
            text.extend([b"export ", name.as_bytes(), b"=", &quoted(value), b"\n"].concat());
        }
        text.extend(b"exec");
        let wrapped = program.wrapped(self.directory.path());
        for word in wrapped.iter().chain(program.all_arguments()) {
            text.extend([b" ", &*quoted(word)].concat());
        }
        text.extend(ON_THE_TERMINAL);
        for (redirect, path) in [(" <", &program.stdin), (" >", &program.stdout)] {
            if let Some(path) = path {
                text.extend([redirect.as_bytes(), &quoted(path.as_os_str())].concat());
            }
        }
        let path = self.directory.path().join(format!("job-{job}"));
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Continues `job` in the foreground.
    pub(super) fn fg(&self, job: &Job) {
        *job.awaited.lock().unwrap() = Some(self.command("fg >/dev/null"));
    }

    /// Waits until the shell has its terminal back from `job`, which is stopped.
    #[track_caller]
    pub(super) fn knows_of_the_stop(&self, job: &Job) {
        let awaited = *job.awaited.lock().unwrap();
        awaited.map(|command| self.back(command));
    }

    /// How `job` ended, which it did.
    #[track_caller]
    pub(super) fn ended(&self, job: &Job, process: &Process) -> Ended {
        let reported = job.awaited.lock().unwrap().map(|command| self.back(command));
        let back = match reported {
            Some(back) if !back.is_a_stop() => back,
            _ => self.back(self.command(&format!("wait {}", process.pid()))),
        };
        let mut accounted = self.accounted.lock().unwrap();
        let cpu = back.children.saturating_sub(*accounted);
        *accounted = back.children;
        Ended { code: back.status, cpu }
    }

    /// Sends a command whose end is to be reported, and gives its number.
    fn command(&self, command: &str) -> usize {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // Two lines: bash leaves out the rest of the one whose job ended by SIGINT.
        self.send(&format!("{command}\necho \"back {number} $?\" >&8; times >&8"));
        number
    }

    fn send(&self, line: &str) {
        writeln!(self.commands.lock().unwrap(), "{line}").unwrap();
    }

    /// Waits for the report about command `number`.
    #[track_caller]
    fn back(&self, number: usize) -> Back {
        self.reports.wait_for("the end of a job", |reports| back(reports, number))
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        // The leader first, whose children are ours then.
        for process in [&self.head, &self.shell] {
            process.signal(Signal::KILL);
            process.ends();
            process.reap();
        }
    }
}

/// The process number in the line that begins with `words`, once that line is complete.
fn number_after(reports: &[u8], words: &str) -> Option<Pid> {
    let reports = std::str::from_utf8(reports).unwrap();
    let complete = &reports[..=reports.rfind('\n')?];
    let number = complete.lines().find_map(|line| line.strip_prefix(words))?;
    Pid::from_raw(number.parse().unwrap())
}

fn back(reports: &[u8], number: usize) -> Option<Back> {
    let prefix = format!("back {number} ");
    let reports = std::str::from_utf8(reports).unwrap();
    let complete = &reports[..=reports.rfind('\n')?];
    let mut lines = complete.lines().filter(|line| !line.starts_with("started "));
    let status = lines.find_map(|line| line.strip_prefix(&prefix))?.parse().unwrap();
    let _of_the_shell = lines.next()?;
    let children = lines.next()?.split_ascii_whitespace().map(minutes_and_seconds).sum();
    Some(Back { status, children })
}

/// A time as the shell's `times` prints it: `0m0.040000s`.
fn minutes_and_seconds(text: &str) -> Duration {
    let (minutes, seconds) = text.trim_end_matches('s').split_once('m').unwrap();
    let minutes: u32 = minutes.parse().unwrap();
    Duration::from_secs(60) * minutes + Duration::from_secs_f64(seconds.parse().unwrap())
}

/// `text` as one word of the shell.
pub(super) fn quoted(text: &OsStr) -> Vec<u8> {
    let mut word = vec![b'\''];
    for &byte in text.as_bytes() {
        match byte {
            b'\'' => word.extend(b"'\\''"),
            other => word.push(other),
        }
    }
    word.push(b'\'');
    word
}
