//! Programs that run.

use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::net::{Shutdown, shutdown};
use rustix::process::Pid;
use tempfile::TempDir;

use super::ear::{Ear, Ends};
use super::leader::{Job, Leader};
use super::process::{Ended, Process};
use super::program::Program;
use super::write_all;

/// A running program. Dropping it kills it.
pub(crate) struct Session {
    process: Process,
    parent: Parent,
    ended: Mutex<Option<Ended>>,
}

/// Who started it, and so learns how it ended.
enum Parent {
    Us,
    Leader(Arc<Leader>, Job),
}

impl Session {
    #[track_caller]
    pub(super) fn of_leader(leader: &Arc<Leader>, program: &Program, foreground: bool) -> Self {
        let (job, process) = leader.run(program, foreground);
        let parent = Parent::Leader(Arc::clone(leader), job);
        Self { process, parent, ended: Mutex::new(None) }
    }

    /// Waits until it ended. The status is what a shell says: 128+N after signal N.
    #[track_caller]
    pub(crate) fn wait(&self) -> i32 {
        self.ended().code
    }

    /// The time for which it has used a processor so far, in steps of 10 ms; or after
    /// [`Session::wait`], in all.
    pub(crate) fn cpu_time(&self) -> Duration {
        let ended = *self.ended.lock().unwrap();
        ended.map_or_else(|| self.process.cpu_time(), |ended| ended.cpu)
    }

    /// Waits until it is stopped, as SIGSTOP and SIGTSTP do it, and its shell has heard of that: one that
    /// hears of a job's stop and its end at once may have forgotten how it ended when it is asked.
    #[track_caller]
    pub(crate) fn is_stopped(&self) {
        self.process.is_stopped();
        if let Parent::Leader(leader, job) = &self.parent {
            leader.knows_of_the_stop(job);
        }
    }

    /// Brings a stopped job back to the foreground, as a shell's `fg` does.
    pub(crate) fn fg(&self) {
        match &self.parent {
            Parent::Leader(leader, job) => leader.fg(job),
            Parent::Us => panic!("only a job on a terminal has a foreground"),
        }
    }

    #[track_caller]
    fn ended(&self) -> Ended {
        let mut ended = self.ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *ended.get_or_insert_with(|| {
            assert!(self.process.ends(), "the program has not ended");
            match &self.parent {
                Parent::Us => self.process.reaped(),
                Parent::Leader(leader, job) => leader.ended(job, &self.process),
            }
        })
    }
}

impl Deref for Session {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.process.signal(rustix::process::Signal::KILL);
        self.process.ends();
        self.process.reap();
    }
}

/// A running program with a pipe on each of its descriptors.
pub(crate) struct Piped {
    session: Session,
    stdin: Option<OwnedFd>,
    stdout: Option<Ear>,
    stderr: Ear,
    _copy: Option<TempDir>,
}

impl Piped {
    /// `stdin` and `stdout` are our ends of its own.
    pub(super) fn new(
        mut child: Child,
        stdin: OwnedFd,
        stdout: OwnedFd,
        copy: Option<TempDir>,
    ) -> Self {
        let pid = Pid::from_child(&child);
        let process = Process::find(pid).expect("a child that was not reaped");
        fcntl_setfl(&stdin, OFlags::NONBLOCK).unwrap();
        let ear = |pipe, what: &str| Ear::on(Arc::new(pipe), what, Ends::AtHangUp);
        Self {
            session: Session { process, parent: Parent::Us, ended: Mutex::new(None) },
            stdin: Some(stdin),
            stdout: Some(ear(stdout, "stdout")),
            stderr: ear(child.stderr.take().unwrap().into(), "stderr"),
            _copy: copy,
        }
    }

    /// Writes all of `bytes` to its standard input.
    #[track_caller]
    pub(crate) fn types(&self, bytes: impl AsRef<[u8]>) {
        write_all(self.stdin.as_ref().expect("stdin was closed"), bytes.as_ref(), "stdin");
    }

    /// How many bytes wait in its standard input that nobody has read.
    pub(crate) fn unread(&self) -> u64 {
        rustix::io::ioctl_fionread(self.stdin.as_ref().expect("stdin was closed")).unwrap()
    }

    /// Ends its standard input.
    pub(crate) fn closes_stdin(&mut self) {
        if let Some(stdin) = self.stdin.take() {
            // Of a socket only this direction ends; of a pipe this is refused, and it is closed.
            let _ = shutdown(&stdin, Shutdown::Write);
        }
    }

    /// What it printed to its standard output.
    pub(crate) fn stdout(&self) -> &Ear {
        self.stdout.as_ref().expect("stdout was broken")
    }

    /// What it printed to its standard error.
    pub(crate) fn stderr(&self) -> &Ear {
        &self.stderr
    }

    /// The reader of its standard output goes away.
    pub(crate) fn breaks_stdout(&mut self) {
        self.stdout = None;
    }

    /// Waits until it ended, and all it printed was read.
    #[track_caller]
    pub(crate) fn output(&self) -> Output {
        Output {
            status: self.wait(),
            stdout: self.stdout().to_the_end(),
            stderr: self.stderr.to_the_end(),
        }
    }
}

impl Deref for Piped {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

/// What a program that ended has printed.
#[derive(Debug)]
pub(crate) struct Output {
    /// As a shell says it: 128+N after signal N.
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Output {
    /// Its standard output as text.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Its standard error as text.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}
