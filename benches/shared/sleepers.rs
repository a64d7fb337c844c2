//! Processes that sleep until they are killed, when this is dropped.

use std::process::{Child, Command, Stdio};

#[derive(Default)]
pub(crate) struct Sleepers(Vec<Child>);

impl Sleepers {
    /// Starts more of them, up to `count`.
    pub(crate) fn grow(&mut self, count: usize) {
        while self.0.len() < count {
            let mut sleep = Command::new("sleep");
            sleep.arg("1000").stdin(Stdio::null()).stdout(Stdio::null());
            self.0.push(sleep.spawn().unwrap());
        }
    }

    /// The pid of one of them, for each number.
    #[allow(dead_code, reason = "one of two benchmarks has no use for it")]
    pub(crate) fn pid(&self, number: usize) -> Option<u32> {
        self.0.get(number % self.0.len().max(1)).map(Child::id)
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        for sleeper in &mut self.0 {
            let _ = sleeper.kill();
        }
        for sleeper in &mut self.0 {
            let _ = sleeper.wait();
        }
    }
}
