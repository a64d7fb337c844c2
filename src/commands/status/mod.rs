//! `vconsole status`: who holds which console. It opens no console and takes no lock.

pub(crate) mod report;
pub(crate) mod table;
pub(crate) mod watch;

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::commands::status::report::{Report, to_json};
use crate::commands::{ERROR_TIME, explain, print};
use crate::{
    commands::status::table::TableStyle, console::target::Target, exit_status::ExitStatus,
    locks::directory::LockPlace, messages::Messages, printable::Printable,
    status::scanner::Scanner,
};

/// The options of `vconsole status`; `vconsole-status(1)` describes them.
pub(crate) struct StatusOptions {
    pub(crate) consoles: Vec<PathBuf>,
    pub(crate) all: bool,
    pub(crate) json: bool,
    pub(crate) watch: Option<Duration>,
    pub(crate) names: bool,
    pub(crate) lock_place: LockPlace,
}

pub(crate) fn run(options: &StatusOptions) -> anyhow::Result<ExitStatus> {
    if options.names {
        return print_names(options);
    }
    if let Some(pause) = options.watch {
        return watch::run(pause, || look(options), options.json);
    }
    let report = look(options)?;
    let text = if options.json {
        to_json(&report, serde_json::to_string_pretty)?
    } else {
        table::render(&report, &TableStyle::of_stdout())
    };
    let ended = print(&text)?;
    let mut messages = Messages::new(false);
    if !options.json && report.is_empty() && io::stderr().is_terminal() {
        messages.important("no consoles found; `vconsole host` makes one to try");
    }
    let status = report.exit_status(!options.consoles.is_empty());
    for missing in report.missing {
        explain(&missing.into(), &mut messages);
    }
    messages.flush(ERROR_TIME);
    Ok(ended.unwrap_or(status))
}

fn look(options: &StatusOptions) -> anyhow::Result<Report> {
    let scanner = Scanner::take(&options.lock_place).map_err(unreadable)?;
    let mut report = Report::new(&scanner.snapshot);
    if options.consoles.is_empty() {
        report.add_all(scanner.inventory(options.all).map_err(unreadable)?);
        return Ok(report);
    }
    for name in &options.consoles {
        let found = Target::find(name).and_then(|target| {
            target.check_login(&scanner.snapshot)?;
            Ok(target)
        });
        match found {
            Ok(target) => report.add(name, scanner.of(target).map_err(unreadable)?),
            Err(missing) => report.add_missing(name, missing),
        }
    }
    Ok(report)
}

/// A path that a shell would have to quote is left out.
fn print_names(options: &StatusOptions) -> anyhow::Result<ExitStatus> {
    let scanner = Scanner::take(&options.lock_place).map_err(unreadable)?;
    let plain = |path: &Path| {
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@,".contains(&byte);
        let path = path.to_str().filter(|path| path.bytes().all(safe))?;
        Some(format!("{path}\n"))
    };
    let consoles = scanner.consoles().map_err(unreadable)?;
    let text: String = consoles.iter().filter_map(|target| plain(target.path())).collect();
    Ok(print(&text)?.unwrap_or(ExitStatus::Done))
}

fn unreadable((directory, error): (PathBuf, io::Error)) -> anyhow::Error {
    let what = format!("cannot look into the lock directory {}", Printable::new(&directory));
    anyhow::Error::new(error).context(what)
}
