//! `vconsole status`: who has which console. It opens no console and takes no lock.

mod json;
mod report;
mod table;
mod users;
mod watch;

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use crate::claim::Survey;
use crate::cli;
use crate::console::Target;
use crate::exit_status::ExitStatus;
use crate::printable::Printable;
use crate::relay::Notices;
use report::Report;
use table::Look;

/// Runs `vconsole status`.
pub fn run(options: &cli::Status) -> anyhow::Result<ExitStatus> {
    if options.names {
        return names(options);
    }
    if let Some(pause) = options.watch {
        return watch::run(options, pause);
    }
    let report = look(options)?;
    let text = if options.json {
        json::document(&report)? + "\n"
    } else {
        table::of(&report, &Look::of_stdout())
    };
    let ended = super::print(&text)?;
    let mut notices = Notices::new(false);
    if !options.json && report.is_empty() && io::stderr().is_terminal() {
        notices.answer("no consoles found; `vconsole host` makes one to try");
    }
    let status = report.exit_status(!options.consoles.is_empty());
    for missing in report.into_missing() {
        super::explain(&missing.into(), &mut notices);
    }
    notices.flush(super::PATIENCE);
    Ok(ended.unwrap_or(status))
}

/// Looks at the consoles that were named, or at all.
fn look(options: &cli::Status) -> anyhow::Result<Report> {
    let survey = Survey::take(&options.locks.directory).map_err(unreadable)?;
    let mut report = Report::new(survey.census());
    if options.consoles.is_empty() {
        report.add_all(survey.all().map_err(unreadable)?);
        return Ok(report);
    }
    for name in &options.consoles {
        let found = Target::find(name).and_then(|target| {
            target.check_that_it_is_no_terminal(survey.census())?;
            Ok(target)
        });
        match found {
            Ok(target) => report.add(name, survey.of(target).map_err(unreadable)?),
            Err(missing) => report.add_missing(name, missing),
        }
    }
    Ok(report)
}

/// Prints the paths of all consoles. One that a shell would have to quote is left to be typed.
fn names(options: &cli::Status) -> anyhow::Result<ExitStatus> {
    let survey = Survey::take(&options.locks.directory).map_err(unreadable)?;
    let plain = |path: &Path| {
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@,".contains(&byte);
        let path = path.to_str().filter(|path| path.bytes().all(safe))?;
        Some(format!("{path}\n"))
    };
    let consoles = survey.consoles().map_err(unreadable)?;
    let text: String = consoles.iter().filter_map(|target| plain(target.path())).collect();
    Ok(super::print(&text)?.unwrap_or(ExitStatus::Done))
}

fn unreadable((directory, error): (PathBuf, io::Error)) -> anyhow::Error {
    let what = format!("cannot look into the lock directory {}", Printable::new(&directory));
    anyhow::Error::new(error).context(what)
}
