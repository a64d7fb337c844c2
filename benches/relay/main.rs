//! How fast a session is: `cargo bench --bench relay`.
//!
//! Every figure is measured side by side with the *bound*, a loop that does nothing but read and write
//! (`bound`), and with those programs of the field that are on the `PATH`, all by turns in one run.
//! What counts are the paired ratios: seconds and megabytes depend on the machine, and on what else it
//! does. A name as argument runs only the measurements whose names contain it; `--rounds N` plays N
//! rounds (15 by default), `--long` adds streams of up to 10 GB. The figures are also written to
//! `target/bench/relay.json`.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

mod bound;
mod client;
#[path = "../shared/figures.rs"]
mod figures;
mod measures;
#[path = "../shared/program.rs"]
mod program;
mod scene;
#[path = "../shared/sleepers.rs"]
mod sleepers;
#[path = "../shared/walk.rs"]
mod walk;

use std::env;

use figures::Report;

/// What is asked for.
struct Selection {
    rounds: usize,
    long: bool,
    only: Vec<String>,
}

impl Selection {
    fn of(arguments: impl Iterator<Item = String>) -> Self {
        let mut wish = Self { rounds: 15, long: false, only: Vec::new() };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--rounds" => {
                    wish.rounds = arguments.next().and_then(|n| n.parse().ok()).expect("a number");
                }
                "--long" => wish.long = true,
                // What cargo itself says to a bench.
                "--bench" => {}
                _ => wish.only.push(argument),
            }
        }
        wish
    }

    fn has(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }
}

fn main() {
    if let Some(console) = bound::is_meant(env::args()) {
        return bound::run(&console);
    }
    let wish = Selection::of(env::args().skip(1));
    let _ = program::vconsole();
    let mut report = Report::default();
    for (name, measure) in measures::ALL {
        if wish.has(name) {
            println!("\n## {name}");
            measure(&mut report, wish.rounds);
        }
    }
    if wish.long && wish.has("stream") {
        println!("\n## stream");
        measures::stream(&mut report);
    }
    report.write("target/bench/relay.json");
}
