//! Medians, ratios, and the table and the file that they go to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;

/// All that was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report(BTreeMap<String, BTreeMap<String, Figure>>);

/// One figure of one program.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// The median, in `unit`.
    median: f64,
    unit: &'static str,
    /// The median of the paired ratios to the bound.
    ratio: f64,
    /// Its 95 % interval.
    interval: [f64; 2],
    rounds: usize,
}

impl Report {
    /// Adds what `name` measured, a column for each of `programs`, a row for each round; the first
    /// program is what the others are compared with.
    pub(crate) fn add(
        &mut self,
        name: &str,
        unit: &'static str,
        programs: &[&str],
        rounds: &[Vec<f64>],
    ) {
        println!("{name} ({unit}, medians of {} rounds by turns)", rounds.len());
        for (column, program) in programs.iter().enumerate() {
            let values = rounds.iter().map(|round| round[column]).collect();
            let ratios = rounds.iter().map(|round| round[column] / round[0]).collect();
            let (median, _) = median_and_interval(values);
            let (ratio, interval) = median_and_interval(ratios);
            println!(
                "  {program:<28}{median:>12.3}   {ratio:>7.3} of {} ({:.3} to {:.3})",
                programs[0], interval[0], interval[1]
            );
            let figure = Figure { median, unit, ratio, interval, rounds: rounds.len() };
            self.0.entry(name.to_owned()).or_default().insert((*program).to_owned(), figure);
        }
    }

    /// Writes all of it to the file `path`, for a program to read.
    pub(crate) fn write(&self, path: &str) {
        let path = Path::new(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, serde_json::to_string_pretty(self).unwrap() + "\n").unwrap();
        println!("\nwritten to {}", path.display());
    }
}

/// The median of `values`, and the interval that holds the true one with 95 % (by the ranks alone: the
/// number of values below it is binomial, whatever they are distributed like).
pub(crate) fn median_and_interval(mut values: Vec<f64>) -> (f64, [f64; 2]) {
    values.sort_by(f64::total_cmp);
    let count = values.len();
    let median = f64::midpoint(values[(count - 1) / 2], values[count / 2]);
    // The chance that at most `rank` of them are below.
    let (mut chance, mut term, mut rank) = (0.0, 0.5_f64.powi(i32::try_from(count).unwrap()), 0);
    while rank < count / 2 && chance + term <= 0.025 {
        chance += term;
        term *= (count - rank) as f64 / (rank + 1) as f64;
        rank += 1;
    }
    let low = rank.saturating_sub(1);
    (median, [values[low], values[count - 1 - low]])
}
