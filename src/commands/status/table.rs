//! The table, fitted to the terminal.

use std::env;
use std::io;

use rustix::termios::{isatty, tcgetwinsize};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr};

use super::report::{ConsoleRow, HolderRow, LockRow, ProcessRow, Report};
use crate::claim::{State, Way};
use crate::printable::local_time;

/// How a table is to look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    /// How many columns of text a line may have; without it, as many as there are.
    width: Option<usize>,
    /// Whether states have colours.
    colour: bool,
}

impl Look {
    /// As suits stdout: fitted and coloured on a terminal, unless `NO_COLOR` is set (no-color.org).
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

/// The columns' heads.
const HEADS: [&str; COLUMNS] =
    ["CONSOLE", "STATE", "PID", "PROGRAM", "USER", "TTY", "SINCE", "BY", "OTHER END"];

/// The columns that are cut on a narrow terminal, the first ones first, and the width that each keeps.
const CUT: [(usize, usize); 9] =
    [(0, 32), (7, 12), (5, 5), (8, 12), (6, 19), (4, 5), (3, 8), (2, 7), (0, 20)];

/// The columns that go where cutting is not enough, the least important first.
const GO: [usize; 7] = [7, 5, 8, 6, 4, 3, 2];

/// Between two columns.
const GAP: usize = 2;

/// A line of the table.
struct Row {
    state: Option<State>,
    cells: [String; COLUMNS],
}

/// The table of what was found, and what could not be seen.
pub(super) fn of(report: &Report, look: &Look) -> String {
    let mut rows: Vec<Row> =
        report.consoles.iter().flat_map(|console| of_console(console, report)).collect();
    rows.extend(report.locks.iter().filter(|lock| lock.stray).map(|lock| Row::of_lock(lock, None)));
    let mut text = String::new();
    if !rows.is_empty() {
        text += &align(&rows, look);
    }
    if let Some(unseen) = &report.unseen {
        text += &(cut(&format!("({unseen})"), look.width.unwrap_or(usize::MAX)) + "\n");
    }
    text
}

/// A line for each who has it, and for each lock file that nobody has; else one that says what it is.
fn of_console<'a>(console: &'a ConsoleRow, report: &'a Report) -> Vec<Row> {
    let holders = console.holders.iter().map(|holder| Row::of_holder(holder, console));
    let locks = report.locks[console.locks.clone()].iter();
    let loose = locks.filter(|lock| lock.state != State::Held);
    let mut rows: Vec<Row> =
        holders.chain(loose.map(|lock| Row::of_lock(lock, Some(console)))).collect();
    if rows.is_empty() {
        rows.push(Row::new(console.state, Some(console), &ProcessRow::default()));
    }
    rows
}

impl Row {
    fn new(state: Option<State>, console: Option<&ConsoleRow>, process: &ProcessRow) -> Self {
        let cells = [
            console.map(|console| console.console.clone()).unwrap_or_default(),
            state.map_or("missing", State::word).to_owned(),
            process.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            process.program.clone().unwrap_or_default(),
            process.user.clone().unwrap_or_default(),
            String::new(),
            String::new(),
            String::new(),
            console.map(other_end).unwrap_or_default(),
        ];
        Self { state, cells }
    }

    fn of_holder(holder: &HolderRow, console: &ConsoleRow) -> Self {
        let mut row = Self::new(Some(State::Held), Some(console), &holder.process);
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
        row.cells[7] = match &lock.note {
            Some(note) => format!("{}: {note}", lock.lock),
            None => lock.lock.clone(),
        };
        row
    }

    /// What is unknown is a dash.
    fn cell(&self, column: usize) -> &str {
        Some(&*self.cells[column]).filter(|text| !text.is_empty()).unwrap_or("-")
    }
}

/// The ways by which somebody holds a console: all the lock files of the field in two words.
fn by(ways: &[Way]) -> String {
    let files = ways.iter().filter(|way| matches!(way, Way::LockFile(_))).count();
    let mut words: Vec<String> = Vec::new();
    for way in ways {
        match way {
            Way::LockFile(_) if files > 2 => {}
            Way::LockFile(convention) => words.push(format!("{} lock", convention.word())),
            other => words.push(other.word().to_owned()),
        }
    }
    if files > 2 {
        words.insert(0, "lock files".to_owned());
    }
    words.join(", ")
}

/// What is at the other end: of several the first, which started the others.
fn other_end(console: &ConsoleRow) -> String {
    match console.other_end.first() {
        Some(end) => end.text.clone(),
        None if console.other_end_unseen => "not seen".to_owned(),
        None => String::new(),
    }
}

/// Lines the columns up.
fn align(rows: &[Row], look: &Look) -> String {
    let mut widths = HEADS.map(UnicodeWidthStr::width);
    for row in rows {
        for (column, width) in widths.iter_mut().enumerate() {
            *width = (*width).max(row.cell(column).width());
        }
    }
    if let Some(room) = look.width {
        fit(&mut widths, room);
    }
    let mut text = line(|column| HEADS[column], &widths, None);
    for row in rows {
        text += &line(|column| row.cell(column), &widths, row.state.filter(|_| look.colour));
    }
    text
}

/// Makes the columns fit into `room`: cuts those that can be cut, and does without as few as need be.
/// Width 0 is a column that is not there.
fn fit(widths: &mut [usize; COLUMNS], room: usize) {
    let total = |widths: &[usize; COLUMNS]| {
        let there = widths.iter().filter(|width| **width > 0);
        there.map(|width| width + GAP).sum::<usize>().saturating_sub(GAP)
    };
    let mut natural = *widths;
    for gone in std::iter::once(None).chain(GO.map(Some)) {
        if let Some(column) = gone {
            natural[column] = 0;
        }
        *widths = natural;
        for (column, least) in CUT {
            let excess = total(widths).saturating_sub(room);
            widths[column] = widths[column].saturating_sub(excess).max(least.min(widths[column]));
        }
        if total(widths) <= room {
            break;
        }
    }
}

fn line<'a>(
    cell: impl Fn(usize) -> &'a str,
    widths: &[usize; COLUMNS],
    state: Option<State>,
) -> String {
    let mut text = String::new();
    for (column, &width) in widths.iter().enumerate().filter(|(_, width)| **width > 0) {
        // Of a path the end tells more.
        let content =
            if column == 0 { cut_front(cell(column), width) } else { cut(cell(column), width) };
        let blanks = width.saturating_sub(content.width()) + GAP;
        match state.filter(|_| column == 1) {
            Some(state) => text += &["\x1b[", colour(state), "m", &content, "\x1b[0m"].concat(),
            None => text += &content,
        }
        text.extend(std::iter::repeat_n(' ', blanks));
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// The colour of a state, as a terminal is told (ECMA-48, SGR).
fn colour(state: State) -> &'static str {
    match state {
        State::Free => "32",
        State::Dead => "90",
        State::Suspect => "33",
        State::Held => "31",
    }
}

/// As much of `text` as fits into `width`, with a mark where something is missing.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    fitting(text.chars(), width).chain(['…']).collect()
}

/// The same, but the end of it.
fn cut_front(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let end: Vec<char> = fitting(text.chars().rev(), width).collect();
    std::iter::once('…').chain(end.into_iter().rev()).collect()
}

/// The first of `text` that fit into `width`, with one column to spare.
fn fitting(text: impl Iterator<Item = char>, width: usize) -> impl Iterator<Item = char> {
    let mut used = 1;
    text.take_while(move |character| {
        used += character.width().unwrap_or(0);
        used <= width
    })
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
        assert_eq!(cut_front("/dev/ttyUSB0", 8), "…ttyUSB0");
        assert_eq!(cut_front("机器甲乙", 5), "…甲乙");
        assert_eq!(cut_front("minicom", 7), "minicom");
    }

    #[test]
    fn columns_give_way_by_their_importance() {
        let natural = [12, 5, 7, 8, 4, 6, 19, 26, 20];
        for room in [200, 120, 100, 80, 60, 40, 20] {
            let mut widths = natural;
            fit(&mut widths, room);
            let there = widths.iter().filter(|width| **width > 0);
            let total = there.map(|width| width + GAP).sum::<usize>() - GAP;
            assert!(total <= room.max(19), "{room}: {widths:?}");
            assert_eq!(widths[..2], natural[..2], "a console and its state are always told");
            assert!([0, 7].contains(&widths[2]), "half a number tells nothing: {widths:?}");
        }
    }

    #[test]
    fn one_long_name_takes_no_column_from_the_others() {
        let mut widths = [210, 7, 7, 8, 4, 6, 19, 26, 20];
        fit(&mut widths, 132);
        assert!(widths.iter().all(|width| *width > 0), "{widths:?}");
        assert_eq!(widths[0], 32);
    }

    #[test]
    fn the_room_of_a_column_that_goes_is_for_the_others() {
        let mut widths = [10, 7, 7, 8, 4, 6, 19, 26, 60];
        fit(&mut widths, 80);
        let there = widths.iter().filter(|width| **width > 0);
        assert!(there.map(|width| width + GAP).sum::<usize>() - GAP > 70, "{widths:?}");
    }
}
