//! Users by their numbers, each asked for once: the machine's user database may be far away.

use std::collections::HashMap;

use crate::printable::Printable;
use crate::process::Process;

/// The names of users, safe to show.
#[derive(Debug, Default)]
pub(super) struct Users(HashMap<u32, String>);

impl Users {
    /// The user that a process belongs to; nothing where `/proc` hides it.
    pub(super) fn of(&mut self, process: &Process) -> Option<String> {
        let uid = process.uid?;
        let name = || process.user().map_or_else(|| uid.to_string(), |name| shown(&name));
        Some(self.0.entry(uid).or_insert_with(name).clone())
    }
}

fn shown(name: &str) -> String {
    Printable::new(name).to_string()
}
