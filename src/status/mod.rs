//! The survey of all consoles: who holds which, by what evidence, and what is at the other end.

pub(crate) mod console_status;
pub(crate) mod scanner;
