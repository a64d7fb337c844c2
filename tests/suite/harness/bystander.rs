//! A program that lives, has a number and perhaps a console, and does nothing.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running `sleep`: a live program that is no vconsole. Dropping it ends it.
pub(crate) struct Bystander(Child);

impl Bystander {
    /// One that has nothing open.
    pub(crate) fn new() -> Self {
        Self::on(Stdio::null())
    }

    /// One that has `path` open: a console, if it is to be a holder without a lock.
    pub(crate) fn with_open(path: impl AsRef<Path>) -> Self {
        Self::on(fs::File::open(path).unwrap())
    }

    fn on(input: impl Into<Stdio>) -> Self {
        Self(Command::new("sleep").arg("1000").stdin(input).spawn().unwrap())
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// What a lock file of its says.
    pub(crate) fn lock(&self) -> String {
        format!("{:>10}\n", self.pid())
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
