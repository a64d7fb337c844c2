//! What the user should know of how a claim was made.

use std::io;
use std::path::Path;

use crate::printable::Printable;

/// What the user should know of how a claim was made: one line for each matter, whatever the number of
/// lock files.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    lines: Vec<(String, Vec<String>, String)>,
}

impl Remarks {
    fn add(&mut self, what: &str, path: &Path, why: String) {
        let path = Printable::new(path).to_string();
        match self.lines.iter_mut().find(|(w, _, y)| w == what && *y == why) {
            Some((_, paths, _)) if paths.contains(&path) => {}
            Some((_, paths, _)) => paths.push(path),
            None => self.lines.push((what.to_owned(), vec![path], why)),
        }
    }

    pub(super) fn removed(&mut self, path: &Path, why: &str) {
        self.add("removed the lock ", path, why.to_owned());
    }

    pub(super) fn passed_over(&mut self, path: &Path, why: &str) {
        self.add("going on without the lock ", path, why.to_owned());
    }

    pub(super) fn without_files(&mut self, path: &Path, error: &io::Error) {
        let what = match error.kind() {
            io::ErrorKind::NotFound => "there are no locks to check, and none was made",
            _ => "the locks there were checked, none was made",
        };
        self.add("session mode: no lock files in ", path, format!("{error}; {what}"));
    }

    pub(super) fn unseen(&mut self, path: &Path, error: &io::Error) {
        self.add("going on without seeing the locks in ", path, error.to_string());
    }

    pub(super) fn left(&mut self, path: &Path) {
        self.add("moved aside, for you to remove: ", path, "it is not empty".to_owned());
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        let line = |(what, paths, why): (String, Vec<String>, String)| {
            format!("{what}{}: {why}", paths.join(", "))
        };
        self.lines.into_iter().map(line).collect()
    }
}
