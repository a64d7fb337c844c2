//! How long `vconsole status` takes with many lock files and many processes, against a plain walk over
//! the same `/proc` and the same directory in the same run: `cargo bench --bench status`.
//!
//! The plain walk is the least that has to be read: what each process has open, and what each lock file
//! says. It is made by a program of its own, this one started again, so that both pay for their start.
//! The two run by turns, and what counts is their ratio: the promise is 2 at most.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LOCKS: usize = 10_000;
const PROCESSES: usize = 2_000;
const ROUNDS: usize = 30;
const PROMISE: f64 = 2.0;

/// The argument that makes this program the plain walk over `/proc` and the directory behind it.
const WALK: &str = "--plain-walk";

/// Processes that sleep until they are killed, each by its number.
struct Sleepers(Vec<Child>);

impl Sleepers {
    /// As many as there may be, up to `count`.
    fn start(count: usize) -> Self {
        let mut sleepers = Self(Vec::new());
        while sleepers.0.len() < count {
            let sleep = Command::new("sleep")
                .arg("1000")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn();
            match sleep {
                Ok(child) => sleepers.0.push(child),
                Err(_) => break,
            }
        }
        sleepers
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

fn main() {
    let arguments: Vec<String> = env::args().collect();
    if let [_, flag, directory] = &arguments[..]
        && flag == WALK
    {
        return println!("{}", plain_walk(Path::new(directory)));
    }
    let directory = tempfile::tempdir().unwrap();
    let sleepers = Sleepers::start(PROCESSES);
    write_locks(directory.path(), &sleepers);
    let count =
        fs::read_dir("/proc").unwrap().flatten().filter(|entry| is_process(&entry.path())).count();
    println!("{LOCKS} lock files, {count} processes, {ROUNDS} rounds by turns");

    let mut status = Command::new(env!("CARGO_BIN_EXE_vconsole"));
    status.args(["status", "--lock-dir"]).arg(directory.path());
    let mut walk = Command::new(env::current_exe().unwrap());
    walk.arg(WALK).arg(directory.path());
    let mut names = Command::new(env!("CARGO_BIN_EXE_vconsole"));
    names.args(["status", "--names", "--lock-dir"]).arg(directory.path());

    time(&mut status);
    time(&mut walk);
    let rounds: Vec<[Duration; 3]> =
        (0..ROUNDS).map(|_| [time(&mut status), time(&mut walk), time(&mut names)]).collect();
    for (index, name) in ["status", "plain walk", "status --names"].into_iter().enumerate() {
        println!(
            "{name:>15}: {:6.1} ms (median)",
            median(rounds.iter().map(|round| millis(round[index])))
        );
    }
    let ratios: Vec<f64> = rounds.iter().map(|round| millis(round[0]) / millis(round[1])).collect();
    let (mean, margin) = mean_and_margin(&ratios);
    println!(
        "ratio: {mean:.2} (95 %: {:.2} to {:.2}), promised: {PROMISE}",
        mean - margin,
        mean + margin
    );
    assert!(mean - margin <= PROMISE, "status takes more than {PROMISE} times a plain walk");
}

/// Half of the locks name processes that live, and half one that never does; a few say nothing.
fn write_locks(directory: &Path, sleepers: &Sleepers) {
    const NOBODY: u32 = 4_194_304;
    for index in 0..LOCKS {
        let living = sleepers.0.get(index % sleepers.0.len().max(1)).map_or(NOBODY, Child::id);
        let pid = if index % 2 == 0 { living } else { NOBODY };
        let contents = if index % 100 == 7 { String::new() } else { format!("{pid:>10}\n") };
        fs::write(directory.join(format!("LCK..ttyBENCH{index}")), contents).unwrap();
    }
}

/// Reads what there is to read, and gives how much that was.
fn plain_walk(locks: &Path) -> usize {
    let mut seen = 0;
    for process in
        fs::read_dir("/proc").unwrap().flatten().filter(|entry| is_process(&entry.path()))
    {
        seen += fs::read(process.path().join("stat")).map_or(0, |stat| stat.len());
        let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        seen += descriptors.filter(|entry| fs::metadata(entry.path()).is_ok()).count();
    }
    for lock in fs::read_dir(locks).unwrap().flatten() {
        seen += fs::read(lock.path()).map_or(0, |contents| contents.len());
    }
    seen
}

fn is_process(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.iter().all(u8::is_ascii_digit)
}

fn time(command: &mut Command) -> Duration {
    let start = Instant::now();
    let done = command.stdout(Stdio::null()).status().unwrap();
    assert!(done.success(), "{command:?}: {done}");
    start.elapsed()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The mean, and half the width of its 95 % interval (normal: there are enough rounds).
fn mean_and_margin(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, 1.96 * (variance / count).sqrt())
}
