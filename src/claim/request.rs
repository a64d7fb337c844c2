//! The request for a claim, and the notes that the claim makes for the user.

use std::path::Path;
use std::{fmt, io};

use crate::claim::monitor::EarlyWatch;
use crate::console::target::Target;
use crate::guard::client::Guard;
use crate::locks::directory::LockPlace;
use crate::printable::Printable;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockMode {
    /// Create them; an ordinary user who may not create them only checks them.
    Auto,
    Require,
    Check,
    Off,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) target: &'a Target,
    pub(crate) mode: LockMode,
    pub(crate) place: &'a LockPlace,
    /// Whether to break locks of unknown owners and evict current users.
    pub(crate) force: bool,
    /// The pid of the session that hands the console over to us.
    pub(crate) handoff_from: Option<i32>,
    /// It is told of each step before the step, so that it can undo the step if we are killed.
    pub(crate) guard: &'a Guard,
    pub(crate) progress: &'a dyn Progress,
    /// Began before the first snapshot, or is empty.
    pub(crate) early_watch: &'a EarlyWatch,
}

/// The caller of a claim. Evicting others takes time.
pub(crate) trait Progress: fmt::Debug {
    fn report(&self, line: &str);
    fn cancelled(&self) -> bool;
}

impl Request<'_> {
    /// Whether to go on without lock files that the user may not create.
    pub(crate) fn in_session_mode(&self) -> bool {
        self.mode == LockMode::Auto && !nix::unistd::geteuid().is_root()
    }
}

/// Lines for the user. Paths with the same message and the same reason share a line.
#[derive(Debug, Default)]
pub(crate) struct ClaimNotes {
    lines: Vec<(&'static str, Vec<String>, String)>,
}

impl ClaimNotes {
    pub(crate) fn add(&mut self, what: &'static str, path: &Path, why: &str) {
        let path = Printable::new(path).to_string();
        match self.lines.iter_mut().find(|(w, _, y)| *w == what && y == why) {
            Some((_, paths, _)) if paths.contains(&path) => {}
            Some((_, paths, _)) => paths.push(path),
            None => self.lines.push((what, vec![path], why.to_owned())),
        }
    }

    pub(crate) fn passed_over(&mut self, path: &Path, why: &str) {
        self.add("going on without the lock ", path, why);
    }

    pub(crate) fn without_files(&mut self, path: &Path, error: &io::Error) {
        let what = match error.kind() {
            io::ErrorKind::NotFound => "there are no locks to check, and none was made",
            _ => "the locks there were checked, none was made",
        };
        self.add("session mode: no lock files in ", path, &format!("{error}; {what}"));
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        let line = |(what, paths, why): (&str, Vec<String>, String)| {
            format!("{what}{}: {why}", paths.join(", "))
        };
        self.lines.into_iter().map(line).collect()
    }
}
