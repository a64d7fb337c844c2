//! The promises of vconsole, kept by its real binary on real PTYs. One topic a file; the names of the
//! tests are the promises.
//!
//! `VCONSOLE_ROUNDS=N` repeats what races N times, and sends N times 10 MB where a lot is sent (3 MB
//! without it); `VCONSOLE_REQUIRE_PEERS=1` makes a peer program that is not installed a failure, where
//! it otherwise skips the test.

#![forbid(unsafe_code)]
// A test that cannot go on panics: that is how it says so.
#![allow(clippy::unwrap_used)]

mod ask;
mod attach;
mod audit;
mod completions;
mod console_alias;
mod escape;
mod evict;
mod faults;
mod foreign_locks;
mod frozen;
mod guard;
mod guard_process;
mod guard_terminal;
mod harness;
mod harness_itself;
mod holders;
mod host;
mod identity;
mod linger;
mod links;
mod lock_traps;
mod locks;
mod pages;
mod peers;
mod pipes;
mod races;
mod refusals;
mod security;
mod session_mode;
mod settings;
mod status;
mod status_holders;
mod status_table;
mod status_watch;
mod structure;
mod suspects;
mod takeover;
mod users;
mod viewers;
mod wait;
mod ways_out;
