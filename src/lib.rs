//! vconsole: the terminal client that makes a console have exactly one driver.
//!
//! The rooms, in the order in which they stand on each other:
//!
//! - [`console`]: what we attach to,
//! - [`claim`]: the right to use it,
//! - [`session`]: attachments that can be talked to,
//! - [`relay`]: the loop that moves the bytes,
//! - [`commands`]: `attach`, `status` and `host`, each as its own story.

// `forbid` stands on every module but one: a module cannot lift it again.
#[forbid(unsafe_code)]
pub mod audit;
#[forbid(unsafe_code)]
pub mod claim;
#[forbid(unsafe_code)]
pub mod cli;
#[forbid(unsafe_code)]
pub mod commands;
#[forbid(unsafe_code)]
pub mod console;
#[forbid(unsafe_code)]
pub mod exit_status;
#[forbid(unsafe_code)]
pub mod printable;
#[forbid(unsafe_code)]
pub mod process;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[forbid(unsafe_code)]
pub mod properties;
#[forbid(unsafe_code)]
pub mod relay;
#[forbid(unsafe_code)]
pub mod session;
#[forbid(unsafe_code)]
pub mod signals;
pub mod sys;
#[forbid(unsafe_code)]
pub mod terminal;
#[forbid(unsafe_code)]
pub mod test_point;
#[forbid(unsafe_code)]
pub mod wire;
