//! A soak: sessions on one console come, go, take over from each other, watch, wait, and are killed, stopped and
//! hung up at random, while bytes go both ways; after each step the invariants are checked. Beside them one
//! session and one who watches it live all the time, whose memory and descriptors must not grow.
//!
//! `VCONSOLE_SOAK=30m cargo test --test soak` runs so long (a few seconds without it); a failure prints the
//! seed with which `VCONSOLE_SEED` repeats the choices.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod audience;
mod desk;
mod dice;
#[path = "../suite/harness/mod.rs"]
mod harness;
mod long_lived;
mod queue;
mod seen;
mod stage;
mod steps;
mod streams;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dice::Dice;
use long_lived::LongLived;
use stage::Stage;

/// How long it runs without `VCONSOLE_SOAK`.
const BY_DEFAULT: Duration = Duration::from_secs(5);

fn main() {
    if !is_wanted() {
        return;
    }
    let (length, seed) = (length(), seed());
    println!("soak: {} s, VCONSOLE_SEED={seed}", length.as_secs());
    let end = Instant::now() + length;
    let mut dice = Dice::new(seed);
    let (mut stage, mut long_lived) = (Stage::new(), LongLived::new());
    let mut history: Vec<&str> = Vec::new();
    while Instant::now() < end {
        let step = steps::choose(&stage, &mut dice);
        history.push(step.name);
        stage.begun = Instant::now();
        let told = Told(&history, seed);
        (step.run)(&mut stage, &mut dice);
        stage.holds(&mut dice);
        long_lived.holds();
        desk::no_guard_is_left_alone();
        std::mem::forget(told);
    }
    stage.ends();
    desk::no_guard_is_left_alone();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in &history {
        *counts.entry(name).or_default() += 1;
    }
    let counts: Vec<String> =
        counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    println!("soak: {}", counts.join(", "));
    println!("soak: {}", stage.account());
    println!("soak: {}", long_lived.ends());
}

/// What is said when a step panics.
struct Told<'a>(&'a [&'a str], u64);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let Self(history, seed) = self;
        let last = history[history.len().saturating_sub(8)..].join(", ");
        eprintln!("soak: it was step {}: ... {last}", history.len());
        eprintln!("soak: VCONSOLE_SEED={seed} repeats these choices");
    }
}

/// Whether this test is among those that were asked for: cargo tells every test target the same.
fn is_wanted() -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let switches = ["--list", "--ignored"];
    // A word after one of these is its value.
    let is_value =
        |at: usize| at > 0 && ["--skip", "--test-threads"].contains(&&*arguments[at - 1]);
    let words =
        arguments.iter().enumerate().filter(|(at, word)| !word.starts_with('-') && !is_value(*at));
    let mut filters = words.map(|(_, word)| word).peekable();
    let filtered = filters.peek().is_some() && !filters.any(|filter| "soak".contains(filter));
    !filtered && !arguments.iter().any(|argument| switches.contains(&argument.as_str()))
}

fn length() -> Duration {
    let Ok(text) = std::env::var("VCONSOLE_SOAK") else { return BY_DEFAULT };
    let units = [("h", 3600), ("m", 60), ("s", 1), ("", 1)];
    let read = |(unit, seconds): (&str, u64)| {
        Some(text.strip_suffix(unit)?.parse::<u64>().ok()? * seconds)
    };
    let seconds = units.into_iter().find_map(read);
    Duration::from_secs(seconds.expect("VCONSOLE_SOAK is a time, such as 90s, 30m or 2h"))
}

fn seed() -> u64 {
    match std::env::var("VCONSOLE_SEED") {
        Ok(text) => text.parse().expect("VCONSOLE_SEED is a number"),
        Err(_) => u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos()),
    }
}
