//! How long `vconsole status` takes with few and many lock files and processes, against a plain walk over
//! the same `/proc` and the same directory in the same run: `cargo bench --bench status`.
//!
//! The plain walk is the least that has to be read: what each process has open, and what each lock file
//! says. It is made by a program of its own, this one started again, so that both pay for their start.
//! The two run by turns, and what counts is their ratio: the promise is 2 at most. What one more lock file
//! or process costs must be the same among few as among many. The figures are also written to
//! `target/bench/status.json`.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

#[path = "shared/figures.rs"]
mod figures;
#[path = "shared/program.rs"]
mod program;
#[path = "shared/sleepers.rs"]
mod sleepers;
#[path = "shared/walk.rs"]
mod walk;

use std::env;
use std::fs;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::time::Instant;

use figures::{Report, median_and_interval};
use sleepers::Sleepers;

/// How many lock files there are, and how many processes beside those that there were.
type Size = (usize, usize);

/// A crowd of lock files that grows, one of processes, and one of both.
const LOCKS: [Size; 4] = [(0, 0), (2_500, 0), (5_000, 0), (10_000, 0)];
const PROCESSES: [Size; 4] = [(0, 0), (0, 500), (0, 1_000), (0, 2_000)];
const BOTH: [Size; 1] = [(10_000, 2_000)];
const ROUNDS: usize = 15;
const PROMISE: f64 = 2.0;

/// The argument that makes this program the plain walk over `/proc` and the directory behind it.
const WALK: &str = "--plain-walk";

fn main() {
    let arguments: Vec<String> = env::args().collect();
    if let [_, flag, directory] = &arguments[..]
        && flag == WALK
    {
        return println!("{}", plain_walk(Path::new(directory)));
    }
    let mut report = Report::default();
    for (what, sizes) in [("lock file", LOCKS), ("process", PROCESSES)] {
        println!("\n## {what}");
        let rounds = measure(&mut report, &sizes);
        // What 2,500 or 500 cost among few, and twice as many among many.
        let [few, many] = [(0, 1), (2, 3)].map(|(from, to)| {
            let costs = |round: &Vec<Vec<f64>>| round[to][1] - round[from][1];
            let counts = sizes[to].0 + sizes[to].1 - sizes[from].0 - sizes[from].1;
            median_and_interval(rounds.iter().map(costs).collect()).0 * 1e3 / counts as f64
        });
        println!("status: one more {what} costs {few:.2} us among few, {many:.2} us among many");
    }
    println!("\n## both");
    let rounds = measure(&mut report, &BOTH);
    report.write("target/bench/status.json");
    let ratios = rounds.iter().map(|round| round[0][1] / round[0][0]).collect();
    let (ratio, [low, _]) = median_and_interval(ratios);
    println!("of a plain walk: {ratio:.2}; promised: {PROMISE}");
    assert!(low <= PROMISE, "status takes more than {PROMISE} times a plain walk");
}

const COLUMNS: [&str; 3] = ["plain walk", "status", "status --names"];

/// How long each of [`COLUMNS`] takes, in ms, at each of `sizes`, in each round: so a machine that is
/// slow for a while is slow at all sizes.
fn measure(report: &mut Report, sizes: &[Size]) -> Vec<Vec<Vec<f64>>> {
    let rounds: Vec<Vec<Vec<f64>>> = (0..ROUNDS)
        .map(|_| {
            let mut crowd = Crowd::new();
            let mut at = |&size: &Size| {
                crowd.grow(size);
                crowd.measure()
            };
            sizes.iter().map(&mut at).collect()
        })
        .collect();
    for (index, (locks, processes)) in sizes.iter().enumerate() {
        let these: Vec<Vec<f64>> = rounds.iter().map(|round| round[index].clone()).collect();
        let name = format!("{locks} lock files, {processes} processes more");
        report.add(&name, "ms", &COLUMNS, &these);
    }
    rounds
}

/// Lock files in a directory of their own, and processes that sleep until they are killed.
struct Crowd {
    directory: tempfile::TempDir,
    locks: usize,
    sleepers: Sleepers,
}

impl Crowd {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), locks: 0, sleepers: Sleepers::default() }
    }

    fn grow(&mut self, (locks, processes): Size) {
        self.sleepers.grow(processes);
        for number in self.locks..locks {
            let name = format!("LCK..ttyBENCH{number}");
            fs::write(self.directory.path().join(name), self.contents(number)).unwrap();
        }
        self.locks = locks;
    }

    /// Half of the locks name processes that live, and half one that never does; a few say nothing.
    fn contents(&self, number: usize) -> String {
        const NOBODY: u32 = 4_194_304;
        let living = self.sleepers.pid(number).unwrap_or_else(process::id);
        match number {
            silent if silent % 100 == 7 => String::new(),
            even if even % 2 == 0 => format!("{living:>10}\n"),
            _ => format!("{NOBODY:>10}\n"),
        }
    }

    fn measure(&self) -> Vec<f64> {
        let vconsole = |options: &[&str]| {
            let mut command = Command::new(program::vconsole());
            command.arg("status").args(options).arg("--lock-dir").arg(self.directory.path());
            command
        };
        let mut walk = Command::new(env::current_exe().unwrap());
        walk.arg(WALK).arg(self.directory.path());
        let mut all = [walk, vconsole(&[]), vconsole(&["--names"])];
        // What was just made is in the caches of the first to look.
        time(&mut all[0]);
        all.iter_mut().map(time).collect()
    }
}

/// Reads what there is to read, and gives how much that was.
fn plain_walk(locks: &Path) -> usize {
    let mut seen = 0;
    for process in walk::processes() {
        seen += fs::read(process.join("stat")).map_or(0, |stat| stat.len());
        seen += walk::look_at(&process);
    }
    for lock in fs::read_dir(locks).unwrap().flatten() {
        seen += fs::read(lock.path()).map_or(0, |contents| contents.len());
    }
    seen
}

/// How long `command` takes, in ms.
fn time(command: &mut Command) -> f64 {
    let start = Instant::now();
    let done = command.stdout(Stdio::null()).status().unwrap();
    assert!(done.success(), "{command:?}: {done}");
    start.elapsed().as_secs_f64() * 1e3
}
