//! The table of `status`, cut to the width of the terminal.

use std::{env, io};

use rustix::termios::{isatty, tcgetwinsize};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr};

use crate::commands::status::report::{ConsoleRow, HolderRow, LockRow, ProcessRow, Report};
use crate::printable::local_time;
use crate::status::console_status::{ConsoleState, Evidence};

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TableStyle {
    width: Option<usize>,
    colour: bool,
}

impl TableStyle {
    /// Cut and coloured on a terminal, unless `NO_COLOR` is set (no-color.org).
    pub(super) fn of_stdout() -> Self {
        if !isatty(io::stdout()) {
            return Self::default();
        }
        let size = tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        Self { width: size.filter(|&width| width > 0).or(Some(80)), colour: !refused && !dumb }
    }
}

const COLUMNS: usize = 9;
const HEADS: [&str; COLUMNS] =
    ["CONSOLE", "STATE", "PID", "PROGRAM", "USER", "TTY", "SINCE", "BY", "OTHER END"];
const GAP: usize = 2;

struct Row {
    state: Option<ConsoleState>,
    cells: [String; COLUMNS],
}

pub(super) fn render(report: &Report, style: &TableStyle) -> String {
    let mut rows: Vec<Row> =
        report.consoles.iter().flat_map(|console| of_console(console, report)).collect();
    rows.extend(report.locks.iter().filter(|lock| lock.stray).map(|lock| Row::of_lock(lock, None)));
    let mut text = if rows.is_empty() { String::new() } else { align(&rows, style) };
    if let Some(unseen) = &report.unseen {
        text += &(cut(&format!("({unseen})"), style.width.unwrap_or(usize::MAX)) + "\n");
    }
    text
}

/// A row for each holder and for each lock file without one; else one for the console.
fn of_console<'a>(console: &'a ConsoleRow, report: &'a Report) -> Vec<Row> {
    let holders = console.holders.iter().map(|holder| Row::of_holder(holder, console));
    let locks = report.locks[console.locks.clone()].iter();
    let loose = locks.filter(|lock| lock.state != ConsoleState::Held);
    let mut rows: Vec<Row> =
        holders.chain(loose.map(|lock| Row::of_lock(lock, Some(console)))).collect();
    if rows.is_empty() {
        rows.push(Row::new(console.state, Some(console), &ProcessRow::default()));
    }
    rows
}

impl Row {
    fn new(
        state: Option<ConsoleState>,
        console: Option<&ConsoleRow>,
        process: &ProcessRow,
    ) -> Self {
        let cells = [
            console.map(|console| console.console.clone()).unwrap_or_default(),
            state.map_or("missing", ConsoleState::word).to_owned(),
            process.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            process.program.clone().unwrap_or_default(),
            process.user.clone().unwrap_or_default(),
            String::new(),
            String::new(),
            String::new(),
            console.map(peer).unwrap_or_default(),
        ];
        Self { state, cells }
    }

    fn of_holder(holder: &HolderRow, console: &ConsoleRow) -> Self {
        let mut row = Self::new(Some(ConsoleState::Held), Some(console), &holder.process);
        row.cells[5] = holder.terminal.clone().unwrap_or_default();
        row.cells[6] = holder.since.map(local_time).unwrap_or_default();
        row.cells[7] = by(&holder.by);
        row
    }

    fn of_lock(lock: &LockRow, console: Option<&ConsoleRow>) -> Self {
        let mut row = Self::new(Some(lock.state), console, &lock.process);
        if console.is_none() {
            row.cells[0] = lock.console.clone().unwrap_or_default();
        }
        row.cells[6] = lock.since.map(local_time).unwrap_or_default();
        let note = lock.note.as_ref().map(|note| format!(": {note}"));
        row.cells[7] = lock.lock.clone() + &note.unwrap_or_default();
        row
    }

    fn cell(&self, column: usize) -> &str {
        Some(&*self.cells[column]).filter(|text| !text.is_empty()).unwrap_or("-")
    }
}

/// More than two lock files are named together.
fn by(evidence: &[Evidence]) -> String {
    let files = evidence.iter().filter(|it| matches!(it, Evidence::LockFile(_))).count();
    let mut words = Vec::from_iter((files > 2).then(|| "lock files".to_owned()));
    for evidence in evidence {
        match evidence {
            Evidence::LockFile(_) if files > 2 => {}
            Evidence::LockFile(convention) => words.push(format!("{} lock", convention.word())),
            other => words.push(other.word().to_owned()),
        }
    }
    words.join(", ")
}

/// The first of several processes started the others.
fn peer(console: &ConsoleRow) -> String {
    match console.peer.first() {
        Some(end) => end.text.clone(),
        None if console.peer_unseen => "not seen".to_owned(),
        None => String::new(),
    }
}

fn align(rows: &[Row], style: &TableStyle) -> String {
    let mut widths = HEADS.map(UnicodeWidthStr::width);
    for (column, width) in widths.iter_mut().enumerate() {
        let cells = rows.iter().map(|row| row.cell(column).width());
        *width = cells.fold(*width, usize::max);
    }
    let line = |cell: &dyn Fn(usize) -> String| {
        let mut text = String::new();
        for (column, width) in widths.iter().enumerate() {
            let content = cell(column);
            let blanks = width.saturating_sub(content.width()) + GAP;
            text += &(content + &" ".repeat(blanks));
        }
        cut(text.trim_end(), style.width.unwrap_or(usize::MAX))
    };
    let mut text = line(&|column| HEADS[column].to_owned()) + "\n";
    for row in rows {
        let mut plain = line(&|column| row.cell(column).to_owned());
        if let Some(state) = row.state.filter(|_| style.colour) {
            // The line may be cut before the state.
            let start = row.cell(0).len() + widths[0].saturating_sub(row.cell(0).width()) + GAP;
            let end = start + row.cell(1).len();
            if plain.get(start..end) == Some(row.cell(1)) {
                plain.insert_str(end, "\x1b[0m");
                plain.insert_str(start, &format!("\x1b[{}m", colour(state)));
            }
        }
        text += &(plain + "\n");
    }
    text
}

/// The colour of a state (ECMA-48, SGR).
fn colour(state: ConsoleState) -> &'static str {
    match state {
        ConsoleState::Free => "32",
        ConsoleState::Stale => "90",
        ConsoleState::Unknown => "33",
        ConsoleState::Held => "31",
    }
}

fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut used = 1;
    let fits = text.chars().take_while(|character| {
        used += character.width().unwrap_or(0);
        used <= width
    });
    fits.chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_never_makes_text_wider_than_it_may_be() {
        assert_eq!(cut("minicom", 7), "minicom");
        assert_eq!(cut("minicom", 4), "min…");
        assert_eq!(cut("机器甲乙", 6), "机器…");
        assert_eq!(cut("机器甲乙", 5), "机器…");
        assert_eq!(cut("minicom", 1), "…");
    }
}
