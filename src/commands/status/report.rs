//! The findings of `status` as they are shown: all text in them is safe to show.

use std::{collections::HashMap, ops::Range, path::Path, time::SystemTime};

use anyhow::Context as _;
use serde::Serialize;

use crate::console::peer::{Peer, PeerKind};
use crate::console::{kind::Kind, target::TargetError};
use crate::locks::staleness::{LockStatus, UnknownReason};
use crate::process::{Process, snapshot::ProcessSnapshot};
use crate::status::console_status::{ConsoleState, ConsoleStatus, Evidence, Holder, LockReport};
use crate::{
    exit_status::ExitStatus, locks::names::Convention, printable::Printable,
    status::scanner::Inventory,
};

#[derive(Default)]
pub(super) struct Report {
    pub(super) consoles: Vec<ConsoleRow>,
    pub(super) locks: Vec<LockRow>,
    pub(super) unseen: Option<String>,
    /// Why named consoles are not consoles.
    pub(super) missing: Vec<TargetError>,
    lock_hidden: bool,
    /// User names, safe to show: each is looked up once, since the user database may be remote.
    users: HashMap<u32, String>,
}

#[derive(Default, Serialize)]
pub(super) struct ConsoleRow {
    pub(super) console: String,
    pub(super) path: Option<String>,
    pub(super) kind: Option<&'static str>,
    #[serde(serialize_with = "word_or_missing")]
    pub(super) state: Option<ConsoleState>,
    pub(super) holders: Vec<HolderRow>,
    #[serde(rename = "other_end")]
    pub(super) peer: Vec<PeerRow>,
    #[serde(rename = "other_end_unseen")]
    pub(super) peer_unseen: bool,
    #[serde(skip)]
    pub(super) locks: Range<usize>,
}

#[derive(Serialize)]
pub(super) struct HolderRow {
    #[serde(flatten)]
    pub(super) process: ProcessRow,
    pub(super) terminal: Option<String>,
    #[serde(serialize_with = "moment")]
    pub(super) since: Option<SystemTime>,
    #[serde(serialize_with = "evidence")]
    pub(super) by: Vec<Evidence>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct ProcessRow {
    pub(super) pid: Option<i32>,
    pub(super) program: Option<String>,
    pub(super) user: Option<String>,
}

#[derive(Serialize)]
pub(super) struct PeerRow {
    kind: &'static str,
    name: Option<String>,
    #[serde(flatten)]
    process: ProcessRow,
    #[serde(skip)]
    pub(super) text: String,
}

#[derive(Serialize)]
pub(super) struct LockRow {
    pub(super) lock: String,
    convention: Convention,
    pub(super) console: Option<String>,
    #[serde(serialize_with = "lock_word")]
    pub(super) state: ConsoleState,
    pub(super) note: Option<String>,
    #[serde(flatten)]
    pub(super) process: ProcessRow,
    #[serde(serialize_with = "moment")]
    pub(super) since: Option<SystemTime>,
    #[serde(skip)]
    pub(super) stray: bool,
}

impl Report {
    pub(super) fn new(snapshot: &ProcessSnapshot) -> Self {
        Self { unseen: unseen(snapshot), ..Self::default() }
    }

    pub(super) fn add_all(&mut self, inventory: Inventory) {
        for status in inventory.consoles {
            let path = status.target.path().to_path_buf();
            self.add(&path, status);
        }
        inventory.strays.iter().for_each(|lock| self.add_lock(lock, true));
    }

    pub(super) fn add(&mut self, name: &Path, status: ConsoleStatus) {
        let first = self.locks.len();
        status.locks.iter().for_each(|lock| self.add_lock(lock, false));
        let row = ConsoleRow {
            console: shown(name),
            path: Some(shown(status.target.path())),
            kind: Some(match status.target.kind {
                Kind::Pty => "pty",
                Kind::Serial => "serial",
            }),
            state: Some(status.state),
            holders: status.holders.into_iter().map(|holder| self.holder(holder)).collect(),
            peer: status.peer.iter().map(|end| self.peer(end)).collect(),
            peer_unseen: status.peer_unseen,
            locks: first..self.locks.len(),
        };
        self.consoles.push(row);
    }

    pub(super) fn add_missing(&mut self, name: &Path, why: TargetError) {
        self.consoles.push(ConsoleRow { console: shown(name), ..ConsoleRow::default() });
        self.missing.push(why);
    }

    fn add_lock(&mut self, found: &LockReport, stray: bool) {
        let (state, note, process) = match &found.status {
            LockStatus::Stale(death) => (ConsoleState::Stale, Some(death.to_string()), None),
            LockStatus::Unknown(why @ UnknownReason::PerhapsRecycled(process)) => {
                (ConsoleState::Unknown, Some(why.to_string()), Some(&**process))
            }
            LockStatus::Unknown(why) => (ConsoleState::Unknown, Some(why.to_string()), None),
            LockStatus::Foreign(process) | LockStatus::Vconsole(process) => {
                (ConsoleState::Held, None, Some(process))
            }
        };
        self.lock_hidden |= matches!(found.status, LockStatus::Unknown(UnknownReason::Unreadable))
            || process.is_some_and(|process| process.program.is_none());
        let (lock, console) = (shown(&found.path), found.console.as_ref().map(shown));
        let process = process.map(|process| self.process(process)).unwrap_or_default();
        let (convention, since) = (found.convention, Some(found.written));
        self.locks.push(LockRow { lock, convention, console, state, note, process, since, stray });
    }

    fn holder(&mut self, holder: Holder) -> HolderRow {
        let Holder { process, by, since } = holder;
        let terminal = process.as_ref().and_then(Process::terminal_name);
        let process = process.map(|process| self.process(&process)).unwrap_or_default();
        HolderRow { process, terminal, since, by }
    }

    fn peer(&mut self, end: &Peer) -> PeerRow {
        let (kind, name) = match &end.role {
            PeerKind::Guest(name) => ("guest", name.as_ref()),
            PeerKind::Container(name) => ("container", Some(name)),
            PeerKind::Program => ("program", None),
        };
        let (name, text) = (name.map(shown), end.to_string());
        PeerRow { kind, name, process: self.process(&end.process), text }
    }

    fn process(&mut self, process: &Process) -> ProcessRow {
        let name = |uid: u32| process.user().map_or_else(|| uid.to_string(), shown);
        let user = |uid| self.users.entry(uid).or_insert_with(|| name(uid)).clone();
        let (program, user) = (process.program.as_ref().map(shown), process.uid.map(user));
        ProcessRow { pid: Some(process.pid), program, user }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.unseen.is_none() && !self.lock_hidden
    }

    pub(super) fn is_empty(&self) -> bool {
        self.consoles.is_empty() && self.locks.is_empty()
    }

    /// The status of the most serious named console. Without names it is always 0.
    pub(super) fn exit_status(&self, named: bool) -> ExitStatus {
        let gravest = self.consoles.iter().map(|console| console.state);
        let gravest = gravest.reduce(|a, b| Some(a?.max(b?)));
        match gravest.filter(|_| named) {
            None | Some(Some(ConsoleState::Free | ConsoleState::Stale)) => ExitStatus::Done,
            Some(Some(ConsoleState::Unknown | ConsoleState::Held)) => ExitStatus::Busy,
            Some(None) => ExitStatus::NoConsole,
        }
    }
}

/// Grows when a field changes its meaning or goes; new fields may come at any time.
const VERSION: u32 = 1;

/// The JSON document; vconsole-status(1) describes it.
#[derive(Serialize)]
pub(super) struct Document<'a> {
    version: u32,
    complete: bool,
    unseen: Option<&'a str>,
    consoles: &'a [ConsoleRow],
    locks: &'a [LockRow],
}

/// `write` decides about the layout.
pub(super) fn to_json<'a>(
    report: &'a Report,
    write: fn(&Document<'a>) -> serde_json::Result<String>,
) -> anyhow::Result<String> {
    let complete = report.is_complete();
    let Report { consoles, locks, unseen, .. } = report;
    let unseen = unseen.as_deref();
    let document = Document { version: VERSION, complete, unseen, consoles, locks };
    Ok(write(&document).context("cannot write JSON")? + "\n")
}

fn unseen(snapshot: &ProcessSnapshot) -> Option<String> {
    let what = match snapshot.hidden() {
        _ if !snapshot.shows_everybody() => "the processes that /proc does not show".to_owned(),
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
fn word_or_missing<S: serde::Serializer>(state: &Option<ConsoleState>, to: S) -> Written<S> {
    to.serialize_str(state.map_or("missing", ConsoleState::word))
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn lock_word<S: serde::Serializer>(state: &ConsoleState, to: S) -> Written<S> {
    to.serialize_str(if *state == ConsoleState::Held { "live" } else { state.word() })
}

#[allow(clippy::ref_option)]
fn moment<S: serde::Serializer>(moment: &Option<SystemTime>, to: S) -> Written<S> {
    let moment = moment.and_then(|moment| jiff::Timestamp::try_from(moment).ok());
    moment.map(|moment| moment.to_string()).serialize(to)
}

fn evidence<S: serde::Serializer>(evidence: &[Evidence], to: S) -> Written<S> {
    to.collect_seq(evidence.iter().map(|evidence| evidence.word()))
}
