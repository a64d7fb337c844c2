//! The JSON document. vconsole-status(1) describes it.

use anyhow::Context as _;
use serde::Serialize;

use super::report::{ConsoleRow, LockRow, Report};

/// The version of the document. It grows when a field changes its meaning or goes; new fields may come
/// at any time.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    complete: bool,
    unseen: Option<&'a str>,
    consoles: &'a [ConsoleRow],
    locks: &'a [LockRow],
}

impl<'a> Document<'a> {
    fn of(report: &'a Report) -> Self {
        Self {
            version: VERSION,
            complete: report.is_complete(),
            unseen: report.unseen.as_deref(),
            consoles: &report.consoles,
            locks: &report.locks,
        }
    }
}

/// The document, over many lines, for people and programs.
pub(super) fn document(report: &Report) -> anyhow::Result<String> {
    serde_json::to_string_pretty(&Document::of(report)).context("cannot write JSON")
}

/// The document in one line: one of many.
pub(super) fn line(report: &Report) -> anyhow::Result<String> {
    serde_json::to_string(&Document::of(report)).context("cannot write JSON")
}
