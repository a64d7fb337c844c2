//! Programs to be started: `Vconsole::attach(&guest).locks(&locks).on(&terminal)`.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use super::leader::quoted;
use super::session::{Output, Piped, Session};
use super::terminal::Terminal;
use super::{Locks, is_neutral, set_mode};

/// The program under test, one constructor for each of its commands.
pub(crate) struct Vconsole;

impl Vconsole {
    /// `vconsole attach CONSOLE`
    pub(crate) fn attach(console: impl AsRef<OsStr>) -> Program {
        Self::with(["attach"]).arg(console)
    }

    /// `vconsole status`
    pub(crate) fn status() -> Program {
        Self::with(["status"])
    }

    /// `vconsole host`
    pub(crate) fn host() -> Program {
        Self::with(["host"])
    }

    /// `vconsole` with any arguments.
    pub(crate) fn with<T: AsRef<OsStr>>(arguments: impl IntoIterator<Item = T>) -> Program {
        Program::new(env!("CARGO_BIN_EXE_vconsole")).args(arguments)
    }
}

/// A program with all that it is started with. It does not run before one of [`Program::on`],
/// [`Program::in_background_of`], [`Program::piped`] and [`Program::output`].
#[derive(Clone)]
pub(crate) struct Program {
    name: OsString,
    arguments: Vec<OsString>,
    command: Vec<OsString>,
    wrapper: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) user: Option<(u32, u32)>,
    pub(super) ignored: Vec<Signal>,
    pub(super) stdin: Option<PathBuf>,
    pub(super) stdout: Option<PathBuf>,
}

impl Program {
    /// A program by its path, or by a name that is looked for in `PATH`.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            name: program.as_ref().into(),
            arguments: Vec::new(),
            command: Vec::new(),
            wrapper: Vec::new(),
            environment: Vec::new(),
            user: None,
            ignored: Vec::new(),
            stdin: None,
            stdout: None,
        }
    }

    /// One more argument.
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().into());
        self
    }

    /// More arguments.
    pub(crate) fn args<T: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = T>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// The command that `host` runs, after `--`.
    pub(crate) fn running<T: AsRef<OsStr>>(mut self, command: impl IntoIterator<Item = T>) -> Self {
        self.command = command.into_iter().map(|word| word.as_ref().into()).collect();
        self
    }

    /// `--lock-dir` with the test's own.
    pub(crate) fn locks(self, locks: &Locks) -> Self {
        self.arg("--lock-dir").arg(locks.path())
    }

    /// One more environment variable.
    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().into(), value.as_ref().into()));
        self
    }

    /// Runs it as another user, without supplementary groups. On a terminal: the first program there
    /// decides whose terminal it is.
    #[expect(clippy::wrong_self_convention, reason = "a builder that reads as a sentence")]
    pub(crate) fn as_user(mut self, user: u32, group: u32) -> Self {
        self.user = Some((user, group));
        self
    }

    /// Starts it with `signal` ignored, as `nohup` does with SIGHUP.
    pub(crate) fn ignoring(mut self, signal: Signal) -> Self {
        self.ignored.push(signal);
        self
    }

    /// On a terminal: its standard input is this file all the same.
    pub(crate) fn stdin_from(mut self, path: impl AsRef<Path>) -> Self {
        self.stdin = Some(path.as_ref().into());
        self
    }

    /// On a terminal: its standard output is this file all the same.
    pub(crate) fn stdout_to(mut self, path: impl AsRef<Path>) -> Self {
        self.stdout = Some(path.as_ref().into());
        self
    }

    /// Has another program start it, which becomes it: `prlimit`, `env -i`.
    pub(crate) fn under<T: AsRef<OsStr>>(mut self, wrapper: impl IntoIterator<Item = T>) -> Self {
        self.wrapper.splice(0..0, wrapper.into_iter().map(|word| word.as_ref().into()));
        self
    }

    /// The program to start and its first arguments, from where [`Program::executable`] is.
    pub(super) fn wrapped(&self, directory: &Path) -> Vec<OsString> {
        self.wrapper.iter().cloned().chain([self.executable(directory)]).collect()
    }

    /// Starts it with what a shell's redirections say, last of all: `<&-`, `>> file`.
    pub(crate) fn redirected(self, how: impl AsRef<str>) -> Self {
        let mut arguments =
            Vec::from(["-c".into(), format!("exec \"$@\" {}", how.as_ref()).into()]);
        arguments.extend(["sh".into(), self.name]);
        arguments.extend(self.arguments);
        Self { name: "sh".into(), arguments, ..self }
    }

    /// Runs `attach` in the foreground of `terminal`, and waits until it is connected.
    #[track_caller]
    pub(crate) fn attached_on(&self, terminal: &Terminal) -> Session {
        terminal.clear();
        let session = self.on(terminal);
        terminal.shows("connected to");
        session
    }

    /// Runs `attach` as [`Program::piped`] does, and waits until it is connected.
    #[track_caller]
    pub(crate) fn attached_to_pipes(&self) -> Piped {
        let piped = self.piped();
        piped.stderr().receives("connected to");
        piped
    }

    /// Runs it in the foreground of `terminal`, as a shell's job.
    #[track_caller]
    pub(crate) fn on(&self, terminal: &Terminal) -> Session {
        Session::of_leader(&terminal.leader(self.user), self, true)
    }

    /// Runs it in the background of `terminal`, as a shell's `&` does.
    #[track_caller]
    pub(crate) fn in_background_of(&self, terminal: &Terminal) -> Session {
        Session::of_leader(&terminal.leader(self.user), self, false)
    }

    /// Runs it in a session of its own without a terminal, with a pipe on each of its descriptors.
    #[track_caller]
    pub(crate) fn piped(&self) -> Piped {
        let copy = self.user.map(|_| public_directory());
        let mut command = self.in_own_session(copy.as_ref().map(TempDir::path));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Piped::new(child, stdin.into(), stdout.into(), copy)
    }

    /// Runs it in a session of its own without a terminal, with one socket as its standard input and
    /// output, as inetd does, and a pipe as its standard error.
    #[track_caller]
    pub(crate) fn on_a_socket(&self) -> Piped {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = self.in_own_session(None);
        command.stdin(OwnedFd::from(theirs.try_clone().unwrap()));
        command.stdout(OwnedFd::from(theirs)).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        Piped::new(child, ours.try_clone().unwrap().into(), ours.into(), None)
    }

    /// Runs it to its end, with nothing on its standard input.
    #[track_caller]
    pub(crate) fn output(&self) -> Output {
        let mut piped = self.piped();
        piped.closes_stdin();
        piped.output()
    }

    /// It and its arguments as one line for a shell.
    pub(crate) fn as_a_shell_would_type_it(&self) -> String {
        let words = std::iter::once(&self.name).chain(self.all_arguments());
        let words: Vec<_> = words.map(|word| quoted(word)).collect();
        String::from_utf8(words.join(&b' ')).unwrap()
    }

    /// All its arguments.
    pub(super) fn all_arguments(&self) -> impl Iterator<Item = &OsString> {
        static DASHES: std::sync::LazyLock<OsString> = std::sync::LazyLock::new(|| "--".into());
        let dashes = (!self.command.is_empty()).then_some(&*DASHES);
        self.arguments.iter().chain(dashes).chain(&self.command)
    }

    /// The program to start: itself, or where another user runs it a copy in `directory`, since the
    /// build directory may be closed to others.
    fn executable(&self, directory: &Path) -> OsString {
        if self.user.is_none() || !Path::new(&self.name).is_absolute() {
            return self.name.clone();
        }
        let copy = directory.join(Path::new(&self.name).file_name().unwrap());
        if !copy.exists() {
            // Not `fs::copy`: a child that another test forks meanwhile would have the copy open for
            // writing, and it could not be executed until then (ETXTBSY, execve(2)).
            assert!(Command::new("cp").arg(&self.name).arg(&copy).status().unwrap().success());
            set_mode(&copy, 0o755);
        }
        copy.into()
    }

    fn in_own_session(&self, copies: Option<&Path>) -> Command {
        let mut command = with_default_signals("setsid");
        if !self.ignored.is_empty() {
            // Not a shell's trap: dash ignores no SIGCHLD.
            let ignored = numbers(&self.ignored);
            command.args(["env", &format!("--ignore-signal={ignored}")]);
        }
        command.args(self.wrapped(copies.unwrap_or(Path::new(""))));
        command.args(self.all_arguments());
        neutral(&mut command, self.user);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Gives `command` an environment that changes no behaviour, and the user it is to run as.
pub(super) fn neutral(command: &mut Command, user: Option<(u32, u32)>) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| !is_neutral(name)) {
        command.env_remove(name);
    }
    if let Some((user, group)) = user {
        command.gid(group).uid(user).current_dir("/");
    }
}

/// A command that ignores no signal, though we may: what a shell starts with `&` ignores SIGINT and
/// SIGQUIT.
pub(super) fn with_default_signals(program: &str) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal", program]);
    command
}

/// The shell commands that make what they start ignore `signals`.
pub(super) fn traps(signals: &[Signal]) -> String {
    let each = numbers(signals).replace(',', " ");
    if each.is_empty() { each } else { format!("trap '' {each}\n") }
}

/// The numbers of `signals`, with commas between them.
fn numbers(signals: &[Signal]) -> String {
    let numbers: Vec<_> = signals.iter().map(|signal| signal.as_raw().to_string()).collect();
    numbers.join(",")
}

/// A directory that everybody may look into.
pub(super) fn public_directory() -> TempDir {
    let directory = TempDir::with_prefix("vconsole-run-").unwrap();
    set_mode(directory.path(), 0o755);
    directory
}
