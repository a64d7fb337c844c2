//! What was found, in the form in which it is shown: all text in it is safe to show.

use std::ops::Range;
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;

use super::users::Users;
use crate::claim::{Convention, Found, Holder, Overview, Standing, State, Suspicion, Verdict, Way};
use crate::console::{Kind, NotAConsole, OtherEnd, Role};
use crate::exit_status::ExitStatus;
use crate::printable::Printable;
use crate::process::{Census, Process};

/// What was found.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) consoles: Vec<ConsoleRow>,
    pub(super) locks: Vec<LockRow>,
    /// What could not be seen, in one line.
    pub(super) unseen: Option<String>,
    /// Those that were named and are no consoles.
    missing: Vec<NotAConsole>,
    /// Whether something of a lock was hidden.
    lock_hidden: bool,
    users: Users,
}

/// A console.
#[derive(Debug, Serialize)]
pub(super) struct ConsoleRow {
    /// As it was named, else its path.
    pub(super) console: String,
    pub(super) path: Option<String>,
    pub(super) kind: Option<&'static str>,
    #[serde(serialize_with = "word_or_missing")]
    pub(super) state: Option<State>,
    pub(super) holders: Vec<HolderRow>,
    pub(super) other_end: Vec<OtherEndRow>,
    pub(super) other_end_unseen: bool,
    /// Which of the lock files are its own.
    #[serde(skip)]
    pub(super) locks: Range<usize>,
}

/// Somebody who has a console.
#[derive(Debug, Serialize)]
pub(super) struct HolderRow {
    #[serde(flatten)]
    pub(super) process: ProcessRow,
    pub(super) terminal: Option<String>,
    #[serde(serialize_with = "moment")]
    pub(super) since: Option<SystemTime>,
    #[serde(serialize_with = "words")]
    pub(super) by: Vec<Way>,
}

/// What is known of a process.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct ProcessRow {
    pub(super) pid: Option<i32>,
    pub(super) program: Option<String>,
    pub(super) user: Option<String>,
}

/// What is at the other end of a console.
#[derive(Debug, Serialize)]
pub(super) struct OtherEndRow {
    kind: &'static str,
    name: Option<String>,
    #[serde(flatten)]
    process: ProcessRow,
    /// All of it in short.
    #[serde(skip)]
    pub(super) text: String,
}

/// A lock file.
#[derive(Debug, Serialize)]
pub(super) struct LockRow {
    pub(super) lock: String,
    convention: Convention,
    pub(super) console: Option<String>,
    #[serde(serialize_with = "lock_word")]
    pub(super) state: State,
    pub(super) note: Option<String>,
    #[serde(flatten)]
    pub(super) process: ProcessRow,
    #[serde(serialize_with = "moment")]
    pub(super) since: Option<SystemTime>,
    /// Whether it belongs to no console that is there.
    #[serde(skip)]
    pub(super) stray: bool,
}

impl Report {
    pub(super) fn new(census: &Census) -> Self {
        Self {
            consoles: Vec::new(),
            locks: Vec::new(),
            unseen: unseen(census),
            missing: Vec::new(),
            lock_hidden: false,
            users: Users::default(),
        }
    }

    /// Adds all that was found.
    pub(super) fn add_all(&mut self, overview: Overview) {
        for standing in overview.consoles {
            let path = standing.target.path().to_path_buf();
            self.add(&path, standing);
        }
        overview.strays.iter().for_each(|lock| self.add_lock(lock, true));
    }

    /// Adds a console that was found by the name `name`.
    pub(super) fn add(&mut self, name: &Path, standing: Standing) {
        let first = self.locks.len();
        standing.locks.iter().for_each(|lock| self.add_lock(lock, false));
        let row = ConsoleRow {
            console: shown(name),
            path: Some(shown(standing.target.path())),
            kind: Some(match standing.target.kind() {
                Kind::Pty => "pty",
                Kind::Serial => "serial",
            }),
            state: Some(standing.state),
            holders: standing.holders.into_iter().map(|holder| self.holder(holder)).collect(),
            other_end: standing.other_end.iter().map(|end| self.other_end(end)).collect(),
            other_end_unseen: standing.other_end_unseen,
            locks: first..self.locks.len(),
        };
        self.consoles.push(row);
    }

    /// Adds what was named and is no console.
    pub(super) fn add_missing(&mut self, name: &Path, why: NotAConsole) {
        self.consoles.push(ConsoleRow {
            console: shown(name),
            path: None,
            kind: None,
            state: None,
            holders: Vec::new(),
            other_end: Vec::new(),
            other_end_unseen: false,
            locks: 0..0,
        });
        self.missing.push(why);
    }

    fn add_lock(&mut self, found: &Found, stray: bool) {
        let (state, note, process) = match &found.verdict {
            Verdict::Dead(death) => (State::Dead, Some(death.to_string()), None),
            Verdict::Suspect(why) => {
                let perhaps = match why {
                    Suspicion::PerhapsRecycled(process) => Some(&**process),
                    _ => None,
                };
                (State::Suspect, Some(why.to_string()), perhaps)
            }
            Verdict::Foreign(process) | Verdict::Ours(process) => {
                (State::Held, None, Some(process))
            }
        };
        self.lock_hidden |= matches!(found.verdict, Verdict::Suspect(Suspicion::Unreadable))
            || process.is_some_and(|process| process.program.is_none());
        let row = LockRow {
            lock: shown(&found.path),
            convention: found.convention,
            console: found.console.as_ref().map(shown),
            state,
            note,
            process: process.map(|process| self.process(process)).unwrap_or_default(),
            since: Some(found.written),
            stray,
        };
        self.locks.push(row);
    }

    fn holder(&mut self, holder: Holder) -> HolderRow {
        let process = holder.process.as_ref();
        HolderRow {
            process: process.map(|process| self.process(process)).unwrap_or_default(),
            terminal: process.and_then(Process::terminal_name),
            since: holder.since,
            by: holder.by,
        }
    }

    fn other_end(&mut self, end: &OtherEnd) -> OtherEndRow {
        let (kind, name) = match &end.role {
            Role::Guest(name) => ("guest", name.as_ref()),
            Role::Container(name) => ("container", Some(name)),
            Role::Program => ("program", None),
        };
        OtherEndRow {
            kind,
            name: name.map(shown),
            process: self.process(&end.process),
            text: end.to_string(),
        }
    }

    fn process(&mut self, process: &Process) -> ProcessRow {
        ProcessRow {
            pid: Some(process.pid),
            program: process.program.as_ref().map(shown),
            user: self.users.of(process),
        }
    }

    /// Whether all was seen that there is to see.
    pub(super) fn is_complete(&self) -> bool {
        self.unseen.is_none() && !self.lock_hidden
    }

    /// Whether there is nothing to show.
    pub(super) fn is_empty(&self) -> bool {
        self.consoles.is_empty() && self.locks.is_empty()
    }

    /// Why what was named is no console.
    pub(super) fn into_missing(self) -> Vec<NotAConsole> {
        self.missing
    }

    /// That of the gravest console that was named. Without names it is no question, and no answer.
    pub(super) fn exit_status(&self, named: bool) -> ExitStatus {
        let gravest = self.consoles.iter().map(|console| console.state);
        // What is missing is the gravest of all.
        let gravest = gravest.reduce(|a, b| Some(a?.max(b?)));
        match gravest.filter(|_| named) {
            None | Some(Some(State::Free | State::Dead)) => ExitStatus::Done,
            Some(Some(State::Suspect | State::Held)) => ExitStatus::Busy,
            Some(None) => ExitStatus::NoConsole,
        }
    }
}

/// What the census could not see, in one line.
fn unseen(census: &Census) -> Option<String> {
    let what = match census.hidden() {
        _ if !census.shows_everybody() => "the processes that /proc does not show".to_owned(),
        0 => return None,
        1 => "what 1 process of another user has open".to_owned(),
        count => format!("what {count} processes of other users have open"),
    };
    Some(format!("not seen: {what}; root sees all"))
}

fn shown(text: impl AsRef<std::ffi::OsStr>) -> String {
    Printable::new(&text).to_string()
}

type Written<S> = Result<<S as serde::Serializer>::Ok, <S as serde::Serializer>::Error>;

// What serde calls, it calls with references.
#[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref)]
fn word_or_missing<S: serde::Serializer>(state: &Option<State>, to: S) -> Written<S> {
    to.serialize_str(state.map_or("missing", State::word))
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn lock_word<S: serde::Serializer>(state: &State, to: S) -> Written<S> {
    to.serialize_str(if *state == State::Held { "live" } else { state.word() })
}

#[allow(clippy::ref_option)]
fn moment<S: serde::Serializer>(moment: &Option<SystemTime>, to: S) -> Written<S> {
    let moment = moment.and_then(|moment| jiff::Timestamp::try_from(moment).ok());
    moment.map(|moment| moment.to_string()).serialize(to)
}

fn words<S: serde::Serializer>(ways: &[Way], to: S) -> Written<S> {
    to.collect_seq(ways.iter().map(|way| way.word()))
}
