//! The guard: a small process that outlives a SIGKILL of its session and cleans up.

pub(crate) mod client;
pub(crate) mod message;
mod next_reader;
pub(crate) mod process;
pub(crate) mod state;
